"""`python -m federation restore`: put back what `backup` wrote, all of it or nothing.

After a backup the federation goes on, and round numbers must not fall back: devices and the
aggregator would not take an older number, and a number used twice would be two rounds under one
name. So a restored main server puts the newest model that it knows into force again, under a number
that is higher by 1,000. Join codes that were out are void, since some may have been used after the
backup; who was revoked after it has to be revoked again.
"""

from __future__ import annotations

import argparse
import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import track

import device.store.tables
from federation.backup.archive import Backup, BackupUnusable, open_backup
from federation.backup.backup import LEFT_OUT, PROGRESS
from federation.backup.staging import drop_tables, move_in, stage
from federation.commands import add
from federation.services import KEYS, Service, services
from main_server.context import MainServer
from main_server.models.registry import republish
from main_server.settings import MainSettings
from main_server.store.pins import find_pins, set_pin
from main_server.store.publication import activate
from main_server.store.records import PENDING, UNCHECKED
from main_server.store.rounds import newest_round
from main_server.store.store import Store
from main_server.store.versions import newest_version
from shared.errors import NotFound, OutOfOrder, SettingsError
from shared.names import MAIN_SERVER
from shared.round.masking import PRIVATE_KEY_BYTES, SealingKey
from shared.security.identity import Identity, private_bytes
from shared.storage.blobs import write_durably
from shared.storage.database import Database
from shared.transport.http_client import HttpClient

if TYPE_CHECKING:
    from federation.commands import Commands

ROUNDS_AHEAD = 1000
_PARTS = ("versions", "rounds")


def restore(
    path: Path, only: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> list[str]:
    """Restore the services of a backup, or `only` some; on failure nothing of it is left.

    Returns:
        What was restored, in sentences.

    Raises:
        BackupUnusable: The file is no whole backup, or a newer version made it.
        NotFound: It does not have one of those services.
        OutOfOrder: One of them has a state here already.
    """
    with open_backup(path) as kept:
        places = _places(kept, only, environ)
        for place in places:
            _check(kept, place)
        home = MainSettings.read(environ).folder.parent
        with stage(home) as staging:
            staged = [replace(place, folder=staging / place.name) for place in places]
            try:
                said = [_unpack(kept, service, environ) for service in staged]
                move_in(staged, places)
            except BaseException:
                for service in staged:
                    drop_tables(service)
                raise
    return said


def _places(kept: Backup, only: Sequence[str], environ: Mapping[str, str]) -> list[Service]:
    """Return where the wanted services of a backup go."""
    missing = [name for name in only if name not in kept.contents.services]
    if missing:
        there = ", ".join(kept.contents.services)
        raise NotFound(f"This backup does not have {missing[0]}.", todo=f"It has {there}.")
    known, wanted = services(environ), only or list(kept.contents.services)
    devices = known[MAIN_SERVER].folder.parent
    return [
        known.get(name) or Service(name, devices / name, device.store.tables.MIGRATIONS)
        for name in wanted
    ]


def _check(kept: Backup, place: Service) -> None:
    """Refuse what cannot be restored there."""
    revision = kept.contents.services[place.name].revision
    newest = max(path.stem[:4] for path in place.migrations.glob("[0-9]*.py"))
    if revision is not None and revision > newest:
        raise BackupUnusable(
            f"A newer version made this backup (revision {revision} of {place.name}; this "
            f"one knows {newest}).",
            kept="Nothing was restored.",
            todo="Install that version, and restore with it.",
        )
    if place.folder.exists() and any(place.folder.iterdir()):
        raise OutOfOrder(
            f"{place.name} is here already, in {place.folder}.",
            kept="Nothing was restored.",
            todo="If it is to be replaced, stop it and move that folder away; or name the "
            "others with --only.",
        )
    if place.url is not None and place.rows and _revision(place) is not None:
        raise OutOfOrder(
            f"The database that DATABASE_URL names has tables of {place.name} already.",
            kept="Nothing was restored.",
            todo="Name an empty database, or drop that schema if nobody needs it.",
        )
    if "identity.key" not in kept.names(place.name) and place.secret is None:
        raise SettingsError(
            f"The key of {place.name} is not in this backup: it is derived from DOORBELL_SECRET.",
            kept="Nothing was restored.",
            todo="Set DOORBELL_SECRET as it was, and try again.",
        )


def _revision(place: Service) -> str | None:
    with stage(place.folder.parent) as nowhere:
        database = replace(place, folder=nowhere).connect()
        try:
            return database.revision()
        finally:
            database.close()


def _unpack(kept: Backup, service: Service, environ: Mapping[str, str]) -> str:
    """Make one service ready: keys, files, rows; the main server is moved on."""
    service.folder.mkdir(parents=True, mode=0o700)
    for name in kept.names(service.name):
        if name in KEYS:
            write_durably(service.folder / name, kept.read(service.name, name), mode=0o600)
    mine = kept.contents.services[service.name]
    if Identity.open(service.folder / "identity.key", service.secret).key_id != mine.key_id:
        raise SettingsError(
            f"The key of {service.name} is not the one that the backup was made with.",
            kept="Nothing was restored.",
            todo="Set DOORBELL_SECRET as it was, and try again.",
        )
    names, blobs = kept.names(service.name, "blobs/"), service.blobs()
    for name in track(names, f"{service.name}: files", console=PROGRESS, transient=True):
        blobs.put(kept.read(service.name, name))
    if mine.revision is None:
        return f"{service.name} is restored: who it is. It asks for fresh rounds."
    database = service.connect()
    try:
        with database.prepare() as (inside, connection):
            database.migrate(connection, mine.revision)
            detectors = _fill(kept, service, inside, connection)
            database.migrate(connection)
            said = (
                _move_on(service, inside, sorted(detectors), environ)
                if service.name == MAIN_SERVER
                else ""
            )
    finally:
        database.close()
    return f"{service.name} is restored.{said}"


def _fill(kept: Backup, service: Service, database: Database, connection: Any) -> set[str]:
    """Fill the tables of a backup's revision, and return the detectors that the main server has
    models or rounds of.
    """
    tables, detectors = database.tables(connection), set[str]()
    if {f"rows/{name}.jsonl" for name in set(tables) - LEFT_OUT} != set(
        kept.names(service.name, "rows/")
    ):
        raise BackupUnusable(
            f"The tables of {service.name} in this backup are not those of its revision."
        )
    for name, table in tables.items():
        if name in LEFT_OUT:
            continue
        kinds = {column.name: column.type.python_type for column in table.columns}
        rows = [_row(kinds, row) for row in kept.lines(service.name, f"rows/{name}.jsonl")]
        database.fill(connection, table, rows)
        detectors |= {row["detector"] for row in rows if name in _PARTS}
    if "invitations" in tables:
        connection.execute(tables["invitations"].update().values(uses_left=0))
    return detectors if service.name == MAIN_SERVER else set()


def _row(kinds: Mapping[str, type], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as its table has it; `backup.as_json` is the inverse."""
    if set(row) != set(kinds):
        raise BackupUnusable(
            "A row in this backup does not fit its table.", kept="Nothing was restored."
        )
    try:
        return {
            name: None if value is None else _value(kinds[name], value)
            for name, value in row.items()
        }
    except (TypeError, ValueError) as error:
        raise BackupUnusable(
            "A row in this backup does not fit its table.", kept="Nothing was restored."
        ) from error


def _value(kind: type, value: Any) -> Any:
    if kind is bytes:
        return base64.b64decode(value, validate=True)
    if kind is float:
        return float(value)
    if type(value) is not kind:
        raise TypeError(f"no {kind.__name__}")
    return value


def _move_on(
    service: Service, database: Database, detectors: list[str], environ: Mapping[str, str]
) -> str:
    """Put the newest model of every detector into force again, under a round number that cannot
    have been used.
    """
    settings = replace(MainSettings.read(environ), folder=service.folder)
    store = Store(database)
    identity = Identity.open(service.folder / "identity.key", service.secret)
    sealing = private_bytes(service.folder / "sealing.key", PRIVATE_KEY_BYTES, service.secret)
    key, http = SealingKey.from_private(sealing), HttpClient(identity)
    server, said = MainServer(settings, store, service.blobs(), identity, key, http), ""
    for detector in detectors:
        with store.read() as connection:
            source = newest_version(connection, detector)
            current = newest_round(connection, detector)
        if source is None:
            continue
        number = max(source.round, current.plan.round if current else 0) + ROUNDS_AHEAD
        why = f"The model of round {source.round} again, after a backup was restored."
        again = republish(server, source, number, why)
        again = replace(again, gate=UNCHECKED) if source.gate == PENDING else again
        now = server.clock()
        with store.write() as connection:
            activate(connection, again, now, why)
            if find_pins(connection).get(detector) == source.version:
                set_pin(connection, detector, again.version, now)
        said += (
            f" {detector}: the model of round {source.round} is in force as that of round {number}."
        )
    return (
        f"{said} Join codes that were out are void, and who was revoked since the backup "
        "is to be revoked again."
    )


def add_commands(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add(commands, "restore")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SERVICE",
        help="main-server, secure-aggregator or devices/NAME; may be given several times; "
        "all without it",
    )
    parser.set_defaults(run=_restore)


def _restore(chosen: argparse.Namespace) -> int:
    for sentence in restore(chosen.file, chosen.only):
        print(sentence)
    return 0
