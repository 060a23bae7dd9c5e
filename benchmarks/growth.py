"""What a thousand rounds leave on the disks of both servers, when what is old is let go of.

Two devices send updates of the default architecture that nobody trained; everything else is real:
processes, keys, signatures, masks, sums and versions. The servers let go of nothing that is younger
than an hour, since its row may be on its way, and a thousand rounds take minutes here. So before
each look at the disks, this program prunes as the servers themselves would an hour later.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import requests

from benchmarks.figure import Figure
from benchmarks.load_devices import DETECTOR, Federation, Joined
from benchmarks.services import services
from main_server.context import MainServer
from main_server.members.members import DEVICE, invite
from main_server.models.pruning import prune as prune_main
from main_server.settings import MainSettings
from sec_agg.pruning import prune as prune_aggregator
from sec_agg.settings import AggregatorSettings
from sec_agg.store.store import Store
from shared.storage.blobs import BlobStore
from shared.transport.http_client import HttpClient, Peer
from tests.updates import masked_update

LOOKS = (250, 500, 1000)
KEEP_VERSIONS, DEVICES = 20, 2
LIMIT_BYTES = 8192
"""So much may a round leave for ever at one server: rows, and no file."""


@dataclass(frozen=True)
class Size:
    """What lies in a service's folder, in bytes: the database, the blobs, and all there is."""

    database: int
    blobs: int
    folder: int


def figures() -> list[Figure]:
    """Play the rounds, and look at the disks meanwhile."""
    with TemporaryDirectory() as folder:
        variables = {"DOORBELL_HOME": folder, "DOORBELL_KEEP_VERSIONS": str(KEEP_VERSIONS)}
        with services(Path(folder), variables, "main server", "aggregator") as addresses:
            urls = addresses["main server"], addresses["aggregator"]
            looks, seconds = _play(variables | {"DOORBELL_MAIN_URL": urls[0]}, *urls)
    return [
        Figure(f"{LOOKS[-1]:,} rounds of {DEVICES} devices", f"{seconds:.0f} s"),
        *(figure for name, sizes in looks.items() for figure in _growth(name, sizes)),
    ]


def _play(
    variables: dict[str, str], main_url: str, aggregator_url: str
) -> tuple[dict[str, list[Size]], float]:
    """Return the sizes of both folders after each number of rounds, and how long it took."""
    server = MainServer.open(MainSettings.read(variables))
    mine = AggregatorSettings.read(variables)
    store, blobs = Store(mine.folder), BlobStore(mine.folder / "blobs")
    prunings: dict[Path, Callable[[], object]] = {
        server.settings.folder: lambda: prune_main(server, 0),
        mine.folder: lambda: prune_aggregator(store, blobs, 0),
    }
    federation = Federation(main_url, aggregator_url, invite(server, DEVICE, uses=DEVICES, hours=1))
    looks: dict[str, list[Size]] = {folder.name: [] for folder in prunings}
    begun = time.perf_counter()
    for number in _rounds(federation):
        if number in LOOKS:
            for folder, prune in prunings.items():
                prune()
                looks[folder.name].append(_size(folder))
    return looks, time.perf_counter() - begun


def _rounds(federation: Federation) -> Iterator[int]:
    """Play round after round; yield the number of each when it is over."""
    session, rng = requests.Session(), np.random.default_rng(0)
    devices = [Joined(federation, f"device-{number}", session) for number in range(1, DEVICES + 1)]
    clients = [HttpClient(device.identity, session=session) for device in devices]
    aggregator = Peer("secure-aggregator", federation.aggregator_url)
    settings = [device.announce() for device in devices][-1]
    delta = rng.standard_normal(settings.size, np.float32) * np.float32(1e-4)
    for number in range(1, LOOKS[-1] + 1):
        if settings.round != number:
            raise AssertionError(f"round {settings.round} is open instead of {number}")
        for device, client in zip(devices, clients, strict=True):
            seed = np.random.default_rng(secrets.randbits(64))
            body = masked_update(delta, 100, settings, device.name, seed).to_bytes()
            client.post(f"{aggregator.url}/cmodel", body, aggregator)
        for step in ("aggregate_models", "send_model_secagg"):
            session.post(
                f"{aggregator.url}/{step}?detector={DETECTOR}", timeout=60
            ).raise_for_status()
        settings = devices[0].announce()
        yield number


def _size(folder: Path) -> Size:
    with contextlib.closing(sqlite3.connect(folder / "state.sqlite3", timeout=30)) as database:
        database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    files = [path for path in folder.rglob("*") if path.is_file()]
    return Size(
        database=(folder / "state.sqlite3").stat().st_size,
        blobs=sum(path.stat().st_size for path in files if path.parent.name == "blobs"),
        folder=sum(path.stat().st_size for path in files),
    )


def _growth(name: str, sizes: list[Size]) -> list[Figure]:
    last, before = sizes[-1], sizes[-2]
    rounds = LOOKS[-1] - LOOKS[-2]
    rows, files = (last.database - before.database) / rounds, (last.blobs - before.blobs) / rounds
    folder = (last.folder - before.folder) / rounds
    return [
        *(
            Figure(
                f"  {name} after {number:,} rounds: database, blobs, folder",
                f"{size.database / 1e6:.2f}, {size.blobs / 1e6:.2f}, {size.folder / 1e6:.2f} MB",
            )
            for number, size in zip(LOOKS, sizes, strict=True)
        ),
        Figure(
            f"  {name}: growth per 1,000 rounds: database, folder",
            f"{rows / 1e3:.2f}, {folder / 1e3:.2f} MB",
        ),
        Figure(
            f"  {name}: rows that one round leaves",
            f"{rows:,.0f} bytes",
            f"<= {LIMIT_BYTES:,} bytes",
            rows <= LIMIT_BYTES,
        ),
        Figure(
            f"  {name}: files that one round leaves",
            f"{files:,.0f} bytes",
            "<= 64 bytes",
            files <= 64,
        ),
    ]
