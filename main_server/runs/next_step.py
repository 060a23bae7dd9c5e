"""What happens next with a detector, in a sentence: what is waited for and until when, or which
button to press.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from main_server.context import MainServer
from main_server.store.records import PENDING, Round, Version
from main_server.store.runs import RUNNING, STOPPED
from main_server.store.snapshot import Standing
from main_server.store.states import OPEN
from shared.names import AGGREGATOR

_NAMED = 3


def outlook(server: MainServer, standing: Standing, detector: str) -> str:
    """Return what happens next with a detector.

    Args:
        server: The main server.
        standing: How things stand, with a round and a version of each detector at least.
        detector: Its name.
    """
    current, newest = (
        standing.newest_round(detector),
        next(iter(standing.versions.get(detector, ())), None),
    )
    run, _ = standing.runs.get(detector, (None, 0))
    if detector in standing.pins:
        return "Pinned: no round changes the model until you press “Unpin”."
    if newest is not None and newest.gate == PENDING and newest.released_at is not None:
        return _at_the_gate(
            server, newest, sum(part.detector == detector for part in standing.parts)
        )
    if run is not None and run.state == RUNNING:
        return (
            _in_a_run(server, standing, current)
            if current and current.state == OPEN
            else "The next round is near."
        )
    if run is not None and run.state == STOPPED:
        return f"{run.said} “Resume the run” goes on; what was sent is kept."
    if newest is not None and newest.gate == PENDING:
        return (
            f"The model of round {newest.round} is made: “Send Aggregated Models to Federated Clients” gives it to the "
            "devices, and so does the next run."
        )
    return _by_hand(current, len(standing.sent.get(detector, ())))


def _at_the_gate(server: MainServer, version: Version, devices: int) -> str:
    until = _clock(server, (version.released_at or 0.0) + server.settings.gate_deadline_s)
    return (
        f"The devices try the model of round {version.round} on their own pictures: {version.scored_by} of {devices} "
        f"have answered, and the others are waited for until {until}."
    )


def _in_a_run(server: MainServer, standing: Standing, current: Round) -> str:
    settings, sent = current.settings, standing.sent.get(current.settings.detector, {})
    parts = [part for part in standing.parts if part.detector == settings.detector]
    missing = [part.device for part in parts if part.device not in sent]
    if current.asked_at is None:
        return f"Round {settings.round} is about to begin."
    if current.due_at is None:
        closes = _clock(server, current.asked_at + server.settings.round_deadline_s)
        target = server.settings.target_cohort
        when = "all have" if target is None else f"{max(target, settings.min_cohort)} have"
        waiting = f"Waiting for updates of round {settings.round}"
        return f"{waiting}: {_absent(missing)}; the round closes at {closes} or when {when}."
    if len(sent) < settings.min_cohort:
        return (
            f"Round {settings.round} is to be added up, and has {len(sent)} of the {settings.min_cohort} updates it "
            f"needs: {_absent(missing)}."
        )
    does = (
        "the secure aggregator adds them up"
        if settings.receiver == AGGREGATOR
        else "they are added up here"
    )
    return f"Round {settings.round} has its {len(sent)} updates: {does} now."


def _by_hand(current: Round | None, sent: int) -> str:
    if current is None or current.state != OPEN:
        return (
            "No round is open: “Run rounds” opens the next one, and so does a training on a device."
        )
    number, least = current.settings.round, current.settings.min_cohort
    if current.settings.receiver == AGGREGATOR:
        how = "train and send on each device, then add up and hand over on the secure aggregator"
        return (
            f"Round {number} is open and needs {least} updates: {how}; “Run rounds” does all of it."
        )
    then = "press “Aggregate Local Models”" if sent >= least else "train and send on the devices"
    there = f"{sent} of the {least} updates it needs"
    return f"Round {number} is open and has {there}: {then}; “Run rounds” does all of it."


def _absent(names: Sequence[str]) -> str:
    if not names:
        return "all have sent"
    others = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{others} {'has' if len(names) == 1 else 'have'} not sent"


def _clock(server: MainServer, at: float) -> str:
    """Return a time of the day, with the day unless it is today."""
    then, today = time.localtime(at), time.localtime(server.clock())
    return time.strftime("%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)
