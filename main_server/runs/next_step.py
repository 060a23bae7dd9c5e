"""What happens next with a detector, in a sentence for the operator.

It says what the main server waits for and until when, or which button to press.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from main_server.context import MainServer
from main_server.store.records import PENDING, Round, Version
from main_server.store.runs import RUNNING, STOPPED
from main_server.store.snapshot import Snapshot
from main_server.store.states import OPEN
from shared.names import AGGREGATOR

# A sentence names so many devices; the table has all of them.
_NAMED = 3


def next_step(server: MainServer, snapshot: Snapshot, detector: str) -> str:
    """Return what happens next with a detector.

    Args:
        server: The main server.
        snapshot: The state of the federation, with a round and a version of each detector.
        detector: Its name.
    """
    newest = snapshot.newest_version(detector)
    run, _ = snapshot.runs.get(detector, (None, 0))
    is_pending = newest is not None and newest.gate == PENDING
    if detector in snapshot.pins:
        return "Pinned: no round changes the model until you press “Unpin”."
    if newest is not None and is_pending and newest.released_at is not None:
        return _at_the_gate(server, snapshot, newest)
    if run is not None and run.state == RUNNING:
        return _in_a_run(server, snapshot, detector)
    if run is not None and run.state == STOPPED:
        return f"{run.said} “Resume the run” goes on; what was sent is kept."
    if newest is not None and is_pending:
        return (
            f"The model of round {newest.round} is made: “Send Aggregated Models to Federated "
            "Clients” gives it to the devices, and so does the next run."
        )
    sent = len(snapshot.sent.get(detector, ()))
    return _by_hand(snapshot.newest_round(detector), sent)


def _at_the_gate(server: MainServer, snapshot: Snapshot, version: Version) -> str:
    """Say how many devices have scored a version, and until when the others are waited for."""
    devices = sum(part.detector == version.detector for part in snapshot.parts)
    deadline = (version.released_at or 0.0) + server.settings.gate_deadline_s
    until = _clock(server, deadline)
    return (
        f"The devices try the model of round {version.round} on their own pictures: "
        f"{version.scored_by} of {devices} have answered, "
        f"and the others are waited for until {until}."
    )


def _in_a_run(server: MainServer, snapshot: Snapshot, detector: str) -> str:
    """Say where the open round of a run is: before, during or after its updates."""
    current = snapshot.newest_round(detector)
    if current is None or current.state != OPEN:
        return "The next round is near."
    plan = current.plan
    if current.asked_at is None:
        return f"Round {plan.round} is about to begin."
    sent = snapshot.sent.get(detector, {})
    parts = [part for part in snapshot.parts if part.detector == detector]
    missing = [part.device for part in parts if part.device not in sent]
    if current.due_at is None:
        return _collecting(server, current, current.asked_at, missing)
    if len(sent) < plan.min_cohort:
        return (
            f"Round {plan.round} is to be added up, and has {len(sent)} of the "
            f"{plan.min_cohort} updates it needs: {_absent(missing)}."
        )
    adds = "they are added up here"
    if plan.receiver == AGGREGATOR:
        adds = "the secure aggregator adds them up"
    return f"Round {plan.round} has its {len(sent)} updates: {adds} now."


def _collecting(server: MainServer, current: Round, asked_at: float, missing: Sequence[str]) -> str:
    """Say whose updates are missing, and when the round closes."""
    plan = current.plan
    closes = _clock(server, asked_at + server.settings.round_deadline_s)
    target = server.settings.target_cohort
    enough = "all have"
    if target is not None:
        enough = f"{max(target, plan.min_cohort)} have"
    waiting = f"Waiting for updates of round {plan.round}"
    return f"{waiting}: {_absent(missing)}; the round closes at {closes} or when {enough}."


def _by_hand(current: Round | None, sent: int) -> str:
    """Say what to press where no run does it."""
    if current is None or current.state != OPEN:
        opens = "“Run rounds” opens the next one, and so does a training on a device"
        return f"No round is open: {opens}."
    number = current.plan.round
    least = current.plan.min_cohort
    run = "“Run rounds” does all of it"
    if current.plan.receiver == AGGREGATOR:
        how = "train and send on each device, then add up and hand over on the secure aggregator"
        return f"Round {number} is open and needs {least} updates: {how}; {run}."
    then = "train and send on the devices"
    if sent >= least:
        then = "press “Aggregate Local Models”"
    return f"Round {number} is open and has {sent} of the {least} updates it needs: {then}; {run}."


def _absent(names: Sequence[str]) -> str:
    if not names:
        return "all have sent"
    listed = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        listed += f" and {len(names) - _NAMED} more"
    have = "has" if len(names) == 1 else "have"
    return f"{listed} {have} not sent"


def _clock(server: MainServer, at: float) -> str:
    """Return a time of the day, with the day unless it is today."""
    then = time.localtime(at)
    today = time.localtime(server.clock())
    is_today = then[:3] == today[:3]
    return time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", then)
