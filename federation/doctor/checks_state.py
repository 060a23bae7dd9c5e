"""What `doctor` looks at in the services' own state: keys, databases, model files, pictures.

It only reads.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataset import layout
from device.settings import DeviceSettings
from federation.doctor.checks import Finding, Setup
from federation.services import Service
from shared.errors import DoorbellError
from shared.names import MAIN_SERVER
from shared.round.masking import PRIVATE_KEY_BYTES, SealingKey
from shared.security.identity import Identity, private_bytes
from shared.storage.database import Database
from shared.storage.opening import open_blobs

_NO_BLOB = "0" * 64
_TIMES = {"at", "last_seen"}
_FORWARD = {"expires_at"}
_CLOCK_SLACK_S = 2.0


def keys(setup: Setup) -> Iterator[Finding]:
    """Look at the private keys of every service that has run here: there, private, readable, whole,
    and its own.
    """
    for name, service in setup.here.items():
        where, paths = f"keys of {name}", [service.folder / "identity.key"]
        if name == MAIN_SERVER:
            paths.append(service.folder / "sealing.key")
        problems = [
            problem for path in paths if (problem := _key_problem(where, path, service.secret))
        ]
        if (next_key := service.folder / "identity.key.next").exists():
            todo = "Run it with --new-key again, which goes on from there."
            problems.append(
                Finding(
                    where,
                    "warning",
                    f"A change of key was not finished: {next_key} is there.",
                    todo,
                )
            )
        yield from problems or [
            Finding(where, "ok", "They are there, whole, and nobody else may read them.")
        ]


def _key_problem(where: str, path: Path, secret: str | None) -> Finding | None:
    if not path.exists() and secret is None:
        todo = (
            "Put it back: python -m federation restore has it from a backup. Without "
            "one, the service joins anew."
        )
        return Finding(
            where,
            "wrong",
            f"{path} is not there, by which the federation knows this service.",
            todo,
        )
    try:
        if path.name == "sealing.key":
            SealingKey.from_private(private_bytes(path, PRIVATE_KEY_BYTES, secret))
        else:
            Identity.open(path, secret)
    except DoorbellError as error:
        return Finding.of(where, error)
    except ValueError as error:
        return Finding(where, "wrong", f"{path} is damaged: {error}.", "Put it back from a backup.")
    if path.exists() and (owner := path.stat().st_uid) != (folder := path.parent.stat().st_uid):
        said = (
            f"{path} belongs to user {owner}, but its folder to user {folder}, who cannot read it."
        )
        return Finding(where, "wrong", said, f"Run: chown --reference='{path.parent}' '{path}'")
    return None


def databases(setup: Setup) -> Iterator[Finding]:
    """Check that every database opens, is whole, and fits this version."""
    for name, service in setup.here.items():
        where = f"database of {name}"
        if service.url is None and not (service.folder / "state.sqlite3").exists():
            if (service.folder / "membership.json").exists():
                todo = (
                    "Restore a backup: python -m federation restore. An aggregator asks "
                    "for fresh rounds by itself."
                )
                yield Finding(
                    where,
                    "warning",
                    f"There is none in {service.folder}, though it has joined.",
                    todo,
                )
            continue
        database = look(service)
        try:
            yield from _database_findings(where, database)
        except DoorbellError as error:
            yield Finding.of(where, error)
        finally:
            database.close()


def look(service: Service) -> Database:
    """Return a service's database as it is, and leave everything as it is."""
    return Database.connect(service.folder, service.migrations, service.url, look=True)


def _database_findings(where: str, database: Database) -> Iterator[Finding]:
    revision, newest = database.revision(), database.newest_revision
    if revision is None:
        yield Finding(
            where, "ok", f"{database.what} is empty: the service makes its tables when it starts."
        )
        return
    with database.read() as connection:
        damage = (
            "ok"
            if database.shared
            else connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        )
        ahead = _newest_time(database, connection) - time.time()
    if damage != "ok":
        todo = "Stop the service, and restore a backup: python -m federation restore."
        yield Finding(where, "wrong", f"{database.what} is damaged: {damage}", todo)
    elif revision > newest:
        todo = "Install the newer version again, or restore a backup that this version made."
        said = (
            f"{database.what} was written by a newer version (revision {revision}; this "
            f"one knows {newest})."
        )
        yield Finding(where, "wrong", said, todo)
    elif revision < newest:
        todo = "Stop the service, run python -m federation upgrade, and start it again."
        said = (
            f"{database.what} was written by an older version (revision {revision}; this "
            f"one needs {newest})."
        )
        yield Finding(where, "wrong", said, todo)
    else:
        yield Finding(
            where,
            "ok",
            f"{database.what} opens, is whole, and fits this version (revision {revision}).",
        )
    if ahead > _CLOCK_SLACK_S:
        said = f"This machine's clock is {ahead:,.0f} s behind the newest thing in it."
        yield Finding(
            where, "wrong", said, "Set the clock, by NTP say, before the service runs on."
        )


def _newest_time(database: Database, connection: Any) -> float:
    """Return the newest time that a row says something happened at, in seconds since the epoch."""
    newest = 0.0
    for table in database.tables(connection).values():
        for name, column in table.c.items():
            if (name in _TIMES or name.endswith("_at")) and name not in _FORWARD:
                times = table.select().with_only_columns(column).where(column.is_not(None))
                newest = max(
                    newest,
                    connection.execute(times.order_by(column.desc()).limit(1)).scalar() or 0.0,
                )
    return newest


def blobs(setup: Setup) -> Iterator[Finding]:
    """Look whether the place of every service's model files can be reached and written."""
    for name, service in setup.here.items():
        where, folder = f"files of {name}", service.folder / "blobs"
        if service.blobs_at is not None:
            try:
                with tempfile.TemporaryDirectory() as nothing:
                    open_blobs(Path(nothing), service.blobs_at, name, service.s3_endpoint).get(
                        _NO_BLOB
                    )
            except FileNotFoundError:
                yield Finding(where, "ok", f"{service.blobs_at} answers.")
            except DoorbellError as error:
                yield Finding.of(where, error)
        elif folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            todo = "Let the service's user own the folder."
            yield Finding(where, "wrong", f"{folder} cannot be read and written from here.", todo)


def pictures(setup: Setup) -> Iterator[Finding]:
    """Count each device's pictures: what it can learn, and what it cannot."""
    for name, device in setup.devices.items():
        where = f"pictures of {name}"
        try:
            found = layout.detectors(device.data, device.client)
            for detector in found:
                yield _picture_finding(where, device, detector)
        except DoorbellError as error:
            yield Finding.of(where, error)
            continue
        if not found:
            said = (
                f"There is no detector with a folder {device.client} in {device.data}: "
                "the device learns nothing."
            )
            todo = (
                f"Lay them out as {device.data}/<detector>/{device.client}/train/<detector>, "
                "and so on; or draw some: python -m dataset draw."
            )
            yield Finding(where, "warning", said, todo)


def _picture_finding(where: str, device: DeviceSettings, detector: str) -> Finding:
    census = layout.census(device.data, detector, device.client)
    counts = ", ".join(f"{split} {sum(counted.values())}" for split, counted in census.items())
    folder = device.data / detector / device.client
    lacking = [split for split, counted in census.items() if not all(counted.values())]
    said = f"{detector}: {counts}."
    if not lacking:
        return Finding(where, "ok", said)
    costs = {
        "train": "it cannot train",
        "valid": "the main server cannot ask it about a new model",
        "test": "there are no figures of it",
    }
    without = (
        f" Without pictures of both classes in {{}}, "
        f"{', and '.join(costs[split] for split in lacking)}."
    )
    said += without.format(" and ".join(lacking))
    return Finding(
        where, "wrong" if "train" in lacking else "warning", said, f"Add some to {folder}."
    )
