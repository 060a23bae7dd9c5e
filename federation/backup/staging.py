"""Where a restore unpacks before it moves everything into place, all of it or nothing."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from federation.services import Service
from shared.errors import DoorbellError
from shared.storage.blobs import storage_errors


@contextmanager
def stage(home: Path) -> Iterator[Path]:
    """Make a folder in which a restored state is made ready, and remove it in the end, whatever
    happens.
    """
    stage = home / f".restoring-{secrets.token_hex(4)}"
    with storage_errors(f"The folder {home}"):
        stage.mkdir(parents=True, mode=0o700)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def move_in(staged: list[Service], places: list[Service]) -> None:
    """Rename what is ready to where it belongs; on failure, what was moved is moved back."""
    moved: list[tuple[Path, Path]] = []
    try:
        for service, place in zip(staged, places, strict=True):
            with storage_errors(f"The folder {place.folder.parent}"):
                place.folder.parent.mkdir(parents=True, exist_ok=True)
                service.folder.rename(
                    place.folder
                )  # takes the place of an empty folder, and of no other
            moved.append((service.folder, place.folder))
    except BaseException:
        for ready, place_ in moved:
            place_.rename(ready)
        raise
    os.sync()


def drop_tables(service: Service) -> None:
    """Empty a database on PostgreSQL again that this restoring has filled."""
    if service.url is not None and service.rows:
        database = service.connect()
        with suppress(DoorbellError), database.write() as connection:
            for name in (*reversed(database.tables(connection)), "alembic_version"):
                connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')
        database.close()
