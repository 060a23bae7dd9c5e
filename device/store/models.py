"""The global models that a device has: the active one of each detector, the candidate for it, and
how each did on the validation pictures here.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select

from device.store.failures import put_failure
from device.store.records import Failure, GlobalModel, Score
from device.store.rows import put, row_of
from device.store.tables import CANDIDATES, MODELS, SCORES
from shared.storage.database import Database


class ModelStore:
    """The global models of one device; each method is one transaction.

    Args:
        database: The device's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def propose(self, model: GlobalModel) -> GlobalModel | None:
        """Make a model the candidate of its detector, unless it is active already.

        Returns:
            None; or the active model or candidate of a later round, which stays.
        """
        with self._database.write() as connection:
            for table in (MODELS, CANDIDATES):
                row = row_of(connection, table, model.detector)
                if row is not None and row["round"] > model.round:
                    return GlobalModel(**row)
                if row is not None and row["version"] == model.version:
                    return None
            put(connection, CANDIDATES, asdict(model))
            return None

    def candidate(self, detector: str) -> GlobalModel | None:
        """Return the global model of a detector that is not validated yet, or None."""
        with self._database.read() as connection:
            row = row_of(connection, CANDIDATES, detector)
        return None if row is None else GlobalModel(**row)

    def candidates(self) -> tuple[str, ...]:
        """Return the detectors that have a candidate."""
        query = select(CANDIDATES.c.detector).order_by(CANDIDATES.c.detector)
        with self._database.read() as connection:
            return tuple(connection.execute(query).scalars())

    def activate(self, model: GlobalModel, score: Score | None = None) -> bool:
        """Make a model the active one, unless that is of a later round.

        Args:
            model: The model; it is no candidate any more.
            score: How it did on the validation pictures here.

        Returns:
            Whether it is active now.
        """
        with self._database.write() as connection:
            _remove_candidate(connection, model)
            row = row_of(connection, MODELS, model.detector)
            if row is not None and row["round"] > model.round:
                return False
            put(connection, MODELS, asdict(model))
            if score is not None:
                _put_score(connection, score)
            return True

    def reject(self, model: GlobalModel, detail: str) -> None:
        """Record that a candidate failed validation, as a failure of its round.

        The active model stays.

        Args:
            model: The model; it is no candidate any more.
            detail: Why, one or more sentences.
        """
        score = Score(model.version, model.detector, model.round, None, 0, detail)
        with self._database.write() as connection:
            _remove_candidate(connection, model)
            _put_score(connection, score)
            put_failure(connection, Failure(model.detector, model.round, detail))

    def active(self, detector: str) -> GlobalModel | None:
        """Return the active global model of a detector, or None."""
        with self._database.read() as connection:
            row = row_of(connection, MODELS, detector)
        return None if row is None else GlobalModel(**row)

    def all_active(self) -> dict[GlobalModel, float | None]:
        """Return the active models, each with its threshold, or None where none was chosen."""
        with_threshold = select(MODELS, SCORES.c.threshold)
        query = with_threshold.outerjoin(SCORES, SCORES.c.version == MODELS.c.version)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {GlobalModel(row.detector, row.version, row.round): row.threshold for row in rows}

    def score(self, version: str) -> Score | None:
        """Return how a version did here, or None if it was never validated."""
        return self._newest_score(SCORES.c.version == version)

    def newest_score(self, detector: str) -> Score | None:
        """Return how the newest version did that was measured here, or None."""
        return self._newest_score(SCORES.c.detector == detector, SCORES.c.accuracy.is_not(None))

    def scores(self, detector: str, limit: int) -> tuple[Score, ...]:
        """Return how the newest versions did here, newest first, at most `limit`."""
        query = select(SCORES).where(SCORES.c.detector == detector)
        newest = query.order_by(SCORES.c.round.desc()).limit(limit)
        with self._database.read() as connection:
            rows = connection.execute(newest).mappings()
            return tuple(Score(**row) for row in rows)

    def rejected(self, detector: str) -> str | None:
        """Return the newest version that was rejected here, or None.

        It is None as well where a newer version is active since.
        """
        with self._database.read() as connection:
            score = _newest_score(
                connection, SCORES.c.detector == detector, SCORES.c.accuracy.is_(None)
            )
            active = row_of(connection, MODELS, detector)
        if score is None:
            return None
        # A version can be active without accuracy: where there are no validation pictures.
        if active and (active["version"] == score.version or active["round"] > score.round):
            return None
        return score.version

    def _newest_score(self, *which: ColumnElement[bool]) -> Score | None:
        with self._database.read() as connection:
            return _newest_score(connection, *which)


def _newest_score(connection: Connection, *which: ColumnElement[bool]) -> Score | None:
    query = select(SCORES).where(*which).order_by(SCORES.c.round.desc()).limit(1)
    row: Any = connection.execute(query).mappings().first()
    return None if row is None else Score(**row)


def _put_score(connection: Connection, score: Score) -> None:
    connection.execute(SCORES.delete().where(SCORES.c.version == score.version))
    connection.execute(insert(SCORES).values(asdict(score)))


def _remove_candidate(connection: Connection, model: GlobalModel) -> None:
    """Remove a candidate; one that came meanwhile stays."""
    same = (CANDIDATES.c.detector == model.detector) & (CANDIDATES.c.version == model.version)
    connection.execute(CANDIDATES.delete().where(same))
