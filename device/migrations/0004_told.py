"""How far each way of telling the owner has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "told",
        sa.Column("teller", sa.String, primary_key=True),
        sa.Column("happening", sa.Integer, nullable=False),
    )
