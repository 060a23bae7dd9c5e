"""Nonces that were spent, so that no signed request counts twice (RFC 9421, section 7.2.2). Every
receiver keeps them.

`Nonces` is for a service on one machine: one small SQLite database for all its workers. It is
written without a sync: a killed process forgets nothing; a power cut may lose the last moments, and
then a request of the last minutes could be repeated, which the protocol's messages all bear. It
costs no wait for the disk on each request. `SharedNonces` is for a service on several machines with
one PostgreSQL: it has them in the service's database.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from shared.errors import StorageFailed
from shared.storage.database import Database

SWEEP_EVERY = 256
BUSY_TIMEOUT_S = 30.0

_PREPARE = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS nonces (
    key_id TEXT NOT NULL, nonce TEXT NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (key_id, nonce)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nonces_expires ON nonces (expires);
"""


class Spending(Protocol):
    """Where nonces are spent."""

    def spend(self, key_id: str, nonce: str, expires: int, now: float) -> bool:
        """Spend a nonce; see `Nonces.spend`."""


class SharedNonces:
    """The spent nonces of a service on several machines, in its PostgreSQL database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._calls = 0

    def spend(self, key_id: str, nonce: str, expires: int, now: float) -> bool:
        """Spend a nonce; see `Nonces.spend`."""
        if self._calls % SWEEP_EVERY == 0:
            with (
                self._database.write() as connection
            ):  # one sweeps at a time: two could wait for one another
                connection.exec_driver_sql("DELETE FROM nonces WHERE expires < %s", (now,))
        self._calls += 1
        with self._database.write(alone=False) as connection:
            insert = "INSERT INTO nonces VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            return connection.exec_driver_sql(insert, (key_id, nonce, expires)).rowcount == 1


def open_nonces(database: Database) -> Spending:
    """Return where the service with this database spends its nonces."""
    return SharedNonces(database) if database.shared else Nonces(database.folder)


class Nonces:
    """The spent nonces of one service; any number of threads and processes may share the folder.

    Args:
        folder: The service's own folder; made if missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "nonces.sqlite3"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._calls = 0

    def spend(self, key_id: str, nonce: str, expires: int, now: float) -> bool:
        """Spend a nonce; one statement, so that of all who try at once exactly one succeeds.

        Args:
            key_id: Who signed with it; the same nonce of another key is another nonce.
            nonce: What was signed.
            expires: From when on the request is refused for its age, in seconds since the epoch;
                the nonce is remembered up to and including then.
            now: Seconds since the epoch.

        Returns:
            False if it was spent before.
        """
        with self._lock, _failures(self._path):
            connection = self._open()
            if self._calls % SWEEP_EVERY == 0:
                connection.execute("DELETE FROM nonces WHERE expires < ?", (now,))
            self._calls += 1
            spent = connection.execute(
                "INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", (key_id, nonce, expires)
            )
            return spent.rowcount == 1

    def close(self) -> None:
        """Let go of the database; the next `spend` opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        """Return this process's connection: a forked worker must not use its parent's."""
        if self._connection is None or self._process != os.getpid():
            self._connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._process = os.getpid()
            with self._path.with_suffix(".lock").open(
                "a"
            ) as turn:  # SQLite's time-out does not cover this pragma
                fcntl.flock(turn, fcntl.LOCK_EX)
                self._connection.executescript(_PREPARE)
        return self._connection


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Say in plain words that nonces cannot be kept: without that, no message may be taken."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StorageFailed(
            f"No message can be taken: {path.parent.name}/{path.name} cannot be written ({error}).",
            kept="What was stored before is kept.",
            todo="Look at the disk: it may be full, or closed to this service; then send it again.",
        ) from error
