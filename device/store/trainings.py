"""The trainings of a device, and the one update that is made of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, RowMapping, func, insert, select

from device.store.failures import clear_failure
from device.store.records import Training
from device.store.schedule import note_pictures
from device.store.tables import TRAININGS
from shared.storage.database import Database


class TrainingStore:
    """The trainings of one device; each method is one transaction.

    Args:
        database: The device's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a finished training; it puts failures right, up to its round.

        Args:
            values: The attributes of `Training` but for `id`, `update` and `sent`.
        """
        row = dict(values) | {"history": json.dumps(values["history"]), "sent": 0}
        detector = values["detector"]
        with self._database.write() as connection:
            connection.execute(insert(TRAININGS).values(row))
            clear_failure(connection, detector, values["round"])
            note_pictures(connection, detector, values.get("pictures", 0))

    def newest(self, detector: str) -> Training | None:
        """Return the newest training of a detector, or None."""
        with self._database.read() as connection:
            row = newest_of(connection, detector, TRAININGS).mappings().first()
        return None if row is None else _training(row)

    def newest_rounds(self) -> dict[str, int]:
        """Return the round that each detector's newest training was for."""
        newest = select(func.max(TRAININGS.c.id)).group_by(TRAININGS.c.detector)
        query = select(TRAININGS.c.detector, TRAININGS.c.round).where(TRAININGS.c.id.in_(newest))
        with self._database.read() as connection:
            return {row.detector: row.round for row in connection.execute(query)}

    def recent(self, detector: str, limit: int) -> tuple[Training, ...]:
        """Return the newest trainings of a detector, newest first, at most `limit`."""
        query = select(TRAININGS).where(TRAININGS.c.detector == detector)
        newest = query.order_by(TRAININGS.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return tuple(_training(row) for row in connection.execute(newest).mappings())

    def sent_round(self, detector: str) -> int | None:
        """Return the round of the newest training whose update was accepted, or None."""
        with self._database.read() as connection:
            sent: int | None = newest_of(
                connection, detector, TRAININGS.c.round, TRAININGS.c.sent == 1
            ).scalar()
            return sent

    def keep_update(self, training: Training, update: str) -> str:
        """Keep the digest of the one update that is made of a training.

        Args:
            training: The training.
            update: Digest of an update, 64 hexadecimal digits.

        Returns:
            The digest that is kept: the first one, however many contend.
        """
        mine = TRAININGS.c.id == training.id
        # The first one stays: a repeated upload is the same bytes, and the aggregator counts it
        # once.
        with self._database.write() as connection:
            known = connection.execute(select(TRAININGS.c.update).where(mine)).scalar()
            if known is None:
                connection.execute(TRAININGS.update().where(mine).values(update=update))
            return known or update

    def keep_plot(self, training: Training, plot: str) -> None:
        """Keep the digest of a training's plot, once somebody has looked at it."""
        mine = TRAININGS.update().where(TRAININGS.c.id == training.id)
        with self._database.write(alone=False) as connection:
            connection.execute(mine.values(plot=plot))

    def record_sent(self, training: Training) -> None:
        """Record that a training's update was accepted; it puts failures right, up to its round."""
        mine = TRAININGS.update().where(TRAININGS.c.id == training.id)
        with self._database.write() as connection:
            connection.execute(mine.values(sent=1))
            clear_failure(connection, training.detector, training.round)


def newest_of(
    connection: Connection, detector: str, what: Any, *which: ColumnElement[bool]
) -> CursorResult[Any]:
    """Select `what` of a detector's newest training, or of the newest for which `which` holds."""
    query = select(what).where(TRAININGS.c.detector == detector, *which)
    return connection.execute(query.order_by(TRAININGS.c.id.desc()).limit(1))


def _training(row: RowMapping) -> Training:
    return Training(**(dict(row) | {"history": json.loads(row["history"])}))
