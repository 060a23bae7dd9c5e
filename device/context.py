"""What a device works with: its settings, pictures, memory, trainer and clock.

Made once, by `app.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dataset import folders
from device.evaluation.drawing import Drawing
from device.settings import DeviceSettings
from device.store.store import DeviceStore
from device.training.jobs import Folders, folders_of
from device.training.worker_client import Trainer
from shared.errors import NotFound
from shared.names import AGGREGATOR
from shared.round.plan import RoundPlan
from shared.security.identity import Identity
from shared.storage.blobs import BlobStore
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient, Peer

_POLL_TIMEOUT_S = 45.0


@dataclass(frozen=True)
class Device:
    """Everything a verb of a device may touch.

    Attributes:
        settings: The environment.
        store: What it remembers.
        blobs: Models, updates and plots.
        trainer: The training child.
        drawing: Draws plots.
        http: How to reach the other services.
        poll: The same for waiting for work, which notices a main server that vanished before the
            next try is due.
        enrolment: Its place in the federation.
        clock: Seconds since the epoch.
        settling: Held by whoever asks a candidate, so that no version is asked twice.
        put_off: What was tried by itself and in vain, and why: each reason is logged once.
    """

    settings: DeviceSettings
    store: DeviceStore
    blobs: BlobStore
    trainer: Trainer
    drawing: Drawing
    http: HttpClient
    poll: HttpClient
    enrolment: Enrolment
    clock: Callable[[], float] = time.time
    settling: threading.Lock = field(default_factory=threading.Lock, repr=False)
    put_off: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, settings: DeviceSettings, http: HttpClient | None = None) -> Device:
        """Open a device's state, and make what is missing; tests may replace `http`."""
        enrolment = open_enrolment(settings, http)
        return cls(
            settings=settings,
            store=DeviceStore(settings.folder),
            blobs=BlobStore(settings.folder / "blobs"),
            trainer=Trainer(settings.trainer_max_mb),
            drawing=Drawing(),
            http=enrolment.http,
            poll=http or HttpClient(enrolment.identity, timeout_s=_POLL_TIMEOUT_S, attempts=2),
            enrolment=enrolment,
        )

    @property
    def name(self) -> str:
        """What the federation calls this device."""
        return self.enrolment.name

    def receiver_of(self, plan: RoundPlan) -> Peer:
        """Return who takes this device's updates in a round."""
        if plan.receiver == AGGREGATOR:
            return Peer(AGGREGATOR, self.settings.aggregator_url)
        return self.enrolment.main()

    def detectors(self) -> tuple[str, ...]:
        """Return what this device can learn: the detectors it has a picture folder for."""
        return folders.detectors(self.settings.data, self.settings.client)

    def require_pictures(self, detector: str) -> None:
        """Refuse a detector that this device has no picture folder for.

        Raises:
            NotFound: It has none.
        """
        if detector not in self.detectors():
            folder = self.settings.data / detector / self.settings.client
            raise NotFound(
                f"This device has no pictures for {detector}.",
                todo=f"Make a folder {folder}, or pick another detector.",
            )

    def pictures(self, detector: str, split: str) -> dict[bool, int]:
        """Return how many picture files of the object (True) and without it (False) a split has."""
        return folders.census(self.settings.data, detector, self.settings.client)[split]

    def arrived(self, version: str) -> float | None:
        """Return when a model came, in seconds since the epoch; None if it is not here."""
        try:
            return self.blobs.path(version).stat().st_mtime
        except OSError:
            return None

    @property
    def folders(self) -> Folders:
        """Where the training child finds pictures and keeps what it derives from them."""
        return folders_of(self.settings)


def identity_path(settings: DeviceSettings) -> Path:
    """Return where a device's private key lies."""
    return settings.folder / "identity.key"


def open_enrolment(settings: DeviceSettings, http: HttpClient | None = None) -> Enrolment:
    """Open a device's key pair and its place in the federation."""
    identity = Identity.open(identity_path(settings))
    return Enrolment(
        identity=identity,
        role="device",
        wanted_name=settings.name,
        folder=settings.folder,
        main_url=settings.main_url,
        http=http or HttpClient(identity),
        join_code=settings.join_code,
        local_codes=settings.local_codes,
    )
