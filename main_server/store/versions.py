"""Versions of the global models: adding, releasing, finding."""

from __future__ import annotations

from sqlalchemy import Connection, and_, insert, select

from main_server.store.events import add_event
from main_server.store.records import Version
from main_server.store.rounds import newest_round
from main_server.store.tables import VERSIONS


def add_version(connection: Connection, version: Version) -> None:
    """Add a version, if it is new.

    A version is named by the SHA-256 of its container, so one that is known is the same.
    """
    if find_version(connection, version.version) is None:
        connection.execute(insert(VERSIONS).values(vars(version)))


def release(connection: Connection, version: str, at: float) -> None:
    """Give a version to the devices from now on, if they are not given it already."""
    # The first release counts: the gate's deadline runs from it.
    unreleased = and_(
        VERSIONS.c.version == version,
        VERSIONS.c.released_at.is_(None),
    )
    change = VERSIONS.update().where(unreleased).values(released_at=at)
    if connection.execute(change).rowcount == 0:
        return
    released = select(VERSIONS.c.detector, VERSIONS.c.round)
    row = connection.execute(released.where(VERSIONS.c.version == version)).one()
    said = f"The model of round {row.round} is given to the devices."
    add_event(
        connection,
        at,
        "released",
        said,
        detector=row.detector,
        round=row.round,
    )


def find_version(connection: Connection, version: str) -> Version | None:
    """Return a version that was published, or None if it never was."""
    query = select(VERSIONS).where(VERSIONS.c.version == version)
    row = connection.execute(query).mappings().first()
    return None if row is None else Version(**row)


def find_versions(connection: Connection, prefix: str) -> tuple[Version, ...]:
    """Return the versions whose names start with `prefix`."""
    # Without autoescape a prefix of "%" would match every version.
    starts = VERSIONS.c.version.startswith(prefix, autoescape=True)
    rows = connection.execute(select(VERSIONS).where(starts)).mappings()
    return tuple(Version(**row) for row in rows)


def newest_version(connection: Connection, detector: str, released: bool = False) -> Version | None:
    """Return the newest version of a detector's model, or None if there is none.

    Args:
        connection: The transaction.
        detector: Whose.
        released: Whether only versions count that devices are given.
    """
    query = select(VERSIONS).where(VERSIONS.c.detector == detector)
    if released:
        query = query.where(VERSIONS.c.released_at.is_not(None))
    newest = query.order_by(VERSIONS.c.round.desc()).limit(1)
    row = connection.execute(newest).mappings().first()
    return None if row is None else Version(**row)


def newest_versions(connection: Connection, detector: str, count: int) -> tuple[Version, ...]:
    """Return the newest versions of a detector, newest first."""
    query = select(VERSIONS).where(VERSIONS.c.detector == detector)
    newest = query.order_by(VERSIONS.c.round.desc()).limit(count)
    rows = connection.execute(newest).mappings()
    return tuple(Version(**row) for row in rows)


def is_next(connection: Connection, version: Version) -> bool:
    """Return whether a version may become the newest of its detector.

    Numbers only grow: no version may have that number or a higher one, and no round a higher one.
    """
    newest = newest_version(connection, version.detector)
    if newest is not None and newest.round >= version.round:
        return False
    current = newest_round(connection, version.detector)
    return current is None or current.plan.round <= version.round
