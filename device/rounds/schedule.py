"""A device trains and sends by itself: at a set time of day, or when enough new pictures have come.

What was begun is in the store before it is begun, and what was kept on a day is too: a device that
is killed in the middle goes on, and a day counts once, even if the clock is set back.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

from device.context import Device
from device.rounds.tasks import Outcome, take_part
from shared.errors import DoorbellError
from shared.transport.backoff import BackOff

LOOK_EVERY_S: Final = 20.0
_BUSY_S = 3.0
_AWAY_S = 60.0
_WRONG_CLOCK_DAYS = 7
_log = logging.getLogger(__name__)


def keep_to_schedule(device: Device, stop: threading.Event) -> None:
    """Train and send when it is time, until `stop` is set."""
    schedule = Schedule(device, ending=stop.is_set)
    while not stop.is_set():
        stop.wait(schedule.once())


@dataclass
class Schedule:
    """Looks at the clock and at the picture folders now and then.

    Attributes:
        device: For whom.
        monotonic: Seconds since some moment; unlike the device's clock, nobody sets it.
        rng: Of the jitter.
        ending: Whether this process is about to end.
    """

    device: Device
    monotonic: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.SystemRandom)
    ending: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._looked = self.device.clock(), self.monotonic()
        self._back_off = BackOff(self.rng)
        self._complained = ""

    def once(self) -> float:
        """Begin what is due, go on with what was begun; return how many seconds to wait before
        looking again.
        """
        looks = self.device.clock(), self.monotonic()
        try:
            outcomes = self._look(datetime.fromtimestamp(looks[0]), self._time_has_come(*looks))
        except (
            DoorbellError
        ) as error:  # a folder that cannot be listed, a full disk: until somebody mends it
            if str(error) != self._complained:
                _log.warning("The schedule cannot be kept, and is tried again. %s", error)
            self._complained = str(error)
            return self._back_off.next()
        self._looked, self._complained = looks, ""
        if Outcome.BUSY in outcomes:
            return _BUSY_S
        if Outcome.LATER in outcomes:
            return self._back_off.next()
        self._back_off.reset()
        return LOOK_EVERY_S

    def _look(self, now: datetime, passed: bool) -> set[Outcome]:
        outcomes = set()
        for detector in self.device.detectors():
            pictures = sum(self.device.pictures(detector, "train").values())
            if passed and self._is_new_day(detector, now.date()):
                self.device.store.schedule.begin(detector, pictures, now.date().isoformat())
            elif self._has_enough_new(detector, pictures):
                self.device.store.schedule.begin(detector, pictures)
            outcomes.add(self._go_on(detector))
        return outcomes

    def _time_has_come(self, wall: float, monotonic: float) -> bool:
        """Return whether the set time has passed since the last look.

        While the device was off or asleep, or if the clock jumped over it, it has not: nothing is
        made up for.
        """
        at, (wall_before, monotonic_before) = self.device.settings.train_at, self._looked
        if at is None or wall - wall_before > monotonic - monotonic_before + _AWAY_S:
            return False
        before, now = datetime.fromtimestamp(wall_before), datetime.fromtimestamp(wall)
        return any(before < datetime.combine(day, at) <= now for day in {before.date(), now.date()})

    def _is_new_day(self, detector: str, today: date) -> bool:
        """Return whether the set time has not been kept yet today, nor on a day after it (before
        the clock was set).
        """
        errand = self.device.store.schedule.latest(detector)
        if errand is None or not errand.day:
            return True
        ahead = (date.fromisoformat(errand.day) - today).days
        return (
            ahead < 0 or ahead > _WRONG_CLOCK_DAYS
        )  # so far ahead, it was the clock that was wrong

    def _has_enough_new(self, detector: str, pictures: int) -> bool:
        wanted, store = self.device.settings.train_after_new, self.device.store
        if wanted is None:
            return False
        errand, training = store.schedule.latest(detector), store.trainings.newest(detector)
        if errand is not None and errand.after is not None:
            return False
        known = (
            errand.pictures
            if errand is not None
            else training.pictures
            if training is not None
            else 0
        )
        return pictures - known >= wanted

    def _go_on(self, detector: str) -> Outcome:
        """Train and send, if that was begun and is not done."""
        errand = self.device.store.schedule.latest(detector)
        if errand is None or (after := errand.after) is None:
            return Outcome.NOTHING
        outcome = take_part(
            self.device, detector, lambda training: training.id > after, self.ending
        )
        if outcome not in (Outcome.BUSY, Outcome.LATER):
            self.device.store.schedule.end(detector)
        return outcome
