"""Delivers a notification of every ring over one channel: in order, in a thread of its own, and
without the ring waiting for it.

There is no queue beside the events: an event is on the disk before anybody is notified, and each
channel records its last delivery. So what was not delivered before a power cut is delivered after
it, and a ring costs the setting of a flag. What could not be delivered within ten minutes is
dropped, and logged: news of a visitor who has left helps nobody.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from device.notifications.channel import Channel, ChannelClosed, NotDelivered
from device.notifications.notification import Notification
from device.store.notifications import DeliveryStore
from shared.errors import DoorbellError, InvalidMessage
from shared.transport.backoff import BackOff

MAX_AGE_S: Final = 600.0
"""Older events are not delivered."""

MAX_PICTURE_BYTES: Final = 700_000
"""What servers and brokers accept by default: in base64 it is less than a megabyte."""

POLL_S: Final = 60.0
"""Seconds after which a notifier looks without being woken: for events of another process, and
whether the channel still presents the device as it is.
"""

_SLICE_S = 0.5
_log = logging.getLogger(__name__)


@dataclass
class Notifier:
    """Delivers over one channel.

    Attributes:
        channel: The channel.
        deliveries: How far each channel has come.
        next_after: Returns the oldest event after a number, without its picture; or None.
        picture: Returns an event's JPEG, or None if it is gone; None where the owner does not allow
            pictures.
        clock: Seconds since the epoch.
        monotonic: Seconds of a clock that never goes back.
        rng: Of the pauses.
    """

    channel: Channel
    deliveries: DeliveryStore
    next_after: Callable[[int], Notification | None]
    picture: Callable[[Notification], bytes | None] | None = None
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    rng: random.Random = field(default_factory=random.SystemRandom)
    _woken: threading.Event = field(default_factory=threading.Event, init=False)
    _last: int | None = field(default=None, init=False)
    _failure: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._pauses = BackOff(self.rng)

    def wake(self) -> None:
        """Say that there may be something to deliver; returns at once."""
        self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Deliver whatever there is, until `stop` is set."""
        try:
            while not stop.is_set():
                # Cleared before it looks: an event that comes meanwhile wakes it again.
                self._woken.clear()
                least_s = 0.0
                try:
                    most_s = self.deliver_pending()
                except NotDelivered as error:
                    least_s = error.least_s
                    most_s = self._pauses.next()
                except ChannelClosed as error:
                    _log.warning(
                        "Channel %s is closed until this device restarts. %s",
                        self.channel.name,
                        error,
                    )
                    stop.wait()
                    return
                stop.wait(least_s)
                self._rest(stop, most_s)
        finally:
            self.channel.close()

    def deliver_pending(self) -> float:
        """Deliver every pending notification.

        Returns:
            Seconds after which to look again.

        Raises:
            NotDelivered: A delivery failed; the reason is logged unless it is the last one.
            ChannelClosed: The receiver wants no more of them.
        """
        try:
            notification = self._next()
            self.channel.connect(self.wake)
            while notification is not None:
                self._deliver(notification)
                self._record(notification.id)
                notification = self._next()
        except NotDelivered as error:
            self._note_failure(str(error))
            raise
        if self._failure:
            _log.info("Channel %s works again.", self.channel.name)
        self._failure = ""
        self._pauses.reset()
        return POLL_S

    def _deliver(self, notification: Notification) -> None:
        try:
            self.channel.deliver(self._with_picture(notification))
        except InvalidMessage as error:  # it never will be valid, and must hold up no other
            _log.warning(
                "Event %d cannot be delivered over %s. %s",
                notification.id,
                self.channel.name,
                error,
            )

    def _note_failure(self, reason: str) -> None:
        if reason != self._failure:
            _log.warning(
                "Channel %s is failing. %s Events wait for it until they are ten minutes old.",
                self.channel.name,
                reason,
            )
        self._failure = reason

    def _next(self) -> Notification | None:
        """Return the oldest event that is young enough, and drop those before it."""
        if self._last is None:
            self._last = self.deliveries.last(self.channel.name)
        is_new = self._last is None
        last = self._last or 0
        dropped = 0
        notification = self.next_after(last)
        while notification is not None and self.clock() - notification.at > MAX_AGE_S:
            last = notification.id
            dropped += 1
            notification = self.next_after(last)
        # What happened before a channel was declared is no loss.
        if dropped and not is_new:
            _log.warning(
                "%d events, the last of them %d, were not delivered over %s: "
                "they are older than ten minutes.",
                dropped,
                last,
                self.channel.name,
            )
        if dropped:
            self._record(last)
        return notification

    def _with_picture(self, notification: Notification) -> Notification:
        picture = None
        reason = ""
        try:
            picture = None if self.picture is None else self.picture(notification)
        except DoorbellError as error:
            reason = str(error)
        if picture is not None and len(picture) > MAX_PICTURE_BYTES:
            reason = f"It has more than {MAX_PICTURE_BYTES // 1000} kB."
            picture = None
        if reason:
            _log.warning(
                "Event %d is delivered over %s without its picture. %s",
                notification.id,
                self.channel.name,
                reason,
            )
        return replace(notification, picture=picture)

    def _record(self, number: int) -> None:
        # In memory first: a full disk must not make it deliver the same event again and again.
        self._last = number
        self.deliveries.record(self.channel.name, number)

    def _rest(self, stop: threading.Event, seconds: float) -> None:
        """Wait until woken or stopped, for at most so many seconds."""
        until = self.monotonic() + seconds
        while not stop.is_set():
            left_s = until - self.monotonic()
            # In slices, as one thread cannot wait for two events.
            if left_s <= 0 or self._woken.wait(min(left_s, _SLICE_S)):
                return
