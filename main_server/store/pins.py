"""Pins: detectors that stay at one version, whatever rounds make."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, insert, select

from main_server.store.events import add_event
from main_server.store.tables import PINS


def set_pin(connection: Connection, detector: str, version: str, at: float) -> None:
    """Pin a detector to a version."""
    _delete_pin(connection, detector)
    connection.execute(insert(PINS).values(detector=detector, version=version))
    said = f"{detector} is pinned to {version[:12]}."
    add_event(connection, at, "pinned", said, detector=detector)


def remove_pin(connection: Connection, detector: str, at: float) -> None:
    """Let a detector's model change again."""
    _delete_pin(connection, detector)
    said = f"{detector} is not pinned any more."
    add_event(connection, at, "unpinned", said, detector=detector)


def find_pins(connection: Connection) -> Mapping[str, str]:
    """Return detector to version of what is pinned."""
    rows = connection.execute(select(PINS))
    return {row.detector: row.version for row in rows}


def _delete_pin(connection: Connection, detector: str) -> None:
    connection.execute(PINS.delete().where(PINS.c.detector == detector))
