"""`doorbell`: every command of the project, under one name. `federation/commands.py` lists them."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module

from federation.commands import GROUPS, MODULES, PROGRAMS
from shared import __version__
from shared.errors import DoorbellError

ABOUT = "Smart doorbells that learn together without uploading a single picture."


def main(words: Sequence[str] | None = None) -> int:
    """Run one command of the tree.

    Args:
        words: The command line; the process's own if left out.

    Returns:
        The exit code: 0 only if everything was done, 2 if there is no such command.
    """
    words = sys.argv[1:] if words is None else words
    if not words or words[0] in ("-h", "--help"):
        print(overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] == "--version":
        print(f"doorbell {__version__}")
        return 0
    return guarded(lambda: _run(words[0], words[1:]))


def guarded(run: Callable[[], int]) -> int:
    """Run a command, and print what stopped it as a sentence instead of a traceback."""
    # SIGTERM ends a command as Ctrl-C does, also where a script's background ignores Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run()
    except DoorbellError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        from federation.extras import is_ours, lacking  # noqa: PLC0415 - most commands lack nothing

        if is_ours(error.name or ""):
            raise
        print(lacking(error.name or ""), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def overview() -> str:
    """Return the help of the whole tree; nothing is imported for it."""
    lines = ["usage: doorbell [-h] [--version] COMMAND ...", "", ABOUT]
    for title, helps in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<12} {said}" for name, said in helps.items())]
    return "\n".join([*lines, "", "doorbell COMMAND --help describes one command."])


def tree(
    prog: str, modules: Sequence[str], description: str | None = None
) -> argparse.ArgumentParser:
    """Return a command line with the commands that these modules add."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in modules:
        import_module(module).add_commands(commands)
    return parser


def _run(name: str, rest: Sequence[str]) -> int:
    if name in PROGRAMS:
        return int(import_module(PROGRAMS[name]).main(list(rest), f"doorbell {name}"))
    module = next((module for module, names in MODULES.items() if name in names), None)
    if module is None:
        known = [each for helps in GROUPS.values() for each in helps]
        near = get_close_matches(name, known, 1, 0.6)
        guess = f"Did you mean doorbell {near[0]}? " if near else ""
        print(
            f"Unknown command: {name}. {guess}doorbell --help lists the commands.", file=sys.stderr
        )
        return 2
    chosen = tree("doorbell", [module]).parse_args([name, *rest])
    return int(chosen.run(chosen))


def command_lines(name: str) -> list[argparse.ArgumentParser]:
    """Return the command line of a command; a program of its own may have several.

    Args:
        name: One of the commands that `GROUPS` lists.
    """
    if name not in PROGRAMS:
        module = next(module for module, names in MODULES.items() if name in names)
        action = next(
            each
            for each in tree("doorbell", [module])._actions
            if isinstance(each, argparse._SubParsersAction)
        )
        return [action.choices[name]]
    program = import_module(PROGRAMS[name])
    made = [program.command_line(f"doorbell {name}")]
    if name == "device":
        made.append(program.export_command_line("doorbell device export"))
    return made


if __name__ == "__main__":
    sys.exit(main())
