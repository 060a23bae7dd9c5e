"""The file that `python -m federation backup` writes: a tar of known names, and at its end the
table of contents.

Whoever reads one takes nothing from it on trust: a name that is not of this form, a second one,
anything but a plain file, and bytes that are not those in the table of contents make the whole file
unusable. No name in it becomes a path.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from shared.errors import DoorbellError

FORMAT = "doorbell-backup/1"
_CONTENTS = "contents.json"
_NAME = re.compile(
    r"(main-server|secure-aggregator|devices/[a-z0-9][a-z0-9_-]{0,31})/"
    r"(identity\.key|sealing\.key|membership\.json|rows/[a-z_]{1,63}\.jsonl|blobs/[0-9a-f]{64})"
)
_PIECE = 1 << 20
_MAX_CONTENTS_BYTES = 256 << 20


class BackupUnusable(DoorbellError):
    """A file that is no backup, or is not whole."""

    slug = "backup-unusable"


@dataclass(frozen=True)
class Kept:
    """One service in a backup.

    Attributes:
        revision: Of its tables, or None if it was kept without them.
        key_id: Fingerprint of its key.
    """

    revision: str | None
    key_id: str


@dataclass(frozen=True)
class Contents:
    """What a backup holds: when it was made (seconds since the epoch), the services, and every
    file's SHA-256.
    """

    made_at: float
    services: dict[str, Kept]
    files: dict[str, str]


class Writer:
    """Writes a backup to `file`, piece by piece."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - see finish
        self._files: dict[str, str] = {}

    def add(self, name: str, source: IO[bytes]) -> str:
        """Add a file, read from its beginning to its end, and return its SHA-256."""
        digest, size = hashlib.sha256(), source.seek(0, io.SEEK_END)
        source.seek(0)
        while piece := source.read(_PIECE):
            digest.update(piece)
        source.seek(0)
        self._add(name, source, size)
        self._files[name] = digest.hexdigest()
        return self._files[name]

    def finish(self, made_at: float, services: dict[str, Kept]) -> Contents:
        """Add the table of contents, and end."""
        contents = Contents(made_at, services, self._files)
        data = json.dumps({"format": FORMAT} | asdict(contents), indent=1).encode()
        self._add(_CONTENTS, io.BytesIO(data), len(data))
        self._tar.close()
        return contents

    def _add(self, name: str, source: IO[bytes], size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        self._tar.addfile(info, source)


class Backup:
    """A backup that was read from its beginning to its end and found whole."""

    def __init__(self, tar: tarfile.TarFile, contents: Contents) -> None:
        self._tar = tar
        self.contents = contents

    def names(self, service: str, beginning: str = "") -> list[str]:
        """Return what it has of a service, "blobs/..." say, of which the name begins so."""
        start = f"{service}/{beginning}"
        return [
            name.removeprefix(f"{service}/")
            for name in self.contents.files
            if name.startswith(start)
        ]

    def read(self, service: str, name: str) -> bytes:
        """Return one file's bytes."""
        return self._open(service, name).read()

    def lines(self, service: str, name: str) -> Iterator[dict[str, Any]]:
        """Return one file's lines, each a JSON object."""
        for line in self._open(service, name):
            row = _json(line)
            if not isinstance(row, dict):
                raise _unusable("it has a row that is none")
            yield row

    def _open(self, service: str, name: str) -> IO[bytes]:
        file = self._tar.extractfile(f"{service}/{name}")
        assert file is not None, "only plain files passed"  # nosec B101 # for mypy; open_backup refuses others
        return file


@contextmanager
def open_backup(path: Path) -> Iterator[Backup]:
    """Open a backup after it was checked wholly.

    Raises:
        BackupUnusable: It is none, is not whole, or a newer version made it.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            yield Backup(tar, _check(tar))
    except FileNotFoundError as error:
        raise BackupUnusable(
            f"There is no file {path}.", todo="Name the file that backup wrote."
        ) from error
    except tarfile.TarError as error:
        raise _unusable("it cannot be read to its end") from error


def _check(tar: tarfile.TarFile) -> Contents:
    digests: dict[str, str] = {}
    contents: Contents | None = None
    for member in tar:
        if contents is not None or member.name in digests or not member.isreg():
            raise _unusable("its parts are not in order")
        file = tar.extractfile(member)
        if file is None or (member.name != _CONTENTS and not _NAME.fullmatch(member.name)):
            raise _unusable("it has a part that no backup has")
        if member.name == _CONTENTS:
            contents = _parse(file.read(_MAX_CONTENTS_BYTES))
        else:
            digest, size = hashlib.sha256(), 0
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
            digests[member.name] = digest.hexdigest() if size == member.size else "cut off"
    if contents is None:
        raise _unusable("its end is missing")
    if contents.files != digests or any(
        _service(name) not in contents.services for name in digests
    ):
        raise _unusable("its parts are not those that it lists")
    if any(
        name.rpartition("/")[2] != digest for name, digest in digests.items() if "/blobs/" in name
    ):
        raise _unusable("it has a model that is not what its name says")
    return contents


def _parse(data: bytes) -> Contents:
    message = _json(data)
    if not isinstance(message, dict) or message.get("format") != FORMAT:
        raise _unusable(f"it is not in the form {FORMAT}; another version made it")
    try:
        services = {str(name): Kept(**kept) for name, kept in message["services"].items()}
        contents = Contents(float(message["made_at"]), services, dict(message["files"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unusable("its table of contents is none") from error
    for name, kept in services.items():
        known = _NAME.fullmatch(f"{name}/identity.key") and isinstance(kept.key_id, str)
        if not known or not (
            kept.revision is None or re.fullmatch(r"[0-9]{4}", str(kept.revision))
        ):
            raise _unusable("it lists a service that there is not")
    return contents


def _service(name: str) -> str:
    found = _NAME.fullmatch(name)
    return found[1] if found else ""


def _json(data: bytes) -> object:
    try:
        parsed: object = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unusable("a part of it is no JSON") from error
    return parsed


def _unusable(why: str) -> BackupUnusable:
    return BackupUnusable(
        f"This file is not a whole backup: {why}.",
        kept="Nothing was restored.",
        todo="Use another copy of it.",
    )
