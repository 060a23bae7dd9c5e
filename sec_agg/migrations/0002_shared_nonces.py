"""Nonces that several machines share, and when an update came."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Go to this revision."""
    op.add_column("updates", sa.Column("received_at", sa.Float, nullable=False, server_default="0"))
    op.create_table(
        "nonces",
        sa.Column("key_id", sa.String, primary_key=True),
        sa.Column("nonce", sa.String, primary_key=True),
        sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    )
