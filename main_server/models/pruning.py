"""Letting go of what nobody needs any more, so that a federation that runs for years fits on its
disk.
"""

from __future__ import annotations

from main_server.context import MainServer

KEPT_ROUNDS = 100
GRACE_S = 3600.0


def prune(server: MainServer, grace_s: float = GRACE_S) -> int:
    """Forget old versions' parameters, old contributions and old events; return how many bytes of
    models went.

    Args:
        server: The main server.
        grace_s: Blobs younger than so many seconds stay: what they are for may not be written down
            yet.
    """
    for detector in server.store.detectors():
        server.store.forget(detector, server.settings.keep_versions, KEPT_ROUNDS)
    server.store.forget_old_events()
    return server.blobs.prune(server.store.kept_blobs(), grace_s)
