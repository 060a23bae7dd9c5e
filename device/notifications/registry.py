"""The notification channels, by URL scheme.

A new channel is one file, and one line in `CHANNELS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from device.notifications.channel import Channel, ChannelType, Sender
from device.notifications.mqtt import Mqtt
from device.notifications.webhook import Webhook
from device.settings import BellSettings
from shared.errors import SettingsError

_Declared = tuple[str, ChannelType | None, str | None, str]
"""Variable, type where the variable decides it, name where it has one already, and URL."""

CHANNELS: Final[tuple[ChannelType, ...]] = (
    Mqtt,
    Webhook,
)


def open_channels(settings: BellSettings, sender: Sender) -> tuple[Channel, ...]:
    """Return the channels that the settings declare; nothing connects yet.

    An address that is declared twice gets one channel, so no notification is delivered twice.

    Args:
        settings: What the owner declares.
        sender: The device.

    Raises:
        SettingsError: A URL is not valid; the message names its variable and quotes nothing of it.
    """
    channels: dict[str, Channel] = {}
    for variable, kind, name, url in _declared(settings):
        try:
            channel = (kind or _type_of(url)).from_url(url, sender, name)
        except SettingsError as error:
            raise SettingsError(
                f"{variable} is not valid. {error.happened}",
                kept="The service was not started.",
                todo=error.todo,
            ) from error
        channels.setdefault(channel.address, channel)
    return tuple(channels.values())


def _declared(settings: BellSettings) -> Iterator[_Declared]:
    """Yield every declared channel.

    The channels of the older variables keep the names under which databases know them.
    """
    if settings.webhook is not None:
        address = settings.webhook.partition("#")[0]
        yield "DOORBELL_WEBHOOK", Webhook, "webhook", f"{address}#{settings.webhook_secret}"
    if settings.mqtt is not None:
        yield "DOORBELL_MQTT", Mqtt, "mqtt", settings.mqtt
    for url in settings.notify:
        yield "DOORBELL_NOTIFY", None, None, url


def _type_of(url: str) -> ChannelType:
    try:
        scheme = urlsplit(url).scheme
    except ValueError:  # such as a bracket of an IPv6 address that stays open
        scheme = ""
    known = {each: channel for channel in CHANNELS for each in channel.schemes}
    if scheme not in known:
        raise SettingsError(
            "A notification channel has an unknown scheme.",
            todo=f"Begin each URL with one of: {', '.join(f'{each}://' for each in known)}.",
        )
    return known[scheme]
