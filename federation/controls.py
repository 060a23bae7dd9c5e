"""`python -m federation run | stop | resume | status | models | rollback | pin | unpin`: rounds
that run by themselves.

They speak to the main server over HTTP, by the addresses that its page's buttons use, so they work
from any machine from which its operator may press those buttons (`--main`, and
`DOORBELL_OPERATOR_TOKEN` where it asks for one).
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from federation.commands import add, clock
from federation.round import ask, do_step
from shared.errors import PeerUnreachable
from shared.settings import OperatorSettings

if TYPE_CHECKING:
    from federation.commands import Commands

_LOOK_EVERY_S = 0.5
_DIGITS = 12


def add_commands(commands: Commands) -> None:
    """Add the commands to the command line."""
    run = add(commands, "run")
    run.add_argument("--rounds", type=int, default=1, help="how many rounds (1)")
    run.add_argument("--leave", action="store_true", help="start it, and do not watch")
    run.set_defaults(run=_run)
    stop = add(commands, "stop")
    stop.set_defaults(run=lambda chosen: _say(chosen, "/stop_run"))
    resume = add(commands, "resume")
    resume.add_argument("--leave", action="store_true", help="do not watch")
    resume.set_defaults(run=_resume)
    unpin = add(commands, "unpin")
    unpin.set_defaults(run=lambda chosen: _say(chosen, "/unpin"))
    unpin.add_argument("detector")
    for command in (run, stop, resume):
        command.add_argument("--detector", help="one detector; all without it")
    status = add(commands, "status")
    status.add_argument("--json", action="store_true", help="for scripts")
    status.set_defaults(run=_status)
    models = add(commands, "models")
    models.set_defaults(run=_models)
    for name in ("rollback", "pin"):
        command = add(commands, name)
        command.add_argument("version", help=f"as models lists it; the first {_DIGITS} digits do")
        command.set_defaults(
            run=lambda chosen, path=f"/{name}": _say(chosen, f"{path}?version={chosen.version}")
        )
    for command in (
        run,
        stop,
        resume,
        unpin,
        status,
        models,
        commands.choices["rollback"],
        commands.choices["pin"],
    ):
        command.add_argument("--main", default=None, metavar="URL", help="where the main server is")


def status_of(main: str) -> dict[str, Any]:
    """Return how things stand at a main server, as `main_server/dashboard/status.py` describes it.

    Raises:
        PeerUnreachable: It does not answer.
        StepRefused: It does not answer to this operator.
    """
    try:
        return ask("GET", main, "/status", OperatorSettings.read().token)
    except PeerUnreachable as error:
        raise PeerUnreachable(
            f"{main} did not answer.", todo="Is the main server running there?"
        ) from error


def _main(chosen: argparse.Namespace) -> str:
    return str(chosen.main or OperatorSettings.read().main_url).rstrip("/")


def _do(chosen: argparse.Namespace, path: str) -> str:
    return do_step(
        _main(chosen), path, getattr(chosen, "detector", None), OperatorSettings.read().token
    ).said


def _say(chosen: argparse.Namespace, path: str) -> int:
    print(_do(chosen, path))
    return 0


def _run(chosen: argparse.Namespace) -> int:
    return _start(chosen, f"/run?rounds={chosen.rounds}")


def _resume(chosen: argparse.Namespace) -> int:
    return _start(chosen, "/resume_run")


def _start(chosen: argparse.Namespace, path: str) -> int:
    before = status_of(_main(chosen))
    seen = max((event["id"] for event in before["events"]), default=0)
    print(_do(chosen, path))
    return 0 if chosen.leave else _watch(_main(chosen), seen, chosen.detector, Console())


def _watch(main: str, seen: int, only: str | None, console: Console) -> int:
    """Show what happens until no run is going on; return 0 if all that were watched came to their
    end.
    """
    with console.status("") as line:
        while True:
            try:
                now = status_of(main)
            except (
                PeerUnreachable
            ) as error:  # it may be restarting: the run goes on when it is there again
                line.update(str(error))
                time.sleep(_LOOK_EVERY_S)
                continue
            except KeyboardInterrupt:
                break
            for event in reversed(now["events"]):
                if event["id"] > seen and event["detector"] in (only or event["detector"], None):
                    console.print(_event(event), highlight=False, soft_wrap=True)
            seen = max([seen, *(event["id"] for event in now["events"])])
            runs = {each["detector"]: each["run"] for each in now["detectors"] if each["run"]}
            watched = [runs[only]] if only else list(runs.values())
            if all(run["state"] != "running" for run in watched):
                return 0 if all(run["state"] == "finished" for run in watched) else 1
            line.update(
                "; ".join(_progress(each) for each in now["detectors"] if each["run"] in watched)
            )
            try:
                time.sleep(_LOOK_EVERY_S)
            except KeyboardInterrupt:
                break
    print(
        "The run goes on without this terminal: status shows it, stop ends it (python -m "
        "federation ...)."
    )
    return 130


def _event(event: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    return f"{at}  {event['detector'] or '':<10} {event['said']}"


def _progress(each: dict[str, Any]) -> str:
    run, current = each["run"], each["round"]
    sent = f"round {current['round']} has {len(current['sent'])} updates" if current else ""
    return f"{each['detector']}: {run['done']} of {run['rounds']} rounds done; {sent}"


def _status(chosen: argparse.Namespace) -> int:
    now = status_of(_main(chosen))
    if chosen.json:
        print(json.dumps(now, indent=2))
        return 0
    console = Console()
    devices = _table("device", "state", "why", "last seen")
    for each in now["devices"]:
        devices.add_row(each["device"], each["state"], each["why"], clock(each["last_seen"]))
    console.print(devices if now["devices"] else "No device has announced itself yet.")
    detectors = _table("detector", "round", "updates", "run", "model", "accuracy", "gate")
    for each in now["detectors"]:
        current, run, newest = each["round"] or {}, each["run"], (each["versions"] or [{}])[0]
        detectors.add_row(
            each["detector"] + (" (pinned)" if each["pinned"] else ""),
            f"{current['round']} {current['state']}" if current else "",
            str(len(current.get("sent", ()))),
            f"{run['done']}/{run['rounds']} {run['state']}" if run else "none",
            str(newest.get("round", "")),
            _accuracy(newest),
            newest.get("gate", ""),
        )
    if now["detectors"]:
        console.print(detectors)
    for each in now["detectors"]:
        console.print(f"{each['detector']}: {each['next']}", highlight=False)
    if now["refusals"]:
        reasons = ", ".join(
            f"{reason} {count}" for reason, count in sorted(now["refusals"].items())
        )
        console.print(
            f"Requests refused since the main server was started: {reasons}.", highlight=False
        )
    return 0


def _models(chosen: argparse.Namespace) -> int:
    versions = _table("detector", "round", "version", "accuracy", "gate", "why")
    for each in status_of(_main(chosen))["detectors"]:
        for version in each["versions"]:
            mark = " (pinned)" if each["pinned"] == version["version"] else ""
            gone = "not kept any more" if version["forgotten"] else version["gate"]
            versions.add_row(
                each["detector"] + mark,
                str(version["round"]),
                version["version"][:_DIGITS],
                _accuracy(version),
                gone,
                version["said"],
            )
    Console().print(versions)
    return 0


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in ("why", "gate"))
    return table


def _accuracy(version: dict[str, Any]) -> str:
    score = version.get("score")
    return f"{score['accuracy']:.1%} of {score['pictures']}" if score else ""
