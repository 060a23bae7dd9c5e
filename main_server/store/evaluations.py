"""What the main server remembers of how well models do on the devices' test pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, and_, insert, select

from main_server.store.members import MemberStore
from main_server.store.states import note
from main_server.store.tables import PARTICIPATIONS, PERFORMANCES, VERSIONS
from shared.protocol.evaluations import (
    Performance,
    figures_to_json,
    parse_figures,
    performance_of,
)


@dataclass(frozen=True)
class Told:
    """What a device told last of a detector; `global_round` made the global model, `told_at` is in
    epoch seconds.
    """

    device: str
    performance: Performance
    global_round: int
    told_at: float


class PerformanceStore(MemberStore):
    """The part of the main server's database that is about performances; each method is one
    transaction.
    """

    def note_performance(self, device: str, performance: Performance, at: float) -> bool:
        """Keep what a device measured in place of what it told before; False if it has no part in
        the detector.
        """
        detector = performance.detector
        part = and_(PARTICIPATIONS.c.device == device, PARTICIPATIONS.c.detector == detector)
        mine = and_(PERFORMANCES.c.device == device, PERFORMANCES.c.detector == detector)
        values = {
            name: getattr(performance, name) for name in ("trained_round", "version", "pictures")
        }
        values["figures"] = json.dumps(figures_to_json(performance.figures))
        with self.database.write() as connection:
            if connection.execute(select(PARTICIPATIONS.c.device).where(part)).first() is None:
                return False
            before = connection.execute(select(PERFORMANCES).where(mine)).mappings().first()
            connection.execute(PERFORMANCES.delete().where(mine))
            row = {"detector": detector, "device": device, "told_at": at} | values
            connection.execute(insert(PERFORMANCES).values(row))
            if before is None or any(before[name] != value for name, value in values.items()):
                said = f"{device} has measured its own and the global model on {performance.pictures} test pictures."
                note(connection, at, "measured", said, detector=detector, device=device)
            return True

    def performances(self) -> tuple[Told, ...]:
        """Return what each device told last, by detector and device."""
        query = select(PERFORMANCES, VERSIONS.c.round).join(
            VERSIONS, VERSIONS.c.version == PERFORMANCES.c.version
        )
        query = query.order_by(PERFORMANCES.c.detector, PERFORMANCES.c.device)
        with self.database.read() as connection:
            return tuple(
                Told(row.device, _performance_of(row), row.round, row.told_at)
                for row in connection.execute(query)
            )


def _performance_of(row: Row[Any]) -> Performance:
    figures = parse_figures(json.loads(row.figures))
    return performance_of(row.detector, row.trained_round, row.version, row.pictures, figures)
