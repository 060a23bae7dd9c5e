"""How far each notification channel has come: the number of its last delivery."""

from __future__ import annotations

from sqlalchemy import insert, select

from device.store.tables import TOLD
from shared.storage.database import Database


class DeliveryStore:
    """One row a channel, in the device's database: a restored backup has it in step with the
    events.

    Args:
        database: The device's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self, channel: str) -> int | None:
        """Return the number of a channel's last delivery, or None if it never had one."""
        with self._database.read() as connection:
            query = select(TOLD.c.happening).where(TOLD.c.teller == channel)
            return connection.execute(query).scalar()

    def record(self, channel: str, event: int) -> None:
        """Record that a channel is done with an event, and with all before it."""
        with self._database.write() as connection:
            connection.execute(TOLD.delete().where(TOLD.c.teller == channel))
            connection.execute(insert(TOLD).values(teller=channel, happening=event))
