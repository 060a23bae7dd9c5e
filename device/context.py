"""What a device works with: its settings, memory, trainer and clock. Made once, by `app.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device.store import Store
from device.trainer import Trainer
from shared.blobs import BlobStore
from shared.http_client import HttpClient
from shared.identity import Identity
from shared.settings import DeviceSettings
from shared.trust import Standing


@dataclass(frozen=True)
class Device:
    """Everything a verb of a device may touch; `clock` gives seconds since the epoch."""

    settings: DeviceSettings
    store: Store
    blobs: BlobStore
    trainer: Trainer
    http: HttpClient
    standing: Standing
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, settings: DeviceSettings, http: HttpClient | None = None) -> Device:
        """Open a device's state, and make what is missing; tests may replace `http`."""
        standing = open_standing(settings, http)
        return cls(
            settings=settings,
            store=Store(settings.folder),
            blobs=BlobStore(settings.folder / "blobs"),
            trainer=Trainer(settings.trainer_max_mb),
            http=standing.http,
            standing=standing,
        )

    @property
    def name(self) -> str:
        """What the federation calls this device."""
        return self.standing.name


def identity_path(settings: DeviceSettings) -> Path:
    """Return where a device's private key lies."""
    return settings.folder / "identity.key"


def open_standing(settings: DeviceSettings, http: HttpClient | None = None) -> Standing:
    """Open a device's key pair and its place in the federation."""
    identity = Identity.open(identity_path(settings))
    return Standing(
        identity=identity,
        role="device",
        wanted_name=settings.name,
        folder=settings.folder,
        main_url=settings.main_url,
        http=http or HttpClient(identity),
        join_code=settings.join_code,
        local_codes=settings.local_codes,
    )
