"""How well models do on devices: validation scores for the gate, evaluations on test pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select

from main_server.store.devices import takes_part
from main_server.store.events import add_event
from main_server.store.tables import PERFORMANCES, SCORES, VERSIONS
from shared.protocol.evaluations import Performance, figures_to_json, parse_figures


@dataclass(frozen=True)
class Score:
    """A version's accuracy on one device's validation pictures; of 0 pictures if it has none."""

    device: str
    accuracy: float
    pictures: int


@dataclass(frozen=True)
class DeviceEvaluation:
    """What a device told last of a detector.

    Attributes:
        device: Its name.
        performance: What it measured.
        global_round: The round that made the global model.
        told_at: When, in seconds since the epoch.
    """

    device: str
    performance: Performance
    global_round: int
    told_at: float


def scores(connection: Connection, version: str) -> tuple[Score, ...]:
    """Return what every device reported of a version, by device."""
    columns = (SCORES.c.device, SCORES.c.accuracy, SCORES.c.pictures)
    query = select(*columns).where(SCORES.c.version == version).order_by(SCORES.c.device)
    rows = connection.execute(query).mappings()
    return tuple(Score(**row) for row in rows)


def note_score(
    connection: Connection, detector: str, version: str, score: Score, at: float
) -> None:
    """Note what a version scored on a device, if it is one of that detector and this is news.

    A report of no pictures does not replace a score.
    """
    of_detector = and_(VERSIONS.c.version == version, VERSIONS.c.detector == detector)
    if connection.execute(select(VERSIONS.c.version).where(of_detector)).first() is None:
        return
    mine = and_(SCORES.c.version == version, SCORES.c.device == score.device)
    kept = connection.execute(select(SCORES).where(mine)).first()
    if kept is not None:
        is_same = (kept.accuracy, kept.pictures) == (score.accuracy, score.pictures)
        if is_same or not score.pictures:
            return
    connection.execute(SCORES.delete().where(mine))
    connection.execute(insert(SCORES).values(version=version, **vars(score)))
    _sum_up_scores(connection, version)
    if score.pictures:
        accuracy = f"{score.accuracy:.1%} on {score.pictures} pictures"
        said = f"{score.device}: validation accuracy of {version[:12]} is {accuracy}."
        add_event(connection, at, "scored", said, detector=detector, device=score.device)


def _sum_up_scores(connection: Connection, version: str) -> None:
    """Write the mean of a version's scores beside it: it stays when the scores are deleted."""
    pictures = func.sum(SCORES.c.pictures)
    mean = func.sum(SCORES.c.accuracy * SCORES.c.pictures) / pictures
    scored = and_(SCORES.c.version == version, SCORES.c.pictures > 0)
    query = select(mean, func.count(), func.coalesce(pictures, 0)).where(scored)
    accuracy, devices, seen = connection.execute(query).one()
    values = {"accuracy": accuracy, "scored_by": devices, "scored_pictures": seen}
    connection.execute(VERSIONS.update().where(VERSIONS.c.version == version).values(values))


def note_performance(
    connection: Connection, device: str, performance: Performance, at: float
) -> bool:
    """Keep what a device measured, in place of what it told before.

    Returns:
        False if it has no part in the detector; then nothing was changed.
    """
    detector = performance.detector
    if not takes_part(connection, device, detector):
        return False
    values = {
        "trained_round": performance.trained_round,
        "version": performance.version,
        "pictures": performance.pictures,
        "figures": json.dumps(figures_to_json(performance.figures)),
    }
    mine = and_(PERFORMANCES.c.device == device, PERFORMANCES.c.detector == detector)
    before = connection.execute(select(PERFORMANCES).where(mine)).mappings().first()
    connection.execute(PERFORMANCES.delete().where(mine))
    row = {"detector": detector, "device": device, "told_at": at} | values
    connection.execute(insert(PERFORMANCES).values(row))
    if before is None or any(before[name] != value for name, value in values.items()):
        pictures = f"{performance.pictures} test pictures"
        said = f"{device} has measured its own and the global model on {pictures}."
        add_event(connection, at, "measured", said, detector=detector, device=device)
    return True


def performances(connection: Connection) -> tuple[DeviceEvaluation, ...]:
    """Return what each device told last, by detector and device."""
    same = VERSIONS.c.version == PERFORMANCES.c.version
    query = select(PERFORMANCES, VERSIONS.c.round).join(VERSIONS, same)
    rows = connection.execute(query.order_by(PERFORMANCES.c.detector, PERFORMANCES.c.device))
    return tuple(
        DeviceEvaluation(row.device, _performance_of(row), row.round, row.told_at) for row in rows
    )


def _performance_of(row: Row[Any]) -> Performance:
    figures = parse_figures(json.loads(row.figures))
    return Performance(row.detector, row.trained_round, row.version, row.pictures, figures)
