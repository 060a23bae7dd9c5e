"""`python -m SERVICE`: become gunicorn, with the same settings as the Procfile's command."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn


def serve(
    app: str,
    default_port: int,
    arguments: argparse.Namespace | None = None,
    workers: int | None = None,
) -> NoReturn:
    """Replace this process by gunicorn.

    Args:
        app: What gunicorn is to serve, "package.module:factory()".
        default_port: Where, unless the command line says otherwise.
        arguments: A command line that is parsed already, with `bind`; None parses it here.
        workers: Number of worker processes, where a service must have just so many.
    """
    arguments = arguments or parser().parse_args()
    bind = arguments.bind or f"localhost:{default_port}"
    command = [sys.executable, "-m", "gunicorn", "--bind", bind, "--timeout", "600"]
    command += ["--workers", str(workers)] if workers else []
    os.execv(sys.executable, [*command, app])  # nosec B606 # a fixed command, no shell


def parser() -> argparse.ArgumentParser:
    """Return the command line that every service has."""
    command_line = argparse.ArgumentParser()
    command_line.add_argument(
        "--bind", metavar="HOST:PORT", help="where to listen; by default localhost"
    )
    return command_line
