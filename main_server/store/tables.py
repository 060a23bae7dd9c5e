"""The main server's tables, as `migrations/` makes them.

`store.py` and its parts read and write them.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

MIGRATIONS = Path(__file__).parents[1] / "migrations"
METADATA = MetaData()
MEMBERS = Table(
    "members",
    METADATA,
    Column("key_id", String, primary_key=True),
    Column("name", String, nullable=False, index=True),
    Column("role", String, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("joined_at", Float, nullable=False),
    Column("revoked", String),
)
INVITATIONS = Table(
    "invitations",
    METADATA,
    Column("invitation", String, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("role", String, nullable=False),
    Column("uses_left", BigInteger, nullable=False),
    Column("expires_at", Float, nullable=False),
)
DEVICES = Table(
    "devices",
    METADATA,
    Column("name", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("waiting", Boolean, nullable=False, default=False),
)
PARTICIPATIONS = Table(
    "participations",
    METADATA,
    Column("device", String, ForeignKey("devices.name"), primary_key=True),
    Column("detector", String, primary_key=True),
    Column("trained_round", Integer),
    Column("delivered", String),
    Column("setback_round", Integer),
    Column("setback", String),
)
ROUNDS = Table(
    "rounds",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("settings", String, nullable=False),
    Column("state", String, nullable=False),
    Column("vouched", String, nullable=False, default="[]"),
    Column("cohort", String, nullable=False, default="[]"),
    Column("aggregate", String),
    Column("clamped", Integer, nullable=False, default=0),
    Column("opened_at", Float, nullable=False, default=0.0),
    Column("asked_at", Float),
    Column("due_at", Float),
    Column("closed_at", Float),
    Column("bytes_up", BigInteger, nullable=False, default=0),
    Column("bytes_down", BigInteger, nullable=False, default=0),
)
VERSIONS = Table(
    "versions",
    METADATA,
    Column("version", String, primary_key=True),
    Column("detector", String, nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("architecture", String, nullable=False),
    Column("manifest", String, nullable=False),
    Column("parent", String),
    Column("made_at", Float, nullable=False, default=0.0),
    Column("released_at", Float),
    Column("gate", String, nullable=False, default="unchecked"),
    Column("said", String, nullable=False, default=""),
    Column("forgotten", Boolean, nullable=False, default=False),
    Column("accuracy", Float),
    Column("scored_by", Integer, nullable=False, default=0),
    Column("scored_pictures", BigInteger, nullable=False, default=0),
    Column("state", String),
)
CONTRIBUTIONS = Table(
    "contributions",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("device", String, primary_key=True),
    Column("sent_at", Float, nullable=False),
    Column("digest", String),
)
SCORES = Table(
    "scores",
    METADATA,
    Column("version", String, primary_key=True),
    Column("device", String, primary_key=True),
    Column("accuracy", Float, nullable=False),
    Column("pictures", Integer, nullable=False),
)
PERFORMANCES = Table(
    "performances",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("device", String, primary_key=True),
    Column("trained_round", Integer, nullable=False),
    Column("version", String, nullable=False),
    Column("pictures", Integer, nullable=False),
    Column("figures", String, nullable=False),
    Column("told_at", Float, nullable=False),
)
RUNS = Table(
    "runs",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("detector", String, nullable=False, index=True),
    Column("rounds", Integer, nullable=False),
    Column("first_round", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("said", String, nullable=False),
    Column("started_at", Float, nullable=False),
)
PINS = Table(
    "pins",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("version", String, nullable=False),
)
EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("detector", String),
    Column("round", Integer),
    Column("device", String),
    Column("said", String, nullable=False),
)
