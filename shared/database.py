"""One way to open a database, for every service. SQL itself stands in each service's `store.py`.

Every transaction takes the write lock when it begins, so "look, then write" is one step whichever worker does it,
and it is on disk when the answer goes out (WAL with full sync).
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event


def open_database(folder: Path, tables: MetaData) -> Engine:
    """Open the SQLite database of a service, and make the tables it lacks.

    Args:
        folder: The service's own folder; made if missing, and closed to everybody but its owner.
        tables: What the database holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    engine = create_engine(f"sqlite:///{folder / 'state.sqlite3'}", connect_args={"timeout": 30})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with _alone(folder), engine.begin() as connection:
        tables.create_all(connection)
    return engine


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one worker at a time prepare the database: SQLite's time-out does not cover the switch to WAL."""
    with (folder / ".preparing").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # sqlite3 would begin by itself, and too late
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
