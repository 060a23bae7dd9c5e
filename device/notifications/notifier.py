"""The owner is told of every ring: in order, by a thread of its own, and without the ring waiting
for it.

There is no queue beside the events: they are on the disk before anybody is told, and each teller
notes how far it has come. So what was not told before a power cut is told after it, and a ring
costs the setting of a flag. What nobody could be told of within ten minutes is given up, and
logged: news of a visitor who has left helps nobody.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from device.notifications.notification import Happening
from device.store.notifications import ToldStore
from shared.errors import DoorbellError, InvalidMessage
from shared.transport.backoff import BackOff

WORTH_TELLING_S: Final = 600.0
"""Older events are not told."""

MAX_PICTURE_BYTES: Final = 700_000
"""What servers and brokers take as they come: in base64 it is less than a megabyte."""

LOOK_S: Final = 60.0
"""So often a teller looks by itself: for events of another process, and whether what it says of the
device holds.
"""

_SLICE_S = 0.5
_log = logging.getLogger(__name__)


class NotTold(Exception):
    """Nobody could be told now; it is tried again.

    Args:
        why: What happened, a sentence without secrets.
        least_s: Seconds for which it is not tried again.
    """

    def __init__(self, why: str, least_s: float = 0.0) -> None:
        super().__init__(why)
        self.least_s = least_s


class Unwanted(Exception):
    """Who is told wants to hear no more; its message says so in a sentence."""


class Teller(Protocol):
    """A way to tell the owner; one thread at a time calls it.

    Attributes:
        name: What it is called in log lines and in the database.
    """

    name: str

    def ready(self, wake: Callable[[], None]) -> None:
        """Be ready to tell, and call `wake`, from any thread, as soon as this should be called
        again.

        Raises:
            NotTold: It is not possible now.
        """

    def tell(self, happening: Happening) -> None:
        """Tell of an event; when this returns, it has arrived.

        Raises:
            NotTold: It has not, or nobody knows.
            Unwanted: Nobody wants to hear.
            InvalidMessage: It cannot be told.
        """

    def close(self) -> None:
        """Let go of what is held."""


@dataclass
class Telling:
    """Tells the owner in one way.

    Attributes:
        teller: Which.
        told: How far it has come.
        following: Returns the oldest event after a number, without its picture; or None.
        picture: Returns an event's JPEG, or None if it is gone; None where the owner does not allow
            pictures.
        clock: Seconds since the epoch.
        monotonic: Seconds since some moment.
        rng: Of the pauses.
    """

    teller: Teller
    told: ToldStore
    following: Callable[[int], Happening | None]
    picture: Callable[[Happening], bytes | None] | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.SystemRandom)
    _news: threading.Event = field(default_factory=threading.Event, init=False)
    _done: int | None = field(default=None, init=False)
    _trouble: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._pauses = BackOff(self.rng)

    def look(self) -> None:
        """Say that there is something to tell; returns at once."""
        self._news.set()

    def run(self, stop: threading.Event) -> None:
        """Tell what there is to tell, until `stop` is set."""
        try:
            while not stop.is_set():
                self._news.clear()
                try:
                    least, most = 0.0, self.once()
                except NotTold as error:
                    least, most = error.least_s, self._pauses.next()
                except Unwanted as error:
                    _log.warning(
                        "Nobody is told by %s until this device starts again. %s",
                        self.teller.name,
                        error,
                    )
                    stop.wait()
                    return
                stop.wait(least)
                self._rest(stop, most)
        finally:
            self.teller.close()

    def once(self) -> float:
        """Tell all that is worth telling, and return after how many seconds to look again.

        Raises:
            NotTold: It did not work, and the reason is logged unless it is the same as before.
            Unwanted: Nobody wants to hear.
        """
        try:
            happening = self._next()
            self.teller.ready(self.look)
            while happening is not None:
                try:
                    self.teller.tell(self._with_picture(happening))
                except InvalidMessage as error:
                    _log.warning(
                        "Event %d cannot be told by %s. %s", happening.id, self.teller.name, error
                    )
                self._note(happening.id)
                happening = self._next()
        except NotTold as error:
            if str(error) != self._trouble:
                said = "Nobody is told by %s at the moment. %s Events wait for it until they are ten minutes old."
                _log.warning(said, self.teller.name, error)
            self._trouble = str(error)
            raise
        if self._trouble:
            _log.info("Telling by %s works again.", self.teller.name)
        self._trouble = ""
        self._pauses.reset()
        return LOOK_S

    def _next(self) -> Happening | None:
        """Return the oldest event that is still worth telling, and give up those before it."""
        if self._done is None:
            self._done = self.told.last(self.teller.name)
        promised, given_up, after = self._done is not None, 0, self._done or 0
        while (
            happening := self.following(after)
        ) and self.clock() - happening.at > WORTH_TELLING_S:
            after, given_up = happening.id, given_up + 1
        if given_up and promised:
            said = "%d events, the last of them %d, were not told by %s: they are older than ten minutes."
            _log.warning(said, given_up, after, self.teller.name)
        if given_up:
            self._note(after)
        return happening

    def _with_picture(self, happening: Happening) -> Happening:
        picture, said = None, "Event %d is told by %s without its picture. %s"
        try:
            picture = None if self.picture is None else self.picture(happening)
        except DoorbellError as error:
            _log.warning(said, happening.id, self.teller.name, error)
        if picture is not None and len(picture) > MAX_PICTURE_BYTES:
            why = f"It has more than {MAX_PICTURE_BYTES // 1000} kB."
            _log.warning(said, happening.id, self.teller.name, why)
            picture = None
        return replace(happening, picture=picture)

    def _note(self, number: int) -> None:
        self._done = number  # first here: a disk that is full must not make it ring again and again
        self.told.note(self.teller.name, number)

    def _rest(self, stop: threading.Event, seconds: float) -> None:
        """Wait until there is news, but no longer than so many seconds."""
        until = self.monotonic() + seconds
        while (
            not stop.is_set()
            and (left := until - self.monotonic()) > 0
            and not self._news.wait(min(left, _SLICE_S))
        ):
            pass
