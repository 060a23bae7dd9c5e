"""What a device remembers: its global models, its trainings and what it sent, what went wrong, and
what is due.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Table, func, insert, select

from device.store.records import Errand, Held, Measurement, Score, Setback, Training
from device.store.tables import (
    CANDIDATES,
    ERRANDS,
    MEASUREMENTS,
    MIGRATIONS,
    MODELS,
    ROUNDS,
    SCORES,
    SETBACKS,
    TRAININGS,
)
from shared.round.plan import RoundPlan, parse_stored_plan
from shared.storage.database import Database


class Store:
    """The device's database; each method is one transaction."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.database = Database.open(folder, MIGRATIONS, url)

    def propose(self, model: Held) -> Held | None:
        """Let `model` wait for its answer, unless one of a later round is held or waits, which is
        returned then.

        What is in force already does not wait.
        """
        with self.database.write() as connection:
            for table in (MODELS, CANDIDATES):
                row = _row_of(connection, table, model.detector)
                if row is not None and row["round"] > model.round:
                    return Held(**row)
                if row is not None and row["version"] == model.version:
                    return None
            _put(connection, CANDIDATES, asdict(model))
            return None

    def candidate(self, detector: str) -> Held | None:
        """Return the global model of a detector that has not answered yet, or None."""
        with self.database.read() as connection:
            row = _row_of(connection, CANDIDATES, detector)
            return None if row is None else Held(**row)

    def candidates(self) -> tuple[str, ...]:
        """Return the detectors whose newest global model has not answered yet."""
        with self.database.read() as connection:
            return tuple(
                connection.execute(
                    select(CANDIDATES.c.detector).order_by(CANDIDATES.c.detector)
                ).scalars()
            )

    def hold(self, model: Held, score: Score | None = None) -> bool:
        """Put a model in force, with what it answered, unless one of a later round is; return
        whether it is now.
        """
        with self.database.write() as connection:
            _no_longer_waiting(connection, model)
            row = _row_of(connection, MODELS, model.detector)
            if row is not None and row["round"] > model.round:
                return False
            _put(connection, MODELS, asdict(model))
            _keep_score(connection, score)
            return True

    def turn_down(self, model: Held, said: str) -> None:
        """Note that a model does not answer: what is in force stays so, and why is a setback for
        its round.
        """
        with self.database.write() as connection:
            _no_longer_waiting(connection, model)
            _keep_score(
                connection, Score(model.version, model.detector, model.round, None, 0, said)
            )
            _put(
                connection,
                SETBACKS,
                {"detector": model.detector, "round": model.round, "said": said},
            )

    def held(self, detector: str) -> Held | None:
        """Return the global model of a detector that is in force, or None."""
        with self.database.read() as connection:
            row = _row_of(connection, MODELS, detector)
            return None if row is None else Held(**row)

    def in_force(self) -> dict[Held, float | None]:
        """Return the models that are in force, each with the threshold of its verdict, if one was
        chosen.
        """
        with self.database.read() as connection:
            query = select(MODELS, SCORES.c.threshold)
            rows = connection.execute(
                query.outerjoin(SCORES, SCORES.c.version == MODELS.c.version)
            ).all()
            return {Held(row.detector, row.version, row.round): row.threshold for row in rows}

    def score(self, version: str) -> Score | None:
        """Return what a version answered, or None if it was never asked."""
        with self.database.read() as connection:
            row = (
                connection.execute(select(SCORES).where(SCORES.c.version == version))
                .mappings()
                .first()
            )
            return None if row is None else Score(**row)

    def newest_score(self, detector: str) -> Score | None:
        """Return what the newest version answered that was measured here, or None."""
        with self.database.read() as connection:
            query = select(SCORES).where(
                SCORES.c.detector == detector, SCORES.c.accuracy.is_not(None)
            )
            row = (
                connection.execute(query.order_by(SCORES.c.round.desc()).limit(1))
                .mappings()
                .first()
            )
            return None if row is None else Score(**row)

    def refused(self, detector: str) -> str | None:
        """Return the newest version that did not answer here, unless a newer one is in force since;
        or None.
        """
        with self.database.read() as connection:
            query = select(SCORES).where(SCORES.c.detector == detector, SCORES.c.accuracy.is_(None))
            row = (
                connection.execute(query.order_by(SCORES.c.round.desc()).limit(1))
                .mappings()
                .first()
            )
            held = _row_of(connection, MODELS, detector)
            if row is None or (
                held and (held["version"] == row["version"] or held["round"] > row["round"])
            ):
                return None
            return str(row["version"])

    def note_setback(self, setback: Setback) -> None:
        """Note what went wrong last."""
        with self.database.write() as connection:
            _put(connection, SETBACKS, asdict(setback))

    def setback(self, detector: str) -> Setback | None:
        """Return what went wrong last, and was not made good since; or None."""
        with self.database.read() as connection:
            row = _row_of(connection, SETBACKS, detector)
            return None if row is None else Setback(**row)

    def begin_errand(self, detector: str, pictures: int, day: str = "") -> None:
        """Note that the schedule wants a training; on a `day`, if that is why."""
        with self.database.write() as connection:
            row = _row_of(connection, ERRANDS, detector)
            newest = _newest(connection, detector, TRAININGS.c.id).scalar() or 0
            values = {
                "detector": detector,
                "day": day or (row["day"] if row else ""),
                "pictures": pictures,
            }
            _put(connection, ERRANDS, values | {"after": newest})

    def end_errand(self, detector: str) -> None:
        """Note that what the schedule wanted is done, or cannot be."""
        with self.database.write(alone=False) as connection:
            connection.execute(
                ERRANDS.update().where(ERRANDS.c.detector == detector).values(after=None)
            )

    def errand(self, detector: str) -> Errand | None:
        """Return the last training by the schedule, or None."""
        with self.database.read() as connection:
            row = _row_of(connection, ERRANDS, detector)
            return None if row is None else Errand(**row)

    def remember_rounds(self, plans: Iterable[RoundPlan]) -> None:
        """Note the newest round of each detector that the device heard of.

        All in one transaction, and none where nothing is new: each ends with a sync of the disk.
        """
        with self.database.read() as connection:
            query = select(ROUNDS.c.detector, ROUNDS.c.settings)
            known = {(row.detector, row.settings) for row in connection.execute(query)}
        heard = {(plan.detector, json.dumps(plan.to_json())) for plan in plans}
        news = heard - known
        if not news:
            return
        with self.database.write() as connection:
            for detector, settings in sorted(news):
                _put(connection, ROUNDS, {"detector": detector, "settings": settings})

    def newest_round(self, detector: str) -> RoundPlan | None:
        """Return the newest round that the device heard of, or None."""
        with self.database.read() as connection:
            row = _row_of(connection, ROUNDS, detector)
            return None if row is None else parse_stored_plan(row["settings"])

    def add_training(self, values: Mapping[str, Any]) -> None:
        """Add a finished training: the attributes of `Training` but for `id`, `update` and `sent`.

        What went wrong before it, up to its round, is made good by it.
        """
        row = dict(values) | {"history": json.dumps(values["history"]), "sent": 0}
        with self.database.write() as connection:
            connection.execute(insert(TRAININGS).values(row))
            _made_good(connection, values["detector"], values["round"])
            mine = ERRANDS.update().where(ERRANDS.c.detector == values["detector"])
            connection.execute(mine.values(pictures=values.get("pictures", 0)))

    def newest_training(self, detector: str) -> Training | None:
        """Return the newest training of a detector, or None."""
        with self.database.read() as connection:
            row = _newest(connection, detector, TRAININGS).mappings().first()
            return (
                None
                if row is None
                else Training(**(dict(row) | {"history": json.loads(row["history"])}))
            )

    def trained_rounds(self) -> dict[str, int]:
        """Return the round that each detector's newest training was for."""
        newest = select(func.max(TRAININGS.c.id)).group_by(TRAININGS.c.detector)
        query = select(TRAININGS.c.detector, TRAININGS.c.round).where(TRAININGS.c.id.in_(newest))
        with self.database.read() as connection:
            return {row.detector: row.round for row in connection.execute(query)}

    def trainings(self, detector: str, limit: int) -> tuple[Training, ...]:
        """Return the newest trainings of a detector, newest first."""
        with self.database.read() as connection:
            mine = (
                select(TRAININGS)
                .where(TRAININGS.c.detector == detector)
                .order_by(TRAININGS.c.id.desc())
            )
            rows = connection.execute(mine.limit(limit)).mappings()
            return tuple(
                Training(**(dict(row) | {"history": json.loads(row["history"])})) for row in rows
            )

    def scores(self, detector: str, limit: int) -> tuple[Score, ...]:
        """Return what the newest global models of a detector answered here, newest first."""
        with self.database.read() as connection:
            mine = (
                select(SCORES).where(SCORES.c.detector == detector).order_by(SCORES.c.round.desc())
            )
            return tuple(Score(**row) for row in connection.execute(mine.limit(limit)).mappings())

    def fingerprint(self) -> str:
        """Return text that is another one when something was written that the device's page shows."""
        with self.database.read() as connection:
            newest = connection.execute(
                select(func.max(TRAININGS.c.id), func.sum(TRAININGS.c.sent))
            ).one()
            tables = (MODELS, CANDIDATES, SETBACKS, MEASUREMENTS)
            others = [tuple(connection.execute(select(table)).all()) for table in tables]
            scores = connection.execute(
                select(func.count(), func.max(SCORES.c.round)).select_from(SCORES)
            ).one()
            return repr(
                (newest, others, scores, connection.execute(select(ROUNDS.c.settings)).all())
            )

    def sent_round(self, detector: str) -> int | None:
        """Return the round of the newest training whose update was accepted, or None."""
        with self.database.read() as connection:
            sent: int | None = _newest(
                connection, detector, TRAININGS.c.round, TRAININGS.c.sent == 1
            ).scalar()
            return sent

    def keep_update(self, training: Training, update: str) -> str:
        """Keep the digest of the one update made of a training, and return the one that is kept."""
        with self.database.write() as connection:
            mine = TRAININGS.c.id == training.id
            known = connection.execute(select(TRAININGS.c.update).where(mine)).scalar()
            if known is None:
                connection.execute(TRAININGS.update().where(mine).values(update=update))
            return known or update

    def note_sent(self, training: Training) -> None:
        """Note that a training's update was accepted; what went wrong up to its round is made good."""
        with self.database.write() as connection:
            connection.execute(
                TRAININGS.update().where(TRAININGS.c.id == training.id).values(sent=1)
            )
            _made_good(connection, training.detector, training.round)

    def keep_measurement(self, measurement: Measurement) -> None:
        """Keep what was measured in place of what the detector had."""
        with self.database.write() as connection:
            _put(connection, MEASUREMENTS, asdict(measurement))

    def measurement(self, detector: str) -> Measurement | None:
        """Return what was last measured of a detector, or None."""
        with self.database.read() as connection:
            row = _row_of(connection, MEASUREMENTS, detector)
            return None if row is None else Measurement(**row)

    def keep_training_plot(self, training: Training, plot: str) -> None:
        """Keep the digest of a training's plot, once somebody has looked at it."""
        mine = TRAININGS.c.id == training.id
        with self.database.write(alone=False) as connection:
            connection.execute(TRAININGS.update().where(mine).values(plot=plot))

    def keep_measurement_plot(self, measurement: Measurement, plot: str) -> None:
        """Keep the digest of a measurement's plot, if it is still the detector's newest."""
        mine = (MEASUREMENTS.c.detector == measurement.detector) & (
            MEASUREMENTS.c.report == measurement.report
        )
        with self.database.write(alone=False) as connection:
            connection.execute(MEASUREMENTS.update().where(mine).values(plot=plot))

    def untold(self) -> tuple[Measurement, ...]:
        """Return the measurements that the main server has not, the newest first."""
        with self.database.read() as connection:
            query = select(MEASUREMENTS).where(MEASUREMENTS.c.told == 0)
            rows = connection.execute(query.order_by(MEASUREMENTS.c.measured_at.desc())).mappings()
            return tuple(Measurement(**row) for row in rows)

    def note_told(self, measurement: Measurement) -> None:
        """Note that the main server has the numbers of a measurement, if it is still the detector's
        newest.
        """
        mine = (MEASUREMENTS.c.detector == measurement.detector) & (
            MEASUREMENTS.c.report == measurement.report
        )
        with self.database.write() as connection:
            connection.execute(MEASUREMENTS.update().where(mine).values(told=1))

    def forget_old(self, keep: int) -> frozenset[str]:
        """Forget all but the newest `keep` trainings and scores of each detector.

        Returns:
            Digests of the blobs that are still needed.
        """
        needed: set[str | None] = set()
        with self.database.write() as connection:
            for table, key, age in (
                (TRAININGS, TRAININGS.c.id, TRAININGS.c.id),
                (SCORES, SCORES.c.version, SCORES.c.round),
            ):
                for detector in (
                    connection.execute(select(table.c.detector).distinct()).scalars().all()
                ):
                    mine = select(key).where(table.c.detector == detector).order_by(age.desc())
                    old = connection.execute(mine.offset(keep)).scalars().all()
                    connection.execute(table.delete().where(key.in_(old)))
            for detector in (
                connection.execute(select(TRAININGS.c.detector).distinct()).scalars().all()
            ):
                needed.add(_newest(connection, detector, TRAININGS.c.base_version).scalar())
            columns = (TRAININGS.c.local_model, TRAININGS.c.plot, TRAININGS.c.update)
            others = (
                MEASUREMENTS.c.report,
                MEASUREMENTS.c.plot,
                MODELS.c.version,
                CANDIDATES.c.version,
            )
            for column in (*columns, *others):
                needed.update(connection.execute(select(column)).scalars())
        return frozenset(digest for digest in needed if digest is not None)


def _row_of(connection: Connection, table: Table, detector: str) -> dict[str, Any] | None:
    """Return the row of a detector in a table that has one for each."""
    row = connection.execute(select(table).where(table.c.detector == detector)).mappings().first()
    return None if row is None else dict(row)


def _put(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Make `values` the row of their detector in a table that has one for each."""
    connection.execute(table.delete().where(table.c.detector == values["detector"]))
    connection.execute(insert(table).values(values))


def _newest(connection: Connection, detector: str, what: Any, *which: Any) -> CursorResult[Any]:
    """Return `what` of a detector's newest training, or of the newest of which this is true."""
    query = select(what).where(TRAININGS.c.detector == detector, *which)
    return connection.execute(query.order_by(TRAININGS.c.id.desc()).limit(1))


def _no_longer_waiting(connection: Connection, model: Held) -> None:
    mine = (CANDIDATES.c.detector == model.detector) & (CANDIDATES.c.version == model.version)
    connection.execute(CANDIDATES.delete().where(mine))


def _keep_score(connection: Connection, score: Score | None) -> None:
    if score is not None:
        connection.execute(SCORES.delete().where(SCORES.c.version == score.version))
        connection.execute(insert(SCORES).values(asdict(score)))


def _made_good(connection: Connection, detector: str, round_number: int) -> None:
    mine = (SETBACKS.c.detector == detector) & (SETBACKS.c.round <= round_number)
    connection.execute(SETBACKS.delete().where(mine))
