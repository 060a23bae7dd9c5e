"""What `doctor` checks of notifications: whether the declared channels could be made.

Nothing is sent, and no URL is shown: it may hold credentials.
"""

from __future__ import annotations

from collections.abc import Iterator

from device.notifications.channel import Sender
from device.notifications.registry import open_channels
from device.settings import DeviceSettings
from federation.doctor.checks import Finding, Setup
from shared.errors import SettingsError


def notifications(setup: Setup) -> Iterator[Finding]:
    """Check the notification channels of every device of this machine that declares one."""
    for name, device in setup.devices.items():
        bell = device.bell
        if bell.notify or bell.webhook is not None or bell.mqtt is not None:
            yield _channels(f"notifications of {name}", device)


def _channels(where: str, device: DeviceSettings) -> Finding:
    sender = Sender(
        identity=device.name,
        device=device.name,
        pictures=device.bell.tell_pictures,
        page=device.url,
        rounds=dict,
    )
    try:
        channels = open_channels(device.bell, sender)
    except SettingsError as error:
        return Finding.of(where, error)
    names = ", ".join(channel.name for channel in channels)
    return Finding(where, "ok", f"Channels: {names}.")
