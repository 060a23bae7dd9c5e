"""What is to be done next, for whoever asks: devices and the aggregator call, and wait for the
answer (long poll).

The caller says what it has, and the answer is what is missing; nothing has to be remembered between
two calls, so whoever dies simply asks again. docs/reference/protocol.md has the messages.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from main_server.context import MainServer
from main_server.members.devices import MAX_DETECTORS, check_detectors, checked_address
from main_server.models.pruning import prune
from main_server.rounds.rounds import asked_rounds
from main_server.rounds.work_messages import members, status_of, wait_s_of
from main_server.runs.runs import advance
from main_server.store.records import Device, Status, Version
from shared.errors import DoorbellError, InvalidMessage
from shared.names import AGGREGATOR, checked_name
from shared.security.authenticator import Caller
from shared.telemetry.logs import round_id, under

_LOOK_EVERY_S = 0.25
_ADVANCE_EVERY_S = 1.0
_PRUNE_EVERY_S = 600.0
_COME_BACK_S = 25.0
_log = logging.getLogger(__name__)

Task = dict[str, Any]


class News:
    """Wakes those who wait when something has happened, whichever process wrote it down, and lets
    the runs advance.

    Args:
        server: The main server.
    """

    def __init__(self, server: MainServer) -> None:
        self._server = server
        self._changed = threading.Condition()
        self._seen = 0
        self._slots: threading.Semaphore | None = None

    def watch(self, stop: threading.Event, threads: int) -> None:
        """Look for news until `stop` is set.

        Args:
            stop: Ends it.
            threads: How many requests this worker answers at once; half of them, or all but eight,
                may wait for news.
        """
        self._slots = threading.BoundedSemaphore(max(threads - 8, threads // 2))
        advanced = pruned = time.monotonic()
        while not stop.wait(_LOOK_EVERY_S):
            try:
                if (
                    self._server.store.newest_event() != self._seen
                    or time.monotonic() > advanced + _ADVANCE_EVERY_S
                ):
                    advance(self._server)
                    advanced = time.monotonic()
                    self._tell(self._server.store.newest_event())
                if time.monotonic() > pruned + _PRUNE_EVERY_S:
                    prune(self._server)
                    pruned = time.monotonic()
            except (
                DoorbellError
            ) as error:  # the database is away, or the disk is full: until somebody mends it
                _log.warning("%s", error)
                stop.wait(_ADVANCE_EVERY_S)
        with self._changed:
            self._slots = None
            self._changed.notify_all()  # this process ends: nobody is kept waiting

    def wait_for(self, tasks: Callable[[], list[Task]], wait_s: float) -> tuple[list[Task], float]:
        """Return tasks as soon as there are some, or none after `wait_s`; and after how long to
        come back if not now.

        Args:
            tasks: Looks for them.
            wait_s: Seconds.
        """
        seen, until = self._seen, time.monotonic() + wait_s
        if found := tasks():
            return found, 0.0
        if (slots := self._slots) is None or not slots.acquire(blocking=False):
            return [], _COME_BACK_S
        try:
            while not found and self._slots is slots and (left := until - time.monotonic()) > 0:
                with self._changed:
                    if self._seen == seen and self._slots is slots:
                        self._changed.wait(left)
                    seen = self._seen
                found = tasks()
            return found, 0.0
        finally:
            slots.release()

    def _tell(self, newest: int) -> None:
        with self._changed:
            if newest != self._seen:
                self._seen = newest
                self._changed.notify_all()


def for_device(
    server: MainServer, news: News, caller: Caller, message: object
) -> dict[str, object]:
    """Note what a device says of itself, and return what it is to do: install a version, take part
    in a round.

    Raises:
        InvalidMessage: The message is none.
    """
    said = members(message, {"address", "wait_s", "detectors"})
    address, wait_s, detectors = (
        checked_address(said["address"]),
        wait_s_of(said["wait_s"]),
        said["detectors"],
    )
    if not isinstance(detectors, Mapping) or len(detectors) > MAX_DETECTORS:
        raise InvalidMessage(f"A device takes part in {MAX_DETECTORS} detectors at most.")
    statuses = {
        checked_name(name, "detector"): status_of(value) for name, value in detectors.items()
    }
    check_detectors(server, caller.name, set(statuses))
    server.store.note_status(Device(caller.name, address, server.clock(), True), statuses)
    found, again_s = news.wait_for(lambda: _device_tasks(server, statuses), wait_s)
    _log_rounds(caller.name, found)
    return {"name": caller.name, "tasks": found, "again_s": again_s}


def for_aggregator(server: MainServer, news: News, message: object) -> dict[str, object]:
    """Return which rounds the aggregator is to add up and hand over now.

    Raises:
        InvalidMessage: The message is none.
    """
    wait_s = wait_s_of(members(message, {"wait_s"})["wait_s"])
    found, again_s = news.wait_for(lambda: _aggregator_tasks(server), wait_s)
    _log_rounds("the aggregator", found)
    return {"tasks": found, "again_s": again_s}


def _log_rounds(who: str, tasks: list[Task]) -> None:
    for task in tasks:
        if "round" in task:
            with under(round_id(task["detector"], task["round"])):
                _log.info(
                    "%s: %s is to %s, round %d", task["detector"], who, task["do"], task["round"]
                )


def _device_tasks(server: MainServer, statuses: Mapping[str, Status]) -> list[Task]:
    tasks: list[Task] = []
    asked = asked_rounds(server.store.runs(), server.store.newest_round)
    for detector, status in statuses.items():
        released = server.store.newest_version(detector, released=True)
        if released is not None and not _has(server, status, released):
            tasks.append({"do": "install", "detector": detector, "version": released.version})
        if (current := asked.get(detector)) is None:
            continue
        number, wanted = current.settings.round, current.settings.min_cohort
        if current.due_at is not None and len(server.store.sent(current.settings)) >= wanted:
            continue
        if status.sent_round != number and (status.setback is None or status.setback[0] != number):
            tasks.append({"do": "train", "detector": detector, "round": number})
    return tasks


def _has(server: MainServer, status: Status, released: Version) -> bool:
    """Return whether a device holds a version, or a newer one that it fetched for a training, or
    cannot use it.
    """
    if released.version in (status.held, status.refused):
        return True
    held = server.store.version(status.held) if status.held else None
    return held is not None and held.detector == released.detector and held.round > released.round


def _aggregator_tasks(server: MainServer) -> list[Task]:
    return [
        {"do": "aggregate", "detector": detector, "round": current.settings.round}
        for detector, current in asked_rounds(
            server.store.runs(), server.store.newest_round
        ).items()
        if current.due_at is not None and current.settings.receiver == AGGREGATOR
    ]
