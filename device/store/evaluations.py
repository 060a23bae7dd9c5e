"""The last evaluation of each detector, and whether the main server has its figures."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Update, select

from device.store.records import Evaluation
from device.store.rows import put, row_of
from device.store.tables import MEASUREMENTS
from shared.storage.database import Database


class EvaluationStore:
    """The evaluations of one device; each method is one transaction.

    Args:
        database: The device's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, evaluation: Evaluation) -> None:
        """Keep an evaluation in place of the detector's last one."""
        with self._database.write() as connection:
            put(connection, MEASUREMENTS, asdict(evaluation))

    def latest(self, detector: str) -> Evaluation | None:
        """Return the last evaluation of a detector, or None."""
        with self._database.read() as connection:
            row = row_of(connection, MEASUREMENTS, detector)
        return None if row is None else Evaluation(**row)

    def unreported(self) -> tuple[Evaluation, ...]:
        """Return the evaluations that the main server does not have, newest first."""
        query = select(MEASUREMENTS).where(MEASUREMENTS.c.told == 0)
        newest_first = query.order_by(MEASUREMENTS.c.measured_at.desc())
        with self._database.read() as connection:
            rows = connection.execute(newest_first).mappings()
            return tuple(Evaluation(**row) for row in rows)

    def keep_plot(self, evaluation: Evaluation, plot: str) -> None:
        """Keep the digest of an evaluation's plot, if it is still the detector's last one."""
        with self._database.write(alone=False) as connection:
            connection.execute(_update(evaluation).values(plot=plot))

    def record_reported(self, evaluation: Evaluation) -> None:
        """Record that the main server has an evaluation's figures.

        One that has taken its place meanwhile stays unreported.
        """
        with self._database.write() as connection:
            connection.execute(_update(evaluation).values(told=1))


def _update(evaluation: Evaluation) -> Update:
    """Begin an update of an evaluation's row, but not of a later evaluation's."""
    return MEASUREMENTS.update().where(
        MEASUREMENTS.c.detector == evaluation.detector,
        MEASUREMENTS.c.report == evaluation.report,
    )
