"""The log of events: what happened, in the order in which it happened.

An event is written in the transaction of the change that it tells of. So whoever waits for a
change only looks at the number of the newest event.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, select

from main_server.store.tables import EVENTS

# About a month of a federation that runs day and night; what is older is only history.
MAX_EVENTS = 10_000


@dataclass(frozen=True)
class Event:
    """Something that happened; `at` is seconds since the epoch."""

    id: int
    at: float
    kind: str
    detector: str | None
    round: int | None
    device: str | None
    said: str


def add_event(connection: Connection, at: float, kind: str, said: str, **about: object) -> None:
    """Write down what happened.

    Args:
        connection: The transaction in which it happens.
        at: When, in seconds since the epoch.
        kind: One word or two, as "published".
        said: What happened, one sentence.
        about: `detector`, `round` and `device`, as far as it is about one.
    """
    connection.execute(insert(EVENTS).values(at=at, kind=kind, said=said, **about))


def newest_events(connection: Connection, count: int) -> tuple[Event, ...]:
    """Return the newest events, newest first."""
    query = select(EVENTS).order_by(EVENTS.c.id.desc()).limit(count)
    rows = connection.execute(query).mappings()
    return tuple(Event(**row) for row in rows)


def count_events(connection: Connection) -> int:
    """Return how many events are kept."""
    query = select(func.count()).select_from(EVENTS)
    return connection.execute(query).scalar() or 0


def newest_event_id(connection: Connection) -> int:
    """Return the number of the newest event, 0 before the first.

    As long as it is the same, nothing has changed.
    """
    return connection.execute(select(func.max(EVENTS.c.id))).scalar() or 0


def forget_old_events(connection: Connection) -> None:
    """Delete all but the newest events."""
    newest = newest_event_id(connection)
    connection.execute(EVENTS.delete().where(EVENTS.c.id <= newest - MAX_EVENTS))
