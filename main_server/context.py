"""What the main server works with: its settings, memory, models, key and clock. Made once, by `app.py`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from main_server.store import Store
from shared.blobs import BlobStore, write_durably
from shared.http_client import HttpClient
from shared.masking import SealingKey, new_private_key
from shared.settings import MainSettings


@dataclass(frozen=True)
class MainServer:
    """Everything a verb of the main server may touch; `clock` gives seconds since the epoch."""

    settings: MainSettings
    store: Store
    blobs: BlobStore
    key: SealingKey
    http: HttpClient
    clock: Callable[[], float] = time.time

    @classmethod
    def open(cls, settings: MainSettings, http: HttpClient | None = None) -> MainServer:
        """Open the main server's state, and make what is missing; tests may replace `http`."""
        store = Store(settings.folder)
        key = _sealing_key(settings.folder / "sealing.key")
        http = http or HttpClient(timeout_s=20, attempts=2)
        return cls(settings, store, BlobStore(settings.folder / "blobs"), key, http)


def _sealing_key(path: Path) -> SealingKey:
    """Read the sealing key, or make it; whichever worker links it first has made it for all."""
    if not path.exists():
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        write_durably(fresh, new_private_key(), mode=0o600)
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return SealingKey.from_private(path.read_bytes())
