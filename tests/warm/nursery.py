"""A process that has imported all that the services import, and forks a gunicorn from itself when
it is told to.

The tests start hundreds of services. Started so, one is there in a fraction of the time that its
imports take, and is otherwise what `gunicorn ...` is: a master in a process group of its own, with
its workers. The nursery itself runs no service, so whoever is born here remembers nothing of who
was killed.

It reads lines of JSON: `arguments` of gunicorn, the whole `environment`, and where the `log` is. It
answers each with the process id. When its standard input closes, it kills all that came from it,
and ends.

Where the environment has WARM_TRAINERS, a device's training child comes from `trainers.py`, which
listens there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from gunicorn.app.wsgiapp import run

from device.training.worker_client import Trainer

SERVED = (
    "main_server.app",
    "sec_agg.app",
    "device.app",
    "gunicorn.workers.gthread",
    "shared.web.background",
)
AS_THEY_START = ("alembic.command", "alembic.config", "alembic.context", "alembic.op")
"""What a service imports when it makes its tables."""


def main() -> None:
    """Start services until standard input closes."""
    for module in (*SERVED, *AS_THEY_START):
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are buried at once
    born = []
    for line in sys.stdin:
        wanted = json.loads(line)
        if (child := os.fork()) == 0:
            _become(wanted["arguments"], wanted["environment"], wanted["log"])
        os.setpgid(child, child)  # before anybody is told of it
        born.append(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    for group in born:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _become(arguments: list[str], environment: dict[str, str], log: str) -> NoReturn:
    """Become gunicorn."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(environment)
    if trainers := environment.get("WARM_TRAINERS"):
        _train_by(trainers)
    sys.argv = ["gunicorn", *arguments]
    sys.exit(run())


def _train_by(trainers: str) -> None:
    """Let devices start a stand-in for a child of `trainers.py` instead of a training child of
    their own.
    """
    command = (
        sys.executable,
        "-S",
        str(Path(__file__).with_name("trainers.py")),
        "child",
        trainers,
    )
    context = importlib.import_module("device.context")
    setattr(context, "Trainer", functools.partial(Trainer, command=command))  # noqa: B010 - devices look it up there


if __name__ == "__main__":
    main()
