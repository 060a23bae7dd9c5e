"""Who sent an update for which round; in the direct topology, also where the update is kept."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, insert, select

from main_server.store.events import add_event
from main_server.store.records import Device
from main_server.store.rounds import find_round, set_open_round
from main_server.store.states import OPEN
from main_server.store.tables import CONTRIBUTIONS, ROUNDS
from shared.round.plan import RoundPlan


def note_sent(connection: Connection, device: Device, detector: str, number: int) -> None:
    """Note that a device sent its update, if that round is open and this is news."""
    current = find_round(connection, detector, number)
    if current is None or current.state != OPEN:
        return
    # A device says so with every poll: the first time counts.
    mine = and_(_of(current.plan), CONTRIBUTIONS.c.device == device.name)
    known = select(CONTRIBUTIONS.c.device).where(mine)
    if connection.execute(known).first() is not None:
        return
    row = {
        "detector": detector,
        "round": number,
        "device": device.name,
        "sent_at": device.last_seen,
    }
    connection.execute(insert(CONTRIBUTIONS).values(row))
    said = f"{device.name} has sent its update for round {number}."
    add_event(
        connection,
        device.last_seen,
        "sent",
        said,
        detector=detector,
        round=number,
        device=device.name,
    )


def keep_plain_update(
    connection: Connection,
    plan: RoundPlan,
    device: str,
    digest: str,
    at: float,
    received: int = 0,
) -> bool:
    """Keep a plain update, in place of an earlier one of the same device.

    Args:
        connection: The transaction.
        plan: The round.
        device: Who sent it.
        digest: Name of its blob.
        at: When it came, in seconds since the epoch.
        received: Its size in bytes, counted with the round.

    Returns:
        False if the round is closed; then nothing was changed.
    """
    current = find_round(connection, plan.detector, plan.round)
    if current is None or current.state != OPEN:
        return False
    mine = and_(_of(plan), CONTRIBUTIONS.c.device == device)
    connection.execute(CONTRIBUTIONS.delete().where(mine))
    row = {
        "detector": plan.detector,
        "round": plan.round,
        "device": device,
        "digest": digest,
        "sent_at": at,
    }
    connection.execute(insert(CONTRIBUTIONS).values(row))
    return set_open_round(connection, plan, bytes_up=ROUNDS.c.bytes_up + received)


def plain_updates(connection: Connection, plan: RoundPlan) -> dict[str, str]:
    """Return device to digest of the plain updates of a round, by device name."""
    query = select(CONTRIBUTIONS.c.device, CONTRIBUTIONS.c.digest)
    query = query.where(_of(plan), CONTRIBUTIONS.c.digest.is_not(None))
    rows = connection.execute(query.order_by(CONTRIBUTIONS.c.device))
    return {str(row.device): str(row.digest) for row in rows}


def sent_updates(connection: Connection, plan: RoundPlan) -> dict[str, float]:
    """Return device to when its update for a round was sent, in seconds since the epoch."""
    query = select(CONTRIBUTIONS.c.device, CONTRIBUTIONS.c.sent_at).where(_of(plan))
    return {row.device: row.sent_at for row in connection.execute(query)}


def _of(plan: RoundPlan) -> ColumnElement[bool]:
    return and_(
        CONTRIBUTIONS.c.detector == plan.detector,
        CONTRIBUTIONS.c.round == plan.round,
    )
