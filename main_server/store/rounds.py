"""Rounds: opening, asking for updates, setting due, giving up. `publication.py` publishes one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select

from main_server.store.events import add_event
from main_server.store.records import Round
from main_server.store.states import ABANDONED, FAILED, OPEN, PUBLISHED, move_round
from main_server.store.tables import ROUNDS
from shared.round.plan import RoundPlan, parse_stored_plan


def newest_round(connection: Connection, detector: str) -> Round | None:
    """Return the newest round of a detector, or None if it has had none."""
    found = newest_rounds(connection, detector, 1)
    return found[0] if found else None


def find_round(connection: Connection, detector: str, number: int) -> Round | None:
    """Return one round, or None if there was no such."""
    query = select(ROUNDS)
    query = query.where(ROUNDS.c.detector == detector, ROUNDS.c.round == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else round_of(row)


def newest_rounds(
    connection: Connection, detector: str, count: int, since: int = 0
) -> tuple[Round, ...]:
    """Return the newest rounds of a detector from number `since` on, newest first."""
    query = select(ROUNDS)
    query = query.where(ROUNDS.c.detector == detector, ROUNDS.c.round >= since)
    newest = query.order_by(ROUNDS.c.round.desc()).limit(count)
    rows = connection.execute(newest).mappings()
    return tuple(round_of(row) for row in rows)


def count_published(connection: Connection, detector: str, first_round: int) -> int:
    """Return how many rounds were published from number `first_round` on."""
    query = select(func.count()).select_from(ROUNDS)
    query = query.where(
        ROUNDS.c.detector == detector,
        ROUNDS.c.round >= first_round,
        ROUNDS.c.state == PUBLISHED,
    )
    return connection.execute(query).scalar() or 0


def add_round(connection: Connection, plan: RoundPlan, at: float) -> Round:
    """Open a round, unless the detector has that one or a newer already.

    An earlier round that is open is abandoned: at most one is open.

    Args:
        connection: The transaction.
        plan: What the round asks of everybody.
        at: When, in seconds since the epoch.

    Returns:
        The newest round of the detector.
    """
    newest = newest_round(connection, plan.detector)
    # Somebody else was first: of two that open a round, one does.
    if newest is not None and newest.plan.round >= plan.round:
        return newest
    if newest is not None and newest.state == OPEN:
        number = newest.plan.round
        said = f"Round {number} is abandoned: the settings or the model changed."
        move_round(connection, plan.detector, number, ABANDONED, at, said)
    row = {
        "detector": plan.detector,
        "round": plan.round,
        "settings": json.dumps(plan.to_json()),
        "state": OPEN,
        "opened_at": at,
    }
    connection.execute(insert(ROUNDS).values(row))
    _add_event(connection, plan, at, "opened", f"Round {plan.round} is open.")
    return Round(plan, OPEN, opened_at=at)


def ask_for_updates(
    connection: Connection, plan: RoundPlan, at: float, before: float | None = None
) -> None:
    """Note that the devices are asked to train for an open round, once.

    Args:
        connection: The transaction.
        plan: The round.
        at: When, in seconds since the epoch.
        before: When they were last asked, or None: if that has changed, somebody else was first.
    """
    current = find_round(connection, plan.detector, plan.round)
    if current is None or current.asked_at != before:
        return
    # Asked again, the round is not due any more: a new deadline begins.
    if set_open_round(connection, plan, asked_at=at, due_at=None):
        said = f"The devices are asked to train for round {plan.round}."
        _add_event(connection, plan, at, "asked", said)


def make_due(connection: Connection, plan: RoundPlan, at: float, said: str) -> None:
    """Note that an open round is to be summed now, once; `said` is why."""
    current = find_round(connection, plan.detector, plan.round)
    if current is None or current.due_at is not None:
        return
    if set_open_round(connection, plan, due_at=at):
        _add_event(connection, plan, at, "due", said)


def count_bytes_down(connection: Connection, detector: str, size: int) -> None:
    """Count bytes of models that devices were given with the detector's newest round.

    A single statement: it needs no write lock.
    """
    mine = ROUNDS.c.detector == detector
    newest = select(func.max(ROUNDS.c.round)).where(mine)
    change = ROUNDS.update().where(mine, ROUNDS.c.round == newest.scalar_subquery())
    more = ROUNDS.c.bytes_down + size
    connection.execute(change.values(bytes_down=more))


def vouch(connection: Connection, plan: RoundPlan, devices: list[str]) -> None:
    """Note whose seeds opened in a round: their updates may be in its sum from now on.

    Noted before the aggregator hears of it, so that no frozen cohort is unknown here.
    """
    set_open_round(connection, plan, vouched=json.dumps(devices))


def is_vouched(connection: Connection, detector: str, number: int) -> bool:
    """Return whether an aggregator may have frozen a cohort of a round."""
    query = select(ROUNDS.c.vouched)
    query = query.where(ROUNDS.c.detector == detector, ROUNDS.c.round == number)
    return connection.execute(query).scalar() not in (None, "[]")


def abandon_round(connection: Connection, plan: RoundPlan, at: float, said: str) -> None:
    """Abandon a round if it is open."""
    move_round(connection, plan.detector, plan.round, ABANDONED, at, said)


def abandon_vouched(connection: Connection, device: str, at: float) -> None:
    """Abandon the open rounds whose sums a device may be in, because it is no member any more."""
    columns = (
        ROUNDS.c.detector,
        ROUNDS.c.round,
        ROUNDS.c.vouched,
    )
    open_rounds = select(*columns).where(ROUNDS.c.state == OPEN)
    # All are read before the first is moved: no cursor is open over rows that change.
    for row in connection.execute(open_rounds).mappings().all():
        if device not in json.loads(row["vouched"]):
            continue
        number = row["round"]
        said = f"Round {number} is abandoned: its sum may include {device}, no longer a member."
        move_round(connection, row["detector"], number, ABANDONED, at, said)


def fail_round(connection: Connection, plan: RoundPlan, aggregate: str, at: float) -> None:
    """Close an open round whose sum cannot be used; `aggregate` is the sum's digest."""
    said = f"Round {plan.round} has failed: its sum did not unmask to a usable mean."
    values = {"aggregate": aggregate}
    move_round(connection, plan.detector, plan.round, FAILED, at, said, **values)


def set_open_round(connection: Connection, plan: RoundPlan, **values: object) -> bool:
    """Set columns of a round if it is open; return whether it is."""
    where = and_(
        ROUNDS.c.detector == plan.detector,
        ROUNDS.c.round == plan.round,
        ROUNDS.c.state == OPEN,
    )
    change = ROUNDS.update().where(where).values(values)
    return connection.execute(change).rowcount == 1


def round_of(row: Mapping[Any, Any]) -> Round:
    """Return the round in a row of the table of rounds."""
    columns = set(Round.__dataclass_fields__) - {"plan", "cohort"}
    values = {name: row[name] for name in columns}
    plan = parse_stored_plan(row["settings"])
    cohort = tuple(json.loads(row["cohort"]))
    return Round(plan=plan, cohort=cohort, **values)


def _add_event(connection: Connection, plan: RoundPlan, at: float, kind: str, said: str) -> None:
    add_event(connection, at, kind, said, detector=plan.detector, round=plan.round)
