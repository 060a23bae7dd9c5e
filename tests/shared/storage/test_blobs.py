"""Blobs: named by their hash, whole or not there, whatever stops the writer."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import StorageFailed, StorageUnavailable
from shared.storage.blobs import (
    BlobPlace,
    BlobStore,
    parse_blob_place,
    storage_errors,
    write_durably,
)
from shared.storage.opening import open_blobs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "blobs"


@pytest.fixture
def store(folder: Path) -> BlobStore:
    return BlobStore(folder)


class DiskFullError(OSError):
    """Stands in for whatever stops a write."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_blob_is_a_file_named_by_its_sha256(store: BlobStore, folder: Path) -> None:
    digest = store.put(b"some bytes")
    assert digest == hashlib.sha256(b"some bytes").hexdigest()
    assert names(folder) == [digest]
    assert store.path(digest) == folder / digest
    assert (folder / digest).read_bytes() == b"some bytes"


@settings(max_examples=25)
@given(st.binary(max_size=1000))
def test_blob_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    store = BlobStore(tmp_path_factory.mktemp("blobs"))
    assert store.get(store.put(data)) == data


def test_putting_twice_leaves_the_same_file_but_younger(store: BlobStore, folder: Path) -> None:
    digest = store.put(b"some bytes")
    before = store.path(digest).stat()
    os.utime(store.path(digest), (0, 0))
    assert store.put(b"some bytes") == digest
    after = store.path(digest).stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns >= before.st_mtime_ns
    assert names(folder) == [digest]


def test_store_opened_again_has_what_was_put(store: BlobStore, folder: Path) -> None:
    digest = store.put(b"some bytes")
    assert BlobStore(folder).get(digest) == b"some bytes"


def test_blob_that_was_never_put_is_not_found(store: BlobStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.get("0" * 64)


def test_many_writers_of_one_blob_leave_one_file(store: BlobStore, folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(store.put, [b"same" * 1000] * 32))
    assert names(folder) == sorted(digests)
    assert store.get(digests.pop()) == b"same" * 1000


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_error_between_write_and_rename_leaves_nothing(
    store: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def stop(*_: object) -> None:
        raise DiskFullError

    with monkeypatch.context() as patched:
        patched.setattr(where, stop)
        with pytest.raises(DiskFullError):
            store.put(b"some bytes")
    assert names(folder) == []
    assert store.get(store.put(b"some bytes")) == b"some bytes"


def test_process_killed_while_writing_leaves_no_half_blob(store: BlobStore, folder: Path) -> None:
    program = (
        "import os, pathlib, sys; from shared.storage.blobs import BlobStore; os.fsync = lambda _: os._exit(9);"
        "BlobStore(pathlib.Path(sys.argv[1])).put(b'some bytes')"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program, str(folder)], cwd=ROOT, check=False
        ).returncode
        == 9
    )
    assert not store.path(hashlib.sha256(b"some bytes").hexdigest()).exists()
    assert store.get(store.put(b"some bytes")) == b"some bytes"


def test_file_is_synced_before_it_has_its_name_and_the_folder_after(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.path(hashlib.sha256(b"some bytes").hexdigest())
    named_when_synced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        is_folder = os.path.samestat(os.fstat(descriptor), path.parent.stat())
        named_when_synced.append((is_folder, path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    store.put(b"some bytes")
    assert named_when_synced == [(False, False), (True, True)]
    store.put(b"some bytes")  # who wrote it may be a process that is not as far as that yet
    assert named_when_synced[2:] == [(True, True)]


def test_interrupted_rewrite_keeps_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise DiskFullError

    write_durably(tmp_path / "file", b"old")
    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(DiskFullError):
        write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_rewrite_replaces_the_file(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"a longer old text")
    write_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_secret_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    write_durably(tmp_path / "secret", b"key", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


# --- what nobody needs any more


def aged(path: Path, age_s: float) -> Path:
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def left_over(folder: Path, age_s: float) -> Path:
    """Leave what a writer leaves that is killed."""
    path = folder / f".{'0' * 64}.0123abcd"
    path.write_bytes(b"half a blob")
    return aged(path, age_s)


def test_prune_takes_away_what_killed_writers_left_but_not_from_under_a_writer(
    store: BlobStore, folder: Path
) -> None:
    left_over(folder, age_s=3500)
    assert store.prune((), grace_s=0) == 0
    assert len(names(folder)) == 1
    left_over(folder, age_s=3700)
    assert store.prune((), grace_s=1e9) == len(b"half a blob")
    assert names(folder) == []


def test_prune_and_size_see_blobs_alone(store: BlobStore, folder: Path) -> None:
    for name in ("notes.txt", f".{'0' * 64}", "0" * 63, f".{'0' * 64}.0123abcd.old"):
        (folder / name).write_bytes(b"x")
        aged(folder / name, 1e6)
    left_over(folder, age_s=0)
    before = names(folder)
    digest = store.put(b"some bytes")
    assert store.size() == (10, 1)
    aged(store.path(digest), 100)
    assert store.prune((), grace_s=50) == 10
    assert names(folder) == before


def test_removal_waits_for_a_put_of_the_same_bytes_and_then_lets_them_be(
    store: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put comes between the last look at a blob and its removal."""
    digest = store.put(b"some bytes")
    aged(store.path(digest), 100)
    again = threading.Thread(target=lambda: BlobStore(folder).put(b"some bytes"))
    unlink = Path.unlink

    def remove(path: Path, missing_ok: bool = False) -> None:
        if path.name == digest and again.ident is None:
            again.start()
            again.join(0.3)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", remove)
    store.prune((), grace_s=50)
    again.join(10)
    assert store.get(digest) == b"some bytes"


def test_look_at_a_blob_is_the_last_one_that_counts(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The put comes between the first look at a blob and the last."""
    digest = store.put(b"some bytes")
    path = aged(store.path(digest), 100)
    stat, looks = Path.stat, []

    def look(seen: Path, **options: bool) -> os.stat_result:
        found = stat(seen, **options)
        if seen == path:
            looks.append(seen)
            os.utime(path)
        return found

    monkeypatch.setattr(Path, "stat", look)
    assert store.prune((), grace_s=50) == 0
    assert len(looks) == 2
    assert store.get(digest) == b"some bytes"


def test_what_is_put_again_and_again_is_there_whoever_prunes(
    store: BlobStore, folder: Path
) -> None:
    blobs, stop = [bytes([number]) * 100 for number in range(4)], threading.Event()

    def prune() -> int:
        pruner, freed = BlobStore(folder), 0
        while not stop.is_set():
            freed += pruner.prune((), grace_s=50)
        return freed

    def put(data: bytes) -> list[bool]:
        kept = []
        for _ in range(100):
            digest = store.put(data)
            kept.append(store.path(digest).exists())
            with suppress(FileNotFoundError):
                aged(store.path(digest), 100)
        return kept

    with ThreadPoolExecutor(6) as pool:
        freed = [pool.submit(prune) for _ in range(2)]
        try:
            assert all(all(kept) for kept in pool.map(put, blobs))
        finally:
            stop.set()
    assert sum(one.result() for one in freed) > 0


def test_blob_that_another_pruned_meanwhile_frees_nothing(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    aged(store.path(store.put(b"some bytes")), 100)
    listed = store._files()
    assert store.prune((), grace_s=50) == 10
    monkeypatch.setattr(store, "_files", lambda: listed)
    assert store.prune((), grace_s=50) == 0
    assert store.size() == (0, 0)


# --- a disk that is full, closed or broken

DISK = """
import os, pathlib, resource, subprocess, sys
from shared.storage.blobs import BlobStore
from shared.errors import StorageFailed

def attempt(do):
    try:
        do()
    except StorageFailed as error:
        print(error.status.value, error)

folder = pathlib.Path(sys.argv[1])
"""


def on_disk(program: str, folder: Path, *before: str) -> list[str]:
    """Run a program that begins like `DISK` in a process of its own, and return the lines that it
    prints.
    """
    command = [*before, sys.executable, "-c", DISK + program, str(folder)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_file_beyond_what_the_system_grants_is_refused_and_leaves_nothing(folder: Path) -> None:
    said = on_disk(
        "store = BlobStore(folder)\n"
        "small = store.put(b'small')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "attempt(lambda: store.put(b'x' * 100_000))\n"
        "print(store.get(small))\n",
        folder,
    )
    assert said == [
        "507 The disk is full: the folder deep/blobs cannot be written. What was stored before is kept. "
        "Make room on it and try again.",
        "b'small'",
    ]
    assert names(folder) == [hashlib.sha256(b"small").hexdigest()]


def test_rewrite_on_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    said = on_disk(
        "from shared.storage.blobs import write_durably\n"
        "write_durably(folder / 'file', b'old')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "attempt(lambda: write_durably(folder / 'file', b'x' * 100_000))\n",
        tmp_path,
    )
    assert [line[:21] for line in said] == ["507 The disk is full:"]
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_folder_that_belongs_to_another_is_refused(tmp_path: Path) -> None:
    """Root may write anywhere, so it becomes nobody once it stands beside the folder."""
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"some bytes")
    (tmp_path / "blobs").chmod(0o555)
    (tmp_path / "blobs" / digest).chmod(0o444)
    tmp_path.chmod(0o755)
    said = on_disk(
        "os.chdir(folder)\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
        "store = BlobStore(pathlib.Path('blobs'))\n"
        "print(store.get(sys.argv[2]))\n"
        "attempt(lambda: store.put(b'other bytes'))\n"
        "attempt(lambda: store.delete(sys.argv[2]))\n"
        "attempt(lambda: BlobStore(pathlib.Path('blobs/deeper')))\n".replace(
            "sys.argv[2]", repr(digest)
        ),
        tmp_path,
    )
    (tmp_path / "blobs").chmod(0o755)
    assert said[0] == "b'some bytes'"
    assert said[1] == (
        "507 The folder blobs cannot be written: this service is not allowed to, or the disk is read-only. What was "
        "stored before is kept. Give this service's user the right to it and try again."
    )
    assert said[2:] == [said[1], said[1].replace("folder blobs", "folder blobs/deeper")]
    assert names(tmp_path / "blobs") == [digest]


def may_mount() -> bool:
    tried = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(tried, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not may_mount(), reason="this system does not let its users mount a small disk")
def test_small_disk_that_is_full_is_usable_again_when_there_is_room(tmp_path: Path) -> None:
    said = on_disk(
        "subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', folder], check=True)\n"
        "store = BlobStore(folder / 'blobs')\n"
        "first = store.put(b'x' * 40_000)\n"
        "attempt(lambda: store.put(b'y' * 40_000))\n"
        "print(os.listdir(folder / 'blobs') == [first], len(store.get(first)))\n"
        "store.delete(first)\n"
        "second = store.put(b'y' * 40_000)\n"
        "subprocess.run(['mount', '-o', 'remount,ro', folder], check=True)\n"
        "attempt(lambda: store.put(b'y' * 40_000))\n"
        "attempt(lambda: store.put(b'z'))\n"
        "attempt(lambda: store.delete(second))\n"
        "print(os.listdir(folder / 'blobs') == [second], len(store.get(second)))\n",
        tmp_path,
        "unshare",
        "--map-root-user",
        "--mount",
    )
    assert said[0].startswith("507 The disk is full: the folder ")
    assert [line.partition(":")[0] for line in said[2:5]] == [
        f"507 The folder {tmp_path.name}/blobs cannot be written"
    ] * 3
    assert said[1::4] == ["True 40000"] * 2
    assert len(said) == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_told_as_the_system_tells_it() -> None:
    with (
        pytest.raises(StorageFailed, match="The disk is full: the log cannot be written"),
        storage_errors("The log"),
    ):
        Path("/dev/full").write_bytes(b"x")


@pytest.mark.parametrize(
    ("number", "happened"),
    [
        (errno.ENOSPC, "The disk is full: the folder a/b cannot be written."),
        (errno.EDQUOT, "The disk is full: the folder a/b cannot be written."),
        (errno.EFBIG, "The disk is full: the folder a/b cannot be written."),
        (
            errno.EROFS,
            "The folder a/b cannot be written: this service is not allowed to, or the disk is read-only.",
        ),
        (
            errno.EACCES,
            "The folder a/b cannot be written: this service is not allowed to, or the disk is read-only.",
        ),
        (
            errno.EPERM,
            "The folder a/b cannot be written: this service is not allowed to, or the disk is read-only.",
        ),
        (errno.EIO, "The disk reports an error: the folder a/b cannot be written."),
    ],
)
def test_what_a_disk_refuses_is_said_plainly(number: int, happened: str) -> None:
    with pytest.raises(StorageFailed) as refused, storage_errors("the folder a/b"):
        raise OSError(number, os.strerror(number), "/home/somebody/secret")
    assert refused.value.happened == happened
    assert refused.value.kept == "What was stored before is kept."
    assert refused.value.todo
    assert refused.value.problem()["type"] == "urn:doorbell:problem:storage"
    assert refused.value.problem()["status"] == 507
    assert "somebody" not in str(refused.value)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(FileNotFoundError), storage_errors("the folder a/b"):
        raise FileNotFoundError(errno.ENOENT, "No such file")


def test_storage_that_does_not_answer_passes_in_time() -> None:
    error = StorageUnavailable("The database does not answer.", todo="Try again in a minute.")
    assert isinstance(error, StorageFailed)
    assert error.problem()["type"] == "urn:doorbell:problem:storage-unavailable"
    assert error.problem()["status"] == 503
    assert (
        str(error)
        == "The database does not answer. What was stored before is kept. Try again in a minute."
    )


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
def test_broken_disk_leaves_nothing_half_written(
    store: BlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(where, fail)
        with pytest.raises(StorageFailed, match="The disk reports an error"):
            store.put(b"some bytes")
    assert names(folder) == []


@pytest.mark.parametrize("call", ["get", "list", "lock"])
def test_disk_that_cannot_be_read_says_so(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    digest = store.put(b"some bytes")
    monkeypatch.setattr(
        *{"get": (Path, "read_bytes"), "list": (Path, "iterdir"), "lock": (os, "open")}[call], fail
    )
    with pytest.raises(StorageFailed, match="blobs cannot be read"):
        {
            "get": lambda: store.get(digest),
            "list": store.size,
            "lock": lambda: store.put(b"some bytes"),
        }[call]()


# --- where blobs are kept


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://doorbell", BlobPlace("doorbell", "")),
        ("s3://doorbell/", BlobPlace("doorbell", "")),
        ("s3://my.bucket-1/home", BlobPlace("my.bucket-1", "home")),
        ("s3://abc/Home_1/front.door/", BlobPlace("abc", "Home_1/front.door")),
        (f"s3://{'a' * 63}/{'b' * 500}", BlobPlace("a" * 63, "b" * 500)),
    ],
)
def test_place_of_a_bucket_is_read(text: str, place: BlobPlace) -> None:
    assert parse_blob_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3://",
        "s3:///",
        "s3:bucket",
        "bucket",
        "/var/blobs",
        "S3://bucket",
        "gs://bucket",
        "https://bucket",
        "s3://ab",
        f"s3://{'a' * 64}",
        "s3://Bucket",
        "s3://buck_et",
        "s3://-bucket",
        "s3://bucket-",
        "s3://bu..cket",
        "s3://bucket//",
        "s3://bucket//a",
        "s3://bucket/a//b",
        "s3://bucket/a//",
        "s3://bucket/..",
        "s3://bucket/a/../b",
        "s3://bucket/.a",
        "s3://bucket/a b",
        "s3://bucket/é",
        "s3://bucket?a=b",
        "s3://bucket/a?b",
        "s3://key:secret@bucket",
        "s3://bucket:9000",
        "s3://bucket\n",
        "s3://bucket/a\n",
        f"s3://bucket/{'a' * 600}",
    ],
)
def test_place_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="s3://bucket/prefix") as refused:
        parse_blob_place(text)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="s3://bucket/prefix"):
        open_blobs(tmp_path, text, "main-server")


def test_without_a_place_blobs_are_in_the_folder_alone(folder: Path) -> None:
    store = open_blobs(folder, None, "main-server", "http://localhost:9")
    assert type(store) is BlobStore
    assert [store.put(b"some bytes")] == names(folder)


def test_service_without_a_bucket_does_not_carry_boto3(folder: Path) -> None:
    program = (
        "import pathlib, sys, shared.storage.opening\n"
        "shared.storage.opening.open_blobs(pathlib.Path(sys.argv[1]), None, 'main-server').put(b'x')\n"
        "print({'boto3', 'botocore', 's3transfer'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
