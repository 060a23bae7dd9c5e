"""The one tree of commands: `doorbell COMMAND`, and `python -m federation COMMAND` for most of
them.

It names modules and imports none: a command's own is imported when the command runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

GROUPS: Mapping[str, Mapping[str, str]] = {
    "A federation on this machine": {
        "up": "start the four services and stay until Ctrl-C",
        "round": "run one round on services that are up",
        "demo": "draw pictures, start the services, run some rounds, show what was learned",
    },
    "Automatic rounds and models, over HTTP": {
        "run": "have the main server run rounds, and watch",
        "stop": "stop a run; updates that were sent are kept",
        "resume": "resume a stopped run, and watch",
        "status": "show the devices' states, and how far the rounds are",
        "models": "list the versions of the models, with the devices' evaluations",
        "rollback": "roll back to an earlier version",
        "pin": "keep a detector at one version",
        "unpin": "let rounds change a detector's model again",
    },
    "Members, on the main server's machine": {
        "invite": "print a join code for a new device",
        "devices": "list the members",
        "revoke": "revoke a member",
        "rename": "rename a device",
    },
    "State of this machine's services": {
        "backup": "write all of this machine's state into one file",
        "restore": "restore a backup where no state exists yet",
        "upgrade": "bring the databases to this version's tables; stop the services first",
        "doctor": "check this set-up, and say how to fix it",
    },
    "One service, or the pictures": {
        "main-server": "start the main server",
        "aggregator": "start the secure aggregator, or replace its key",
        "device": "start a device, replace its key, or export its models",
        "dataset": "draw, show, fetch or import pictures",
    },
}
"""What each command does, below the titles that `doorbell --help` shows."""

MODULES: Mapping[str, tuple[str, ...]] = {
    "federation.launch": ("up", "round", "demo"),
    "federation.membership": ("invite", "devices", "revoke", "rename"),
    "federation.backup.backup": ("backup", "upgrade"),
    "federation.backup.restore": ("restore",),
    "federation.controls": (
        "run",
        "stop",
        "resume",
        "status",
        "models",
        "rollback",
        "pin",
        "unpin",
    ),
    "federation.doctor.doctor": ("doctor",),
}
"""The commands that each module's `add_commands` adds, to `doorbell` and to `python -m federation`.
"""

PROGRAMS: Mapping[str, str] = {
    "main-server": "main_server.__main__",
    "aggregator": "sec_agg.__main__",
    "device": "device.__main__",
    "dataset": "dataset.__main__",
}
"""Commands that are programs of their own, with a `main` that takes their command line and their
name.
"""


def add(commands: Commands, name: str) -> argparse.ArgumentParser:
    """Add a command of the tree to a command line, and return its parser."""
    said = next(helps[name] for helps in GROUPS.values() if name in helps)
    return commands.add_parser(name, help=said, description=f"{said[0].upper()}{said[1:]}.")


def clock(seconds: float) -> str:
    """Return a time, given in seconds since the epoch, as people read it here; nothing for 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""
