"""What devices measured of their own and the global model on their test pictures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "performances",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("trained_round", sa.Integer, nullable=False),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
        sa.Column("figures", sa.String, nullable=False),
        sa.Column("told_at", sa.Float, nullable=False),
    )
