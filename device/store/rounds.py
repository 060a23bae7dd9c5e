"""The newest round of each detector that the device knows of."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import select

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

    def remember(self, plans: Iterable[RoundPlan]) -> None:
        """Remember rounds, each in place of its detector's last one."""
        query = select(ROUNDS.c.detector, ROUNDS.c.settings)
        with self._database.read() as connection:
            known = {(row.detector, row.settings) for row in connection.execute(query)}
        plans_as_text = {(plan.detector, json.dumps(plan.to_json())) for plan in plans}
        new = plans_as_text - known
        # One transaction, and none where nothing is new: each ends with a sync of the disk.
        if not new:
            return
        with self._database.write() as connection:
            for detector, settings in sorted(new):
                put(connection, ROUNDS, {"detector": detector, "settings": settings})

    def newest(self, detector: str) -> RoundPlan | None:
        """Return the newest round of a detector, or None."""
        with self._database.read() as connection:
            row = row_of(connection, ROUNDS, detector)
        return None if row is None else parse_stored_plan(row["settings"])
