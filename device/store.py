"""What a device remembers: the newest global model of each detector, its trainings, and what it sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, insert, select

from shared.database import Database
from shared.round_settings import RoundSettings, parse_round_settings

MIGRATIONS = Path(__file__).parent / "migrations"
METADATA = MetaData()
_models = Table(
    "models",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("round", Integer, nullable=False),
)
_rounds = Table(
    "rounds",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("settings", String, nullable=False),
)
_trainings = Table(
    "trainings",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("detector", String, nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("base_version", String, nullable=False),
    Column("local_model", String, nullable=False),
    Column("plot", String, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("history", String, nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("update", String),
    Column("sent", Integer, nullable=False, default=0),
    Column("pictures", Integer, nullable=False, default=0),
)


@dataclass(frozen=True)
class Held:
    """The newest global model of a detector that the device has; `round` made it."""

    detector: str
    version: str
    round: int


@dataclass(frozen=True)
class Training:
    """One finished training.

    Attributes:
        id: Grows with time.
        detector: Whose model.
        round: For which round.
        base_version: From which global model.
        local_model: Digest of the trained model's container.
        plot: Digest of the plot, PNG.
        weight: Number of training pictures.
        history: Per epoch: loss, accuracy, val_loss, val_accuracy, seconds.
        finished_at: Seconds since the epoch.
        update: Digest of the update made of it, if one was made.
        sent: 1 once the update was accepted, else 0.
        pictures: Number of picture files that the device had, training split.
    """

    id: int
    detector: str
    round: int
    base_version: str
    local_model: str
    plot: str
    weight: int
    history: list[dict[str, float]]
    finished_at: float
    update: str | None
    sent: int
    pictures: int


class Store:
    """The device's database; each method is one transaction."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.database = Database.open(folder, MIGRATIONS, url)

    def hold(self, model: Held) -> bool:
        """Make `model` the newest, unless the device has one of a later round; return whether it is the newest."""
        with self.database.write() as connection:
            row = connection.execute(select(_models).where(_models.c.detector == model.detector)).mappings().first()
            if row is not None and row["round"] > model.round:
                return False
            connection.execute(_models.delete().where(_models.c.detector == model.detector))
            values = {"detector": model.detector, "version": model.version, "round": model.round}
            connection.execute(insert(_models).values(values))
            return True

    def held(self, detector: str) -> Held | None:
        """Return the newest global model of a detector, or None."""
        with self.database.read() as connection:
            row = connection.execute(select(_models).where(_models.c.detector == detector)).mappings().first()
            return None if row is None else Held(**row)

    def remember_round(self, settings: RoundSettings) -> None:
        """Note the newest round that the device heard of."""
        with self.database.write() as connection:
            connection.execute(_rounds.delete().where(_rounds.c.detector == settings.detector))
            text = json.dumps(settings.to_json())
            connection.execute(insert(_rounds).values(detector=settings.detector, settings=text))

    def newest_round(self, detector: str) -> RoundSettings | None:
        """Return the newest round that the device heard of, or None."""
        with self.database.read() as connection:
            text = connection.execute(select(_rounds.c.settings).where(_rounds.c.detector == detector)).scalar()
            return None if text is None else parse_round_settings(json.loads(text))

    def add_training(self, values: Mapping[str, object]) -> None:
        """Add a finished training: the attributes of `Training` but for `id`, `update` and `sent`."""
        row = dict(values) | {"history": json.dumps(values["history"]), "sent": 0}
        with self.database.write() as connection:
            connection.execute(insert(_trainings).values(row))

    def newest_training(self, detector: str) -> Training | None:
        """Return the newest training of a detector, or None."""
        with self.database.read() as connection:
            query = select(_trainings).where(_trainings.c.detector == detector).order_by(_trainings.c.id.desc())
            row = connection.execute(query.limit(1)).mappings().first()
            return None if row is None else Training(**(dict(row) | {"history": json.loads(row["history"])}))

    def keep_update(self, training: Training, update: str) -> str:
        """Keep the digest of the one update made of a training, and return the one that is kept."""
        with self.database.write() as connection:
            mine = _trainings.c.id == training.id
            known = connection.execute(select(_trainings.c.update).where(mine)).scalar()
            if known is None:
                connection.execute(_trainings.update().where(mine).values(update=update))
            return known or update

    def note_sent(self, training: Training) -> None:
        """Note that a training's update was accepted."""
        with self.database.write() as connection:
            connection.execute(_trainings.update().where(_trainings.c.id == training.id).values(sent=1))
