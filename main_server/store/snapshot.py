"""The read model of the pages: everything an operator sees, read at one moment.

A fixed number of statements, however many devices, rounds and versions there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Label, Table, and_, func, select

from main_server.store.devices import all_devices, participations
from main_server.store.events import Event, count_events, newest_events
from main_server.store.pins import find_pins
from main_server.store.records import Device, Participation, Round, Version
from main_server.store.rounds import round_of
from main_server.store.runs import RUNNING, Run
from main_server.store.states import PUBLISHED
from main_server.store.tables import CONTRIBUTIONS, ROUNDS, RUNS, VERSIONS

_Rows = list[Mapping[Any, Any]]


@dataclass(frozen=True)
class Snapshot:
    """The state of the federation at one moment; of what grows with time, the newest and a count.

    Attributes:
        devices: Every device, by name.
        parts: Who takes part in what, by detector and device.
        runs: Detector to its newest run, and how many of its rounds are done.
        pins: Detector to the version that it is pinned to.
        rounds: Detector to its newest rounds, newest first.
        round_counts: Detector to how many rounds it has had.
        sent: Detector to device to when it sent (seconds since the epoch), in the newest round.
        versions: Detector to its newest versions, newest first.
        version_counts: Detector to how many versions it has had.
        events: The newest events, newest first.
        event_count: How many are kept.
    """

    devices: tuple[Device, ...]
    parts: tuple[Participation, ...]
    runs: Mapping[str, tuple[Run, int]]
    pins: Mapping[str, str]
    rounds: Mapping[str, tuple[Round, ...]]
    round_counts: Mapping[str, int]
    sent: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, tuple[Version, ...]]
    version_counts: Mapping[str, int]
    events: tuple[Event, ...]
    event_count: int

    @property
    def detectors(self) -> tuple[str, ...]:
        """Every detector that a device takes part in, in alphabetical order."""
        return tuple(sorted({part.detector for part in self.parts}))

    @property
    def requested_rounds(self) -> dict[str, Round]:
        """Detector to open round of those for which a run has asked the devices to train."""
        requested = {}
        for run, _ in self.runs.values():
            current = self.newest_round(run.detector)
            if run.state == RUNNING and current is not None and current.is_requested:
                requested[run.detector] = current
        return requested

    def newest_round(self, detector: str) -> Round | None:
        """Return the newest round of a detector, or None if it has had none."""
        return next(iter(self.rounds.get(detector, ())), None)

    def newest_version(self, detector: str) -> Version | None:
        """Return the newest version of a detector, or None if it has none."""
        return next(iter(self.versions.get(detector, ())), None)


def read_snapshot(
    connection: Connection, rounds: int = 1, versions: int = 1, events: int = 0
) -> Snapshot:
    """Return the state of the federation at one moment.

    Args:
        connection: The transaction.
        rounds: So many of the newest rounds of each detector, at least 1.
        versions: So many of its newest versions.
        events: So many of the newest events.
    """
    round_rows = _newest(connection, ROUNDS, rounds)
    version_rows = _newest(connection, VERSIONS, versions)
    return Snapshot(
        devices=all_devices(connection),
        parts=participations(connection),
        runs=_runs(connection),
        pins=find_pins(connection),
        rounds={name: tuple(map(round_of, rows)) for name, rows in round_rows.items()},
        round_counts=_counts(round_rows),
        sent=_sent(connection),
        versions={name: tuple(map(_version_of, rows)) for name, rows in version_rows.items()},
        version_counts=_counts(version_rows),
        events=newest_events(connection, events),
        event_count=count_events(connection),
    )


def accuracies(connection: Connection, count: int) -> dict[str, dict[int, float]]:
    """Return detector to round to the accuracy of its version, in rising order.

    Args:
        connection: The transaction.
        count: So many of the newest versions of each detector that have an accuracy.
    """
    columns = (
        VERSIONS.c.detector,
        VERSIONS.c.round,
        VERSIONS.c.accuracy,
    )
    scored = select(*columns, _rank(VERSIONS)).where(VERSIONS.c.accuracy.is_not(None))
    ranked = scored.subquery()
    query = select(ranked).where(ranked.c.rank <= count)
    query = query.order_by(ranked.c.detector, ranked.c.round)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for row in connection.execute(query):
        found[row.detector][row.round] = row.accuracy
    return dict(found)


def _version_of(row: Mapping[Any, Any]) -> Version:
    return Version(**{name: row[name] for name in Version.__dataclass_fields__})


def _rank(table: Table) -> Label[int]:
    """Return a row's place among its detector's: 1 for the newest round."""
    place = func.row_number().over(
        partition_by=table.c.detector,
        order_by=table.c.round.desc(),
    )
    return place.label("rank")


def _newest(connection: Connection, table: Table, count: int) -> dict[str, _Rows]:
    """Return detector to its newest rows, newest first.

    Each row tells as `all_of_it` how many the detector has.
    """
    all_of_it = func.count().over(partition_by=table.c.detector).label("all_of_it")
    # Ranked by key alone: whole rows are read only of those that are wanted.
    keys = (table.c.detector, table.c.round)
    ranked = select(*keys, _rank(table), all_of_it).subquery()
    same = and_(
        ranked.c.detector == table.c.detector,
        ranked.c.round == table.c.round,
    )
    query = select(table, ranked.c.all_of_it).join_from(table, ranked, same)
    query = query.where(ranked.c.rank <= count)
    query = query.order_by(table.c.detector, table.c.round.desc())
    found: dict[str, _Rows] = defaultdict(list)
    for row in connection.execute(query).mappings():
        found[row["detector"]].append(row)
    return dict(found)


def _counts(newest: Mapping[str, _Rows]) -> dict[str, int]:
    return {name: rows[0]["all_of_it"] for name, rows in newest.items()}


def _runs(connection: Connection) -> dict[str, tuple[Run, int]]:
    """Return detector to its newest run and how many of its rounds are done."""
    done = select(func.count()).where(
        ROUNDS.c.detector == RUNS.c.detector,
        ROUNDS.c.round >= RUNS.c.first_round,
        ROUNDS.c.state == PUBLISHED,
    )
    newest = select(func.max(RUNS.c.id)).group_by(RUNS.c.detector)
    query = select(RUNS, done.scalar_subquery().label("done"))
    found = {}
    for row in connection.execute(query.where(RUNS.c.id.in_(newest))).mappings():
        columns = {name: row[name] for name in Run.__dataclass_fields__}
        found[row["detector"]] = (Run(**columns), row["done"])
    return found


def _sent(connection: Connection) -> dict[str, dict[str, float]]:
    """Return detector to device to when it sent its update for the newest round."""
    newest_number = func.max(ROUNDS.c.round).label("round")
    newest_of_each = select(ROUNDS.c.detector, newest_number).group_by(ROUNDS.c.detector)
    newest = newest_of_each.subquery()
    of_newest = and_(
        CONTRIBUTIONS.c.detector == newest.c.detector,
        CONTRIBUTIONS.c.round == newest.c.round,
    )
    columns = (
        CONTRIBUTIONS.c.detector,
        CONTRIBUTIONS.c.device,
        CONTRIBUTIONS.c.sent_at,
    )
    query = select(*columns).join_from(newest, CONTRIBUTIONS, of_newest)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for detector, device, at in connection.execute(query):
        found[detector][device] = at
    return dict(found)
