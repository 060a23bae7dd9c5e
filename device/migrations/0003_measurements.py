"""What was last measured of each detector's local and global model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "measurements",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("local_model", sa.String, nullable=False),
        sa.Column("trained_round", sa.Integer, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("global_round", sa.Integer, nullable=False),
        sa.Column("report", sa.String, nullable=False),
        sa.Column("plot", sa.String, nullable=False),
        sa.Column("measured_at", sa.Float, nullable=False),
        sa.Column("told", sa.Integer, nullable=False),
    )
