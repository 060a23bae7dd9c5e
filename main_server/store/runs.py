"""What the main server remembers of rounds that run by themselves: runs, scores of versions, pins,
events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import and_, func, insert, select

from main_server.store.members import MemberStore
from main_server.store.states import note
from main_server.store.tables import EVENTS, PINS, RUNS, SCORES

RUNNING, STOPPED, FINISHED = "running", "stopped", "finished"
_MAX_EVENTS = 10_000


@dataclass(frozen=True)
class Run:
    """So many rounds of one detector, one after another; `said` is why it stopped, if it did.

    How many are done is counted from the rounds published since `first_round`, and written down
    nowhere else.
    """

    id: int
    detector: str
    rounds: int
    first_round: int
    state: str
    said: str
    started_at: float


@dataclass(frozen=True)
class Score:
    """How often a version tells one device's own validation pictures apart rightly; of 0 pictures
    if it has none.
    """

    device: str
    accuracy: float
    pictures: int


@dataclass(frozen=True)
class Event:
    """Something that happened; `at` is seconds since the epoch."""

    id: int
    at: float
    kind: str
    detector: str | None
    round: int | None
    device: str | None
    said: str


class RunStore(MemberStore):
    """The part of the main server's database that is about runs and the gate; each method is one
    transaction.
    """

    def start_run(self, detector: str, rounds: int, first_round: int, at: float) -> Run:
        """Start a run, unless one of that detector is running; return the one that is running then."""
        with self.database.write() as connection:
            mine = and_(RUNS.c.detector == detector, RUNS.c.state == RUNNING)
            row = connection.execute(select(RUNS).where(mine)).mappings().first()
            if row is None:
                values = {
                    "detector": detector,
                    "rounds": rounds,
                    "first_round": first_round,
                    "state": RUNNING,
                }
                connection.execute(insert(RUNS).values(values | {"said": "", "started_at": at}))
                note(
                    connection,
                    at,
                    "run-started",
                    f"A run of {rounds} rounds has begun.",
                    detector=detector,
                )
                row = connection.execute(select(RUNS).where(mine)).mappings().one()
            return Run(**row)

    def move_run(self, run: Run, to: str, said: str, at: float) -> bool:
        """Bring a run from the state in which it was read into another; False if it is not in that
        state any more.
        """
        with self.database.write() as connection:
            mine = and_(RUNS.c.id == run.id, RUNS.c.state == run.state)
            moved = (
                connection.execute(RUNS.update().where(mine).values(state=to, said=said)).rowcount
                == 1
            )
            if moved:
                note(connection, at, f"run-{to}", said, detector=run.detector)
            return moved

    def runs(self) -> tuple[Run, ...]:
        """Return the newest run of every detector that has had one, by detector."""
        with self.database.read() as connection:
            newest = select(func.max(RUNS.c.id)).group_by(RUNS.c.detector)
            query = select(RUNS).where(RUNS.c.id.in_(newest)).order_by(RUNS.c.detector)
            return tuple(Run(**row) for row in connection.execute(query).mappings())

    def scores(self, version: str) -> tuple[Score, ...]:
        """Return what every device reported of a version, by device."""
        with self.database.read() as connection:
            columns = (SCORES.c.device, SCORES.c.accuracy, SCORES.c.pictures)
            query = select(*columns).where(SCORES.c.version == version).order_by(SCORES.c.device)
            return tuple(Score(**row) for row in connection.execute(query).mappings())

    def pin(self, detector: str, version: str | None, at: float) -> None:
        """Pin a detector to a version, or, with None, to none."""
        with self.database.write() as connection:
            connection.execute(PINS.delete().where(PINS.c.detector == detector))
            if version is not None:
                connection.execute(insert(PINS).values(detector=detector, version=version))
                note(
                    connection,
                    at,
                    "pinned",
                    f"{detector} is pinned to {version[:12]}.",
                    detector=detector,
                )
            else:
                note(
                    connection,
                    at,
                    "unpinned",
                    f"{detector} is not pinned any more.",
                    detector=detector,
                )

    def pins(self) -> Mapping[str, str]:
        """Return detector to version of what is pinned."""
        with self.database.read() as connection:
            return {row.detector: row.version for row in connection.execute(select(PINS))}

    def events(self, count: int) -> tuple[Event, ...]:
        """Return the newest events, newest first."""
        with self.database.read() as connection:
            query = select(EVENTS).order_by(EVENTS.c.id.desc()).limit(count)
            return tuple(Event(**row) for row in connection.execute(query).mappings())

    def newest_event(self) -> int:
        """Return the number of the newest event, 0 before the first: as long as it is the same,
        nothing has changed.
        """
        with self.database.read() as connection:
            return connection.execute(select(func.max(EVENTS.c.id))).scalar() or 0

    def forget_old_events(self) -> None:
        """Forget all but the newest events."""
        with self.database.write() as connection:
            newest = connection.execute(select(func.max(EVENTS.c.id))).scalar() or 0
            connection.execute(EVENTS.delete().where(EVENTS.c.id <= newest - _MAX_EVENTS))
