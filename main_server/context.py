"""What the main server works with: its settings, memory, models, keys and clock.

Made once, by `app.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from main_server.settings import MainSettings
from main_server.store.store import Store
from shared.round.masking import PRIVATE_KEY_BYTES, SealingKey
from shared.security.identity import Identity, private_bytes
from shared.storage.blobs import BlobStore
from shared.storage.opening import open_blobs
from shared.transport.addresses import guarded_session
from shared.transport.http_client import HttpClient


@dataclass(frozen=True)
class MainServer:
    """Everything a verb of the main server may touch; `clock` gives seconds since the epoch."""

    settings: MainSettings
    store: Store
    blobs: BlobStore
    identity: Identity
    key: SealingKey
    http: HttpClient
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, settings: MainSettings, http: HttpClient | None = None) -> MainServer:
        """Open the main server's state, and make what is missing; tests may replace `http`."""
        identity = Identity.open(settings.folder / "identity.key", settings.secret)
        return cls(
            settings=settings,
            store=Store.open(settings.folder, settings.database_url),
            blobs=open_blobs(
                settings.folder / "blobs",
                settings.blobs,
                settings.folder.name,
                settings.s3_endpoint,
            ),
            identity=identity,
            key=SealingKey.from_private(
                private_bytes(settings.folder / "sealing.key", PRIVATE_KEY_BYTES, settings.secret)
            ),
            http=http or HttpClient(identity, 20, 2, guarded_session(settings.device_networks)),
        )
