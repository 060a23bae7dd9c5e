"""The newest round of each detector that the device knows of."""

from __future__ import annotations

import json

from device.store.rows import put, row_of
from device.store.tables import ROUNDS
from shared.round.plan import RoundPlan, parse_stored_plan
from shared.storage.database import Database


class RoundStore:
    """The rounds that one device knows of; each method is one transaction.

    Args:
        database: The device's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def remember(self, plan: RoundPlan) -> None:
        """Remember a round in place of the detector's last one."""
        values = {"detector": plan.detector, "settings": json.dumps(plan.to_json())}
        with self._database.write() as connection:
            put(connection, ROUNDS, values)

    def newest(self, detector: str) -> RoundPlan | None:
        """Return the newest round of a detector, or None."""
        with self._database.read() as connection:
            row = row_of(connection, ROUNDS, detector)
        return None if row is None else parse_stored_plan(row["settings"])
