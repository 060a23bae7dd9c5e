"""`python -m main_server`: the main server under gunicorn on port 8000."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from main_server.settings import MAIN_PORT
from shared.errors import DoorbellError
from shared.settings import ListenSettings
from shared.web.serve import parser, serve


def main(words: Sequence[str] | None = None, prog: str = "python -m main_server") -> int:
    """Start the main server in place of this process.

    Args:
        words: The command line; the process's own if left out.
        prog: How it is called, for its help.
    """
    chosen = command_line(prog).parse_args(words)
    serve("main_server.app:create_app()", chosen.bind, ListenSettings.read(MAIN_PORT))


def command_line(prog: str) -> ArgumentParser:
    """Return the command line; `prog` is how it is called."""
    return parser(prog, "Start the main server.", "PORT, or 8000")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DoorbellError as error:
        sys.exit(str(error))
