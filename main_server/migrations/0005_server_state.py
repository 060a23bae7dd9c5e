"""The strategy's arrays that belong to a version: momentum, second moments."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Go to this revision."""
    op.add_column("versions", sa.Column("state", sa.String))
