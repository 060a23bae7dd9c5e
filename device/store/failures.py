"""The last failure of each detector, until a later training or update puts it right."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection

from device.store.records import Failure
from device.store.rows import put, row_of
from device.store.tables import SETBACKS
from shared.storage.database import Database


class FailureStore:
    """The last failures of one device; each method is one transaction.

    Args:
        database: The device's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, failure: Failure) -> None:
        """Record a failure in place of the detector's last one."""
        with self._database.write() as connection:
            put_failure(connection, failure)

    def latest(self, detector: str) -> Failure | None:
        """Return the last failure of a detector, or None if it has been put right since."""
        with self._database.read() as connection:
            row = row_of(connection, SETBACKS, detector)
        return None if row is None else Failure(**row)


def put_failure(connection: Connection, failure: Failure) -> None:
    """Record a failure in a transaction that does more."""
    put(connection, SETBACKS, asdict(failure))


def clear_failure(connection: Connection, detector: str, round_number: int) -> None:
    """Forget a detector's failure, if it was of this round or an earlier one."""
    put_right = (SETBACKS.c.detector == detector) & (SETBACKS.c.round <= round_number)
    connection.execute(SETBACKS.delete().where(put_right))
