"""Tables with one row per detector, read and written in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, insert, select


def row_of(connection: Connection, table: Table, detector: str) -> dict[str, Any] | None:
    """Return the row of a detector, or None."""
    query = select(table).where(table.c.detector == detector)
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)


def put(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Make `values` the row of their detector."""
    connection.execute(table.delete().where(table.c.detector == values["detector"]))
    connection.execute(insert(table).values(values))
