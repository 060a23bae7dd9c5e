"""How things stand, read at one moment: a fixed number of statements, however many devices, rounds
and versions.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, FromClause, Label, Table, and_, func, select, true

from main_server.store.records import Device, Participation, Round, Version
from main_server.store.runs import Event, Run, RunStore
from main_server.store.states import OPEN, PUBLISHED
from main_server.store.tables import (
    CONTRIBUTIONS,
    DEVICES,
    EVENTS,
    PARTICIPATIONS,
    PINS,
    ROUNDS,
    RUNS,
    VERSIONS,
)
from shared.round.plan import parse_stored_plan

_OF_ROUND = and_(
    CONTRIBUTIONS.c.detector == ROUNDS.c.detector, CONTRIBUTIONS.c.round == ROUNDS.c.round
)


@dataclass(frozen=True)
class Standing:
    """All that an operator may want to know; of what grows with time, the newest, and how many
    there are.

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
        event_count: How many are remembered.
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

    def newest_round(self, detector: str) -> Round | None:
        """Return the newest round of a detector, or None if it has had none."""
        return next(iter(self.rounds.get(detector, ())), None)


class StandingStore(RunStore):
    """The part of the main server's database that shows how things stand; each method is one
    transaction.
    """

    def standing(self, rounds: int = 1, versions: int = 1, events: int = 0) -> Standing:
        """Return how things stand at one moment.

        Args:
            rounds: So many of the newest rounds of each detector, at least 1.
            versions: So many of its newest versions.
            events: So many of the newest events.
        """
        with self.database.read() as connection:
            newest_rounds = _newest(connection, ROUNDS, rounds)
            newest_versions = _newest(connection, VERSIONS, versions)
            by_name = select(PARTICIPATIONS).order_by(
                PARTICIPATIONS.c.detector, PARTICIPATIONS.c.device
            )
            shown = select(EVENTS).order_by(EVENTS.c.id.desc()).limit(events)
            return Standing(
                devices=tuple(
                    Device(*row)
                    for row in connection.execute(select(DEVICES).order_by(DEVICES.c.name))
                ),
                parts=tuple(Participation(*row) for row in connection.execute(by_name)),
                runs=_runs(connection),
                pins={row.detector: row.version for row in connection.execute(select(PINS))},
                rounds={name: tuple(map(round_of, rows)) for name, rows in newest_rounds.items()},
                round_counts={name: rows[0]["all_of_it"] for name, rows in newest_rounds.items()},
                sent=_sent(connection),
                versions={
                    name: tuple(map(_version_of, rows)) for name, rows in newest_versions.items()
                },
                version_counts={
                    name: rows[0]["all_of_it"] for name, rows in newest_versions.items()
                },
                events=tuple(Event(*row) for row in connection.execute(shown)),
                event_count=connection.execute(select(func.count()).select_from(EVENTS)).scalar()
                or 0,
            )

    def accuracies(self, count: int) -> dict[str, dict[int, float]]:
        """Return detector to round to the accuracy of its version, in rising order; of each the
        `count` newest.
        """
        known = VERSIONS.c.accuracy.is_not(None)
        ranked = select(
            VERSIONS.c.detector, VERSIONS.c.round, VERSIONS.c.accuracy, _rank(VERSIONS)
        ).where(known)
        newest = ranked.subquery()
        query = (
            select(newest).where(newest.c.rank <= count).order_by(newest.c.detector, newest.c.round)
        )
        found: dict[str, dict[int, float]] = defaultdict(dict)
        with self.database.read() as connection:
            for row in connection.execute(query):
                found[row.detector][row.round] = row.accuracy
        return dict(found)

    def fingerprint(self, seen_since: float = 0.0) -> str:
        """Return text that is another one when a page should show something else.

        Args:
            seen_since: A device that asked for work since then (seconds since the epoch) counts as
                one that is there.
        """
        there, setbacks = (
            and_(DEVICES.c.waiting, DEVICES.c.last_seen >= seen_since),
            PARTICIPATIONS.c.setback_round,
        )
        sent = select(func.count(), func.max(CONTRIBUTIONS.c.sent_at)).join_from(
            ROUNDS, CONTRIBUTIONS, _OF_ROUND
        )
        first, *others = (
            select(func.max(EVENTS.c.id)).subquery(),
            select(func.count()).select_from(DEVICES).where(there).subquery(),
            select(func.count(), func.count(setbacks), func.sum(setbacks))
            .select_from(PARTICIPATIONS)
            .subquery(),
            sent.where(ROUNDS.c.state == OPEN).subquery(),
        )
        together: FromClause = first
        for other in others:
            together = together.join(other, true())
        with self.database.read() as connection:
            return str(tuple(connection.execute(select(together)).one()))


def round_of(row: Mapping[Any, Any]) -> Round:
    """Return the round in a row of the table of rounds."""
    values = {name: row[name] for name in Round.__dataclass_fields__}
    settings = parse_stored_plan(row["settings"])
    return Round(**(values | {"settings": settings, "cohort": tuple(json.loads(row["cohort"]))}))


def _version_of(row: Mapping[Any, Any]) -> Version:
    return Version(**{name: row[name] for name in Version.__dataclass_fields__})


def _rank(table: Table) -> Label[int]:
    """Return a row's place among its detector's: 1 for the newest round."""
    return (
        func.row_number()
        .over(partition_by=table.c.detector, order_by=table.c.round.desc())
        .label("rank")
    )


def _newest(connection: Connection, table: Table, count: int) -> dict[str, list[Mapping[Any, Any]]]:
    """Return detector to its newest rows, newest first; each tells as `all_of_it` how many the
    detector has.
    """
    all_of_it = func.count().over(partition_by=table.c.detector).label("all_of_it")
    ranked = select(table.c.detector, table.c.round, _rank(table), all_of_it).subquery()
    same = and_(ranked.c.detector == table.c.detector, ranked.c.round == table.c.round)
    query = (
        select(table, ranked.c.all_of_it)
        .join_from(table, ranked, same)
        .where(ranked.c.rank <= count)
    )
    found: dict[str, list[Mapping[Any, Any]]] = defaultdict(list)
    for row in connection.execute(
        query.order_by(table.c.detector, table.c.round.desc())
    ).mappings():
        found[row["detector"]].append(row)
    return dict(found)


def _runs(connection: Connection) -> dict[str, tuple[Run, int]]:
    """Return detector to its newest run and how many of its rounds are done."""
    mine = and_(ROUNDS.c.detector == RUNS.c.detector, ROUNDS.c.round >= RUNS.c.first_round)
    done = select(func.count()).where(mine, ROUNDS.c.state == PUBLISHED).scalar_subquery()
    newest = select(func.max(RUNS.c.id)).group_by(RUNS.c.detector)
    rows = connection.execute(select(RUNS, done).where(RUNS.c.id.in_(newest)))
    return {row.detector: (Run(*row[:-1]), row[-1]) for row in rows}


def _sent(connection: Connection) -> dict[str, dict[str, float]]:
    newest = (
        select(ROUNDS.c.detector, func.max(ROUNDS.c.round).label("round"))
        .group_by(ROUNDS.c.detector)
        .subquery()
    )
    mine = and_(
        CONTRIBUTIONS.c.detector == newest.c.detector, CONTRIBUTIONS.c.round == newest.c.round
    )
    columns = (CONTRIBUTIONS.c.detector, CONTRIBUTIONS.c.device, CONTRIBUTIONS.c.sent_at)
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for detector, device, at in connection.execute(
        select(*columns).join_from(newest, CONTRIBUTIONS, mine)
    ):
        found[detector][device] = at
    return dict(found)
