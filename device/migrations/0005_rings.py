"""What the doorbell saw, and from which score on a model's answer is yes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Go to this revision."""
    op.create_table(
        "rings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("picture", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("answers", sa.String, nullable=False),
        sa.Column("labels", sa.String),
        sqlite_autoincrement=True,
    )
    op.add_column("scores", sa.Column("threshold", sa.Float))
