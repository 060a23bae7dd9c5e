"""Blobs: named by their hash, whole or not there, whatever stops the writer."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.blobs import BlobStore, write_durably

ROOT = Path(__file__).resolve().parents[2]


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


def test_putting_twice_changes_nothing(store: BlobStore, folder: Path) -> None:
    digest = store.put(b"some bytes")
    before = store.path(digest).stat()
    assert store.put(b"some bytes") == digest
    after = store.path(digest).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
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
        "import os, pathlib, sys; from shared.blobs import BlobStore; os.fsync = lambda _: os._exit(9);"
        "BlobStore(pathlib.Path(sys.argv[1])).put(b'some bytes')"
    )
    assert subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=False).returncode == 9
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


def test_interrupted_rewrite_keeps_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
