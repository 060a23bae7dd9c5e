"""What a round cost in bytes, and what devices say of a version altogether, which stays when their
scores go.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Go to this revision."""
    op.add_column(
        "rounds", sa.Column("bytes_up", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column(
        "rounds", sa.Column("bytes_down", sa.BigInteger, nullable=False, server_default="0")
    )
    op.add_column("versions", sa.Column("accuracy", sa.Float))
    op.add_column(
        "versions", sa.Column("scored_by", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column(
        "versions", sa.Column("scored_pictures", sa.BigInteger, nullable=False, server_default="0")
    )
    versions = sa.table(
        "versions", *map(sa.column, ("version", "accuracy", "scored_by", "scored_pictures"))
    )
    scores = sa.table("scores", *map(sa.column, ("version", "accuracy", "pictures")))

    def over_scores(figure: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        mine = (scores.c.version == versions.c.version, scores.c.pictures > 0)
        return sa.select(figure).where(*mine).scalar_subquery()

    pictures = sa.func.sum(scores.c.pictures)
    op.execute(
        versions.update().values(
            accuracy=over_scores(sa.func.sum(scores.c.accuracy * scores.c.pictures) / pictures),
            scored_by=over_scores(sa.func.count()),
            scored_pictures=over_scores(sa.func.coalesce(pictures, 0)),
        )
    )
