"""The aggregator's tables, as `migrations/` makes them.

`store.py` and its part read and write them.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Boolean, Column, Float, Integer, LargeBinary, MetaData, String, Table

MIGRATIONS = Path(__file__).parents[1] / "migrations"
METADATA = MetaData()
ROUNDS = Table(
    "rounds",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("base_version", String, nullable=False),
    Column("size", Integer, nullable=False),
    Column("min_cohort", Integer, nullable=False),
    Column("cohort_cap", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("aggregate", String),
    Column("delivered", Boolean, nullable=False, default=False),
)
UPDATES = Table(
    "updates",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("device", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("sealed_seed", LargeBinary, nullable=False),
    Column("key_id", String, nullable=False),
    Column("in_cohort", Boolean, nullable=False, default=False),
    Column("received_at", Float, nullable=False, default=0.0),
)
