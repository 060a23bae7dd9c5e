"""`python -m sec_agg`: the secure aggregator under gunicorn on port 8003."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from sec_agg.settings import AGGREGATOR_PORT, AggregatorSettings
from shared.errors import DoorbellError
from shared.settings import ListenSettings
from shared.transport.enrolment import change_key_from_command_line
from shared.web.serve import parser, serve


def main(words: Sequence[str] | None = None, prog: str = "python -m sec_agg") -> int:
    """Start the secure aggregator in place of this process, or replace its key.

    Args:
        words: The command line; the process's own if left out.
        prog: How it is called, for its help.

    Raises:
        DoorbellError: A setting cannot be used, or the key cannot be replaced.
    """
    chosen = command_line(prog).parse_args(words)
    if not chosen.new_key:
        listen = ListenSettings.read(AGGREGATOR_PORT)
        serve("sec_agg.app:create_app()", chosen.bind, listen, threads=8)
    from sec_agg.app import IDENTITY, open_enrolment  # noqa: PLC0415 - serving needs none of it here

    settings = AggregatorSettings.read()
    change_key_from_command_line(open_enrolment(settings), settings.folder / IDENTITY)
    return 0


def command_line(prog: str) -> ArgumentParser:
    """Return the command line; `prog` is how it is called."""
    made = parser(prog, "Start the secure aggregator.", "DOORBELL_AGGREGATOR_PORT, or 8003")
    made.add_argument(
        "--new-key", action="store_true", help="replace the aggregator's key, then end"
    )
    return made


if __name__ == "__main__":
    try:
        sys.exit(main())
    except DoorbellError as error:
        sys.exit(str(error))
