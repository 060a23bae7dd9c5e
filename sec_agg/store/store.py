"""What the aggregator remembers: rounds, who sent which masked update, and the one sum of each
round.

States of a round here: open (updates come in) → frozen (the cohort is fixed) → summed (the sum is
kept). Nothing leads back, so no second sum can ever be made: a round stays here for ever, as one
small row. Its updates are let go of when nobody can need them any more (`pruning.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, or_, select

from sec_agg.store.group_commit import Batch
from sec_agg.store.snapshot import StandingStore
from sec_agg.store.tables import MIGRATIONS, ROUNDS, UPDATES
from shared.round.plan import RoundPlan, vector_size
from shared.storage.database import Database

# What every upload asks is made ready once.
_STORED = (UPDATES.c.device, UPDATES.c.digest, UPDATES.c.sealed_seed, UPDATES.c.key_id)
_SENT = select(func.count()).where(
    UPDATES.c.detector == bindparam("of"), UPDATES.c.round == bindparam("number")
)
_MINE = and_(
    UPDATES.c.detector == bindparam("of"),
    UPDATES.c.round == bindparam("number"),
    UPDATES.c.device == bindparam("from"),
)
_ROOM = select(
    ROUNDS.c.state,
    ROUNDS.c.cohort_cap,
    _SENT.scalar_subquery().label("sent"),
    select(func.count()).where(_MINE).scalar_subquery().label("before"),
).where(ROUNDS.c.detector == bindparam("of"), ROUNDS.c.round == bindparam("number"))
_NEWEST = select(ROUNDS.c.detector, func.max(ROUNDS.c.round)).group_by(ROUNDS.c.detector)
_DELIVERED = (
    select(ROUNDS.c.detector, func.count()).where(ROUNDS.c.delivered).group_by(ROUNDS.c.detector)
)
_REPLACE = UPDATES.update().where(_MINE)
_ADD = UPDATES.insert()
_NEWEST_WITH = (
    select(ROUNDS, *_STORED)
    .outerjoin(
        UPDATES,
        and_(
            UPDATES.c.detector == ROUNDS.c.detector,
            UPDATES.c.round == ROUNDS.c.round,
            UPDATES.c.device == bindparam("from"),
        ),
    )
    .where(ROUNDS.c.detector == bindparam("of"))
    .order_by(ROUNDS.c.round.desc())
    .limit(1)
)


@dataclass(frozen=True)
class Round:
    """One round of one detector here; `aggregate` is the digest of its sum."""

    detector: str
    round: int
    base_version: str
    size: int
    min_cohort: int
    cohort_cap: int
    state: str
    aggregate: str | None
    delivered: bool

    @property
    def vector_size(self) -> int:
        """Length of a masked vector of this round."""
        return vector_size(self.size)


@dataclass(frozen=True)
class Stored:
    """One device's masked update, kept as a blob, and the key that it was signed with.

    Once the update is let go of, only the names are left: `digest` and `sealed_seed` are empty.
    """

    device: str
    digest: str
    sealed_seed: bytes
    key_id: str


class Store(StandingStore):
    """The aggregator's database; each method is one transaction."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.database = Database.open(folder, MIGRATIONS, url)
        self._keeping = Batch(self._keep_updates)

    def remember_round(self, settings: RoundPlan) -> Round:
        """Note a round that the main server has opened, and return it as it stands."""
        with self.database.write() as connection:
            if (known := _round(connection, settings.detector, settings.round)) is not None:
                return known
            shared = ("detector", "round", "base_version", "size", "min_cohort", "cohort_cap")
            row = {name: getattr(settings, name) for name in shared} | {
                "state": "open",
                "delivered": False,
            }
            connection.execute(ROUNDS.insert().values(row))
            return Round(**row, aggregate=None)

    def newest_round(self, detector: str) -> Round | None:
        """Return the newest round of a detector, or None if there is none."""
        with self.database.read() as connection:
            return _round(connection, detector, None)

    def round(self, detector: str, number: int) -> Round | None:
        """Return one round of a detector, or None if it is not known here."""
        with self.database.read() as connection:
            return _round(connection, detector, number)

    def detectors(self) -> tuple[str, ...]:
        """Return the detectors with a round here, in alphabetical order."""
        with self.database.read() as connection:
            query = select(ROUNDS.c.detector).distinct().order_by(ROUNDS.c.detector)
            return tuple(connection.execute(query).scalars())

    def keep_update(self, detector: str, number: int, update: Stored, at: float) -> bool:
        """Keep an update, replacing an earlier one of the same device; False if the cohort is
        frozen or full.

        Threads that come at the same time share one transaction.

        Args:
            detector: Whose round.
            number: Which round.
            update: The update; its bytes are on disk already.
            at: When it came, in seconds since the epoch.
        """
        return self._keeping.do(
            vars(update) | {"detector": detector, "round": number, "received_at": at}
        )

    def _keep_updates(self, rows: Sequence[dict[str, Any]]) -> list[bool]:
        with self.database.write() as connection:
            return [_keep_update(connection, row) for row in rows]

    def newest_round_with(self, detector: str, device: str) -> tuple[Round | None, Stored | None]:
        """Return the newest round of a detector, and what is kept of one device for it; None for
        what there is not.
        """
        with self.database.read() as connection:
            row = connection.execute(_NEWEST_WITH, {"of": detector, "from": device}).first()
        if row is None:
            return None, None
        of_round, of_update = row[: len(ROUNDS.c)], row[len(ROUNDS.c) :]
        return Round(*of_round), None if of_update[0] is None else Stored(*of_update)

    def updates(self, detector: str, number: int) -> tuple[Stored, ...]:
        """Return all updates kept for a round, by device name."""
        with self.database.read() as connection:
            return _stored(connection, detector, number)

    def freeze(
        self, detector: str, number: int, seen: tuple[Stored, ...], cohort: Mapping[str, str]
    ) -> bool:
        """Fix the cohort, once; False if updates came or went since they were `seen`, or it is
        fixed already.

        Args:
            detector: Whose round.
            number: Which round.
            seen: The updates the decision was made from.
            cohort: Device to digest, of those to be added up.
        """
        with self.database.write() as connection:
            current = _round(connection, detector, number)
            if (
                current is None
                or current.state != "open"
                or _stored(connection, detector, number) != seen
            ):
                return False
            chosen = and_(_of(detector, number), UPDATES.c.device.in_(list(cohort)))
            connection.execute(UPDATES.update().where(chosen).values(in_cohort=True))
            _set(connection, detector, number, state="frozen")
            return True

    def cohort(self, detector: str, number: int) -> tuple[Stored, ...]:
        """Return the frozen cohort's updates, by device name; empty before it is frozen."""
        with self.database.read() as connection:
            return _stored(connection, detector, number, UPDATES.c.in_cohort.is_(True))

    def let_go(self, recent: int, listed: int) -> tuple[str, ...]:
        """Let go of updates that nobody can need any more, and return the digests of their blobs,
        which may go then.

        That is: of a round whose sum the main server has, when a newer round is known; and of any
        round that is not among the `recent` newest of its detector, since the main server takes a
        sum for its one open round alone. The names of who sent one are kept for the `listed` newest
        rounds.
        """
        digests: list[str] = []
        with self.database.write() as connection:
            for detector, newest in connection.execute(_NEWEST).all():
                handed_over = select(ROUNDS.c.round).where(
                    ROUNDS.c.detector == detector, ROUNDS.c.delivered
                )
                over = or_(UPDATES.c.round <= newest - recent, UPDATES.c.round.in_(handed_over))
                over = and_(
                    UPDATES.c.detector == detector,
                    UPDATES.c.digest != "",
                    UPDATES.c.round < newest,
                    over,
                )
                digests += connection.execute(select(UPDATES.c.digest).where(over)).scalars()
                connection.execute(UPDATES.update().where(over).values(digest="", sealed_seed=b""))
                unlisted = and_(UPDATES.c.detector == detector, UPDATES.c.round <= newest - listed)
                connection.execute(UPDATES.delete().where(unlisted))
        return tuple(digests)

    def needed(self, recent: int) -> set[str]:
        """Return the digests of the blobs to keep: updates not let go of, and sums of the `recent`
        newest rounds.
        """
        with self.database.read() as connection:
            needed = set(
                connection.execute(select(UPDATES.c.digest).where(UPDATES.c.digest != "")).scalars()
            )
            for detector, newest in connection.execute(_NEWEST).all():
                mine = (ROUNDS.c.detector == detector, ROUNDS.c.round > newest - recent)
                sums = select(ROUNDS.c.aggregate).where(*mine, ROUNDS.c.aggregate.is_not(None))
                needed |= set(connection.execute(sums).scalars())
        return needed

    def keep_sum(self, detector: str, number: int, aggregate: str) -> str:
        """Keep the digest of a frozen cohort's sum, once, and return the one that is kept."""
        with self.database.write() as connection:
            current = _round(connection, detector, number)
            if current is not None and current.aggregate is not None:
                return current.aggregate
            _set(connection, detector, number, state="summed", aggregate=aggregate)
            return aggregate

    def handed_over(self) -> dict[str, int]:
        """Return detector to how many of its sums the main server has."""
        with self.database.read() as connection:
            return {row[0]: row[1] for row in connection.execute(_DELIVERED)}

    def note_delivery(self, detector: str, number: int) -> None:
        """Note that the main server has the sum."""
        with self.database.write() as connection:
            _set(connection, detector, number, delivered=True)


def _of(detector: str, number: int) -> ColumnElement[bool]:
    return and_(UPDATES.c.detector == detector, UPDATES.c.round == number)


def _round(connection: Connection, detector: str, number: int | None) -> Round | None:
    query = (
        select(ROUNDS).where(ROUNDS.c.detector == detector).order_by(ROUNDS.c.round.desc()).limit(1)
    )
    if number is not None:
        query = query.where(ROUNDS.c.round == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else Round(**row)


def _stored(
    connection: Connection, detector: str, number: int, *also: ColumnElement[bool]
) -> tuple[Stored, ...]:
    query = select(*_STORED).where(_of(detector, number), *also).order_by(UPDATES.c.device)
    return tuple(Stored(**row) for row in connection.execute(query).mappings())


def _keep_update(connection: Connection, row: dict[str, Any]) -> bool:
    asked = {"of": row["detector"], "number": row["round"], "from": row["device"]}
    current = connection.execute(_ROOM, asked).mappings().first()
    if current is None or current["state"] != "open":
        return False
    if current["before"]:
        connection.execute(_REPLACE, asked | row)
        return True
    if current["sent"] >= current["cohort_cap"]:
        return False
    connection.execute(_ADD, row)
    return True


def _set(connection: Connection, detector: str, number: int, **values: object) -> None:
    where = and_(ROUNDS.c.detector == detector, ROUNDS.c.round == number)
    connection.execute(ROUNDS.update().where(where).values(values))
