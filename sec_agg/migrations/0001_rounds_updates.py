"""The tables as they were before revisions were written down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "rounds",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("base_version", sa.String, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("min_cohort", sa.Integer, nullable=False),
        sa.Column("cohort_cap", sa.Integer, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("aggregate", sa.String),
        sa.Column("delivered", sa.Boolean, nullable=False),
    )
    op.create_table(
        "updates",
        sa.Column("detector", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("device", sa.String, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("sealed_seed", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("in_cohort", sa.Boolean, nullable=False),
    )
