"""Waking those who wait for work when something has changed (long poll).

Every worker process of the main server has one: changes are found in the database, so it does not
matter which process wrote them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from main_server.context import MainServer
from main_server.models.pruning import prune
from main_server.runs.advance import advance
from main_server.store.events import newest_event_id
from shared.errors import DoorbellError
from shared.protocol.work import AddUp, Install, Train

_LOOK_EVERY_S = 0.25
_ADVANCE_EVERY_S = 1.0
_PRUNE_EVERY_S = 600.0
# A caller that finds no free slot comes back before the page would call its device offline.
_COME_BACK_S = 25.0
_log = logging.getLogger(__name__)

Task = Install | Train | AddUp


class ChangeNotifier:
    """Wakes those who wait when something has changed, and lets the runs advance.

    Args:
        server: The main server.
    """

    def __init__(self, server: MainServer) -> None:
        self._server = server
        self._changed = threading.Condition()
        self._seen = 0
        self._slots: threading.Semaphore | None = None
        self._advanced = 0.0
        self._pruned = 0.0

    def watch(self, stop: threading.Event, threads: int) -> None:
        """Look for changes until `stop` is set.

        Args:
            stop: Ends it.
            threads: How many requests this worker answers at once; half of them, or all but eight,
                may wait: the rest stay free for messages that must not wait.
        """
        self._slots = threading.BoundedSemaphore(max(threads - 8, threads // 2))
        self._advanced = self._pruned = time.monotonic()
        while not stop.wait(_LOOK_EVERY_S):
            try:
                self._look()
            except DoorbellError as error:
                # The database is away, or the disk is full: until somebody fixes it.
                _log.warning("%s", error)
                stop.wait(_ADVANCE_EVERY_S)
        # This process ends: nobody is kept waiting.
        with self._changed:
            self._slots = None
            self._changed.notify_all()

    def wait_for(self, tasks: Callable[[], list[Task]], wait_s: float) -> tuple[list[Task], float]:
        """Return tasks as soon as there are some, or none after `wait_s`.

        Args:
            tasks: Looks for them.
            wait_s: Seconds.

        Returns:
            The tasks, and after how many seconds to come back if there was no room to wait.
        """
        # Read before the first look: a change during it ends the waiting at once.
        seen = self._seen
        until = time.monotonic() + wait_s
        found = tasks()
        if found:
            return found, 0.0
        slots = self._slots
        if slots is None or not slots.acquire(blocking=False):
            return [], _COME_BACK_S
        try:
            while not found and self._slots is slots:
                left = until - time.monotonic()
                if left <= 0:
                    break
                with self._changed:
                    if self._seen == seen and self._slots is slots:
                        self._changed.wait(left)
                    seen = self._seen
                found = tasks()
            return found, 0.0
        finally:
            slots.release()

    def _look(self) -> None:
        """Advance the runs if something has changed, or a second is over; prune now and then."""
        is_changed = self._newest_event() != self._seen
        if is_changed or time.monotonic() > self._advanced + _ADVANCE_EVERY_S:
            advance(self._server)
            self._advanced = time.monotonic()
            self._notify(self._newest_event())
        if time.monotonic() > self._pruned + _PRUNE_EVERY_S:
            prune(self._server)
            self._pruned = time.monotonic()

    def _newest_event(self) -> int:
        with self._server.store.read() as connection:
            return newest_event_id(connection)

    def _notify(self, newest: int) -> None:
        with self._changed:
            if newest != self._seen:
                self._seen = newest
                self._changed.notify_all()
