"""Whether a page should show something else, in one statement."""

from __future__ import annotations

from sqlalchemy import Connection, FromClause, Subquery, and_, func, select, true

from main_server.store.states import OPEN
from main_server.store.tables import CONTRIBUTIONS, DEVICES, EVENTS, PARTICIPATIONS, ROUNDS


def change_token(connection: Connection, seen_since: float = 0.0) -> str:
    """Return text that is another one when a page should show something else.

    Args:
        connection: The transaction.
        seen_since: A device that asked for work since then (seconds since the epoch) is online.
    """
    # One row of each joined without a condition is one row of all: one statement, one moment.
    together: FromClause = select(func.max(EVENTS.c.id)).subquery()
    for counted in (_online(seen_since), _participations(), _sent()):
        together = together.join(counted, true())
    return str(tuple(connection.execute(select(together)).one()))


def _online(seen_since: float) -> Subquery:
    """Count the devices that are online."""
    is_online = and_(
        DEVICES.c.waiting,
        DEVICES.c.last_seen >= seen_since,
    )
    count = select(func.count()).select_from(DEVICES)
    return count.where(is_online).subquery()


def _participations() -> Subquery:
    """Count participations and failures; a failure in a later round changes the sum."""
    failed = PARTICIPATIONS.c.setback_round
    figures = (
        func.count(),
        func.count(failed),
        func.sum(failed),
    )
    return select(*figures).select_from(PARTICIPATIONS).subquery()


def _sent() -> Subquery:
    """Count the updates of open rounds; one that is sent anew has another time."""
    of_round = and_(
        CONTRIBUTIONS.c.detector == ROUNDS.c.detector,
        CONTRIBUTIONS.c.round == ROUNDS.c.round,
    )
    figures = (func.count(), func.max(CONTRIBUTIONS.c.sent_at))
    query = select(*figures).join_from(ROUNDS, CONTRIBUTIONS, of_round)
    return query.where(ROUNDS.c.state == OPEN).subquery()
