"""How well models do on devices: validation scores for the gate, evaluations on test pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select

from main_server.store.devices import takes_part
from main_server.store.events import add_event
from main_server.store.tables import PERFORMANCES, SCORES, VERSIONS
from shared.protocol.evaluations import Performance, figures_to_json, parse_figures, performance_of


@dataclass(frozen=True)
class Score:
    """A version's accuracy on one device's validation pictures.

    Attributes:
        device: Its name.
        accuracy: Share of the pictures that the version classifies correctly, 0 to 1.
        pictures: How many; 0 if the device has no validation pictures.
    """

    device: str
    accuracy: float
    pictures: int


@dataclass(frozen=True)
class DeviceEvaluation:
    """What a device measured last of a detector, on its test pictures.

    Attributes:
        device: Its name.
        performance: What it measured.
        global_round: The round that made the global model.
        told_at: When it was reported, in seconds since the epoch.
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
    if not _is_version_of(connection, version, detector):
        return
    mine = and_(
        SCORES.c.version == version,
        SCORES.c.device == score.device,
    )
    kept = connection.execute(select(SCORES).where(mine)).first()
    if kept is not None:
        is_same = (kept.accuracy, kept.pictures) == (score.accuracy, score.pictures)
        # Devices report with every poll: only a change is written, and only a change wakes others.
        if is_same or not score.pictures:
            return
    connection.execute(SCORES.delete().where(mine))
    connection.execute(insert(SCORES).values(version=version, **vars(score)))
    _sum_up_scores(connection, version)
    if score.pictures:
        accuracy = f"{score.accuracy:.1%} on {score.pictures} pictures"
        said = f"{score.device}: validation accuracy of {version[:12]} is {accuracy}."
        add_event(connection, at, "scored", said, detector=detector, device=score.device)


def _is_version_of(connection: Connection, version: str, detector: str) -> bool:
    query = select(VERSIONS.c.version)
    query = query.where(VERSIONS.c.version == version, VERSIONS.c.detector == detector)
    return connection.execute(query).first() is not None


def _sum_up_scores(connection: Connection, version: str) -> None:
    """Write the mean of a version's scores beside it: it stays when the scores are deleted."""
    pictures = func.sum(SCORES.c.pictures)
    correct = func.sum(SCORES.c.accuracy * SCORES.c.pictures)
    scored = and_(
        SCORES.c.version == version,
        SCORES.c.pictures > 0,
    )
    # The sum over no rows is NULL, and so is the mean: no device has scored it.
    query = select(correct / pictures, func.count(), func.coalesce(pictures, 0))
    accuracy, devices, seen = connection.execute(query.where(scored)).one()
    values = {
        "accuracy": accuracy,
        "scored_by": devices,
        "scored_pictures": seen,
    }
    mine = VERSIONS.c.version == version
    connection.execute(VERSIONS.update().where(mine).values(values))


def note_performance(
    connection: Connection, device: str, performance: Performance, at: float
) -> bool:
    """Keep what a device measured, in place of what it reported before.

    Args:
        connection: The transaction.
        device: Its name.
        performance: What it measured of its own and the global model.
        at: When it was reported, in seconds since the epoch.

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
    mine = and_(
        PERFORMANCES.c.device == device,
        PERFORMANCES.c.detector == detector,
    )
    before = connection.execute(select(PERFORMANCES).where(mine)).mappings().first()
    connection.execute(PERFORMANCES.delete().where(mine))
    row = {"detector": detector, "device": device, "told_at": at, **values}
    connection.execute(insert(PERFORMANCES).values(row))
    is_news = before is None or any(before[name] != value for name, value in values.items())
    if is_news:
        pictures = f"{performance.pictures} test pictures"
        said = f"{device} has measured its own and the global model on {pictures}."
        add_event(connection, at, "measured", said, detector=detector, device=device)
    return True


def performances(connection: Connection) -> tuple[DeviceEvaluation, ...]:
    """Return what each device measured last, by detector and device."""
    same = VERSIONS.c.version == PERFORMANCES.c.version
    query = select(PERFORMANCES, VERSIONS.c.round).join(VERSIONS, same)
    query = query.order_by(PERFORMANCES.c.detector, PERFORMANCES.c.device)
    return tuple(
        DeviceEvaluation(
            device=row.device,
            performance=_performance_of(row),
            global_round=row.round,
            told_at=row.told_at,
        )
        for row in connection.execute(query)
    )


def _performance_of(row: Row[Any]) -> Performance:
    figures = parse_figures(json.loads(row.figures))
    return performance_of(row.detector, row.trained_round, row.version, row.pictures, figures)
