"""`python -m SERVICE`: become gunicorn, with the same settings as the Procfile's command."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from shared.settings import ListenSettings

HOOKS = "python:shared.web.gunicorn_hooks"


def serve(
    app: str,
    bind: str | None,
    default: ListenSettings,
    workers: int | None = None,
    threads: int | None = None,
) -> NoReturn:
    """Replace this process by gunicorn.

    Args:
        app: What gunicorn is to serve, "package.module:factory()".
        bind: Where, as the command line says it; or None.
        default: Where, unless the command line says otherwise.
        workers: Number of worker processes, where a service must have just so many.
        threads: Number of threads in each, where a service needs other than the usual.
    """
    bind = bind or f"{default.host}:{default.port}"
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        HOOKS,
        "--bind",
        bind,
        "--timeout",
        "600",
    ]
    command += ["--workers", str(workers)] if workers else []
    command += ["--threads", str(threads)] if threads else []
    os.execv(sys.executable, [*command, app])  # nosec B606 # a fixed command, no shell


def parser(prog: str, description: str, port: str) -> argparse.ArgumentParser:
    """Return the command line that every service has.

    Args:
        prog: How it is called.
        description: What it starts.
        port: The variable of its port, and what that is by default: "PORT, or 8000".
    """
    command_line = argparse.ArgumentParser(prog=prog, description=description)
    said = f"where to listen; by default DOORBELL_BIND, or localhost, and {port}"
    command_line.add_argument("--bind", metavar="HOST:PORT", help=said)
    return command_line
