"""Bytes on disk, named by their SHA-256: updates, sums and models. Every service keeps its own folder of them.

A name never comes from a request, a blob never changes, and one that is there is whole: it is written beside its
place, synced and renamed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path


class BlobStore:
    """A folder of immutable blobs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its SHA-256 in hexadecimal; keeping it twice changes nothing."""
        digest = hashlib.sha256(data).hexdigest()
        if not self.path(digest).exists():
            write_durably(self.path(digest), data)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of a blob."""
        return self.path(digest).read_bytes()

    def path(self, digest: str) -> Path:
        """Return where a blob lies, for reading it in pieces."""
        return self._folder / digest


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that a crash leaves the old one or the new one, whole."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
