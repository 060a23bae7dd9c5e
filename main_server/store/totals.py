"""How rounds and versions ended, counted since the first of them, for `/metrics`."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Column, Connection, func, select

from main_server.store.records import PENDING
from main_server.store.states import OPEN
from main_server.store.tables import ROUNDS, VERSIONS


class Ending(NamedTuple):
    """How many rounds or versions of a detector ended in one way."""

    detector: str
    outcome: str
    total: int


def round_endings(connection: Connection) -> list[Ending]:
    """Return how the rounds of each detector ended."""
    return _count(connection, ROUNDS.c.detector, ROUNDS.c.state, OPEN)


def version_endings(connection: Connection) -> list[Ending]:
    """Return how the gate of each detector's versions closed."""
    return _count(connection, VERSIONS.c.detector, VERSIONS.c.gate, PENDING)


def _count(
    connection: Connection, detector: Column[str], outcome: Column[str], unfinished: str
) -> list[Ending]:
    query = select(detector, outcome, func.count()).where(outcome != unfinished)
    rows = connection.execute(query.group_by(detector, outcome))
    return [Ending(*row) for row in rows]
