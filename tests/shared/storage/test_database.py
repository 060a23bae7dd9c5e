"""A service's database, SQLite or PostgreSQL: opening, upgrading, writing, reading, and what it
says if it cannot.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, select, text

import device.store.store
import device.store.tables
import main_server.store.store
import main_server.store.tables
import sec_agg.store.store
import sec_agg.store.tables
from main_server.store.events import newest_event_id
from main_server.store.runs import start_run
from main_server.store.versions import newest_versions
from shared.errors import SettingsError, StorageFailed, StorageUnavailable
from shared.storage.database import Database
from tests.main_store import read, write

SERVICES: dict[str, tuple[Path, MetaData, Any]] = {
    "main_server": (
        main_server.store.tables.MIGRATIONS,
        main_server.store.tables.METADATA,
        main_server.store.store.Store.open,
    ),
    "sec_agg": (
        sec_agg.store.tables.MIGRATIONS,
        sec_agg.store.tables.METADATA,
        sec_agg.store.store.Store,
    ),
    "device": (
        device.store.tables.MIGRATIONS,
        device.store.tables.METADATA,
        device.store.store.DeviceStore,
    ),
}
BOTH = pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
EACH = pytest.mark.parametrize("service", list(SERVICES))
Opened = Callable[..., Database]


@pytest.fixture
def connect(tmp_path: Path, database_url: str | None) -> Callable[[str], Database]:
    """Return a function that connects to this test's database as a service does."""
    return lambda service: Database.connect(tmp_path, SERVICES[service][0], database_url)


def reopen(database: Database, url: str | None) -> Database:
    return Database.open(database.folder, database.migrations, url)


def row_of(table: Table, number: int) -> dict[str, Any]:
    """Return a row with something in every column."""
    values = {
        str: f"it is {number}",
        int: number,
        float: number + 0.125,
        bytes: bytes([0, number, 255]),
        bool: True,
    }
    row = {column.name: values[column.type.python_type] for column in table.columns}
    return row | {name: "[]" for name in ("vouched", "cohort") if name in row}


def rows_of(connection: Connection, table: Table) -> list[dict[str, Any]]:
    rows = connection.execute(select(table).order_by(*table.primary_key)).mappings()
    return [dict(row) for row in rows]


@BOTH
@EACH
def test_store_knows_the_tables_that_the_migrations_make(
    connect: Opened, database_url: str | None, service: str
) -> None:
    database = reopen(connect(service), database_url)
    with database.read() as connection:
        changes = compare_metadata(MigrationContext.configure(connection), SERVICES[service][1])
    assert [change for change in changes if "nonces" not in repr(change)] == []


@BOTH
@EACH
@pytest.mark.parametrize("before_revisions", [False, True])
def test_first_revision_is_refused_and_upgraded_with_nothing_lost(
    connect: Opened, database_url: str | None, service: str, before_revisions: bool
) -> None:
    database, kept = connect(service), {}
    with database.prepare() as (_, connection):
        database.migrate(connection, "0001")
        for name, table in database.tables(connection).items():
            database.fill(connection, table, [row_of(table, number) for number in (1, 2)])
            kept[name] = rows_of(connection, table)
        if before_revisions:
            connection.execute(text("DROP TABLE alembic_version"))
    assert database.revision() == "0001" and all(len(rows) == 2 for rows in kept.values())
    with pytest.raises(SettingsError, match=r"older version \(revision 0001.*federation upgrade"):
        reopen(database, database_url)
    database.upgrade()
    assert database.revision() == database.newest_revision
    with database.read() as connection:
        tables = database.tables(connection)
        if "plain_updates" in kept:
            kept["contributions"] = [row | {"sent_at": 0.0} for row in kept.pop("plain_updates")]
        for name, rows in kept.items():
            now = rows_of(connection, tables[name])
            assert [{column: row[column] for column in rows[0]} for row in now] == rows
    store = SERVICES[service][2](database.folder, database_url)
    if service == "main_server":
        assert [one.round for one in read(store, newest_versions, "it is 1", 9)] == [1]
    database.upgrade()  # once more does no harm
    reopen(database, database_url)


@BOTH
def test_newer_revision_is_refused(connect: Opened, database_url: str | None) -> None:
    database = reopen(connect("sec_agg"), database_url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for step in (lambda: reopen(database, database_url), database.upgrade):
        with pytest.raises(
            SettingsError, match=r"newer version \(revision 9999; this one knows 0\d+\)"
        ):
            step()


@BOTH
def test_failed_upgrade_changes_nothing(
    connect: Opened, tmp_path: Path, database_url: str | None
) -> None:
    package = tmp_path / "package" / "sec_agg" / "migrations"
    package.mkdir(parents=True)
    for source in SERVICES["sec_agg"][0].glob("0*.py"):
        (package / source.name).write_text(source.read_text())
    database = reopen(connect("sec_agg"), database_url)
    (package / "0099_broken.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\nrevision, down_revision = '0099', '0002'\n"
        "def upgrade():\n    op.create_table('half', sa.Column('done', sa.Integer))\n    raise ZeroDivisionError\n"
    )
    broken = Database.connect(tmp_path, package, database_url)
    assert broken.newest_revision == "0099"
    with pytest.raises(ZeroDivisionError):
        broken.upgrade()
    with reopen(database, database_url).read() as connection:
        assert "half" not in database.tables(connection)


@BOTH
def test_reading_waits_for_no_write_and_sees_one_state(
    connect: Opened, database_url: str | None
) -> None:
    database = reopen(connect("sec_agg"), database_url)
    with database.read() as connection:
        rounds = database.tables(connection)["rounds"]

    def count(connection: Connection) -> int:
        return len(connection.execute(select(rounds)).all())

    with database.write() as writing:
        database.fill(writing, rounds, [row_of(rounds, 1)])
        with database.read() as reading:
            assert count(reading) == 0
    with database.read() as reading:
        assert count(reading) == 1
        with database.write() as writing:
            database.fill(writing, rounds, [row_of(rounds, 2)])
        assert count(reading) == 1
    with database.read() as reading:
        assert count(reading) == 2


@BOTH
def test_what_fails_halfway_leaves_nothing(connect: Opened, database_url: str | None) -> None:
    database = reopen(connect("sec_agg"), database_url)
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        rounds = database.tables(connection)["rounds"]
        database.fill(connection, rounds, [row_of(rounds, 1)])
        _ = 1 // 0
    with database.read() as connection:
        assert rows_of(connection, rounds) == []


@BOTH
def test_reading_cannot_write(connect: Opened, backend: str, database_url: str | None) -> None:
    database = reopen(connect("sec_agg"), database_url)
    if backend == "postgresql":
        with pytest.raises(StorageFailed, match="cannot be written"), database.read() as connection:
            connection.execute(text("DELETE FROM rounds"))


@BOTH
def test_numbers_go_on_after_rows_that_were_filled_in(
    connect: Opened, database_url: str | None
) -> None:
    store = main_server.store.store.Store.open(connect("main_server").folder, database_url)
    with store.database.write() as connection:
        tables = store.database.tables(connection)
        store.database.fill(connection, tables["runs"], [])
        store.database.fill(
            connection, tables["events"], [row_of(tables["events"], number) for number in (7, 9)]
        )
    assert write(store, start_run, "person", 3, 1, 0.0).id == 1
    assert read(store, newest_event_id) == 10


@BOTH
def test_two_services_share_a_database_and_not_their_tables(
    connect: Opened, backend: str, tmp_path: Path
) -> None:
    databases = [connect(service) for service in SERVICES]
    if backend == "postgresql":
        assert [database.revision() for database in databases] == [None] * 3
        databases[1].upgrade()
        assert [database.revision() for database in databases] == [
            None,
            databases[1].newest_revision,
            None,
        ]


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_who_may_not_make_a_schema_can_be_given_one(
    connect: Opened, postgresql: Any, database_url: str, tmp_path: Path
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    user = f"user_{name}"
    postgresql.execute(
        f"CREATE ROLE {user} LOGIN PASSWORD 'hunter2'", f"REVOKE ALL ON DATABASE {name} FROM PUBLIC"
    )
    postgresql.execute(f"GRANT CONNECT ON DATABASE {name} TO {user}")
    url = database_url.replace("postgres@", f"{user}:hunter2@")
    with pytest.raises(
        StorageFailed, match=f"The database {name} on PostgreSQL cannot be written"
    ) as refused:
        Database.open(tmp_path, SERVICES["sec_agg"][0], url)
    assert "hunter2" not in str(refused.value)
    postgresql.execute(f"CREATE SCHEMA sec_agg AUTHORIZATION {user}", database=name)
    database = Database.open(tmp_path, SERVICES["sec_agg"][0], url)
    assert database.revision() == database.newest_revision
    database.close()
    postgresql.execute(f"REASSIGN OWNED BY {user} TO postgres", database=name)
    postgresql.execute(f"DROP OWNED BY {user}", database=name)
    postgresql.execute(f"DROP OWNED BY {user}", f"DROP ROLE {user}")


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_connection_that_was_cut_is_replaced(
    connect: Opened, postgresql: Any, database_url: str
) -> None:
    database = reopen(connect("sec_agg"), database_url)
    name = database_url.partition("?")[0].rpartition("/")[2]
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    postgresql.execute(cut)
    assert database.revision() == database.newest_revision
    with pytest.raises(StorageUnavailable, match="does not answer"), database.write() as connection:
        postgresql.execute(cut)
        connection.execute(text("SELECT 1"))
    assert database.revision() == database.newest_revision


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter2@127.0.0.1:9/name", "postgresql://u:hunter2@/n?host=/none"]
)
def test_postgresql_that_is_not_there_is_unavailable(tmp_path: Path, url: str) -> None:
    with pytest.raises(StorageUnavailable, match="on PostgreSQL does not answer") as failed:
        Database.open(tmp_path, SERVICES["sec_agg"][0], url)
    assert "hunter2" not in str(failed.value) and "DATABASE_URL" in str(failed.value)


def test_full_database_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    with database.write() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
        rounds = database.tables(connection)["rounds"]
        database.fill(connection, rounds, [row_of(rounds, 1)])
    with (
        pytest.raises(
            StorageFailed, match=r"is full, or its disk is\. What was stored before is kept"
        ),
        database.write() as connection,
    ):
        connection.execute(text(f"PRAGMA max_page_count = {pages}"))
        database.fill(connection, rounds, [row_of(rounds, 2) | {"detector": "x" * 1_000_000}])
    with database.read() as connection:
        assert rows_of(connection, rounds) == [row_of(rounds, 1)]


def test_write_that_waits_too_long_says_busy(tmp_path: Path) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    with closing(sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)) as other:
        with database.read() as connection:
            connection.execute(text("PRAGMA busy_timeout = 50"))
        other.execute("BEGIN IMMEDIATE")
        with (
            pytest.raises(StorageUnavailable, match=r"is busy\..*Try again in a moment"),
            database.write(),
        ):
            pass


def test_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageFailed, match=r"is damaged\..*federation restore"):
        Database.open(tmp_path, SERVICES["sec_agg"][0])


def test_mistakes_of_ours_are_not_called_the_disks(tmp_path: Path) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    with pytest.raises(Exception, match="no such table") as failed, database.write() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    assert not isinstance(failed.value, StorageFailed)


def test_copy_beside_has_everything_and_is_its_owners_alone(tmp_path: Path) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    with database.write() as connection:
        rounds = database.tables(connection)["rounds"]
        database.fill(connection, rounds, [row_of(rounds, 1)])
    copy = database.copy_beside("state.0001.sqlite3")
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT detector FROM rounds").fetchall() == [("it is 1",)]


def test_folder_is_closed_to_others_and_the_database_is_synced(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "state", SERVICES["sec_agg"][0])
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    with database.read() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


def held_in(folder: Path, what: bytes) -> list[str]:
    """Return the files of a folder that hold this."""
    return [path.name for path in folder.rglob("*") if path.is_file() and what in path.read_bytes()]


def add_and_delete(database: Database, secure: str = "ON") -> None:
    """Write a row of the aggregator with "it is 7" in it, and delete it again."""
    with database.write() as connection:
        rounds = database.tables(connection)["rounds"]
        database.fill(connection, rounds, [row_of(rounds, number) for number in (7, 8)])
    assert "state.sqlite3-wal" in held_in(database.folder, b"it is 7")
    with database.write() as connection:
        connection.execute(text(f"PRAGMA secure_delete = {secure}"))
        connection.execute(rounds.delete())
        connection.execute(text("PRAGMA secure_delete = ON"))


def test_deleted_rows_are_zeroed_however_sqlite_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_as_built_elsewhere(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.connect(*arguments, **options)
        connection.execute("PRAGMA secure_delete = OFF")
        return connection

    monkeypatch.setattr("sqlite3.dbapi2.connect", connect_as_built_elsewhere)
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    with database.read() as connection:
        assert connection.execute(text("PRAGMA secure_delete")).scalar() == 1


def test_nothing_deleted_is_left_in_the_files_once_the_traces_are_cleared(tmp_path: Path) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    add_and_delete(database)
    assert held_in(tmp_path, b"it is 7")
    assert database.clear_traces()
    assert (
        held_in(tmp_path, b"it is 7") == [] and (tmp_path / "state.sqlite3-wal").stat().st_size == 0
    )


def test_copy_that_sqlite_left_in_a_page_goes_when_the_file_is_rewritten(tmp_path: Path) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    add_and_delete(database, secure="OFF")
    assert database.clear_traces() and held_in(tmp_path, b"it is 7") == ["state.sqlite3"]
    assert database.clear_traces(rewrite=True) and held_in(tmp_path, b"it is 7") == []


@pytest.mark.parametrize("rewrite", [False, True])
@pytest.mark.parametrize("other", ["read", "write"])
def test_traces_that_somebody_still_needs_are_cleared_later(
    tmp_path: Path, other: str, rewrite: bool
) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    add_and_delete(database)
    with getattr(database, other)() as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM rounds")).scalar() == 0
        begun = time.monotonic()
        assert not database.clear_traces(rewrite)
        assert time.monotonic() - begun < 2
    assert database.clear_traces(rewrite) and held_in(tmp_path, b"it is 7") == []


def test_traces_on_a_disk_that_refuses_are_no_trouble(tmp_path: Path) -> None:
    database = Database.open(tmp_path, SERVICES["sec_agg"][0])
    database.close()
    (tmp_path / "state.sqlite3").write_bytes(b"no database" * 1000)
    assert not database.clear_traces()


@pytest.mark.parametrize("service", list(SERVICES))
def test_migrations_are_numbered_without_a_gap(service: str) -> None:
    names = sorted(path.stem for path in SERVICES[service][0].glob("[0-9]*.py"))
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
    assert all(re.fullmatch(r"\d{4}_[a-z_]+", name) for name in names)
