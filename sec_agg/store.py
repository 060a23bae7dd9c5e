"""What the aggregator remembers: rounds, who sent which masked update, and the one sum of each round.

States of a round here: open (updates come in) → frozen (the cohort is fixed) → summed (the sum is kept).
Nothing leads back, so no second sum can ever be made: a round stays here for ever, as one small row. Its updates are
let go of when nobody can need them any more (`pruning.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    func,
    or_,
    select,
)

from sec_agg.batching import Batch
from shared.database import Database
from shared.round_settings import RoundSettings

MIGRATIONS = Path(__file__).parent / "migrations"
METADATA = MetaData()
_rounds = Table(
    "rounds",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("base_version", String, nullable=False),
    Column("size", Integer, nullable=False),
    Column("min_cohort", Integer, nullable=False),
    Column("cohort_cap", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("aggregate", String),
    Column("delivered", Boolean, nullable=False, default=False),
)
_updates = Table(
    "updates",
    METADATA,
    Column("detector", String, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("device", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("sealed_seed", LargeBinary, nullable=False),
    Column("key_id", String, nullable=False),
    Column("in_cohort", Boolean, nullable=False, default=False),
    Column("received_at", Float, nullable=False, default=0.0),
)

# What every upload asks is made ready once.
_STORED = (_updates.c.device, _updates.c.digest, _updates.c.sealed_seed, _updates.c.key_id)
_SENT = select(func.count()).where(_updates.c.detector == bindparam("of"), _updates.c.round == bindparam("number"))
_MINE = and_(
    _updates.c.detector == bindparam("of"),
    _updates.c.round == bindparam("number"),
    _updates.c.device == bindparam("from"),
)
_ROOM = select(
    _rounds.c.state,
    _rounds.c.cohort_cap,
    _SENT.scalar_subquery().label("sent"),
    select(func.count()).where(_MINE).scalar_subquery().label("before"),
).where(_rounds.c.detector == bindparam("of"), _rounds.c.round == bindparam("number"))
_NEWEST = select(_rounds.c.detector, func.max(_rounds.c.round)).group_by(_rounds.c.detector)
_REPLACE = _updates.update().where(_MINE)
_ADD = _updates.insert()
_NEWEST_WITH = (
    select(_rounds, *_STORED)
    .outerjoin(
        _updates,
        and_(
            _updates.c.detector == _rounds.c.detector,
            _updates.c.round == _rounds.c.round,
            _updates.c.device == bindparam("from"),
        ),
    )
    .where(_rounds.c.detector == bindparam("of"))
    .order_by(_rounds.c.round.desc())
    .limit(1)
)


@dataclass(frozen=True)
class Round:
    """One round of one detector, as the aggregator knows it; `aggregate` is the digest of its sum."""

    detector: str
    round: int
    base_version: str
    size: int
    min_cohort: int
    cohort_cap: int
    state: str
    aggregate: str | None
    delivered: bool


@dataclass(frozen=True)
class Stored:
    """One device's masked update, kept as a blob, and the key that it was signed with.

    Once the update is let go of, only the names are left: `digest` and `sealed_seed` are empty.
    """

    device: str
    digest: str
    sealed_seed: bytes
    key_id: str


class Store:
    """The aggregator's database; each method is one transaction."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.database = Database.open(folder, MIGRATIONS, url)
        self._keeping = Batch(self._keep_updates)

    def remember_round(self, settings: RoundSettings) -> Round:
        """Note a round that the main server has opened, and return it as it stands."""
        with self.database.write() as connection:
            if (known := _round(connection, settings.detector, settings.round)) is not None:
                return known
            shared = ("detector", "round", "base_version", "size", "min_cohort", "cohort_cap")
            row = {name: getattr(settings, name) for name in shared} | {"state": "open", "delivered": False}
            connection.execute(_rounds.insert().values(row))
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
            query = select(_rounds.c.detector).distinct().order_by(_rounds.c.detector)
            return tuple(connection.execute(query).scalars())

    def keep_update(self, detector: str, number: int, update: Stored, at: float) -> bool:
        """Keep an update, replacing an earlier one of the same device; False if the cohort is frozen or full.

        Threads that come at the same time share one transaction.

        Args:
            detector: Whose round.
            number: Which round.
            update: The update; its bytes are on disk already.
            at: When it came, in seconds since the epoch.
        """
        return self._keeping.do(vars(update) | {"detector": detector, "round": number, "received_at": at})

    def _keep_updates(self, rows: Sequence[dict[str, Any]]) -> list[bool]:
        with self.database.write() as connection:
            return [_keep_update(connection, row) for row in rows]

    def newest_round_with(self, detector: str, device: str) -> tuple[Round | None, Stored | None]:
        """Return the newest round of a detector, and what is kept of one device for it; None for what there is not."""
        with self.database.read() as connection:
            row = connection.execute(_NEWEST_WITH, {"of": detector, "from": device}).first()
        if row is None:
            return None, None
        of_round, of_update = row[: len(_rounds.c)], row[len(_rounds.c) :]
        return Round(*of_round), None if of_update[0] is None else Stored(*of_update)

    def updates(self, detector: str, number: int) -> tuple[Stored, ...]:
        """Return all updates kept for a round, by device name."""
        with self.database.read() as connection:
            return _stored(connection, detector, number)

    def freeze(self, detector: str, number: int, seen: tuple[Stored, ...], cohort: Mapping[str, str]) -> bool:
        """Fix the cohort, once; False if updates came or went since they were `seen`, or it is fixed already.

        Args:
            detector: Whose round.
            number: Which round.
            seen: The updates the decision was made from.
            cohort: Device to digest, of those to be added up.
        """
        with self.database.write() as connection:
            current = _round(connection, detector, number)
            if current is None or current.state != "open" or _stored(connection, detector, number) != seen:
                return False
            chosen = and_(_of(detector, number), _updates.c.device.in_(list(cohort)))
            connection.execute(_updates.update().where(chosen).values(in_cohort=True))
            _set(connection, detector, number, state="frozen")
            return True

    def cohort(self, detector: str, number: int) -> tuple[Stored, ...]:
        """Return the frozen cohort's updates, by device name; empty before it is frozen."""
        with self.database.read() as connection:
            return _stored(connection, detector, number, _updates.c.in_cohort.is_(True))

    def let_go(self, recent: int, listed: int) -> tuple[str, ...]:
        """Let go of updates that nobody can need any more, and return the digests of their blobs, which may go then.

        That is: of a round whose sum the main server has, when a newer round is known; and of any round that is not
        among the `recent` newest of its detector, since the main server takes a sum for its one open round alone.
        The names of who sent one are kept for the `listed` newest rounds.
        """
        digests: list[str] = []
        with self.database.write() as connection:
            for detector, newest in connection.execute(_NEWEST).all():
                handed_over = select(_rounds.c.round).where(_rounds.c.detector == detector, _rounds.c.delivered)
                over = or_(_updates.c.round <= newest - recent, _updates.c.round.in_(handed_over))
                over = and_(_updates.c.detector == detector, _updates.c.digest != "", _updates.c.round < newest, over)
                digests += connection.execute(select(_updates.c.digest).where(over)).scalars()
                connection.execute(_updates.update().where(over).values(digest="", sealed_seed=b""))
                unlisted = and_(_updates.c.detector == detector, _updates.c.round <= newest - listed)
                connection.execute(_updates.delete().where(unlisted))
        return tuple(digests)

    def needed(self, recent: int) -> set[str]:
        """Return the digests of the blobs to keep: updates not let go of, and sums of the `recent` newest rounds."""
        with self.database.read() as connection:
            needed = set(connection.execute(select(_updates.c.digest).where(_updates.c.digest != "")).scalars())
            for detector, newest in connection.execute(_NEWEST).all():
                mine = (_rounds.c.detector == detector, _rounds.c.round > newest - recent)
                sums = select(_rounds.c.aggregate).where(*mine, _rounds.c.aggregate.is_not(None))
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

    def note_delivery(self, detector: str, number: int) -> None:
        """Note that the main server has the sum."""
        with self.database.write() as connection:
            _set(connection, detector, number, delivered=True)


def _of(detector: str, number: int) -> ColumnElement[bool]:
    return and_(_updates.c.detector == detector, _updates.c.round == number)


def _round(connection: Connection, detector: str, number: int | None) -> Round | None:
    query = select(_rounds).where(_rounds.c.detector == detector).order_by(_rounds.c.round.desc()).limit(1)
    if number is not None:
        query = query.where(_rounds.c.round == number)
    row = connection.execute(query).mappings().first()
    return None if row is None else Round(**row)


def _stored(connection: Connection, detector: str, number: int, *also: ColumnElement[bool]) -> tuple[Stored, ...]:
    query = select(*_STORED).where(_of(detector, number), *also).order_by(_updates.c.device)
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
    where = and_(_rounds.c.detector == detector, _rounds.c.round == number)
    connection.execute(_rounds.update().where(where).values(values))
