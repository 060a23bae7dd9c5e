"""One way to a database for every service: SQLite in its own folder, or PostgreSQL. SQL itself
stands in `store.py`.

Whoever writes holds the one write lock of the service's database from the beginning of the
transaction, so "look, then write" is one step whichever worker, process or machine does it; and it
is on disk when the answer goes out (SQLite in WAL mode with full sync, PostgreSQL with synchronous
commit). Whoever only reads sees one state and waits for nobody.
"""

from __future__ import annotations

import fcntl
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import SQLAlchemyError

from shared.errors import SettingsError
from shared.storage.blobs import storage_errors
from shared.storage.database_failures import storage_failure
from shared.storage.migration import migrate
from shared.storage.postgresql import LOCK_CLASS, postgresql_engine
from shared.storage.sqlite import copy_to, empty_log, sqlite_engine

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Database:
    """A service's database; `what` names it in messages.

    Attributes:
        what: "The database in var/main-server", without a password.
        folder: The service's own folder.
        migrations: Where the steps lie that make its tables, one file each, named 0001_...,
            0002_..., in order.
    """

    what: str
    folder: Path
    migrations: Path
    _engine: Engine
    _inside: Connection | None = None

    @classmethod
    def open(cls, folder: Path, migrations: Path, url: str | None = None) -> Database:
        """Open a service's database; an empty one gets its tables.

        Args:
            folder: The service's own folder; made if missing, and closed to everybody but its
                owner.
            migrations: Where its migrations lie.
            url: "postgresql://..." for PostgreSQL, where the service's tables stand in a schema
                named as its package; None for SQLite in the folder.

        Raises:
            SettingsError: It was made by a newer version, or by an older one and has not been
                upgraded.
            StorageFailed: It cannot be opened.
        """
        database = cls.connect(folder, migrations, url)
        with database._alone():
            revision = database.revision()
            if revision is None:
                with database.write() as connection:
                    database.migrate(connection)
            elif revision != database.newest_revision:
                raise database._other_version(revision)
        return database

    @classmethod
    def connect(
        cls, folder: Path, migrations: Path, url: str | None = None, *, look: bool = False
    ) -> Database:
        """Return the database as it is, whatever version made it; who only looks leaves the folder
        as it is.
        """
        with storage_errors(f"The folder {folder}"):
            if not look:
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o700)
        engine = (
            sqlite_engine(folder) if url is None else postgresql_engine(url, migrations.parent.name)
        )
        what = (
            f"The database in {folder}"
            if url is None
            else f"The database {engine.url.database} on PostgreSQL"
        )
        return cls(what, folder, migrations, engine)

    @contextmanager
    def write(self, alone: bool = True) -> Iterator[Connection]:
        """One transaction that may write: it excludes all others, and is on disk when it ends.

        Args:
            alone: False for a single statement, which needs no write lock on PostgreSQL to be one
                step.

        Raises:
            StorageFailed: It cannot be written; nothing of the transaction was kept.
            StorageUnavailable: The database does not answer.
        """
        with self._failures(), self._begin(alone=alone) as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One transaction that only reads, and sees one state; raises as `write` does."""
        with self._failures(), self._begin(reading=True) as connection:
            yield connection

    @property
    def shared(self) -> bool:
        """Whether several machines may use it at once."""
        return self._engine.dialect.name != "sqlite"

    @property
    def newest_revision(self) -> str:
        """The revision that this version of the service works with."""
        return max(path.stem[:4] for path in self.migrations.glob("[0-9][0-9][0-9][0-9]_*.py"))

    def revision(self) -> str | None:
        """Return the revision that the database has, or None if it is empty.

        A database of the time before revisions were written down counts as the first.
        """
        with self.read() as connection:
            tables = inspect(connection).get_table_names()
            if "alembic_version" in tables:
                return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            return "0001" if tables else None

    def upgrade(self) -> None:
        """Bring the tables to the newest revision, in one transaction.

        Raises:
            SettingsError: A newer version made them.
        """
        with self.prepare() as (inside, connection):
            if (revision := inside.revision() or "") > self.newest_revision:
                raise self._other_version(revision)
            self.migrate(connection)

    @contextmanager
    def prepare(self) -> Iterator[tuple[Database, Connection]]:
        """One transaction to make and fill the tables, while nobody else opens the database.

        Yields:
            The database as it looks inside the transaction: what writes or reads through it, does
            so in there.
        """
        with self._alone(), self.write() as connection:
            yield replace(self, _inside=connection), connection

    def migrate(self, connection: Connection, to: str = "head") -> None:
        """Bring the tables to a revision, in a transaction that may do more."""
        migrate(connection, self.migrations, replace(self, _inside=connection).revision(), to)

    def tables(self, connection: Connection) -> dict[str, Table]:
        """Return the tables of whatever revision it has, without the one that says which; in an
        order to fill them.
        """
        with self._failures():
            found = MetaData()
            found.reflect(connection)
            return {
                table.name: table
                for table in found.sorted_tables
                if table.name != "alembic_version"
            }

    def fill(self, connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows that have their keys already; keys that are counted go on after the largest."""
        with self._failures():
            for row in rows:
                connection.execute(insert(table).values(row))
            key = table.autoincrement_column
            if self.shared and key is not None:
                sequence, newest = (
                    func.pg_get_serial_sequence(table.name, key.name),
                    func.coalesce(func.max(key), 0),
                )
                connection.execute(select(func.setval(sequence, newest + 1, False)))

    def copy_beside(self, name: str) -> Path:
        """Copy an SQLite database, as it is at one moment, into a file beside it, which only its
        owner can read.
        """
        with self._failures(), storage_errors(f"The folder {self.folder}"):
            path = self.folder / name
            path.touch(0o600)
            copy_to(self.folder, path)
        return path

    def clear_traces(self, rewrite: bool = False) -> bool:
        """Take what was deleted out of SQLite's files, where it is no row any more but can be read
        until overwritten.

        The write-ahead log keeps every row that was written since it was last emptied, so it is
        emptied. The database's own pages are zeroed where a row was deleted (secure_delete), but
        SQLite moves rows between pages, and may leave a copy of one where it was: that goes only if
        the file is rewritten, which takes 70 ms for 10 000 events.

        Args:
            rewrite: Whether to rewrite the file as well; who writes meanwhile waits.

        Returns:
            False if somebody reads or writes just now, or the disk refuses: nothing is lost, and it
            can be asked again.
        """
        if self.shared:  # PostgreSQL vacuums by itself
            return True
        try:
            return empty_log(self.folder, rewrite=rewrite)
        except sqlite3.Error as error:
            _log.warning(
                "%s still holds what was deleted; that goes later. SQLite says: %s.",
                self.what,
                error,
            )
            return False

    def close(self) -> None:
        """Let go of every connection; the next transaction makes new ones."""
        self._engine.dispose()

    def _begin(self, **options: bool) -> AbstractContextManager[Connection]:
        """Begin a transaction, or go on with the one that this is the inside of."""
        return (
            nullcontext(self._inside)
            if self._inside
            else self._engine.execution_options(**options).begin()
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one worker at a time prepare the database: SQLite's time-out does not cover the
        switch to WAL.
        """
        if self.shared:
            lock = {"a": LOCK_CLASS, "b": 0}  # one of its own, beside the transactions'
            with (
                self._failures(),
                self._engine.execution_options(alone=False).begin() as connection,
            ):
                connection.execute(text("SELECT pg_advisory_xact_lock(:a, :b)"), lock)
                self._make_schema()
                yield
            return
        with (
            storage_errors(f"The folder {self.folder}"),
            (self.folder / ".preparing").open("w") as file,
        ):
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_schema(self) -> None:
        name = self.migrations.parent.name
        with self.read() as connection:
            if inspect(connection).has_schema(name):  # who may not make one can be given one
                return
        with self.write() as connection:
            connection.execute(text(f'CREATE SCHEMA "{name}"'))

    def _other_version(self, revision: str) -> SettingsError:
        newer = revision > self.newest_revision
        differ = (
            f"(revision {revision}; this one {'knows' if newer else 'needs'}"
            f" {self.newest_revision})"
        )
        todo = "Stop the service, run python -m federation upgrade, and start it again."
        if newer:
            todo = "Install the newer version again, or restore a backup that this version made."
        return SettingsError(
            f"{self.what} was written by {'a newer' if newer else 'an older'} version {differ}.",
            todo=todo,
        )

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise storage_failure(self.what, error) or error from error
