"""The states of a round, and the one function that changes them.

    open        updates are collected
    published   a version came of its one sum
    failed      its one sum could not be used
    abandoned   given up: other settings, a member revoked, or another version activated

Nothing leads back, and at most one round per detector is open; docs/explanation/architecture.md has
the table. Each change is written down as an event in the same transaction.
"""

from __future__ import annotations

from sqlalchemy import Connection

from main_server.store.events import add_event
from main_server.store.tables import ROUNDS

OPEN, PUBLISHED, FAILED, ABANDONED = "open", "published", "failed", "abandoned"
TRANSITIONS = {OPEN: (PUBLISHED, FAILED, ABANDONED)}


def move_round(
    connection: Connection,
    detector: str,
    number: int,
    to: str,
    at: float,
    said: str,
    **values: object,
) -> bool:
    """Bring a round into another state.

    Args:
        connection: The transaction.
        detector: Whose round.
        number: Its number.
        to: The new state.
        at: When, in seconds since the epoch.
        said: Why, one sentence, for the event.
        values: More columns to set.

    Returns:
        False if no transition leads there from the round's state; then nothing was changed.
    """
    origins = [state for state, targets in TRANSITIONS.items() if to in targets]
    # The state is part of the condition: of two that move one round, only the first does.
    is_allowed = (
        ROUNDS.c.detector == detector,
        ROUNDS.c.round == number,
        ROUNDS.c.state.in_(origins),
    )
    change = ROUNDS.update().where(*is_allowed).values(state=to, closed_at=at, **values)
    moved = connection.execute(change).rowcount == 1
    if moved:
        add_event(connection, at, to, said, detector=detector, round=number)
    return moved
