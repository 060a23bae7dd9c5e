"""The tables as they were before revisions were written down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "members",
        sa.Column("key_id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False, index=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("joined_at", sa.Float, nullable=False),
        sa.Column("revoked", sa.String),
    )
    op.create_table(
        "invitations",
        sa.Column("invitation", sa.String, primary_key=True),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("uses_left", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )
    op.create_table(
        "devices",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("address", sa.String, nullable=False),
        sa.Column("last_seen", sa.Float, nullable=False),
    )
    op.create_table(
        "participations",
        sa.Column("device", sa.String, sa.ForeignKey("devices.name"), primary_key=True),
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("trained_round", sa.Integer),
        sa.Column("delivered", sa.String),
    )
    op.create_table(
        "rounds",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("settings", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("vouched", sa.String, nullable=False),
        sa.Column("cohort", sa.String, nullable=False),
        sa.Column("aggregate", sa.String),
        sa.Column("clamped", sa.Integer, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("detector", sa.String, nullable=False, index=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("architecture", sa.String, nullable=False),
        sa.Column("manifest", sa.String, nullable=False),
    )
    op.create_table(
        "plain_updates",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
    )
