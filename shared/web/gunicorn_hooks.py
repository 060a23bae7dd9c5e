"""What every service runs with under gunicorn; the command line and WEB_CONCURRENCY win over it.

gunicorn reads it through `gunicorn.conf.py` in a checkout, and by `--config
python:shared.web.gunicorn_hooks` elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from gunicorn import systemd
from gunicorn.errors import AppImportError

worker_class = "gthread"
# those that wait for work cost nothing; the aggregator, to which models are sent, is started with 8
threads = 64
timeout = 600
graceful_timeout = 5
keepalive = 30
control_socket_disable = True

# No address is longer, and a signed message has some twenty header fields.
limit_request_line = 2048
limit_request_fields = 64
limit_request_field_size = 8190

# X-Forwarded-* is believed in one place: the app, and only from as many proxies as
# DOORBELL_TRUSTED_PROXIES says.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}

_COUNTED = "PROMETHEUS_MULTIPROC_DIR"
_SURELY_LOCKED_S = 60


def on_starting(server: Any) -> None:
    """Refuse an address that is in use, or that others can reach without an operator token.

    Otherwise make the folder in which the workers count what /metrics adds up: below
    PROMETHEUS_MULTIPROC_DIR if that is set, else where temporary files are. Only workers are told
    of it: a master that takes over makes its own.

    The imports stay in the master, so new code needs a restart: SIGHUP reloads settings only. They
    are few, as it has no use for the rest of what a worker needs.
    """
    from shared.errors import SettingsError  # noqa: PLC0415
    from shared.settings import LogSettings, OperatorSettings  # noqa: PLC0415
    from shared.telemetry.logs import formatter  # noqa: PLC0415
    from shared.transport.addresses import check_bind  # noqa: PLC0415

    # By socket activation, which wins over --bind: descriptors from 3 on (sd_listen_fds(3)).
    inherited = range(3, 3 + systemd.listen_fds(unset_environment=False))
    try:
        check_bind(inherited or server.cfg.address, OperatorSettings.read().token)
        form = LogSettings.read().form
    except SettingsError as error:
        sys.exit(str(error))
    if not inherited and "GUNICORN_FD" not in os.environ:
        for address in server.cfg.address:
            _check_free(address)
    for handler in server.log.error_log.handlers if form == "json" else ():
        handler.setFormatter(formatter("gunicorn", form))
    try:
        server.counted = _folder_to_count_in(os.environ.get(_COUNTED) or tempfile.gettempdir())
    except OSError as error:
        sys.exit(
            f"No folder for /metrics can be made: {error.filename}: {error.strerror}."
            f" Fix or unset {_COUNTED}."
        )


def _folder_to_count_in(parent: str) -> str:
    """Make a folder that is locked while this master or a worker of it lives.

    Folders that killed masters left are removed: nobody holds their lock any more.
    """
    for left in Path(parent).glob("doorbell-counts-*"):
        with suppress(OSError):
            held = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if time.time() > os.fstat(held).st_mtime + _SURELY_LOCKED_S:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(held)
    folder = tempfile.mkdtemp(prefix="doorbell-counts-", dir=parent)
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_SH)
    return folder


def on_exit(server: Any) -> None:
    """Remove what the workers counted."""
    shutil.rmtree(server.counted, ignore_errors=True)


def _check_free(address: object) -> None:
    if not isinstance(address, tuple):
        return  # a socket's path
    host, port = address[:2]
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                sys.exit(
                    f"Something listens on {host}:{port} already: a copy of this service may be"
                    " running. It was left alone. Stop it, or choose another address with --bind."
                )


def post_fork(server: Any, worker: Any) -> None:
    """Print one sentence if the app cannot be made, and stop: trying again would not help.

    What counts for /metrics must know the folder before it is imported.
    """
    from shared.errors import DoorbellError  # noqa: PLC0415

    os.environ[_COUNTED] = server.counted
    load = worker.app.load

    def load_or_say_why() -> Any:
        try:
            _reserve(server.counted)
            return load()
        except DoorbellError as error:
            raise AppImportError(str(error)) from error
        except OSError as error:
            raise AppImportError(
                f"The service cannot start: {error.filename or 'the disk'}: {error.strerror}."
                " What was stored before is kept. Let this service's user own its folder, or name"
                " another with DOORBELL_HOME."
            ) from error

    worker.app.load = load_or_say_why


def _reserve(folder: str) -> None:
    """Reserve the files of this worker's metrics, so that a full disk cannot stop it later.

    Args:
        folder: Where prometheus_client expects them, under names of its own.
    """
    for kind in ("counter", "histogram"):
        path = Path(folder) / f"{kind}_{os.getpid()}.db"
        # Where it exists, a worker that is gone had this process id: its counts go on.
        if not path.exists():
            path.write_bytes(bytes(1 << 17))


def post_worker_init(worker: Any) -> None:
    """Start what the service does besides answering requests."""
    from shared.web.background import start_background  # noqa: PLC0415

    stop = start_background(worker.wsgi, worker.cfg.threads)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, _stopping(stop, signal.getsignal(number)))


def _stopping(stop: threading.Event, handler: Any) -> Callable[[int, FrameType | None], None]:
    """Return a signal handler that first ends what runs beside the requests.

    Args:
        stop: Ends it; else the worker would wait for a long poll until gunicorn kills it.
        handler: gunicorn's own.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        handler(number, frame)

    return handle
