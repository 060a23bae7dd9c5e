"""SQLite for one service: WAL mode, full sync, the write lock taken at the beginning."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

FILE_NAME = "state.sqlite3"
_SHORTLY_S = 0.1
"""How long emptying the log waits for the others: it can be asked again at any time."""


def sqlite_engine(folder: Path) -> Engine:
    """Return an engine for the SQLite file in a service's folder.

    Args:
        folder: The service's own folder; the file in it is `state.sqlite3`.
    """
    engine = create_engine(f"sqlite:///{folder / FILE_NAME}", connect_args={"timeout": 30})

    def prepare(connection: Any, _record: object) -> None:
        # sqlite3 would begin by itself, and too late: only at the first statement that writes.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        # An answer that went out must survive a power cut: sync the log at every commit.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # SQLite's own default depends on who built it.
        connection.execute("PRAGMA secure_delete = ON")

    def begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock at once, so that "look, then write" is one step.
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def copy_to(folder: Path, path: Path) -> None:
    """Copy the database in a folder, as it is at one moment, into another SQLite file.

    Raises:
        sqlite3.Error: One of them cannot be opened, read or written.
    """
    with (
        closing(sqlite3.connect(folder / FILE_NAME)) as one,
        closing(sqlite3.connect(path)) as copy,
    ):
        one.backup(copy)


def empty_log(folder: Path, *, rewrite: bool) -> bool:
    """Write the write-ahead log back into the database and empty it.

    Args:
        folder: The service's own folder.
        rewrite: Whether to rewrite the database's file as well.

    Returns:
        False if another connection reads or writes just now.

    Raises:
        sqlite3.Error: The disk refuses, or the database stays locked.
    """
    path = folder / FILE_NAME
    with closing(sqlite3.connect(path, _SHORTLY_S, isolation_level=None)) as connection:
        if rewrite:
            connection.execute("VACUUM")
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    return not busy
