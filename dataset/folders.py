"""Read the picture folders a person has prepared. The device runs it; the pictures stay on the
device.

`dataset.layout` says where the files are and `dataset.decoding` what is in one of them; this module
puts the two together. A file that cannot be learned from is left out, and the reason is reported.
Links may point anywhere inside root; what lies outside of it was not given to us and is not read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.decoding import DECODER_VERSION, UnusablePicture, check_file_size, decode
from dataset.layout import SPLITS, census, check, class_folders, detectors, entries, unfit

__all__ = [
    "SPLITS",
    "LeftOut",
    "Split",
    "census",
    "check",
    "detectors",
    "load",
    "names",
    "repeated",
    "thumbnail",
]

_COMPARE_PX = 64
_PASSING = ("cannot be read", "not enough memory")  # reasons that may be gone with the next load

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftOut:
    """A file that was not used: its path relative to root, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class Split:
    """The usable pictures of one split, the detector's object first, each class in the order of its
    file names.

    Attributes:
        images: RGB uint8 [n, size_px, size_px, 3].
        labels: uint8 [n], 1 where the picture shows the detector's object, 0 where not.
        content_ids: The SHA-256 of each file's bytes, as hex.
        paths: The files, relative to root.
        left_out: The files that were not used.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    content_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


class _Candidate(NamedTuple):
    """What listing tells about one file; `reason` is why it need not be opened, or empty."""

    path: str
    label: int
    size_bytes: int
    mtime_ns: int
    reason: str


@dataclass(frozen=True, eq=False)
class _Picture:
    path: Path
    label: int
    content_id: str
    pixels: NDArray[np.uint8]


def load(
    root: Path, detector: str, client: str, split: str, size_px: int, cache: Path | None = None
) -> Split:
    """Decode the pictures of one split.

    Args:
        root: The data set's folder.
        detector: The detector's name.
        client: The client's folder name.
        split: One of `SPLITS`.
        size_px: Side of the square each picture is resized to.
        cache: A folder for decoded splits; an unchanged split is read from there the next time.

    Returns:
        The split; the same files give the same order.

    Raises:
        DatasetError: The split or one of its classes is missing, or has no usable picture.
    """
    candidates = _candidates(root, detector, client, split)
    if cache is None:
        return _decoded(root, (detector, client, split), candidates, size_px)
    what = [detector, client, split, size_px, DECODER_VERSION, candidates]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    cached = cache / f"{detector}-{client}-{split}-{size_px}px.npz"
    found = _read_cached(cached, key, size_px, candidates)
    if found is None:
        found = _decoded(root, (detector, client, split), candidates, size_px)
        _write_cached(cached, key, found)
    return found


def repeated(root: Path, detector: str, client: str) -> tuple[tuple[Path, Path], ...]:
    """Find test pictures that were also learned from, which would make the test results look better
    than they are.

    Two files show the same picture if their bytes are equal, or their decoded pixels at 64 px.

    Args:
        root: The data set's folder.
        detector: The detector's name.
        client: The client's folder name.

    Returns:
        (file in train or valid, file in test), relative to root: one pair for each test file
        concerned.

    Raises:
        DatasetError: A split or a class is missing.
    """
    seen: dict[str, Path] = {}
    for split in ("train", "valid"):
        for picture in _read(root, _candidates(root, detector, client, split), _COMPARE_PX)[0]:
            for fingerprint in _fingerprints(picture):
                seen.setdefault(fingerprint, picture.path)
    pairs = []
    for picture in _read(root, _candidates(root, detector, client, "test"), _COMPARE_PX)[0]:
        known = [seen[fingerprint] for fingerprint in _fingerprints(picture) if fingerprint in seen]
        pairs += [(path, picture.path) for path in known[:1]]
    return tuple(pairs)


def names(root: Path, detector: str, client: str, split: str, positive: bool) -> tuple[str, ...]:
    """Return the pictures of one class as paths relative to root, without opening one, in the order
    of `load`.

    Raises:
        DatasetError: The split or the class is missing.
    """
    return tuple(
        each.path
        for each in _candidates(root, detector, client, split, (positive,))
        if not each.reason
    )


def thumbnail(root: Path, path: Path, size_px: int) -> bytes:
    """Return one picture, stretched to a square, as a JPEG.

    Args:
        root: The data set's folder.
        path: Relative to it, from `names`: it is not checked here.
        size_px: Side of the square.

    Raises:
        UnusablePicture: It is gone, or no picture.
    """
    status = _status(root / path, Path(os.path.realpath(root)), outside=False)
    pixels = _picture(root, _Candidate(str(path), 0, *status), size_px).pixels
    return bytes(
        cv2.imencode(
            ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80]
        )[1]
    )


def _fingerprints(picture: _Picture) -> tuple[str, str]:
    return picture.content_id, hashlib.sha256(picture.pixels.tobytes()).hexdigest()


def _candidates(
    root: Path, detector: str, client: str, split: str, classes: tuple[bool, ...] = (True, False)
) -> list[_Candidate]:
    real_root = Path(os.path.realpath(root))
    found = []
    for positive in classes:
        listed = []
        for folder in class_folders(root, detector, client, split, positive):
            relative, outside = str(folder.relative_to(root)), not _is_below(real_root, folder)
            listed += [(path.name, relative, path, outside) for path in entries(folder)]
        for name, relative, path, outside in sorted(listed, key=lambda item: item[:2]):
            status = _status(path, real_root, outside)
            found.append(_Candidate(f"{relative}{os.sep}{name}", int(positive), *status))
    return found


def _is_below(real_root: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(real_root)


def _status(path: Path, real_root: Path, outside: bool) -> tuple[int, int, str]:
    """Return (size_bytes, mtime_ns, reason): what `_Candidate` holds, without opening the file."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            outside = outside or not _is_below(real_root, path)
            status = status if outside else path.stat()
    except FileNotFoundError:
        return 0, 0, "a link to nothing"
    except OSError as error:
        return 0, 0, f"cannot be read: {error.strerror}"
    if outside:
        return 0, 0, "a link that leads out of the data set folder"
    kind = (
        ""
        if stat.S_ISREG(status.st_mode)
        else "a folder"
        if stat.S_ISDIR(status.st_mode)
        else "not a file"
    )
    return status.st_size, status.st_mtime_ns, kind


def _decoded(
    root: Path, where: tuple[str, str, str], candidates: list[_Candidate], size_px: int
) -> Split:
    pictures, left_out = _read(root, candidates, size_px)
    for positive in (True, False):
        if not any(picture.label == positive for picture in pictures):
            folder, *_ = class_folders(root, *where, positive)
            tried = {
                Path(candidate.path) for candidate in candidates if candidate.label == positive
            }
            reasons = Counter(file.reason for file in left_out if file.path in tried)
            why = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common(3))
            raise unfit(f"{folder} has no usable picture ({why or 'no files'})")
    return Split(
        images=np.stack([picture.pixels for picture in pictures]),
        labels=np.array([picture.label for picture in pictures], np.uint8),
        content_ids=tuple(picture.content_id for picture in pictures),
        paths=tuple(picture.path for picture in pictures),
        left_out=tuple(left_out),
    )


def _read(
    root: Path, candidates: list[_Candidate], size_px: int
) -> tuple[list[_Picture], list[LeftOut]]:
    """Decode what can be decoded; one broken file costs one picture, never the split."""
    pictures, left_out = [], []
    for candidate in candidates:
        try:
            pictures.append(_picture(root, candidate, size_px))
        except UnusablePicture as error:
            left_out.append(LeftOut(Path(candidate.path), error.reason))
    return pictures, left_out


def _picture(root: Path, candidate: _Candidate, size_px: int) -> _Picture:
    if candidate.reason:
        raise UnusablePicture(candidate.reason)
    check_file_size(candidate.size_bytes)
    path = Path(candidate.path)
    try:
        data = (root / path).read_bytes()
    except OSError as error:
        raise UnusablePicture(f"cannot be read: {error.strerror}") from error
    return _Picture(path, candidate.label, hashlib.sha256(data).hexdigest(), decode(data, size_px))


def _read_cached(path: Path, key: str, size_px: int, candidates: list[_Candidate]) -> Split | None:
    """Return the split kept under this key, or None where there is none, a stale one, or a damaged
    one.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            about = json.loads(kept["about"].tobytes())
            if about["key"] != key:
                return None
            images, labels = kept["images"], kept["labels"]
        left_out = tuple(LeftOut(Path(name), reason) for name, reason in about["left_out"])
        content_ids = tuple(about["content_ids"])
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        log.warning(
            "The kept pictures in %s are damaged (%s); the files are decoded again.", path, error
        )
        return None
    unused, listed = (
        {file.path for file in left_out},
        (Path(candidate.path) for candidate in candidates),
    )
    paths = tuple(file for file in listed if file not in unused)
    sound = images.shape == (len(paths), size_px, size_px, 3) and labels.shape == (
        len(content_ids),
    ) == (len(paths),)
    return Split(images, labels, content_ids, paths, left_out) if sound else None


def _write_cached(path: Path, key: str, split: Split) -> None:
    """Keep a decoded split; where that fails, the next load is slower and nothing else is lost."""
    if any(file.reason.startswith(_PASSING) for file in split.left_out):
        return
    left_out = [(str(file.path), file.reason) for file in split.left_out]
    about = json.dumps(
        {"key": key, "content_ids": split.content_ids, "left_out": left_out}
    ).encode()
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            beside = Path(file.name)
            np.savez(
                file, images=split.images, labels=split.labels, about=np.frombuffer(about, np.uint8)
            )
        beside.replace(path)
    except OSError as error:
        log.warning(
            "Decoded pictures could not be kept in %s (%s); they are decoded again next time.",
            path,
            error,
        )
        if beside is not None:
            beside.unlink(missing_ok=True)
