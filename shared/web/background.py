"""What a service does besides answering requests. gunicorn starts it in every worker
(`gunicorn.conf.py`).

Whoever only makes an app, as tests and command lines do, gets none of it. What runs here must bear
to run in several workers and machines at once, and to be killed at any moment.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from flask import Flask

Work = Callable[[threading.Event], None]
_KEY = "doorbell-background"
_THREADS = "doorbell-threads"
_RESTART_S = 5.0
_log = logging.getLogger(__name__)


def add_background(app: Flask, name: str, work: Work) -> None:
    """Have `work` done beside the requests; it returns when the event it is given is set."""
    app.extensions.setdefault(_KEY, {})[name] = work


def threads_of(app: Flask) -> int:
    """Return how many requests the worker of a started app answers at once."""
    return int(app.extensions[_THREADS])


def start_background(app: object, threads: int) -> threading.Event:
    """Start what was added to an app, each in a thread of its own; return the event that ends it.

    Args:
        app: What gunicorn serves; anything but an app of ours has nothing to be started.
        threads: How many requests the worker answers at once.
    """
    stop = threading.Event()
    getattr(app, "extensions", {})[_THREADS] = threads
    for name, work in getattr(app, "extensions", {}).get(_KEY, {}).items():
        threading.Thread(
            target=_keep_going, args=(name, work, stop), name=name, daemon=True
        ).start()
    return stop


def _keep_going(name: str, work: Work, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            work(stop)
        except Exception:  # a mistake of ours in there must not end it until the next restart
            _log.exception("%s failed, and begins again in %g s", name, _RESTART_S)
            stop.wait(_RESTART_S)
