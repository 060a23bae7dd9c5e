"""Runs: so many rounds of one detector, one after another."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import Connection, and_, func, insert, select

from main_server.store.events import add_event
from main_server.store.records import Round
from main_server.store.rounds import newest_round
from main_server.store.tables import RUNS

RUNNING, STOPPED, FINISHED = "running", "stopped", "finished"


@dataclass(frozen=True)
class Run:
    """So many rounds of one detector, one after another.

    How many are done is counted from the rounds published since `first_round`, and written down
    nowhere else.

    Attributes:
        id: Its number; a newer run has a higher one.
        detector: Whose.
        rounds: How many rounds.
        first_round: Number of the first of them.
        state: "running", "stopped" or "finished".
        said: Why it stopped, if it did.
        started_at: Seconds since the epoch.
    """

    id: int
    detector: str
    rounds: int
    first_round: int
    state: str
    said: str
    started_at: float


def start_run(
    connection: Connection, detector: str, rounds: int, first_round: int, at: float
) -> Run:
    """Start a run, unless one of that detector is running; return the one that is then running."""
    running = running_run(connection, detector)
    if running is not None:
        return running
    run = Run(0, detector, rounds, first_round, RUNNING, "", at)
    values = {name: value for name, value in vars(run).items() if name != "id"}
    added = connection.execute(insert(RUNS).values(values).returning(RUNS.c.id))
    said = f"A run of {rounds} rounds has begun."
    add_event(connection, at, "run-started", said, detector=detector)
    return replace(run, id=added.scalar_one())


def move_run(connection: Connection, run: Run, to: str, said: str, at: float) -> bool:
    """Bring a run from the state in which it was read into another.

    Returns:
        False if it is not in that state any more: somebody else was first.
    """
    # The state is part of the condition: of two that move one run, only the first does.
    unmoved = and_(RUNS.c.id == run.id, RUNS.c.state == run.state)
    change = RUNS.update().where(unmoved).values(state=to, said=said)
    moved = connection.execute(change).rowcount == 1
    if moved:
        add_event(connection, at, f"run-{to}", said, detector=run.detector)
    return moved


def newest_runs(connection: Connection) -> tuple[Run, ...]:
    """Return the newest run of every detector that has had one, by detector."""
    newest = select(func.max(RUNS.c.id)).group_by(RUNS.c.detector)
    query = select(RUNS).where(RUNS.c.id.in_(newest))
    rows = connection.execute(query.order_by(RUNS.c.detector)).mappings()
    return tuple(Run(**row) for row in rows)


def newest_run(connection: Connection, detector: str) -> Run | None:
    """Return the newest run of a detector, or None if it has had none."""
    query = select(RUNS).where(RUNS.c.detector == detector)
    newest = query.order_by(RUNS.c.id.desc()).limit(1)
    row = connection.execute(newest).mappings().first()
    return None if row is None else Run(**row)


def running_run(connection: Connection, detector: str) -> Run | None:
    """Return the run of a detector that is running, or None."""
    query = select(RUNS).where(RUNS.c.detector == detector, RUNS.c.state == RUNNING)
    row = connection.execute(query).mappings().first()
    return None if row is None else Run(**row)


def requested_rounds(connection: Connection) -> dict[str, Round]:
    """Return detector to open round of those for which a run has asked the devices to train."""
    requested = {}
    for run in newest_runs(connection):
        current = newest_round(connection, run.detector)
        if run.state == RUNNING and current is not None and current.is_requested:
            requested[run.detector] = current
    return requested
