"""What old rounds and versions need no more, and which blobs are still needed."""

from __future__ import annotations

from sqlalchemy import Connection, and_, select

from main_server.store.pins import find_pins
from main_server.store.rounds import newest_round
from main_server.store.tables import CONTRIBUTIONS, SCORES, VERSIONS


def forget_old(connection: Connection, detector: str, keep_versions: int, keep_rounds: int) -> None:
    """Delete what only older rounds needed; rounds, versions and events stay known.

    Args:
        connection: The transaction.
        detector: Whose.
        keep_versions: So many of the newest versions keep their parameters, beside those that
            are still needed: the pinned one, the base of the open round, and the parent that the
            newest may be rolled back to.
        keep_rounds: So many of the newest rounds keep who sent an update, and when.
    """
    _forget_versions(connection, detector, keep_versions)
    current = newest_round(connection, detector)
    newest = 0 if current is None else current.plan.round
    old = and_(
        CONTRIBUTIONS.c.detector == detector,
        CONTRIBUTIONS.c.round <= newest - keep_rounds,
    )
    connection.execute(CONTRIBUTIONS.delete().where(old))


def _forget_versions(connection: Connection, detector: str, keep_versions: int) -> None:
    """Mark the versions whose parameters nobody needs any more; `prune` then deletes the blobs."""
    columns = (
        VERSIONS.c.version,
        VERSIONS.c.parent,
        VERSIONS.c.forgotten,
    )
    query = select(*columns).where(VERSIONS.c.detector == detector)
    newest_first = query.order_by(VERSIONS.c.round.desc())
    rows = connection.execute(newest_first).all()
    needed = {row.version for row in rows[:keep_versions]}
    if rows:  # the gate may roll the newest back to its parent
        needed.add(rows[0].parent)
    needed.add(find_pins(connection).get(detector))
    current = newest_round(connection, detector)
    if current is not None:  # devices that train for it fetch its base
        needed.add(current.plan.base_version)
    gone = []
    for row in rows:
        if row.version not in needed and not row.forgotten:
            gone.append(row.version)
    change = VERSIONS.update().where(VERSIONS.c.version.in_(gone))
    connection.execute(change.values(forgotten=True))
    # Their mean stays beside the version: the chart shows it.
    connection.execute(SCORES.delete().where(SCORES.c.version.in_(gone)))


def needed_blobs(connection: Connection) -> set[str]:
    """Return the digests of every blob that is still needed.

    Versions, the strategy's arrays that belong to them, and plain updates.
    """
    kept = select(VERSIONS.c.version, VERSIONS.c.state).where(VERSIONS.c.forgotten.is_(False))
    needed: set[str | None] = set()
    for row in connection.execute(kept):
        needed.update(row)
    updates = select(CONTRIBUTIONS.c.digest)
    needed.update(connection.execute(updates).scalars())
    return {digest for digest in needed if digest is not None}
