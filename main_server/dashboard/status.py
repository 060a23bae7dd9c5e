"""The status as data: for the page, for `python -m federation status`, and for scripts."""

from __future__ import annotations

from typing import Any

from main_server.context import MainServer
from main_server.members.device_status import device_statuses
from main_server.runs.next_step import next_step
from main_server.store.records import Round, Version
from main_server.store.snapshot import Snapshot, read_snapshot
from shared.telemetry.metrics import refusals

# So much of the past as a person reads; counts tell how much more there is.
_ROUNDS = 10
_VERSIONS = 10
_EVENTS = 30
_NOT_SHOWN = (
    "manifest",
    "detector",
    "accuracy",
    "scored_by",
    "scored_pictures",
    "state",
)
"""Columns of a version that the status leaves out, or tells in another form."""


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
    """Return what there is to say of one detector."""
    return {
        "detector": name,
        "next": next_step(server, snapshot, name),
        "round": _newest_round(snapshot, name),
        "run": _run(snapshot, name),
        "pinned": snapshot.pins.get(name),
        "rounds": [_round(each) for each in snapshot.rounds.get(name, ())],
        "round_count": snapshot.round_counts.get(name, 0),
        "versions": _versions(snapshot, name),
        "version_count": snapshot.version_counts.get(name, 0),
    }


def _newest_round(snapshot: Snapshot, name: str) -> dict[str, object] | None:
    """Return the newest round in full, with when each device sent its update."""
    current = snapshot.newest_round(name)
    if current is None:
        return None
    return {
        "round": current.plan.round,
        "state": current.state,
        "opened_at": current.opened_at,
        "asked_at": current.asked_at,
        "due_at": current.due_at,
        "closed_at": current.closed_at,
        "cohort": list(current.cohort),
        "min_cohort": current.plan.min_cohort,
        "sent": dict(snapshot.sent.get(name, {})),
    }


def _run(snapshot: Snapshot, name: str) -> dict[str, object] | None:
    """Return the newest run, with how many of its rounds are done."""
    run, done = snapshot.runs.get(name, (None, 0))
    if run is None:
        return None
    return dict(vars(run)) | {"done": done}


def _round(each: Round) -> dict[str, object]:
    """Return one line of the table of rounds.

    Bytes are those that the main server received and sent; seconds go from open to closed.
    """
    seconds = None
    if each.closed_at is not None:
        # Not below 0: the clock may have been set back meanwhile.
        seconds = max(0.0, each.closed_at - each.opened_at)
    return {
        "round": each.plan.round,
        "state": each.state,
        "opened_at": each.opened_at,
        "seconds": seconds,
        "devices": len(each.cohort),
        "bytes_up": each.bytes_up,
        "bytes_down": each.bytes_down,
    }


def _versions(snapshot: Snapshot, name: str) -> list[dict[str, object]]:
    """Return the newest versions; the newest released one is active."""
    versions = snapshot.versions.get(name, ())
    released = [each.version for each in versions if each.released_at is not None]
    active = released[0] if released else None
    return [_version(each) | {"in_force": each.version == active} for each in versions]


def _version(version: Version) -> dict[str, object]:
    shown = {key: value for key, value in vars(version).items() if key not in _NOT_SHOWN}
    score = None
    if version.accuracy is not None:
        score = {
            "accuracy": version.accuracy,
            "devices": version.scored_by,
            "pictures": version.scored_pictures,
        }
    return shown | {"score": score}
