"""How things stand, as data: for the page, for `python -m federation status`, and for scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from main_server import runs
from main_server.attendance import attendance
from main_server.context import MainServer
from main_server.records import Round, Version
from main_server.run_store import Run

_VERSIONS, _EVENTS = 10, 30


def status(server: MainServer) -> dict[str, Any]:
    """Return devices, runs, rounds and versions; all times are seconds since the epoch."""
    newest_runs = {run.detector: run for run in server.store.runs()}
    pins = server.store.pins()
    return {
        "federation": server.settings.federation,
        "topology": server.settings.topology,
        "time": server.clock(),
        "devices": [asdict(each) for each in attendance(server)],
        "detectors": [
            {
                "detector": name,
                "round": _round(server, server.store.newest_round(name)),
                "run": _run(server, newest_runs.get(name)),
                "pinned": pins.get(name),
                "versions": [_version(server, each) for each in server.store.versions(name, _VERSIONS)],
            }
            for name in server.store.detectors()
        ],
        "events": [asdict(event) for event in server.store.events(_EVENTS)],
    }


def accuracy_of(server: MainServer, version: str) -> dict[str, float | int] | None:
    """Return what devices reported of a version: the mean accuracy, weighted by pictures, and of how many; or None."""
    scores = server.store.scores(version)
    pictures = sum(score.pictures for score in scores)
    if not pictures:
        return None
    mean = sum(score.accuracy * score.pictures for score in scores) / pictures
    return {"accuracy": mean, "devices": sum(score.pictures > 0 for score in scores), "pictures": pictures}


def _round(server: MainServer, current: Round | None) -> dict[str, object] | None:
    if current is None:
        return None
    times = {name: getattr(current, name) for name in ("opened_at", "asked_at", "due_at", "closed_at")}
    who = {"sent": server.store.sent(current.settings), "cohort": list(current.cohort)}
    return {"round": current.settings.round, "state": current.state, **times, **who}


def _run(server: MainServer, run: Run | None) -> dict[str, object] | None:
    return None if run is None else asdict(run) | {"done": runs.done(server, run)}


def _version(server: MainServer, version: Version) -> dict[str, object]:
    shown = {name: value for name, value in asdict(version).items() if name not in ("manifest", "detector")}
    return shown | {"score": accuracy_of(server, version.version)}
