"""`python -m federation demo`: pictures, four services, some rounds, a table and a chart.

The rounds go through the same HTTP steps that a person would do; nothing here knows a shortcut. The
demonstration keeps its state in a folder of its own and starts afresh each time, so that its first
round is a first round.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from dataset.porch import drawing as porch
from federation import preflight
from federation.demo.report import RoundReport, accuracy_table, chart, cost_table, report_of
from federation.demo.scoreboard import Scoreboard
from federation.processes import PORTS, running
from federation.round import Addresses, Step, run_round
from learning.architectures import architecture
from shared.round.plan import Topology
from shared.settings import OperatorSettings

_DEVICES = (1, 2)
_CLIENTS = ("client_1", "client_2")


@dataclass(frozen=True)
class Demo:
    """What to demonstrate.

    Attributes:
        home: Folder for everything that is made.
        data: Picture folders, or None for the default ones, drawn if they are missing.
        rounds: How many.
        architecture: Its name, or None for the default.
        topology: "secure" or "direct".
    """

    home: Path
    data: Path | None
    rounds: int
    architecture: str | None
    topology: Topology

    @property
    def state(self) -> Path:
        """The demonstration's own folder; what an earlier one left there goes."""
        return self.home / "demo"

    @property
    def pictures(self) -> Path:
        """Where the pictures are."""
        return self.data or self.home / "pictures"

    def environment(self) -> dict[str, str]:
        """Return what the services have to know."""
        variables = {
            "DOORBELL_HOME": str(self.state.resolve()),
            "DOORBELL_DATA": str(self.pictures.resolve()),
            "DOORBELL_CACHE": str((self.home / "cache").resolve()),
            "DOORBELL_TOPOLOGY": self.topology,
        }
        return variables | (
            {"DOORBELL_ARCHITECTURE": self.architecture} if self.architecture else {}
        )


def run(demo: Demo, console: Console, stay: bool) -> None:
    """Run the demonstration, and stay up until Ctrl-C if asked to.

    Raises:
        DoorbellError: Something stood in the way, or a step failed; the message says what.
    """
    _check(demo)
    _draw_if_missing(demo, console)
    detectors = preflight.check_pictures(demo.pictures, _CLIENTS)
    shutil.rmtree(demo.state, ignore_errors=True)
    at = Addresses(token=OperatorSettings.read().token)
    console.print(
        f"Starting the four services ({demo.topology} topology) with the pictures in "
        f"{demo.pictures}: "
        f"{', '.join(detectors)}."
    )
    with running(demo.environment(), demo.state / "services.log"):
        reports = _rounds(demo, at, detectors, console)
        console.print(accuracy_table(reports))
        console.print(
            "A device's own model was trained on its own pictures alone, from the round's "
            "global model."
        )
        console.print(cost_table(reports))
        picture = demo.state / "rounds.png"
        chart(reports, picture)
        console.print(f"Chart: {picture}")
        if stay:
            _stay(console)


def _check(demo: Demo) -> None:
    preflight.check_ports(PORTS)
    preflight.check_disk(demo.home)
    if demo.architecture:
        architecture(demo.architecture)
    if demo.data is not None:
        preflight.check_pictures(demo.data, _CLIENTS)


def _draw_if_missing(demo: Demo, console: Console) -> None:
    if demo.data is not None or demo.pictures.exists():
        return
    with _progress(console) as progress:
        task = progress.add_task("Drawing the default pictures", total=None)
        porch.write_default(
            demo.pictures,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
        )


def _rounds(
    demo: Demo, at: Addresses, detectors: tuple[str, ...], console: Console
) -> list[RoundReport]:
    scoreboard = Scoreboard(demo.environment(), _DEVICES, demo.state / "scoreboard")
    reports = []
    try:
        with _progress(console) as progress:
            per_round = (len(at.devices) * 4 + (3 if demo.topology == "secure" else 2)) + 1
            task = progress.add_task("", total=demo.rounds * per_round)
            for number in range(1, demo.rounds + 1):
                begun = time.monotonic()
                progress.update(
                    task, description=f"Round {number} of {demo.rounds}: training on both devices"
                )
                steps = run_round(at, demo.topology, on_step=partial(_tell, progress, task, number))
                seconds = time.monotonic() - begun
                progress.update(task, description=f"Round {number}: measuring on all test pictures")
                reports.append(report_of(scoreboard.rows(detectors), steps, seconds, at))
                progress.advance(task)
    finally:
        scoreboard.close()
    return reports


def _tell(progress: Progress, task: TaskID, number: int, step: Step) -> None:
    who = {port: service for service, port in PORTS.items()}[int(step.server.rsplit(":", 1)[1])]
    progress.console.print(f"  round {number}  {who:<18} {step.path:<20} {step.seconds:6.2f} s")
    progress.update(task, advance=1, description=f"Round {number}: {who} did {step.path}")


def _progress(console: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _stay(console: Console) -> None:
    for service, port in PORTS.items():
        console.print(f"  {service:<18} http://localhost:{port}/")
    console.print(
        "All four stay up: open them in a browser, press the buttons. Ctrl-C stops everything."
    )
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        console.print("Stopping.")
