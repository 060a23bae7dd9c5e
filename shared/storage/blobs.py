"""Bytes named by their SHA-256: updates, sums and models. Every service keeps its own folder of
them.

A name never comes from a request, a blob never changes, and one that is there is whole: it is
written beside its place, synced and renamed. `shared.storage.s3` keeps them in a bucket as well.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shared.errors import StorageFailed

_NAME = re.compile(r"[0-9a-f]{64}")
_LEFT_OVER = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{8}")
_LEFT_OVER_S = 3600.0  # nobody writes one blob for an hour
_PLACE = re.compile(
    r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[\w-][\w.-]*(/[\w-][\w.-]*)*))?/?",
    re.ASCII,
)
_MAX_PLACE_CHARS = 600
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


class Size(NamedTuple):
    """How much a store holds: bytes, and in how many blobs."""

    bytes: int
    blobs: int


class BlobStore:
    """A folder of immutable blobs.

    Every method raises `StorageFailed` where the disk does not do what it should, and `ValueError`
    at a digest that is none.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._named = folder, _named(folder)
        with storage_errors(self._named):
            folder.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its SHA-256 in hexadecimal; keeping it twice makes it as
        young as new.
        """
        digest = hashlib.sha256(data).hexdigest()
        with self._locked(fcntl.LOCK_SH):
            self._keep(digest, data)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a blob.

        Raises:
            FileNotFoundError: There is none of this name.
        """
        with storage_errors(self._named, "read"):
            return self._place(digest).read_bytes()

    def path(self, digest: str) -> Path:
        """Return where a blob lies, for reading it in pieces."""
        return self._place(digest)

    def delete(self, digest: str) -> None:
        """Remove a blob, if it is there."""
        with storage_errors(self._named):
            self._place(digest).unlink(missing_ok=True)

    def prune(self, keep: Collection[str], grace_s: float) -> int:
        """Remove what nobody needs any more, and what writers that were killed have left over.

        Args:
            keep: Digests of the blobs that stay.
            grace_s: So many seconds after it was last put, a blob stays as well: who puts it notes
                that only then.

        Returns:
            How many bytes were freed.
        """
        kept, freed = frozenset(keep), 0
        for path in self._files():
            if _LEFT_OVER.fullmatch(path.name):
                freed += self._remove(path, _LEFT_OVER_S)
            elif _NAME.fullmatch(path.name) and path.name not in kept:
                freed += self._remove(path, grace_s)
        return freed

    def size(self) -> Size:
        """Return how much is stored."""
        lengths = []
        for path in self._files():
            with suppress(FileNotFoundError):
                lengths += [path.stat().st_size] if _NAME.fullmatch(path.name) else []
        return Size(sum(lengths), len(lengths))

    def _place(self, digest: str) -> Path:
        if not _NAME.fullmatch(digest):
            raise ValueError(f"no SHA-256 in hexadecimal: {digest!r}")
        return self._folder / digest

    def _keep(self, digest: str, data: bytes) -> None:
        path = self._place(digest)
        try:
            with storage_errors(self._named):
                os.utime(path)
                _sync(self._folder)  # whoever wrote it may not have come so far
        except FileNotFoundError:
            write_durably(path, data)

    def _files(self) -> list[Path]:
        with storage_errors(self._named, "read"):
            return list(self._folder.iterdir())

    def _remove(self, path: Path, grace_s: float) -> int:
        """Remove a file that is old enough, and return its length."""
        with suppress(FileNotFoundError), storage_errors(self._named):
            if time.time() - path.stat().st_mtime > grace_s:
                with self._locked(fcntl.LOCK_EX):
                    known = path.stat()
                    if time.time() - known.st_mtime > grace_s:  # nobody has put it again meanwhile
                        path.unlink()
                        return known.st_size
        return 0

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Keep a put (LOCK_SH) and a removal (LOCK_EX) in any process or thread from coming between
        each other.
        """
        with storage_errors(self._named, "read"):
            folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, how)
            yield
        finally:
            os.close(folder)


@dataclass(frozen=True)
class BlobPlace:
    """A bucket, and what the keys of all services in it begin with; empty, or without a slash at
    its end.
    """

    bucket: str
    prefix: str


def parse_blob_place(text: str) -> BlobPlace:
    """Return the place that `s3://bucket` or `s3://bucket/prefix` names.

    Raises:
        ValueError: It names none.
    """
    found = _PLACE.fullmatch(text)
    if found is None or ".." in text or len(text) > _MAX_PLACE_CHARS:
        raise ValueError(
            "it looks like s3://bucket or s3://bucket/prefix, the bucket with 3 to 63 lower-case"
            " letters, digits, dots and hyphens, and no credentials."
        )
    return BlobPlace(found["bucket"], found["prefix"] or "")


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that a crash or an error leaves the old one or the new one, whole.

    Raises:
        StorageFailed: The disk is full, reports an error, or is closed to this service.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with storage_errors(_named(path.parent)):
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        _sync(path.parent)


@contextmanager
def storage_errors(what: str, done: str = "written") -> Iterator[None]:
    """Say in plain words what a disk refuses; any other error passes as it is.

    Args:
        what: Where it happens: "the folder main-server/blobs".
        done: What cannot be done there: "written" or "read".

    Raises:
        StorageFailed: The disk is full, reports an error, or is closed to this service.
    """
    try:
        yield
    except OSError as error:
        cannot = f"{what[:1].lower()}{what[1:]} cannot be {done}"
        if error.errno in _FULL:
            raise StorageFailed(
                f"The disk is full: {cannot}.", todo="Make room on it and try again."
            ) from error
        if error.errno in _CLOSED:
            raise StorageFailed(
                f"{cannot[:1].upper()}{cannot[1:]}: this service is not allowed to, or the disk is"
                " read-only.",
                todo="Give this service's user the right to it and try again.",
            ) from error
        if error.errno == errno.EIO:
            raise StorageFailed(
                f"The disk reports an error: {cannot}.",
                todo="Look at the system's log, and replace the disk if it fails again.",
            ) from error
        raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(folder: Path) -> str:
    """Return how a message calls a folder: enough to find it, and no more of the machine."""
    return f"the folder {'/'.join(folder.parts[-2:])}"
