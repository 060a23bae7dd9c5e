"""What a notification channel is, and how a delivery fails. A channel is one file beside this one.

A channel is declared by a URL and made by `from_url`; `registry.py` knows each by its schemes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from device.notifications.notification import Notification


class NotDelivered(Exception):
    """A delivery failed for now; it is repeated.

    Args:
        reason: What happened, a sentence without secrets.
        least_s: Seconds to wait before the next attempt.
    """

    def __init__(self, reason: str, least_s: float = 0.0) -> None:
        super().__init__(reason)
        self.least_s = least_s


class ChannelClosed(Exception):
    """The receiver wants no more notifications; the message says so in a sentence."""


@dataclass(frozen=True)
class Sender:
    """The device as its channels present it.

    Attributes:
        identity: Name that stays for the device's life.
        device: Name in the federation, which may change.
        pictures: Whether the owner allows pictures to be sent.
        page: URL of the device's own page, or None.
        rounds: Returns the detectors with an active model, each with that model's round.
    """

    identity: str
    device: str
    pictures: bool
    page: str | None
    rounds: Callable[[], Mapping[str, int]]


class Channel(Protocol):
    """A way to reach the owner; one thread at a time calls it.

    Attributes:
        name: Name in the log and in the database, the same after every restart.
        address: Where it delivers, without credentials; no two channels share one.
    """

    name: str
    address: str

    def connect(self, wake: Callable[[], None]) -> None:
        """Be ready to deliver.

        Args:
            wake: Is called, from any thread, as soon as `connect` should be called again.

        Raises:
            NotDelivered: It is not possible now.
        """

    def deliver(self, notification: Notification) -> None:
        """Deliver a notification; when this returns, it has arrived.

        Raises:
            NotDelivered: It has not arrived, or that is unknown.
            ChannelClosed: The receiver wants no more of them.
            InvalidMessage: It can never be delivered.
        """

    def close(self) -> None:
        """Release connections."""


class ChannelType(Protocol):
    """A class of channels.

    Attributes:
        schemes: The URL schemes that declare one.
    """

    schemes: tuple[str, ...]

    def from_url(self, url: str, sender: Sender, name: str | None = None) -> Channel:
        """Make the channel that a URL declares.

        Args:
            url: A URL of one of `schemes`, which may hold credentials.
            sender: The device.
            name: The channel's name; None derives it from the address.

        Raises:
            SettingsError: The URL is not valid; the message does not quote it.
        """


def name_for(kind: str, address: str) -> str:
    """Return the name of a channel, such as "webhook-5f2c9a10".

    New credentials leave it as it is, so nothing is delivered twice because of them.

    Args:
        kind: The kind of channel, one word.
        address: Where it delivers, without credentials.
    """
    digest = hashlib.sha256(address.encode()).hexdigest()
    return f"{kind}-{digest[:8]}"
