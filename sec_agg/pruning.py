"""What the aggregator deletes, and when, so that its folder stays as large as a few rounds.

    masked updates       when their sum is handed over and a newer round is known,
                         or after three newer rounds
    receipts of them     after twenty rounds
    sums                 after three rounds: until then a sum can be handed over again
    rows of rounds       never, so that no second sum can be made of a round
    blobs without a row  after an hour: an update that another one replaced,
                         or what a killed process left

Any number of workers and machines may prune at once. Rows are deleted in one transaction and their
blobs after it; a process killed in between leaves a blob without a row. A worker that is adding up
an old round while its updates are deleted finds the sum in the store (`aggregation.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sec_agg.store.store import Store
from shared.errors import DoorbellError
from shared.storage.blobs import BlobStore

RECENT_ROUNDS, LISTED_ROUNDS = 3, 20
GRACE_S = 3600.0
AFTER_HAND_OVER_S, IDLE_S = 60.0, 1800.0
_log = logging.getLogger(__name__)


def prune(store: Store, blobs: BlobStore, grace_s: float = GRACE_S) -> None:
    """Let go of everything that is not needed any more.

    Args:
        store: The aggregator's rows.
        blobs: Its blobs.
        grace_s: So many seconds after it was last put, a blob that no row names stays: its row may
            be on its way.
    """
    for digest in store.let_go(RECENT_ROUNDS, LISTED_ROUNDS):
        blobs.delete(digest)
    blobs.prune(store.needed(RECENT_ROUNDS), grace_s)


class Pruner:
    """Prunes now and then, in whichever thread comes by; one that finds another at it goes on.

    Args:
        store: The aggregator's rows.
        blobs: Its blobs.
        clock: Seconds, from any start.
    """

    def __init__(
        self, store: Store, blobs: BlobStore, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._blobs, self._clock = store, blobs, clock
        self._turn = threading.Lock()
        self._last = float("-inf")

    def after_hand_over(self) -> None:
        """Prune, unless this process did a minute ago."""
        self._unless_done(AFTER_HAND_OVER_S)

    def idle(self) -> None:
        """Prune, unless this process did half an hour ago; what others left behind has no other
        occasion.
        """
        self._unless_done(IDLE_S)

    def _unless_done(self, pause_s: float) -> None:
        if not self._turn.acquire(blocking=False):
            return
        try:
            if self._clock() - self._last >= pause_s:
                self._last = self._clock()
                prune(self._store, self._blobs)
        except (
            DoorbellError
        ) as error:  # what was asked for is done; this is tried again the next time
            _log.warning("pruning: %s", error)
        finally:
            self._turn.release()
