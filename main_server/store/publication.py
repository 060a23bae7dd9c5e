"""Steps that touch several tables and must be one transaction.

Publishing a round's version, closing a version's gate with or without a rollback, activating
another version, noting a device's report, and the end of a device's part in the federation.
Each function does all of its step or, returning False, nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection, and_

from main_server.store.contributions import note_sent
from main_server.store.devices import put_device, put_participation
from main_server.store.evaluations import Score, note_score
from main_server.store.events import add_event
from main_server.store.members import set_name, set_revoked
from main_server.store.pins import find_pins
from main_server.store.records import PENDING, Device, Round, Status, Version
from main_server.store.rounds import abandon_vouched, find_round, newest_round
from main_server.store.runs import running_run
from main_server.store.states import ABANDONED, OPEN, PUBLISHED, move_round
from main_server.store.tables import (
    CONTRIBUTIONS,
    DEVICES,
    PARTICIPATIONS,
    PERFORMANCES,
    ROUNDS,
    VERSIONS,
)
from main_server.store.versions import add_version, is_next, release
from shared.round.plan import RoundPlan


def publish(
    connection: Connection,
    plan: RoundPlan,
    cohort: tuple[str, ...],
    aggregate: str,
    clamped: int,
    version: Version,
    received: int = 0,
) -> Round:
    """Close an open round with the version that came of it, once.

    A version that a run made is released at once; any other when the operator delivers it. The
    model of a pinned detector does not change.

    Args:
        connection: The transaction.
        plan: The round.
        cohort: Who is in the sum.
        aggregate: The sum's digest.
        clamped: How many coordinates did not fit into the value range.
        version: The version to publish.
        received: The sum's size in bytes, counted with the round.

    Returns:
        The round as it then stands: its `aggregate` is another one if another sum was first.
    """
    values = {
        "aggregate": aggregate,
        "cohort": json.dumps(cohort),
        "clamped": clamped,
        "bytes_up": ROUNDS.c.bytes_up + received,
    }
    detector, number, now = plan.detector, plan.round, version.made_at
    said = f"Round {number} is published: {len(cohort)} devices are in it."
    # Looked at in here: a pin that was set after the sum came still holds.
    is_pinned = detector in find_pins(connection)
    if not is_pinned and move_round(connection, detector, number, PUBLISHED, now, said, **values):
        add_version(connection, replace(version, gate=PENDING))
        # By hand, the operator looks first and delivers; a run goes on by itself.
        if running_run(connection, detector) is not None:
            release(connection, version.version, now)
    return find_round(connection, detector, number) or Round(plan, OPEN)


def judge(
    connection: Connection,
    version: Version,
    gate: str,
    said: str,
    at: float,
    instead: Version | None = None,
) -> bool:
    """Close the gate of a pending version, once.

    Args:
        connection: The transaction.
        version: The version.
        gate: "passed", "rejected" or "unchecked".
        said: Why.
        at: When, in seconds since the epoch.
        instead: The version to activate in the same step; the open round is abandoned.

    Returns:
        False if another was faster, or something newer than `instead` came meanwhile.
    """
    # Something newer came meanwhile: the verdict would activate an older model over it.
    if instead is not None and not is_next(connection, instead):
        return False
    pending = and_(VERSIONS.c.version == version.version, VERSIONS.c.gate == PENDING)
    change = VERSIONS.update().where(pending).values(gate=gate, said=said)
    if connection.execute(change).rowcount != 1:
        return False
    what = f"The model of round {version.round} is {gate}: {said}"
    add_event(connection, at, gate, what, detector=version.detector, round=version.round)
    if instead is not None:
        activate(connection, instead, at, said)
    return True


def activate(connection: Connection, version: Version, at: float, said: str) -> bool:
    """Make a version the newest, and give it to the devices; the open round is abandoned.

    Args:
        connection: The transaction.
        version: The version.
        at: When, in seconds since the epoch.
        said: Why, one sentence.

    Returns:
        False if something newer came meanwhile; then nothing was changed.
    """
    if not is_next(connection, version):
        return False
    # Its sum would be a step from a version that is not active any more.
    newest = newest_round(connection, version.detector)
    if newest is not None:
        move_round(connection, version.detector, newest.plan.round, ABANDONED, at, said)
    add_version(connection, version)
    release(connection, version.version, at)
    return True


def note_status(connection: Connection, device: Device, detectors: Mapping[str, Status]) -> None:
    """Note what a device reports of itself when it asks for work."""
    put_device(connection, device)
    for detector, status in detectors.items():
        failed_round, failure = status.setback or (None, None)
        put_participation(
            connection,
            device.name,
            detector,
            trained_round=status.trained_round,
            delivered=status.held,
            setback_round=failed_round,
            setback=failure,
        )
        if status.sent_round is not None:
            note_sent(connection, device, detector, status.sent_round)
        for version, score in _reported_scores(device.name, status).items():
            note_score(connection, detector, version, score, device.last_seen)


def _reported_scores(device: str, status: Status) -> dict[str, Score]:
    """Return version to score of what a device reports.

    A device that holds a version and reports no score of it has no validation pictures: it is
    noted with 0, so that the gate does not wait for it.
    """
    reported = {}
    if status.score is not None:
        version, accuracy, pictures = status.score
        reported[version] = Score(device, accuracy, pictures)
    if status.held is not None:
        reported.setdefault(status.held, Score(device, 0.0, 0))
    return reported


def revoke(connection: Connection, name: str, reason: str, at: float) -> bool:
    """Revoke the member of that name, and end its part in every round; False if there is none."""
    is_revoked = set_revoked(connection, name, reason)
    _end_participations(connection, name, at)
    if is_revoked:
        add_event(connection, at, "revoked", f"{name} is revoked: {reason}", device=name)
    return is_revoked


def rename(connection: Connection, old: str, new: str, at: float) -> bool:
    """Rename a device that is not revoked; False if there is none, or the new name is taken."""
    if not set_name(connection, old, new):
        return False
    mine = PERFORMANCES.c.device == old
    connection.execute(PERFORMANCES.update().where(mine).values(device=new))
    # Masks and seeds are bound to the name: what it sent under the old one is void.
    _end_participations(connection, old, at)
    connection.execute(DEVICES.delete().where(DEVICES.c.name == old))
    add_event(connection, at, "renamed", f"{old} is called {new} now.", device=new)
    return True


def _end_participations(connection: Connection, device: str, at: float) -> None:
    """Delete a device's part in every detector, with all that it sent.

    Open rounds whose sums it may be in are abandoned: a sum without it would be another one over
    nearly the same cohort, and the difference of the two is its update.
    """
    abandon_vouched(connection, device, at)
    for table in (PARTICIPATIONS, CONTRIBUTIONS, PERFORMANCES):
        connection.execute(table.delete().where(table.c.device == device))
