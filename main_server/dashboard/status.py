"""How things stand, as data: for the page, for `python -m federation status`, and for scripts."""

from __future__ import annotations

from typing import Any

from main_server.context import MainServer
from main_server.members.device_status import device_statuses
from main_server.runs.next_step import next_step
from main_server.store.records import Round, Version
from main_server.store.snapshot import Snapshot, read_snapshot
from shared.telemetry.metrics import refusals

_ROUNDS, _VERSIONS, _EVENTS = 10, 10, 30


def status(server: MainServer) -> dict[str, Any]:
    """Return devices, runs, rounds and versions; all times are seconds since the epoch."""
    with server.store.read() as connection:
        snapshot = read_snapshot(connection, _ROUNDS, _VERSIONS, _EVENTS)
    return {
        "federation": server.settings.federation,
        "topology": server.settings.topology,
        "time": server.clock(),
        "devices": [dict(vars(each)) for each in device_statuses(server, snapshot)],
        "detectors": [_detector(server, snapshot, name) for name in snapshot.detectors],
        "refusals": refusals(),
        "events": [dict(vars(event)) for event in snapshot.events],
        "event_count": snapshot.event_count,
    }


def _detector(server: MainServer, snapshot: Snapshot, name: str) -> dict[str, object]:
    current, rounds = snapshot.newest_round(name), snapshot.rounds.get(name, ())
    run, done = snapshot.runs.get(name, (None, 0))
    versions = snapshot.versions.get(name, ())
    in_force = next(
        (version.version for version in versions if version.released_at is not None), None
    )
    return {
        "detector": name,
        "next": next_step(server, snapshot, name),
        "round": None
        if current is None
        else _open_round(current) | {"sent": dict(snapshot.sent.get(name, {}))},
        "run": None if run is None else vars(run) | {"done": done},
        "pinned": snapshot.pins.get(name),
        "rounds": [_round(each) for each in rounds],
        "round_count": snapshot.round_counts.get(name, 0),
        "versions": [_version(each) | {"in_force": each.version == in_force} for each in versions],
        "version_count": snapshot.version_counts.get(name, 0),
    }


def _open_round(current: Round) -> dict[str, object]:
    times = {
        name: getattr(current, name) for name in ("opened_at", "asked_at", "due_at", "closed_at")
    }
    who = {"cohort": list(current.cohort), "min_cohort": current.plan.min_cohort}
    return {"round": current.plan.round, "state": current.state, **times, **who}


def _round(each: Round) -> dict[str, object]:
    """Return what a round came to: bytes that the main server received and gave out, seconds from
    open to closed.
    """
    seconds = None if each.closed_at is None else max(0.0, each.closed_at - each.opened_at)
    figures = {
        "devices": len(each.cohort),
        "bytes_up": each.bytes_up,
        "bytes_down": each.bytes_down,
    }
    when = {"opened_at": each.opened_at, "seconds": seconds}
    return {"round": each.plan.round, "state": each.state, **when, **figures}


def _version(version: Version) -> dict[str, object]:
    left_out = ("manifest", "detector", "accuracy", "scored_by", "scored_pictures")
    shown = {name: value for name, value in vars(version).items() if name not in left_out}
    score = {
        "accuracy": version.accuracy,
        "devices": version.scored_by,
        "pictures": version.scored_pictures,
    }
    return shown | {"score": None if version.accuracy is None else score}
