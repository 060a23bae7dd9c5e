"""The tables as they were before revisions were written down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "models",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
    )
    op.create_table(
        "rounds",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("settings", sa.String, nullable=False),
    )
    op.create_table(
        "trainings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("detector", sa.String, nullable=False, index=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("base_version", sa.String, nullable=False),
        sa.Column("local_model", sa.String, nullable=False),
        sa.Column("plot", sa.String, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        sa.Column("history", sa.String, nullable=False),
        sa.Column("finished_at", sa.Float, nullable=False),
        sa.Column("update", sa.String),
        sa.Column("sent", sa.Integer, nullable=False),
    )
