"""What a device works with: its settings, memory, trainer and clock. Made once, by `app.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from device.store import Store
from device.trainer import Trainer
from shared.blobs import BlobStore
from shared.http_client import HttpClient
from shared.settings import DeviceSettings


@dataclass(frozen=True)
class Device:
    """Everything a verb of a device may touch; `clock` gives seconds since the epoch."""

    settings: DeviceSettings
    store: Store
    blobs: BlobStore
    trainer: Trainer
    http: HttpClient
    clock: Callable[[], float] = time.time
    rng: np.random.Generator = field(default_factory=np.random.default_rng)

    @classmethod
    def open(cls, settings: DeviceSettings, http: HttpClient | None = None) -> Device:
        """Open a device's state, and make what is missing; tests may replace `http`."""
        store = Store(settings.folder)
        blobs = BlobStore(settings.folder / "blobs")
        return cls(settings, store, blobs, Trainer(settings.trainer_max_mb), http or HttpClient())
