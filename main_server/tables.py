"""The main server's tables. Who reads and writes them: `store.py`, and `member_store.py` for who has joined."""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Integer, LargeBinary, MetaData, String, Table

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
    Column("uses_left", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
)
DEVICES = Table(
    "devices",
    METADATA,
    Column("name", String, primary_key=True),
    Column("address", String, nullable=False),
    Column("last_seen", Float, nullable=False),
)
PARTICIPATIONS = Table(
    "participations",
    METADATA,
    Column("device", String, ForeignKey("devices.name"), primary_key=True),
    Column("detector", String, primary_key=True),
    Column("trained_round", Integer),
    Column("delivered", String),
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
)
VERSIONS = Table(
    "versions",
    METADATA,
    Column("version", String, primary_key=True),
    Column("detector", String, nullable=False, index=True),
    Column("round", Integer, nullable=False),
    Column("architecture", String, nullable=False),
    Column("manifest", String, nullable=False),
)
PLAIN_UPDATES = Table(
    "plain_updates",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("device", String, primary_key=True),
    Column("digest", String, nullable=False),
)
