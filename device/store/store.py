"""What a device remembers, in one database: a repository for each concern, and what spans them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, Table, func, select

from device.store.evaluations import EvaluationStore
from device.store.failures import FailureStore
from device.store.models import ModelStore
from device.store.rounds import RoundStore
from device.store.schedule import ScheduleStore
from device.store.tables import (
    CANDIDATES,
    MEASUREMENTS,
    MIGRATIONS,
    MODELS,
    ROUNDS,
    SCORES,
    SETBACKS,
    TRAININGS,
)
from device.store.trainings import TrainingStore, newest_of
from shared.storage.database import Database


class DeviceStore:
    """A device's database.

    Args:
        folder: The device's folder.
        url: A PostgreSQL database; None for SQLite in the folder.

    Attributes:
        database: The database.
        models: Global models and their scores.
        trainings: Trainings and their updates.
        evaluations: Evaluations.
        rounds: Rounds it knows of.
        failures: What failed last.
        schedule: Scheduled trainings.
    """

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.database = Database.open(folder, MIGRATIONS, url)
        self.models = ModelStore(self.database)
        self.trainings = TrainingStore(self.database)
        self.evaluations = EvaluationStore(self.database)
        self.rounds = RoundStore(self.database)
        self.failures = FailureStore(self.database)
        self.schedule = ScheduleStore(self.database)

    def fingerprint(self) -> str:
        """Return text that changes whenever something is written that the device's page shows."""
        trainings = select(func.max(TRAININGS.c.id), func.sum(TRAININGS.c.sent))
        scores = select(func.count(), func.max(SCORES.c.round)).select_from(SCORES)
        whole = (MODELS, CANDIDATES, SETBACKS, MEASUREMENTS)
        with self.database.read() as connection:
            newest = connection.execute(trainings).one()
            others = [tuple(connection.execute(select(table)).all()) for table in whole]
            score = connection.execute(scores).one()
            rounds = connection.execute(select(ROUNDS.c.settings)).all()
        return repr((newest, others, score, rounds))

    def forget_old(self, keep: int) -> frozenset[str]:
        """Forget all but the newest trainings and scores of each detector.

        Args:
            keep: How many of each are kept.

        Returns:
            Digests of the blobs that are still needed.
        """
        # One transaction: a blob that something written meanwhile needs would miss in the answer.
        with self.database.write() as connection:
            _forget(connection, TRAININGS, TRAININGS.c.id, TRAININGS.c.id, keep)
            _forget(connection, SCORES, SCORES.c.version, SCORES.c.round, keep)
            return _needed_blobs(connection)


def _forget(
    connection: Connection, table: Table, key: Column[object], age: Column[object], keep: int
) -> None:
    """Delete all but the newest rows of each detector.

    Args:
        connection: The transaction.
        table: A table with a column "detector".
        key: Its primary key.
        age: The column by which newer rows are greater.
        keep: How many rows of each detector are kept.
    """
    for detector in _detectors(connection, table):
        newest_first = select(key).where(table.c.detector == detector).order_by(age.desc())
        old = connection.execute(newest_first.offset(keep)).scalars().all()
        connection.execute(table.delete().where(key.in_(old)))


def _needed_blobs(connection: Connection) -> frozenset[str]:
    needed: set[str | None] = set()
    # Of a training's base, only the newest is needed: the next update is the difference to it.
    for detector in _detectors(connection, TRAININGS):
        needed.add(newest_of(connection, detector, TRAININGS.c.base_version).scalar())
    columns = (
        TRAININGS.c.local_model,
        TRAININGS.c.plot,
        TRAININGS.c.update,
        MEASUREMENTS.c.report,
        MEASUREMENTS.c.plot,
        MODELS.c.version,
        CANDIDATES.c.version,
    )
    for column in columns:
        needed.update(connection.execute(select(column)).scalars())
    return frozenset(digest for digest in needed if digest is not None)


def _detectors(connection: Connection, table: Table) -> list[str]:
    return list(connection.execute(select(table.c.detector).distinct()).scalars())
