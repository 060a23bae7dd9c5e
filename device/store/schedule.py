"""The scheduled trainings of each detector: what the schedule last asked for, and whether it is
still to be done.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from device.store.records import ScheduledTraining
from device.store.rows import put, row_of
from device.store.tables import ERRANDS, TRAININGS
from shared.storage.database import Database


class ScheduleStore:
    """The scheduled trainings of one device; each method is one transaction.

    Args:
        database: The device's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, detector: str, pictures: int, day: str = "") -> None:
        """Record that the schedule asks for a training.

        Args:
            detector: The detector to be trained.
            pictures: Number of training pictures that it has now.
            day: "2026-05-09" where the time of day asks for it; else empty, and the last day stays.
        """
        newest = select(func.max(TRAININGS.c.id)).where(TRAININGS.c.detector == detector)
        with self._database.write() as connection:
            row = row_of(connection, ERRANDS, detector)
            last_day = row["day"] if row else ""
            values = {
                "detector": detector,
                "day": day or last_day,
                "pictures": pictures,
                "after": connection.execute(newest).scalar() or 0,
            }
            put(connection, ERRANDS, values)

    def end(self, detector: str) -> None:
        """Record that a scheduled training is done, or cannot be."""
        mine = ERRANDS.update().where(ERRANDS.c.detector == detector)
        # Not alone: one statement needs no lock that keeps other writers out beforehand.
        with self._database.write(alone=False) as connection:
            connection.execute(mine.values(after=None))

    def latest(self, detector: str) -> ScheduledTraining | None:
        """Return the last scheduled training of a detector, or None."""
        with self._database.read() as connection:
            row = row_of(connection, ERRANDS, detector)
        return None if row is None else ScheduledTraining(**row)


def note_pictures(connection: Connection, detector: str, pictures: int) -> None:
    """Count new pictures from this number on: a training has just used that many."""
    mine = ERRANDS.update().where(ERRANDS.c.detector == detector)
    connection.execute(mine.values(pictures=pictures))
