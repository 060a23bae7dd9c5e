"""How rounds and versions ended, counted since the first of them, for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select

from main_server.store.records import PENDING
from main_server.store.states import OPEN
from main_server.store.tables import ROUNDS, VERSIONS
from shared.storage.database import Database

Endings = Iterable[tuple[str, str, int]]
_ROUNDS = select(ROUNDS.c.detector, ROUNDS.c.state, func.count()).where(ROUNDS.c.state != OPEN)
_ROUNDS = _ROUNDS.group_by(ROUNDS.c.detector, ROUNDS.c.state)
_VERSIONS = select(VERSIONS.c.detector, VERSIONS.c.gate, func.count()).where(
    VERSIONS.c.gate != PENDING
)
_VERSIONS = _VERSIONS.group_by(VERSIONS.c.detector, VERSIONS.c.gate)


def read_endings(database: Database) -> tuple[Endings, Endings]:
    """Return, of rounds and of versions: detector, how they ended, how many did."""
    with database.read() as connection:
        rounds, versions = connection.execute(_ROUNDS).all(), connection.execute(_VERSIONS).all()
    return [(row[0], row[1], row[2]) for row in rounds], [
        (row[0], row[1], row[2]) for row in versions
    ]
