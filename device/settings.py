"""The settings of a device; `DeviceSettings.read(1)` is device 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import time
from pathlib import Path

from dataset.settings import CLIENT, DATA
from shared.environment import (
    PATH,
    PORT_NUMBER,
    TEXT,
    URL,
    URLS,
    YES_OR_NO,
    Values,
    comma_separated,
    fraction,
    name_of,
    whole,
)
from shared.errors import SettingsError
from shared.names import checked_name
from shared.settings import (
    ENVIRONMENT,
    HOME,
    JOIN_CODE,
    MAIN_URL,
    Setting,
    Settings,
    codes_folder,
    derived,
    member,
    optional,
    read,
    section,
    setting,
)

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def _time_of_day(text: str) -> time:
    if not _TIME_OF_DAY.fullmatch(text):
        raise ValueError("a time of day looks like 03:30.")
    return time.fromisoformat(text)


def _detector(text: str) -> str:
    return checked_name(text, "detector")


@dataclass(frozen=True, kw_only=True)
class BellSettings(Settings):
    """What a device does as a doorbell, beside learning.

    Attributes:
        detectors: Detectors to enable without pictures.
        camera: Camera source: a number, an address, a file or a folder; or None.
        watch: Whether motion rings.
        cool_down_s: Minimum time between two motion rings, in seconds.
        false_alarms: Largest share of negative validation pictures above a detector's threshold.
        keep_days: Retention of events, in days.
        keep_mb: Retention of event pictures, in MB.
        notify: URLs of the channels that deliver a notification of every ring.
        webhook: URL of one more channel, or None; `webhook_secret` signs its requests.
        mqtt: Broker of one more channel, or None.
        tell_pictures: Whether a notification includes the picture.
    """

    detectors: tuple[str, ...] = setting(
        "DOORBELL_DETECTORS",
        comma_separated("names", _detector),
        "",
        "detectors to enable without pictures, for example `face,animal`",
        shown="from the picture folders",
    )
    camera: str | None = optional(
        "DOORBELL_CAMERA",
        TEXT,
        "camera source: `0`, `rtsp://user:password@host/stream`, a video file, or a folder to play",
        secret=True,
    )
    watch: bool = setting(
        "DOORBELL_WATCH", YES_OR_NO, "no", "ring on motion in front of the camera"
    )
    cool_down_s: float = setting(
        "DOORBELL_COOL_DOWN_S",
        fraction(86400),
        "30",
        "minimum seconds between two motion rings",
    )
    false_alarms: float = setting(
        "DOORBELL_FALSE_ALARMS",
        fraction(0.5),
        "0.05",
        "largest share of negative validation pictures above a detector's threshold",
    )
    keep_days: float = setting(
        "DOORBELL_KEEP_DAYS", fraction(36500), "30", "retention of events, in days"
    )
    keep_mb: float = setting(
        "DOORBELL_KEEP_MB", fraction(1e7), "500", "retention of event pictures, in MB"
    )
    notify: tuple[str, ...] = setting(
        "DOORBELL_NOTIFY",
        URLS,
        "",
        "URLs of notification channels, separated by commas or spaces; "
        "[Home Assistant and webhooks](../how-to/home-assistant.md)",
        shown="none",
        secret=True,
    )
    webhook: str | None = optional(
        "DOORBELL_WEBHOOK",
        TEXT,
        "webhook URL for ring notifications; "
        "[Home Assistant and webhooks](../how-to/home-assistant.md)",
        secret=True,
    )
    webhook_secret: str | None = optional(
        "DOORBELL_WEBHOOK_SECRET",
        TEXT,
        "secret that signs webhook requests, `whsec_...`",
        secret=True,
    )
    mqtt: str | None = optional(
        "DOORBELL_MQTT",
        TEXT,
        "MQTT broker for ring notifications, `mqtts://user:password@host:8883`",
        secret=True,
    )
    tell_pictures: bool = setting(
        "DOORBELL_TELL_PICTURES", YES_OR_NO, "no", "include the picture in notifications"
    )

    def check(self) -> None:
        """Refuse motion rings without a camera, and one half of a webhook.

        Raises:
            SettingsError: A setting lacks the other one that it needs.
        """
        if self.watch and self.camera is None:
            raise SettingsError(
                "DOORBELL_WATCH is yes, and there is no camera.", todo="Set DOORBELL_CAMERA."
            )
        if (self.webhook is None) != (self.webhook_secret is None):
            raise SettingsError(
                "DOORBELL_WEBHOOK and DOORBELL_WEBHOOK_SECRET belong together.",
                todo="Set both, or neither.",
            )


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """The settings of one device.

    Attributes:
        name: Name of the device in the federation.
        client: Name of the device's folder below each detector.
        data: Root of the picture folders.
        folder: Folder of the device's state.
        cache: Folder of files that all devices on this machine share.
        url: URL at which the main server can reach the device.
        main_url: URL of the main server.
        aggregator_url: URL of the secure aggregator.
        trainer_max_mb: Resident size in MB above which the training process is replaced.
        join_code: Join code that `doorbell invite` printed, or None.
        local_codes: Folder in which a main server on this machine leaves join codes.
        wait_for_work: Whether the device polls the main server for tasks.
        train_at: Local time of a daily training and upload, or None.
        train_after_new: Number of new training pictures that starts a training, or None.
        bell: What it does as a doorbell.
    """

    name: str = setting(
        "DOORBELL_DEVICE_NAME",
        name_of("service"),
        "device-{number}",
        "name of the device in the federation",
    )
    client: str = member(CLIENT)
    data: Path = member(DATA)
    folder: Path = derived(HOME, lambda home: home / "devices")
    cache: Path = setting(
        "DOORBELL_CACHE",
        PATH,
        "{home}/cache",
        "files shared by all devices on a machine (the exported body)",
    )
    url: str = setting(
        "DOORBELL_DEVICE_URL",
        URL,
        "http://localhost:{port}",
        "URL at which the main server can reach the device",
    )
    main_url: str = member(MAIN_URL)
    aggregator_url: str = setting(
        "DOORBELL_AGGREGATOR_URL",
        URL,
        "http://localhost:8003",
        "URL of the secure aggregator",
    )
    trainer_max_mb: int = setting(
        "DOORBELL_TRAINER_MAX_MB",
        whole(256, 1 << 20),
        "2048",
        "resident size in MB above which the training process is replaced",
    )
    join_code: str | None = member(JOIN_CODE)
    local_codes: Path = codes_folder()
    wait_for_work: bool = setting(
        "DOORBELL_WAIT_FOR_WORK",
        YES_OR_NO,
        "yes",
        "poll the main server for tasks; `no`: only operator steps and schedules",
    )
    train_at: time | None = optional(
        "DOORBELL_TRAIN_AT",
        Values("`HH:MM`", _time_of_day),
        "local time of a daily training and upload, for example `03:30`",
        shown="off",
    )
    train_after_new: int | None = optional(
        "DOORBELL_TRAIN_AFTER_NEW",
        whole(1, 1 << 20),
        "number of new training pictures that starts a training and upload",
        shown="off",
    )
    bell: BellSettings = section(BellSettings)

    @classmethod
    def read(cls, number: int, environ: Mapping[str, str] = ENVIRONMENT) -> DeviceSettings:
        """Read the settings of device `number`, from 1.

        Raises:
            SettingsError: One cannot be used, or there is no such device.
        """
        if number < 1:
            raise SettingsError(f"There is no device {number}.", todo="Device numbers begin at 1.")
        found = read(cls, environ, number=number, port=port_of(number))
        # every device of a machine has a folder of its own, named after the device
        return replace(found, folder=found.folder / found.name)


def device_port(number: int) -> Setting[int]:
    """Declare the port of a device."""
    return Setting(
        f"DOORBELL_DEVICE{number}_PORT",
        PORT_NUMBER,
        str(port_of(number)),
        f"port of device {number}; `DOORBELL_DEVICE{number + 1}_PORT` of device {number + 1}, "
        "and so on",
    )


def port_of(number: int) -> int:
    """Return the default port of a device: 8001 and 8002, then 8004 and up.

    The secure aggregator has 8003.
    """
    return 8000 + number if number <= 2 else 8001 + number
