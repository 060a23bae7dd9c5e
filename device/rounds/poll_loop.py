"""A device calls the main server, says what it has, waits for work, and does it. Nobody has to call
a device.

The main server answers with what is missing, at once or when something turns up (a long poll), so
nothing is lost when either of them dies: the next call tells the same. While the main server does
not answer, the pauses grow to a minute, each drawn at random below its limit, so that devices do
not come back all at once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from device.context import Device
from device.rounds import model_trial
from device.rounds.tasks import Outcome, install_version, take_part
from device.store.records import Score as KeptScore
from shared.errors import DoorbellError
from shared.protocol.work import (
    MAX_DETAIL_CHARS,
    AddUp,
    DetectorStatus,
    DeviceWaits,
    DeviceWork,
    Failure,
    Install,
    Score,
    Train,
    known_work,
)
from shared.security.joining import checked_member_name
from shared.telemetry.logs import round_id, under, version_id
from shared.transport.backoff import BackOff

WAIT_S: Final = 27.0
WAIT_JITTER_S: Final = 3.0
LEAST_S: Final = 25.0
"""Without work there is at most one call in so many seconds, whatever the main server does."""

_BUSY_S, _LONGEST_BUSY_S = 1.0, 60.0
_log = logging.getLogger(__name__)


def attend(device: Device, stop: threading.Event) -> None:
    """Wait for work and do it, until `stop` is set."""
    attendant = Attendant(device, stop.wait, stop.is_set)
    while not stop.is_set():
        stop.wait(attendant.once())


@dataclass
class Attendant:
    """Calls the main server again and again.

    Attributes:
        device: For whom.
        pause: Waits so many seconds; returns True if this process is about to end.
        ending: Whether it is.
        monotonic: Seconds since some moment.
        rng: Of the jitter.
    """

    device: Device
    pause: Callable[[float], object]
    ending: Callable[[], bool] = lambda: False
    monotonic: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.SystemRandom)

    def __post_init__(self) -> None:
        self._calls, self._tasks = BackOff(self.rng), BackOff(self.rng)
        self._complained: str | None = None

    def once(self) -> float:
        """Call once and do what there is to do; return how many seconds to wait before calling
        again.
        """
        begun = self.monotonic()
        try:
            model_trial.settle_all(self.device)
            work = call(self.device, WAIT_S + self.rng.uniform(0.0, WAIT_JITTER_S))
        except DoorbellError as error:
            self._say(str(error))
            return self._calls.next()
        self._calls.reset()
        self._say(None)
        pause = work.again_s * self.rng.uniform(1.0, 1.5)
        tasks = [task for task in work.tasks if not isinstance(task, AddUp)]
        if not tasks:
            self._tasks.reset()
            return pause or max(0.0, LEAST_S - (self.monotonic() - begun))
        return max(pause, self._do(tasks))

    def _do(self, tasks: Sequence[Install | Train]) -> float:
        """Do tasks, and return how long to wait then."""
        outcomes = [self._done(task) for task in tasks]
        if Outcome.BUSY in outcomes:
            self._wait_until_idle()
            return 0.0
        if Outcome.DONE in outcomes and Outcome.LATER not in outcomes:
            self._tasks.reset()
            return 0.0
        return self._tasks.next()  # the same would be asked for again at once

    def _done(self, task: Install | Train) -> Outcome:
        if isinstance(task, Install):
            with under(version_id(task.version)):
                return install_version(self.device, task.detector, task.version)
        with under(round_id(task.detector, task.round)):
            return take_part(
                self.device, task.detector, lambda t: t.round == task.round, self.ending, task.round
            )

    def _wait_until_idle(self) -> None:
        """Wait while the training child works for somebody else; a main server is not kept waiting
        for long.
        """
        end = self.monotonic() + _LONGEST_BUSY_S
        self.pause(_BUSY_S)
        while (
            self.device.trainer.progress is not None
            and self.monotonic() < end
            and not self.pause(_BUSY_S)
        ):
            pass

    def _say(self, complaint: str | None) -> None:
        """Log why polling fails, once for each reason; and that it works again."""
        if complaint == self._complained:
            return
        self._complained = complaint
        if complaint is None:
            _log.warning("The main server answers: %s waits for work.", self.device.name)
        else:
            _log.warning(
                "%s waits for work in vain, and goes on trying. %s", self.device.name, complaint
            )


def call(device: Device, wait_s: float) -> DeviceWork:
    """Say what this device has, and return what it is to do.

    Args:
        device: The device.
        wait_s: How long the main server may wait before it answers that there is nothing, in
            seconds.

    Raises:
        PeerUnreachable: The main server does not answer.
        Forbidden: This device has not joined and cannot, or was revoked.
        InvalidMessage: The answer is none.
    """
    main = device.enrolment.main()
    message = DeviceWaits(
        address=device.settings.url,
        wait_s=round(wait_s, 1),
        detectors={detector: _status(device, detector) for detector in device.detectors()},
    )
    reply = device.poll.post_json(f"{main.url}/work", message, main)
    work = known_work(DeviceWork, reply.json)
    device.enrolment.rename(checked_member_name(work.name, "device"))
    return work


def _status(device: Device, detector: str) -> DetectorStatus:
    store = device.store
    training = store.trainings.newest(detector)
    held = store.models.active(detector)
    score = store.models.newest_score(detector)
    setback = store.failures.latest(detector)
    return DetectorStatus(
        trained_round=training.round if training else None,
        sent_round=store.trainings.sent_round(detector),
        held=held.version if held else None,
        score=_score_of(score) if score else None,
        setback=Failure(setback.round, _one_line(setback.said)) if setback else None,
        refused=store.models.rejected(detector),
    )


def _score_of(kept: KeptScore) -> Score | None:
    if kept.accuracy is None:
        return None
    return Score(kept.version, kept.accuracy, kept.pictures)


def _one_line(text: str) -> str:
    """Return a sentence as it may travel: a file's name in it need not be text."""
    return "".join(char if char.isprintable() else " " for char in text[:MAX_DETAIL_CHARS])
