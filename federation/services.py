"""The services that this machine has: where each keeps its state.

`backup`, `restore`, `upgrade` and `doctor` go through them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import device.store.tables
import main_server.store.tables
import sec_agg.store.tables
from main_server.settings import MainSettings
from sec_agg.settings import AggregatorSettings
from shared.names import AGGREGATOR, MAIN_SERVER, NAME
from shared.settings import ServerSettings
from shared.storage.blobs import BlobStore
from shared.storage.database import Database
from shared.storage.opening import open_blobs

KEYS = ("identity.key", "sealing.key", "membership.json")
"""Files in a service's folder that a backup keeps beside its rows."""


@dataclass(frozen=True)
class Service:
    """One service's place on this machine.

    Attributes:
        name: Its name in a backup: "main-server", "devices/porch".
        folder: Folder of its state.
        migrations: Folder of the migrations of its tables.
        rows: Whether a backup keeps its tables.
        url: Its PostgreSQL database, or None for SQLite in its folder.
        blobs_at: "s3://bucket/prefix", or None for its folder.
        s3_endpoint: URL of an S3-compatible store, or None for Amazon's.
        secret: What its keys are derived from, or None for key files.
    """

    name: str
    folder: Path
    migrations: Path
    rows: bool = True
    url: str | None = None
    blobs_at: str | None = None
    s3_endpoint: str | None = None
    secret: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine: by its files, or by its secret and its database."""
        if any((self.folder / name).exists() for name in (*KEYS, "state.sqlite3")):
            return True
        return None not in (self.secret, self.url) and self.connect().revision() is not None

    def connect(self) -> Database:
        """Return its database, as it is."""
        return Database.connect(self.folder, self.migrations, self.url)

    def blobs(self) -> BlobStore:
        """Return where its files are."""
        return open_blobs(self.folder / "blobs", self.blobs_at, self.name, self.s3_endpoint)


def services(environ: Mapping[str, str]) -> dict[str, Service]:
    """Return the place of both servers, and of every device that has a folder."""
    main = MainSettings.read(environ)
    aggregator = AggregatorSettings.read(environ)
    devices = main.folder.parent / "devices"
    names = sorted(
        path.name for path in devices.glob("*") if path.is_dir() and NAME.fullmatch(path.name)
    )
    known = [
        _server(MAIN_SERVER, main, main.folder, main_server.store.tables.MIGRATIONS),
        _server(AGGREGATOR, aggregator, aggregator.folder, sec_agg.store.tables.MIGRATIONS),
    ]
    for name in names:
        place = devices / name
        known.append(Service(f"devices/{name}", place, device.store.tables.MIGRATIONS))
    return {service.name: service for service in known}


def _server(name: str, settings: ServerSettings, folder: Path, migrations: Path) -> Service:
    """Return the place of a server; the aggregator's rows are in no backup."""
    return Service(
        name,
        folder,
        migrations,
        rows=name != AGGREGATOR,
        url=settings.database_url,
        blobs_at=settings.blobs,
        s3_endpoint=settings.s3_endpoint,
        secret=settings.secret,
    )
