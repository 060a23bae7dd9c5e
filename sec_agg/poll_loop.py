"""Waiting for work: the main server says when a round is to be added up, and nobody presses a
button here.

The aggregator asks, and the main server keeps the request until there is something to do. The same
task comes until its round is over, so nothing is lost whoever dies. Of the workers of one folder
one attends at a time, and another takes over within seconds when it is killed. On several machines
with one database each attends: every step may be done twice, at once or later, and comes to the
same.
"""

from __future__ import annotations

import fcntl
import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sec_agg.aggregation import Aggregator, aggregate, hand_over
from sec_agg.answers import unexpected
from sec_agg.pruning import Pruner
from shared.errors import DoorbellError, InvalidMessage, PeerUnreachable
from shared.protocol.work import AddUp, AggregatorWaits, Work, known_work
from shared.storage.blobs import storage_errors
from shared.telemetry.logs import round_id, under
from shared.transport.backoff import BackOff

WAIT_S = 27
AGAIN_S = 5.0
LEAST_S = 1.0
TURN_S = 3.0
_rng = random.SystemRandom()
_log = logging.getLogger(__name__)


def attend(aggregator: Aggregator, pruner: Pruner, stop: threading.Event) -> None:
    """Wait for work and do it, until `stop` is set.

    Args:
        aggregator: The aggregator.
        pruner: Lets go of what a finished round leaves behind.
        stop: Ends it, at the latest when the main server has answered.
    """
    with _turn(aggregator.enrolment.folder / "attending.lock", stop):
        attendant, back_off = Attendant(aggregator, pruner), BackOff(_rng)
        while not stop.is_set():
            try:
                pause = attendant.attend_once()
            except DoorbellError as error:
                attendant.say("", 0, error)
                pause = back_off.next()
            else:
                back_off.reset()
            stop.wait(pause)


class Attendant:
    """Asks for work and does it, once at a time; remembers what it has complained about.

    Args:
        aggregator: The aggregator.
        pruner: As for `attend`.
    """

    def __init__(self, aggregator: Aggregator, pruner: Pruner) -> None:
        self._aggregator, self._pruner = aggregator, pruner
        self._said: dict[str, tuple[int, str]] = {}
        self._done: dict[str, int] = {}

    def attend_once(self) -> float:
        """Ask for work, wait until there is some, and do it; return after how many seconds to ask
        again.

        Raises:
            DoorbellError: The main server cannot be asked, or cannot be told.
        """
        begun = time.monotonic()
        tasks, again_s = self._ask()
        self._said.pop("", None)
        fresh, failures = [], []
        for task in tasks:
            try:
                with under(round_id(task.detector, task.round)):
                    fresh.append(self._do(task))
            except PeerUnreachable as error:  # the other tasks shall not wait for it
                failures.append(error)
        self._pruner.idle()
        if failures:
            raise failures[0]
        if not tasks and again_s > 0:
            return again_s * _rng.uniform(0.5, 1.5)
        if not all(fresh):
            return AGAIN_S
        return 0.0 if tasks or time.monotonic() - begun > LEAST_S else LEAST_S

    def say(self, detector: str, number: int, error: DoorbellError) -> None:
        """Log what does not work, once for each round and kind."""
        what = (number, type(error).__name__)
        if self._said.get(detector) != what:
            self._said[detector] = what
            _log.warning("%s%s", f"{detector}: " if detector else "attending: ", error)

    def _ask(self) -> tuple[list[AddUp], float]:
        """Return the rounds to add up, and after how many seconds to come back.

        Raises:
            PeerUnreachable: The main server does not answer, or not with a list of tasks.
        """
        main = self._aggregator.enrolment.main()
        message = AggregatorWaits(WAIT_S)
        reply = self._aggregator.http.post_json(f"{main.url}/work", message, main)
        try:
            work = known_work(Work, reply.json)
        except InvalidMessage as error:
            raise unexpected(Work, error) from error
        return [task for task in work.tasks if isinstance(task, AddUp)], work.again_s

    def _do(self, task: AddUp) -> bool:
        """Add up and hand over; False if that did not work, or not for the first time: it is not to
        be hurried then.
        """
        try:
            aggregate(self._aggregator, task.detector, task.round)
            done = hand_over(self._aggregator, task.detector)
        except PeerUnreachable:
            raise
        except DoorbellError as error:
            self.say(task.detector, task.round, error)
            return False
        self._pruner.after_hand_over()
        is_fresh = self._done.get(task.detector) != task.round
        self._done[task.detector] = task.round
        _log.info("%s: %s", task.detector, done.said)
        return is_fresh


@contextmanager
def _turn(path: Path, stop: threading.Event) -> Iterator[None]:
    """Wait until no other worker holds the file's lock, or `stop` is set; the kernel frees it when
    its holder dies.
    """
    with storage_errors(f"The file {path.name}"), path.open("a") as file:
        while not stop.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stop.wait(TURN_S * _rng.uniform(0.5, 1.5))
        yield
