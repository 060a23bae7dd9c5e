"""`python -m federation doctor`: errors of a set-up, and how to fix them.

It changes nothing.

It reads the settings that the services read, looks at what is on this machine, and asks the
services that it can reach. None of them has to run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from federation.commands import add
from federation.doctor import checks, checks_settings, checks_state
from federation.doctor.checks import Finding, Setup
from federation.doctor.checks_camera import cameras
from federation.doctor.checks_members import memberships
from federation.doctor.checks_network import network
from federation.doctor.checks_notifications import notifications
from shared.errors import DoorbellError

if TYPE_CHECKING:
    from federation.commands import Commands

_LOOKS = {"ok": "green", "warning": "yellow", "wrong": "bold red"}
_CHECKS = (
    checks.folders,
    checks_settings.contradictions,
    checks_state.keys,
    checks_state.databases,
    checks_state.blobs,
    memberships,
    checks_state.pictures,
    cameras,
    notifications,
    network,
)


def examine(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Look at everything, and yield each finding as it is made."""
    yield from checks.installation()
    yield from checks_settings.settings(environ)
    yield from _readable(checks.disk(Path(environ.get("DOORBELL_HOME") or "var")))
    try:
        setup = Setup.read(environ)
    except DoorbellError:
        yield Finding(
            "services",
            "warning",
            "Nothing more was looked at.",
            "Fix the settings, then run it again.",
        )
        return
    for check in _CHECKS:
        yield from _readable(check(setup))


def _readable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield findings as far as files can be read."""
    try:
        yield from findings
    except OSError as error:
        said = f"{error.filename or 'A file'} cannot be looked at: {error.strerror}."
        yield Finding("services", "wrong", said, "Run this as the user that the services run as.")


def add_commands(commands: Commands) -> None:
    """Add the command to the command line."""
    doctor = add(commands, "doctor")
    doctor.add_argument("--json", action="store_true", help="for scripts")
    doctor.set_defaults(run=_doctor)


def _doctor(chosen: argparse.Namespace) -> int:
    findings, console = [], Console(soft_wrap=True)
    for finding in examine():
        findings.append(finding)
        if not chosen.json:
            todo = f"\n{'':9}{escape(finding.todo)}" if finding.todo else ""
            state = f"[{_LOOKS[finding.state]}]{finding.state:<9}[/]"
            console.print(
                f"{state}[bold]{escape(finding.where)}[/]: {escape(finding.said)}{todo}",
                highlight=False,
            )
    counts = Counter(finding.state for finding in findings)
    if chosen.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        errors = _counted(counts["wrong"], "error")
        warnings = _counted(counts["warning"], "warning")
        print(f"{errors}, {warnings}, {counts['ok']} passed.")
    return int(counts["wrong"] > 0)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
