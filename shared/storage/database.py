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
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError, TimeoutError

from shared.errors import SettingsError, StorageFailed, StorageUnavailable
from shared.storage.blobs import storage_errors

_LOCK_CLASS = 0x_D00B
_SHORTLY_S = 0.1
_BUSY = ("is busy.", "Try again in a moment.")
_GONE = ("does not answer.", "Start it, or mend DATABASE_URL; then try again.")
_CLOSED = ("cannot be written.", "Let this service's user write there, then try again.")
_DAMAGED = ("is damaged.", "Stop the service, and restore a backup: python -m federation restore.")
_FULL = ("is full, or its disk is.", "Free some space there, then try again.")
_SAID: dict[int | str, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _CLOSED,
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened.",
        "Let this service's user own its folder, then try again.",
    ),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written: the disk reports an error.",
        "Look at the disk.",
    ),
    # PostgreSQL's errors, and classes of them
    "08": _GONE,
    "3D": _GONE,
    "57": _GONE,
    "53": _FULL,
    "25006": _CLOSED,
    "42501": _CLOSED,
    "55P03": _BUSY,
    "40P01": _BUSY,
    "40001": _BUSY,  # waited too long for a lock; a deadlock; changed meanwhile
    "58": ("cannot be read or written: its disk fails.", "Look at the disk."),
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}
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
        engine = _sqlite(folder) if url is None else _postgresql(url, migrations.parent.name)
        what = (
            f"The database in {folder}"
            if url is None
            else f"The database {engine.url.database} on PostgreSQL"
        )
        return cls(what, folder, migrations, engine)

    @contextmanager
    def write(self, alone: bool = True) -> Iterator[Connection]:
        """One transaction that may write: nobody else's begins until it ends, and then it is on
        disk.

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
        """One transaction that only reads, and sees one state of everything; raises as `write`
        does.
        """
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
        """One transaction to make the tables and fill them in, while nobody else opens the
        database.

        Yields:
            The database as it looks inside the transaction: what writes or reads through it, does
            so in there.
        """
        with self._alone(), self.write() as connection:
            yield replace(self, _inside=connection), connection

    def migrate(self, connection: Connection, to: str = "head") -> None:
        """Bring the tables to a revision, in a transaction that may do more."""
        _migrate(connection, self.migrations, replace(self, _inside=connection).revision(), to)

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
            (path := self.folder / name).touch(0o600)
            with (
                closing(sqlite3.connect(self.folder / "state.sqlite3")) as one,
                closing(sqlite3.connect(path)) as copy,
            ):
                one.backup(copy)
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
            path = self.folder / "state.sqlite3"
            with closing(sqlite3.connect(path, _SHORTLY_S, isolation_level=None)) as connection:
                if rewrite:
                    connection.execute("VACUUM")
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            _log.warning(
                "%s still holds what was deleted; that goes later. SQLite says: %s.",
                self.what,
                error,
            )
            return False
        return not busy

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
            lock = {"a": _LOCK_CLASS, "b": 0}  # one of its own, beside the transactions'
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
        differ = f"(revision {revision}; this one {'knows' if newer else 'needs'} {self.newest_revision})"
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
            raise self._failure(error) or error from error

    def _failure(self, error: Exception) -> StorageFailed | None:
        """Return what a person is to read of a failure that is the database's, and not a mistake of
        ours.
        """
        cause = error.orig if isinstance(error, DBAPIError) else error
        code, state = (
            getattr(cause, "sqlite_errorcode", None),
            getattr(cause, "sqlstate", None) or "",
        )
        said = _SAID.get(code & 0xFF) if code else _SAID.get(state) or _SAID.get(state[:2])
        no_answer = (
            not code
            and not state
            and "OperationalError" in {kind.__name__ for kind in type(cause).__mro__}
        )
        if no_answer or getattr(error, "connection_invalidated", False):
            said = _GONE
        elif isinstance(error, TimeoutError):  # all connections are in use
            said = _BUSY
        if said is None:
            return None
        kind = StorageUnavailable if said in (_GONE, _BUSY) else StorageFailed
        return kind(f"{self.what} {said[0]}", kept="What was stored before is kept.", todo=said[1])


def _sqlite(folder: Path) -> Engine:
    engine = create_engine(f"sqlite:///{folder / 'state.sqlite3'}", connect_args={"timeout": 30})

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # sqlite3 would begin by itself, and too late
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(
            "PRAGMA secure_delete = ON"
        )  # SQLite's own default depends on who built it

    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _postgresql(url: str, schema: str) -> Engine:
    """Return an engine for one service's schema: psycopg, few connections, time-outs, dead ones
    replaced.
    """
    engine = create_engine(
        "postgresql+psycopg://" + url.partition("://")[2],
        pool_size=4,
        max_overflow=4,
        pool_timeout=30,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "options": f"-csearch_path={schema} -clock_timeout=30s",
        },
    )
    lock = {"a": _LOCK_CLASS, "b": zlib.crc32(schema.encode()) & 0x7FFFFFFF}

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("reading"):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        elif connection.get_execution_options().get(
            "alone", True
        ):  # what is read after the lock is the last state
            connection.execute(text("SELECT pg_advisory_xact_lock(:a, :b)"), lock)

    event.listen(engine, "begin", begin)
    return engine


def _migrate(connection: Connection, migrations: Path, revision: str | None, to: str) -> None:
    from alembic import command  # noqa: PLC0415 - a service that starts with its tables there does without
    from alembic.config import Config  # noqa: PLC0415

    def literal(path: Path) -> str:
        return str(path).replace(
            "%", "%%"
        )  # configparser would look for a variable after a single one

    config = Config()
    config.set_main_option("script_location", literal(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", literal(migrations))
    config.attributes["connection"] = connection
    if revision == "0001" and "alembic_version" not in inspect(connection).get_table_names():
        command.stamp(config, revision)
    command.upgrade(config, to)
