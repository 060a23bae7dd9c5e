"""What is backed up comes back, on either database, and the federation goes on with numbers that it
has not used.
"""

from __future__ import annotations

import io
import math
import re
import shutil
import tarfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import device.store.store
import federation.__main__ as command_line
from device.store.records import GlobalModel
from federation.backup import backup as backups
from federation.backup import restore as restoring
from federation.backup.archive import BackupUnusable, open_backup
from main_server.store.members import Invitation, all_members, find_invitation, invite
from main_server.store.pins import find_pins, remove_pin, set_pin
from main_server.store.records import PENDING
from main_server.store.retention import forget_old, needed_blobs
from main_server.store.store import Store
from main_server.store.versions import newest_version, newest_versions
from shared.errors import NotFound, OutOfOrder, SettingsError, StorageFailed
from shared.security.identity import Identity
from shared.storage.database import Database
from tests.main_store import read, write

NOW = 1_800_000_000.0
AHEAD = restoring.ROUNDS_AHEAD


def run_round(there: Any, detector: str = "package") -> int:
    for name in ("a", "b"):
        there.upload(name, there.delta(), detector=detector)
    there.step("aggregator", "aggregate_models", detector)
    there.step("aggregator", "send_model_secagg", detector)
    return int(read(there.main.store, newest_version, detector).round)


def everything(store: Store) -> dict[str, list[str]]:
    """Return all rows of the main server's tables, but those that a backup leaves out."""
    with store.database.read() as connection:
        tables = store.database.tables(connection)
        rows = {
            name: [repr(dict(row)) for row in connection.execute(table.select()).mappings()]
            for name, table in tables.items()
        }
    return {name: sorted(found) for name, found in rows.items() if name != "nonces"}


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Any:
    """Return a function that gives a fresh database: an address, or None for SQLite."""
    with ExitStack() as made:

        def make(kind: str) -> str | None:
            server = request.getfixturevalue("postgresql") if kind == "postgresql" else None
            return made.enter_context(server.database()) if server else None

        yield make


def environment(folder: Path, url: str | None) -> dict[str, str]:
    return {"DOORBELL_HOME": str(folder)} | ({"DATABASE_URL": url} if url else {})


@pytest.mark.parametrize("source", ["sqlite", "postgresql"])
@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_lost_main_server_comes_back_and_the_federation_goes_on(
    make_federation: Callable[..., Any], tmp_path: Path, databases: Any, source: str, target: str
) -> None:
    home, file, url = tmp_path / "home", tmp_path / "backup.tar", databases(source)
    there = make_federation(home, database_url=url)
    run_round(there)
    write(
        there.main.store,
        set_pin,
        "package",
        read(there.main.store, newest_version, "package").version,
        NOW,
    )
    before = everything(there.main.store)
    contents = backups.backup(file, environment(home, url))
    assert file.stat().st_mode & 0o777 == 0o600
    assert {"main-server", "devices/a", "devices/b"} <= set(contents.services)
    write(there.main.store, remove_pin, "package", NOW)
    assert [run_round(there) for _ in range(2)] == [2, 3]
    last_seen = there.aggregator.store.newest_round("package").round

    shutil.rmtree(home / "main-server")
    fresh = databases(target)
    (said,) = restoring.restore(file, ["main-server"], environment(home, fresh))
    assert (
        f"the model of round 1 is in force as that of round {1 + AHEAD}" in said
        and "revoked again" in said
    )
    there.start(database_url=fresh)
    after, newest = everything(there.main.store), read(there.main.store, newest_version, "package")
    assert newest.round == 1 + AHEAD > last_seen
    assert newest.parent == read(there.main.store, newest_versions, "package", 9)[1].version
    assert read(there.main.store, find_pins) == {"package": newest.version}
    write(there.main.store, remove_pin, "package", NOW)
    for name in ("members", "devices", "participations", "contributions", "scores", "runs"):
        assert after[name] == before[name]
    assert set(before["rounds"]) <= set(after["rounds"]) and set(before["versions"]) <= set(
        after["versions"]
    )
    assert set(before["events"]) <= set(after["events"])

    assert run_round(there) == 2 + AHEAD, (
        "the aggregator and the devices that went on take what follows"
    )
    assert there.aggregator.store.newest_round("package").round == 2 + AHEAD
    assert not list(home.glob(".restoring*"))


def test_lost_machine_comes_back_but_for_what_the_aggregator_knew(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    home, file = tmp_path / "home", tmp_path / "backup.tar"
    there = make_federation(home)
    run_round(there)
    (home / "aggregator").rename(home / "secure-aggregator")
    store = device.store.store.DeviceStore(home / "devices" / "a")
    store.models.activate(GlobalModel("package", there.main.blobs.put(b"not here"), 1))
    store.database.close()
    with pytest.raises(StorageFailed, match="is not there, though its database refers to it"):
        backups.backup(file, environment(home, None))
    (home / "devices" / "a" / "blobs").mkdir(exist_ok=True)
    shutil.copy(
        home / "main-server" / "blobs" / store.models.active("package").version,
        home / "devices" / "a" / "blobs",
    )
    backups.backup(file, environment(home, None))
    with open_backup(file) as kept:
        assert kept.names("secure-aggregator") == ["identity.key", "membership.json"]
        assert not [
            name for name in kept.contents.files if "local-join-code" in name or "nonces" in name
        ]

    home.rename(tmp_path / "lost")
    said = restoring.restore(file, (), environment(home, None))
    assert (
        len(said) == 4 and (home / "devices" / "a" / "identity.key").stat().st_mode & 0o777 == 0o600
    )
    assert device.store.store.DeviceStore(home / "devices" / "a").models.active(
        "package"
    ) == store.models.active("package")
    (home / "secure-aggregator").rename(home / "aggregator")
    again = make_federation(home)
    assert (
        Identity.open(home / "devices" / "a" / "identity.key").public
        == there.senders["a"].identity.public
    )
    assert run_round(again) == 2 + AHEAD


def test_join_codes_are_void_and_a_version_at_the_gate_is_not_passed(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    home, file = tmp_path / "home", tmp_path / "backup.tar"
    there = make_federation(home)
    run_round(there)
    assert read(there.main.store, newest_version, "package").gate == PENDING
    write(there.main.store, invite, Invitation("i" * 32, b"secret", "device", 5, math.inf))
    backups.backup(file, environment(home, None))
    restoring.restore(file, ["main-server"], environment(tmp_path / "other", None))
    store = Store.open(tmp_path / "other" / "main-server")
    invitation = read(store, find_invitation, "i" * 32)
    newest = read(store, newest_version, "package", released=True)
    assert invitation and invitation.uses_left == 0 and invitation.expires_at == math.inf
    assert newest and newest.gate == "unchecked"


def first_revision(home: Path, url: str | None, there: Any) -> None:
    """Make a main server's state as the first revision had it, with one member."""
    folder = home / "main-server"
    Identity.open(folder / "identity.key")
    shutil.copy(there.folder / "main-server" / "sealing.key", folder)
    database = Database.connect(
        folder, backups.services(environment(home, None))["main-server"].migrations, url
    )
    with database.prepare() as (_, connection):
        database.migrate(connection, "0001")
        row = {
            "key_id": "k",
            "name": "anna",
            "role": "device",
            "public_key": b"\0" * 32,
            "joined_at": NOW,
        }
        database.fill(connection, database.tables(connection)["members"], [row | {"revoked": None}])
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_backup_of_an_older_revision_is_upgraded_on_its_way_back(
    federation: Any, tmp_path: Path, databases: Any, kind: str
) -> None:
    home, file, url = tmp_path / "old", tmp_path / "backup.tar", databases(kind)
    first_revision(home, url, federation)
    assert backups.backup(file, environment(home, url)).services["main-server"].revision == "0001"
    fresh = databases(kind)
    restoring.restore(file, (), environment(tmp_path / "new", fresh))
    assert [
        member.name
        for member in read(Store.open(tmp_path / "new" / "main-server", fresh), all_members)
    ] == ["anna"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_upgrade_says_what_it_did_and_keeps_a_copy(
    federation: Any, tmp_path: Path, databases: Any, kind: str
) -> None:
    home, url = tmp_path / "old", databases(kind)
    assert backups.upgrade(environment(home, None)) == [
        "There is no database here, so there is nothing to do."
    ]
    first_revision(home, url, federation)
    (said,) = backups.upgrade(environment(home, url))
    newest = federation.main.store.database.newest_revision
    assert said.startswith(f"main-server: upgraded from revision 0001 to {newest}.")
    if kind == "sqlite":
        copy = Database.connect(home / "main-server", home, None).folder / "state.0001.sqlite3"
        assert str(copy) in said and b"plain_updates" in copy.read_bytes()
    assert backups.upgrade(environment(home, url)) == [
        f"main-server: revision {newest}; there is nothing to do."
    ]
    assert [member.name for member in read(Store.open(home / "main-server", url), all_members)] == [
        "anna"
    ]


@pytest.fixture
def file(federation: Any, tmp_path: Path) -> Path:
    run_round(federation)
    backups.backup(tmp_path / "backup.tar", environment(federation.folder, None))
    return tmp_path / "backup.tar"


def members_of(file: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(file) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def write_tar(file: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(file, "w") as tar:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))


def renamed(member: tarfile.TarInfo, name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    changed = tarfile.TarInfo(name)
    changed.type, changed.linkname = kind, "/etc/passwd"
    return changed


HARMED: dict[str, Callable[[list[Any]], list[Any]]] = {
    "cut off": lambda parts: parts[:-1],
    "a part is missing": lambda parts: parts[1:],
    "a part is there twice": lambda parts: [parts[0], *parts],
    "a byte is another": lambda parts: [(parts[0][0], b"x" + parts[0][1][1:]), *parts[1:]],
    "a part beside it": lambda parts: [
        *parts,
        (tarfile.TarInfo("main-server/membership.json"), b""),
    ],
    "a path that leads out": lambda parts: [
        (renamed(parts[0][0], "../../identity.key"), parts[0][1]),
        *parts[1:],
    ],
    "an absolute path": lambda parts: [
        (renamed(parts[0][0], "/main-server/identity.key"), b"x"),
        *parts,
    ],
    "a link": lambda parts: [
        (renamed(parts[0][0], parts[0][0].name, tarfile.SYMTYPE), b""),
        *parts[1:],
    ],
    "a device": lambda parts: [
        (renamed(parts[0][0], "devices/x/identity.key", tarfile.CHRTYPE), b""),
        *parts,
    ],
    "no contents": lambda parts: [*parts[:-1], (parts[-1][0], b"[]")],
    "contents of another form": lambda parts: [
        *parts[:-1],
        (parts[-1][0], b'{"format": "doorbell-backup/9"}'),
    ],
    "a strange service": lambda parts: [
        *parts[:-1],
        (parts[-1][0], parts[-1][1].replace(b"main-server", b"../x")),
    ],
}


@pytest.mark.parametrize("harm", list(HARMED))
def test_file_that_is_not_whole_restores_nothing(file: Path, tmp_path: Path, harm: str) -> None:
    write_tar(file, HARMED[harm](members_of(file)))
    with pytest.raises(BackupUnusable, match="Nothing was restored"):
        restoring.restore(file, (), environment(tmp_path / "new", None))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("data", [b"", b"no tar", b"\0" * 4096])
def test_file_that_is_no_tar_restores_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(BackupUnusable):
        restoring.restore(tmp_path / "file", (), environment(tmp_path / "new", None))
    with pytest.raises(BackupUnusable, match="There is no file"):
        restoring.restore(tmp_path / "none", (), environment(tmp_path / "new", None))


def test_truncated_at_any_place_restores_nothing(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    end = whole.rindex(b'"files"')
    for length in (*range(0, end, max(1, end // 9)), end):
        file.write_bytes(whole[:length])
        with pytest.raises(BackupUnusable):
            restoring.restore(file, (), environment(tmp_path / "new", None))
    assert not (tmp_path / "new").exists()


def test_newer_backup_is_refused(file: Path, tmp_path: Path) -> None:
    *parts, (name, contents) = members_of(file)
    newer = re.sub(rb'"revision": "\d{4}"', b'"revision": "9999"', contents)
    assert newer != contents
    write_tar(file, [*parts, (name, newer)])
    with pytest.raises(BackupUnusable, match=r"A newer version made this backup \(revision 9999"):
        restoring.restore(file, (), environment(tmp_path / "new", None))
    assert not (tmp_path / "new").exists()


def test_state_that_is_there_is_never_replaced(file: Path, federation: Any, tmp_path: Path) -> None:
    before = federation.remembered("main-server")
    with pytest.raises(OutOfOrder, match=r"main-server is here already, in .*Nothing was restored"):
        restoring.restore(file, (), environment(federation.folder, None))
    with pytest.raises(NotFound, match="does not have devices/z"):
        restoring.restore(file, ["devices/z"], environment(tmp_path / "new", None))
    assert federation.remembered("main-server") == before


def test_postgresql_that_holds_a_main_server_is_never_filled(
    file: Path, tmp_path: Path, databases: Any
) -> None:
    url = databases("postgresql")
    store = Store.open(tmp_path / "elsewhere", url)
    write(store, invite, Invitation("i" * 32, b"secret", "device", 5, math.inf))
    with pytest.raises(OutOfOrder, match="has tables of main-server already"):
        restoring.restore(file, ["main-server"], environment(tmp_path / "new", url))
    assert (
        read(store, find_invitation, "i" * 32) is not None
        and not (tmp_path / "new" / "main-server").exists()
    )


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("step", ["move_in", "_move_on", "_fill"])
def test_failure_on_the_way_leaves_nothing(
    file: Path,
    tmp_path: Path,
    databases: Any,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    step: str,
) -> None:
    right, url = getattr(restoring, step), databases(kind)

    def fail(*arguments: Any) -> None:
        right(*arguments) if step != "move_in" else None
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(restoring, step, fail)
        with pytest.raises(ZeroDivisionError):
            restoring.restore(file, ["main-server"], environment(tmp_path / "new", url))
    assert list((tmp_path / "new").iterdir()) == []
    restoring.restore(file, ["main-server"], environment(tmp_path / "new", url))
    assert (
        read(Store.open(tmp_path / "new" / "main-server", url), newest_version, "package")
        is not None
    )


def test_second_rename_that_fails_undoes_the_first(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, done = Path.rename, []

    def once(path: Path, target: Path) -> Path:
        if ".restoring" in str(path):
            done.append(path)
            if len(done) == 2:
                raise OSError(28, "no space")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", once)
    with pytest.raises(StorageFailed, match="The disk is full"):
        restoring.restore(file, (), environment(tmp_path / "new", None))
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_keys_from_a_secret_are_not_in_the_file_and_are_asked_for(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    home, file, secret = tmp_path / "home", tmp_path / "backup.tar", {"DOORBELL_SECRET": "s" * 40}
    Store.open(home / "main-server").database.close()
    backups.backup(file, environment(home, None) | secret)
    with open_backup(file) as kept:
        assert not [name for name in kept.contents.files if name.endswith(".key")]
    for other, said in (
        ({}, "derived from DOORBELL_SECRET"),
        ({"DOORBELL_SECRET": "t" * 40}, "is not the one"),
    ):
        with pytest.raises(SettingsError, match=said):
            restoring.restore(file, (), environment(tmp_path / "new", None) | other)
    restoring.restore(file, (), environment(tmp_path / "new", None) | secret)


def test_pictures_of_what_was_pruned_meanwhile_do_not_stop_it(
    federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_round(federation)
    run_round(federation)
    add_rows, looked = backups._add_rows, []

    def prune_once(*arguments: Any) -> None:
        add_rows(*arguments)
        if not looked:
            write(federation.main.store, forget_old, "package", 1, 1)
            federation.main.blobs.prune(read(federation.main.store, needed_blobs), -1.0)
        looked.append(arguments)

    monkeypatch.setattr(backups, "_add_rows", prune_once)
    backups.backup(tmp_path / "backup.tar", environment(federation.folder, None))
    assert len(looked) == 2


def test_file_is_written_whole_or_not_at_all(
    federation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "to" / "backup.tar"
    file.parent.mkdir()
    file.write_bytes(b"the earlier one")
    monkeypatch.setattr(backups.Writer, "finish", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        backups.backup(file, environment(federation.folder, None))
    assert file.read_bytes() == b"the earlier one" and list(file.parent.iterdir()) == [file]
    with pytest.raises(NotFound, match="nothing to back up"):
        backups.backup(file, environment(tmp_path / "empty", None))


def test_command_line_says_what_was_done(
    federation: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = str(tmp_path / "backup.tar")
    monkeypatch.setenv("DOORBELL_HOME", str(federation.folder))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for module in (backups, restoring):
        monkeypatch.setattr(module.os, "environ", {"DOORBELL_HOME": str(federation.folder)})
    assert command_line.main(["backup", file]) == 0
    assert command_line.main(["restore", file]) == 1
    assert command_line.main(["upgrade"]) == 0
    said = capsys.readouterr()
    assert (
        "holds main-server" in said.out
        and "Keys are in it" in said.out
        and "nothing to do" in said.out
    )
    assert "is here already" in said.err and "Traceback" not in said.err
