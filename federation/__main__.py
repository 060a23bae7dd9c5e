"""`python -m federation`: the whole federation from one terminal."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from federation import controls, membership, preflight
from federation.backup import backup, restore
from federation.demo import demo
from federation.doctor import doctor
from federation.processes import PORTS, command, environment
from federation.round import Addresses, Step, run_round
from shared.errors import DoorbellError
from shared.settings import OperatorSettings


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit code: 0 only if everything was done."""
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # also where Ctrl-C is ignored, as in a script's background
    chosen = _command_line().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except DoorbellError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m federation", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("up", help="start the four services and stay until Ctrl-C").set_defaults(
        run=_up
    )
    one_round = commands.add_parser("round", help="run one round on services that are up")
    one_round.add_argument("--detector", help="one detector; all without it")
    one_round.set_defaults(run=_round)
    show = commands.add_parser(
        "demo", help="draw pictures, start the services, run some rounds, show what was learned"
    )
    show.add_argument("--data", type=Path, help="picture folders to use instead of the drawn ones")
    show.add_argument("--rounds", type=_rounds, default=3, help="how many rounds (3)")
    show.add_argument("--architecture", help="name of the model's architecture")
    show.add_argument(
        "--exit", action="store_true", help="end when it is done, instead of staying up"
    )
    show.set_defaults(run=_demo)
    membership.add_commands(commands)
    backup.add_commands(commands)
    restore.add_command(commands)
    controls.add_commands(commands)
    doctor.add_command(commands)
    for command_with_topology in (one_round, show):
        command_with_topology.add_argument(
            "--topology", choices=("secure", "direct"), default="secure"
        )
    return parser


def _rounds(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("from 1 to 1000")
    return number


def _up(_: argparse.Namespace) -> int:
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
    home = Path(os.environ.get("DOORBELL_HOME") or "var")
    what = demo.Demo(home, chosen.data, chosen.rounds, chosen.architecture, chosen.topology)
    demo.run(what, Console(), stay=not chosen.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
