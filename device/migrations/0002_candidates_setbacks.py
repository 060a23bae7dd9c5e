"""Models that have not answered yet, what the others answered, what went wrong, and trainings by
the schedule.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "candidates",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
    )
    op.create_table(
        "scores",
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("detector", sa.String, nullable=False, index=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("accuracy", sa.Float),
        sa.Column("pictures", sa.Integer, nullable=False),
        sa.Column("said", sa.String),
    )
    op.create_table(
        "setbacks",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("said", sa.String, nullable=False),
    )
    op.create_table(
        "errands",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("day", sa.String, nullable=False),
        sa.Column("pictures", sa.Integer, nullable=False),
        sa.Column("after", sa.Integer),
    )
    op.add_column(
        "trainings", sa.Column("pictures", sa.Integer, nullable=False, server_default="0")
    )
