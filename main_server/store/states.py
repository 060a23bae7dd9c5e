"""The states of a round at the main server, and the one function that changes them.

docs/explanation/architecture.md has the table.

    open        updates are collected
    published   a version came of its one sum
    failed      its one sum made no sense
    abandoned   given up: other settings, a member revoked, or another version in force

Nothing leads back, and at most one round per detector is open. What changes is written down as an
event, in the same transaction; whoever waits for news looks at the number of the newest event.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert

from main_server.store.tables import EVENTS, ROUNDS

OPEN, PUBLISHED, FAILED, ABANDONED = "open", "published", "failed", "abandoned"
TRANSITIONS = {OPEN: (PUBLISHED, FAILED, ABANDONED)}


def move(
    connection: Connection,
    detector: str,
    number: int,
    to: str,
    at: float,
    said: str,
    **values: object,
) -> bool:
    """Bring a round into another state, and set more of its columns; False if no way leads there
    from where it is.
    """
    origins = [state for state, ways in TRANSITIONS.items() if to in ways]
    mine = (ROUNDS.c.detector == detector, ROUNDS.c.round == number, ROUNDS.c.state.in_(origins))
    moved = (
        connection.execute(
            ROUNDS.update().where(*mine).values(state=to, closed_at=at, **values)
        ).rowcount
        == 1
    )
    if moved:
        note(connection, at, to, said, detector=detector, round=number)
    return moved


def note(connection: Connection, at: float, kind: str, said: str, **about: object) -> None:
    """Write down what happened.

    Args:
        connection: The transaction in which it happens.
        at: When, in seconds since the epoch.
        kind: One word or two, as "published".
        said: What happened, one sentence.
        about: `detector`, `round` and `device`, as far as it is about one.
    """
    connection.execute(insert(EVENTS).values(at=at, kind=kind, said=said, **about))
