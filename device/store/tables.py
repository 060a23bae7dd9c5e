"""A device's tables, as `migrations/` makes them; the repositories beside read and write them.

Tables and columns keep their first names, so that old databases open: a setback is a failure, an
errand a scheduled training, a measurement an evaluation, `said` the detail, a ring an event, and
`told` has the last delivery (`happening`) of each notification channel (`teller`).
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Float, Integer, MetaData, String, Table

MIGRATIONS = Path(__file__).parents[1] / "migrations"
METADATA = MetaData()
MODELS = Table(
    "models",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("round", Integer, nullable=False),
)
CANDIDATES = Table(
    "candidates",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("round", Integer, nullable=False),
)
SCORES = Table(
    "scores",
    METADATA,
    Column("version", String, primary_key=True),
    Column("detector", String, nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("accuracy", Float),
    Column("pictures", Integer, nullable=False),
    Column("said", String),
    Column("threshold", Float),
)
SETBACKS = Table(
    "setbacks",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, nullable=False),
    Column("said", String, nullable=False),
)
ERRANDS = Table(
    "errands",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("day", String, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("after", Integer),
)
ROUNDS = Table(
    "rounds",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("settings", String, nullable=False),
)
TRAININGS = Table(
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
MEASUREMENTS = Table(
    "measurements",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("local_model", String, nullable=False),
    Column("trained_round", Integer, nullable=False),
    Column("version", String, nullable=False),
    Column("global_round", Integer, nullable=False),
    Column("report", String, nullable=False),
    Column("plot", String, nullable=False),
    Column("measured_at", Float, nullable=False),
    Column("told", Integer, nullable=False, default=0),
)
RINGS = Table(
    "rings",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False, index=True),
    Column("source", String, nullable=False),
    Column("picture", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("answers", String, nullable=False),
    Column("labels", String),
    sqlite_autoincrement=True,  # or SQLite would give the number of a deleted event again
)
TOLD = Table(
    "told",
    METADATA,
    Column("teller", String, primary_key=True),
    Column("happening", Integer, nullable=False),
)
