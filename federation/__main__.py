"""`python -m federation`: the whole federation from one terminal.

`doorbell` has the same commands, and more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from federation.cli import guarded, tree
from federation.commands import MODULES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 only if everything was done."""

    def run() -> int:
        chosen = _command_line().parse_args(arguments)
        return int(chosen.run(chosen))

    return guarded(run)


def _command_line() -> argparse.ArgumentParser:
    return tree("python -m federation", tuple(MODULES), "The whole federation from one terminal.")


if __name__ == "__main__":
    sys.exit(main())
