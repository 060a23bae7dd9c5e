"""Rounds that run by themselves: runs, who contributed, the gate of a version, what happened."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go to this revision."""
    op.add_column(
        "devices", sa.Column("waiting", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("participations", sa.Column("setback_round", sa.Integer))
    op.add_column("participations", sa.Column("setback", sa.String))
    op.add_column("rounds", sa.Column("opened_at", sa.Float, nullable=False, server_default="0"))
    op.add_column("rounds", sa.Column("asked_at", sa.Float))
    op.add_column("rounds", sa.Column("due_at", sa.Float))
    op.add_column("rounds", sa.Column("closed_at", sa.Float))
    op.add_column("versions", sa.Column("parent", sa.String))
    op.add_column("versions", sa.Column("made_at", sa.Float, nullable=False, server_default="0"))
    op.add_column("versions", sa.Column("released_at", sa.Float, server_default="0"))
    op.add_column(
        "versions", sa.Column("gate", sa.String, nullable=False, server_default="unchecked")
    )
    op.add_column("versions", sa.Column("said", sa.String, nullable=False, server_default=""))
    op.add_column(
        "versions", sa.Column("forgotten", sa.Boolean, nullable=False, server_default=sa.false())
    )
    contributions = op.create_table(
        "contributions",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("sent_at", sa.Float, nullable=False),
        sa.Column("digest", sa.String),
    )
    plain = sa.table(
        "plain_updates", *(sa.column(name) for name in ("detector", "round", "device", "digest"))
    )
    kept = sa.select(
        plain.c.detector, plain.c.round, plain.c.device, sa.literal(0.0), plain.c.digest
    )
    op.execute(
        sa.insert(contributions).from_select(
            ["detector", "round", "device", "sent_at", "digest"], kept
        )
    )
    op.drop_table("plain_updates")
    op.create_table(
        "scores",
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("accuracy", sa.Float, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("detector", sa.String, nullable=False, index=True),
        sa.Column("rounds", sa.Integer, nullable=False),
        sa.Column("first_round", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("said", sa.String, nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
    )
    op.create_table(
        "pins",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("version", sa.String, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("detector", sa.String),
        sa.Column("round", sa.Integer),
        sa.Column("device", sa.String),
        sa.Column("said", sa.String, nullable=False),
    )
    op.create_table(
        "nonces",
        sa.Column("key_id", sa.String, primary_key=True),
        sa.Column("nonce", sa.String, primary_key=True),
        sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    )
