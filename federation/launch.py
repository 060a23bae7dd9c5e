"""`up`, `round` and `demo`: the whole federation on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from federation import extras, preflight
from federation.commands import add
from federation.processes import PORTS, command, environment
from federation.round import Addresses, Step, run_round
from shared.settings import OperatorSettings

if TYPE_CHECKING:
    from federation.commands import Commands


def add_commands(commands: Commands) -> None:
    """Add the commands to the command line."""
    add(commands, "up").set_defaults(run=_up)
    one_round = add(commands, "round")
    one_round.add_argument("--detector", help="one detector; all without it")
    one_round.set_defaults(run=_round)
    show = add(commands, "demo")
    show.add_argument("--data", type=Path, help="picture folders to use instead of the drawn ones")
    show.add_argument("--rounds", type=_rounds, default=3, help="how many rounds (3)")
    show.add_argument("--architecture", help="name of the model's architecture")
    show.add_argument(
        "--exit", action="store_true", help="end when it is done, instead of staying up"
    )
    show.set_defaults(run=_demo)
    for command_with_topology in (one_round, show):
        command_with_topology.add_argument(
            "--topology", choices=("secure", "direct"), default="secure"
        )


def _rounds(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("from 1 to 1000")
    return number


def _up(_: argparse.Namespace) -> int:
    extras.check(extras.EVERYTHING)
    preflight.check_ports(PORTS)
    for service, port in PORTS.items():
        print(f"  {service:<18} http://localhost:{port}/", flush=True)
    os.execve(sys.executable, command(), environment({}))  # nosec B606 # a fixed command, no shell


def _round(chosen: argparse.Namespace) -> int:
    def tell(step: Step) -> None:
        print(f"{step.server}{step.path}\n  " + step.said.replace("\n", "\n  "), flush=True)

    run_round(
        Addresses(token=OperatorSettings.read().token), chosen.topology, chosen.detector, tell
    )
    return 0


def _demo(chosen: argparse.Namespace) -> int:
    preflight.check_ports(PORTS)  # before two gigabytes are fetched
    extras.install(extras.EVERYTHING)
    from rich.console import Console  # noqa: PLC0415

    from federation.demo import demo  # noqa: PLC0415 - what it draws with may just have been installed

    home = Path(os.environ.get("DOORBELL_HOME") or "var")
    what = demo.Demo(home, chosen.data, chosen.rounds, chosen.architecture, chosen.topology)
    demo.run(what, Console(), stay=not chosen.exit)
    return 0
