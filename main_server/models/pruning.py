"""Deleting what nobody needs any more, so that a federation fits on its disk for years."""

from __future__ import annotations

from main_server.context import MainServer
from main_server.store.devices import all_detectors
from main_server.store.events import forget_old_events
from main_server.store.retention import forget_old, needed_blobs

KEPT_ROUNDS = 100
"""So many rounds keep who sent an update when; the page shows the newest of them."""

GRACE_S = 3600.0
"""A blob is written before the row that names it: for an hour, one without a row stays."""


def prune(server: MainServer, grace_s: float = GRACE_S) -> int:
    """Delete old versions' parameters, old contributions and old events.

    Args:
        server: The main server.
        grace_s: Blobs younger than so many seconds stay: the rows that need them may not be
            written yet.

    Returns:
        How many bytes of models were freed.
    """
    keep_versions = server.settings.keep_versions
    with server.store.read() as connection:
        detectors = all_detectors(connection)
    # One short transaction per detector: nobody waits for the write lock meanwhile.
    for detector in detectors:
        with server.store.write() as connection:
            forget_old(connection, detector, keep_versions, KEPT_ROUNDS)
    with server.store.write() as connection:
        forget_old_events(connection)
    with server.store.read() as connection:
        needed = needed_blobs(connection)
    return server.blobs.prune(needed, grace_s)
