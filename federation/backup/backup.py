"""`python -m federation backup | upgrade`: what a machine has of the federation, in one file;
`restore` puts it back.

Of the main server and of devices everything is kept: rows, the files that rows refer to, keys. Of
the secure aggregator only who it is, never its rounds, updates and sums: an old memory brought back
could add up a round a second time, over another cohort, and two sums that differ by one device give
that device's update away. It asks for fresh rounds instead.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from federation.backup.archive import Contents, Kept, Writer
from federation.commands import add
from federation.services import KEYS, Service, services
from shared.errors import NotFound, StorageFailed
from shared.security.identity import Identity
from shared.storage.blobs import storage_errors
from shared.storage.database import Database

if TYPE_CHECKING:
    from federation.commands import Commands

LEFT_OUT = {"nonces", "rings", "told"}  # what a doorbell saw stays with it
PROGRESS = Console(stderr=True)
_ATTEMPTS = 3
_FILES = {
    "versions": ("version", "state"),
    "contributions": ("digest",),
    "plain_updates": ("digest",),
    "models": ("version",),
    "candidates": ("version",),
    "trainings": ("local_model", "plot", "update", "base_version"),
    "measurements": ("report", "plot"),
}
_MAY_BE_GONE = {("trainings", "base_version")}


class _Vanished(StorageFailed):
    """A file that a row refers to was deleted meanwhile, or is lost."""


def backup(path: Path, environ: Mapping[str, str] = os.environ) -> Contents:
    """Write a backup of every service that this machine has, while they run or not; only its owner
    can read it.

    Raises:
        NotFound: None is here.
        StorageFailed: Something cannot be read or written, or is lost; no file was written, or the
            earlier one stays.
    """
    here = [service for service in services(environ).values() if service.is_here]
    if not here:
        raise NotFound(
            "There is nothing to back up here.", todo="Set DOORBELL_HOME as the services have it."
        )
    for attempt in range(_ATTEMPTS):
        try:
            return _write(path, here)
        except _Vanished:  # let go of between the row and the file: another look has neither
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError("every attempt returns or raises")


def _write(path: Path, here: list[Service]) -> Contents:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with storage_errors(f"The folder {path.parent}"):
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                writer = Writer(file)
                kept = {service.name: _add(writer, service) for service in here}
                contents = writer.finish(time.time(), kept)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return contents


def _add(writer: Writer, service: Service) -> Kept:
    """Add one service: its keys, its rows as they are at one moment, and the files that those refer
    to.
    """
    if service.secret is None and not (service.folder / "identity.key").exists():
        raise StorageFailed(
            f"The key of {service.name} is not in {service.folder}.",
            kept="No backup was written.",
            todo="Put it back from an earlier backup.",
        )
    for name in KEYS:
        with storage_errors(f"The folder {service.folder}", "read"):
            data = (
                (service.folder / name).read_bytes() if (service.folder / name).exists() else None
            )
        if data is not None:
            writer.add(f"{service.name}/{name}", BytesIO(data))
    key_id = Identity.open(service.folder / "identity.key", service.secret).key_id
    if not service.rows:
        return Kept(None, key_id)
    database, files = service.connect(), dict[str, bool]()
    try:
        revision = database.revision()
        if revision is not None:
            _add_rows(writer, service, database, files)
    finally:
        database.close()
    blobs = service.blobs()
    for digest, may_be_gone in track(
        sorted(files.items()), f"{service.name}: files", console=PROGRESS, transient=True
    ):
        try:
            data = blobs.get(digest)
        except FileNotFoundError as error:
            if may_be_gone:
                continue
            raise _Vanished(
                f"The file {digest} of {service.name} is not there, though its database "
                "refers to it.",
                kept="No backup was written.",
                todo="Look for it in an earlier backup.",
            ) from error
        if writer.add(f"{service.name}/blobs/{digest}", BytesIO(data)) != digest:
            raise StorageFailed(
                f"The file {digest} of {service.name} is damaged.",
                kept="No backup was written.",
                todo="Restore it from an earlier backup.",
            )
    return Kept(revision, key_id)


def _add_rows(writer: Writer, service: Service, database: Database, files: dict[str, bool]) -> None:
    """Add every table's rows, one JSON object a line; note in `files` what they refer to and
    whether it may be gone.
    """
    with database.read() as connection:
        for name, table in database.tables(connection).items():
            if name in LEFT_OUT:
                continue
            with tempfile.TemporaryFile() as spool:
                for row in connection.execute(table.select()).mappings():
                    spool.write(
                        json.dumps({key: as_json(value) for key, value in row.items()}).encode()
                        + b"\n"
                    )
                    for column in _FILES.get(name, ()) if not row.get("forgotten") else ():
                        if digest := row.get(column):  # empty: not made yet
                            files[digest] = (
                                files.get(digest, True) and (name, column) in _MAY_BE_GONE
                            )
                writer.add(f"{service.name}/rows/{name}.jsonl", spool)


def as_json(value: Any) -> Any:
    """Return a value of a row as JSON has it: bytes in base64, what is not finite as a word."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def upgrade(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Bring the database of every service that is here to this version's tables; return what was
    done, in sentences.

    An SQLite database is copied first, into a file beside it that is named after the revision it
    had.
    """
    said = []
    for service in services(environ).values():
        if not (service.folder / "state.sqlite3").exists() and service.url is None:
            continue
        database = service.connect()
        old, new = database.revision(), database.newest_revision
        if old is None:
            continue
        if old == new:
            said.append(f"{service.name}: revision {old}; there is nothing to do.")
            continue
        copy = (
            None if database.shared or old > new else database.copy_beside(f"state.{old}.sqlite3")
        )
        database.upgrade()
        database.close()
        kept = f" The database as it was is kept in {copy}." if copy else ""
        said.append(f"{service.name}: upgraded from revision {old} to {new}.{kept}")
    return said or ["There is no database here, so there is nothing to do."]


def add_commands(commands: Commands) -> None:
    """Add the commands to the command line."""
    one = add(commands, "backup")
    one.add_argument("file", type=Path)
    one.set_defaults(run=_backup)
    other = add(commands, "upgrade")
    other.set_defaults(run=_upgrade)


def _backup(chosen: argparse.Namespace) -> int:
    contents = backup(chosen.file)
    print(f"{chosen.file} holds {', '.join(contents.services)}: {len(contents.files)} files.")
    print("Keys are in it: keep it as safe as the machine itself.")
    return 0


def _upgrade(_: argparse.Namespace) -> int:
    for sentence in upgrade():
        print(sentence)
    return 0
