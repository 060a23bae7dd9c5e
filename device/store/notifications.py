"""How far each way of telling the owner has come: the number of the last event that it is done
with.
"""

from __future__ import annotations

from sqlalchemy import insert, select

from device.store.tables import TOLD
from shared.storage.database import Database


class ToldStore:
    """One row a teller, in the device's database: whoever restores a backup has it in step with the
    events.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self, teller: str) -> int | None:
        """Return the last event that a teller is done with, or None if it never had any."""
        with self._database.read() as connection:
            return connection.execute(
                select(TOLD.c.happening).where(TOLD.c.teller == teller)
            ).scalar()

    def note(self, teller: str, happening: int) -> None:
        """Note that a teller is done with an event, and with all before it."""
        with self._database.write() as connection:
            connection.execute(TOLD.delete().where(TOLD.c.teller == teller))
            connection.execute(insert(TOLD).values(teller=teller, happening=happening))
