"""How things stand at the aggregator, read at one moment: a fixed number of statements, however
many rounds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import and_, func, select

from sec_agg.store.tables import ROUNDS, UPDATES
from shared.round.plan import vector_size
from shared.storage.database import Database

_NEWEST = (
    select(ROUNDS.c.detector, func.max(ROUNDS.c.round).label("round"))
    .group_by(ROUNDS.c.detector)
    .subquery()
)
_OF_ROUND = and_(UPDATES.c.detector == ROUNDS.c.detector, UPDATES.c.round == ROUNDS.c.round)


@dataclass(frozen=True)
class Sent:
    """A masked update of the newest round; `at` is seconds since the epoch, `digest` is empty if it
    was let go of.
    """

    device: str
    digest: str
    in_cohort: bool
    at: float


@dataclass(frozen=True)
class Current:
    """The newest round of a detector and who has sent, the latest first; `size` is the length of
    the model.
    """

    detector: str
    round: int
    size: int
    min_cohort: int
    state: str
    delivered: bool
    sent: tuple[Sent, ...]

    @property
    def vector_size(self) -> int:
        """Length of a masked vector of this round."""
        return vector_size(self.size)


@dataclass(frozen=True)
class Sum:
    """A round that was added up: how many devices are in it, how many were left out, when the last
    had sent.
    """

    detector: str
    round: int
    delivered: bool
    devices: int
    left_out: int
    at: float | None


@dataclass(frozen=True)
class Standing:
    """The newest round of every detector, the newest sums, and the number of all sums."""

    rounds: tuple[Current, ...]
    sums: tuple[Sum, ...]
    sum_count: int


class StandingStore:
    """The part of the aggregator's database that shows how things stand; each method is one
    transaction.
    """

    database: Database

    def standing(self, sums: int) -> Standing:
        """Return how things stand at one moment, with so many of the newest sums."""
        newest = and_(_NEWEST.c.detector == ROUNDS.c.detector, _NEWEST.c.round == ROUNDS.c.round)
        figures = (ROUNDS.c.detector, ROUNDS.c.round, ROUNDS.c.size, ROUNDS.c.min_cohort)
        rounds = (
            select(*figures, ROUNDS.c.state, ROUNDS.c.delivered)
            .join(_NEWEST, newest)
            .order_by(ROUNDS.c.detector)
        )
        mine = and_(_NEWEST.c.detector == UPDATES.c.detector, _NEWEST.c.round == UPDATES.c.round)
        columns = (
            UPDATES.c.detector,
            UPDATES.c.device,
            UPDATES.c.digest,
            UPDATES.c.in_cohort,
            UPDATES.c.received_at,
        )
        updates = (
            select(*columns)
            .join(_NEWEST, mine)
            .order_by(UPDATES.c.received_at.desc(), UPDATES.c.device)
        )
        last = func.max(UPDATES.c.received_at)
        devices = func.count().filter(UPDATES.c.in_cohort)
        summed = ROUNDS.c.aggregate.is_not(None)
        made = (
            select(
                ROUNDS.c.detector,
                ROUNDS.c.round,
                ROUNDS.c.delivered,
                devices,
                func.count() - devices,
                last,
            )
            .join(UPDATES, _OF_ROUND)
            .where(summed)
            .group_by(ROUNDS.c.detector, ROUNDS.c.round, ROUNDS.c.delivered)
            .order_by(last.desc(), ROUNDS.c.detector, ROUNDS.c.round.desc())
            .limit(sums)
        )
        sent: dict[str, list[Sent]] = defaultdict(list)
        with self.database.read() as connection:
            for detector, *update in connection.execute(updates):
                sent[detector].append(Sent(*update))
            return Standing(
                rounds=tuple(
                    Current(*row, tuple(sent[row.detector])) for row in connection.execute(rounds)
                ),
                sums=tuple(Sum(*row) for row in connection.execute(made)),
                sum_count=connection.execute(select(func.count()).where(summed)).scalar() or 0,
            )

    def fingerprint(self) -> str:
        """Return text that is another one when a page should show something else."""
        rounds = (
            func.count(),
            func.count(ROUNDS.c.aggregate),
            func.count().filter(ROUNDS.c.delivered),
        )
        is_open = func.count().filter(ROUNDS.c.state == "open")
        updates = (func.count(), func.max(UPDATES.c.received_at))
        with self.database.read() as connection:
            of_rounds = connection.execute(select(*rounds, is_open).select_from(ROUNDS)).one()
            return str(
                (*of_rounds, *connection.execute(select(*updates).select_from(UPDATES)).one())
            )
