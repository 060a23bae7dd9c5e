"""Take over the pictures that somebody has sorted in Frigate (0.17), for its custom classification
models.

    <clips>/<model>/dataset/<class>/*.{png,jpg,jpeg,webp}     sorted by the owner
    <clips>/<model>/train/*                                   not sorted yet: not read

Each class becomes a detector, its own pictures against those of all other classes. Only `none`,
where Frigate keeps what belongs to no class, never does. What lies outside of the named folder was
not given to us and is not read.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import stat
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset.decoding import UnusablePicture, check_file_size, decode
from dataset.layout import census, class_names, entries, split_folder, split_of
from dataset.settings import PictureSettings
from shared.errors import DatasetError
from shared.names import NAME
from shared.storage.blobs import storage_errors, write_durably

_NONE = "none"
_ELSEWHERE = "a link that leads elsewhere"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_SUFFIX_OF = {
    b"\x89P": ".png",
    b"\xff\xd8": ".jpg",
    b"RI": ".webp",
    b"BM": ".bmp",
}  # what `decode` takes
_CHECKED_PX = 64
_LONGEST_NAME = 32


@dataclass
class Imported:
    """What an import did for one detector, in pictures.

    Attributes:
        positive: New ones that show its object.
        negative: New ones that do not.
        known: Those that were there already.
        moved: Those whose class has changed since an earlier import.
    """

    positive: int = 0
    negative: int = 0
    known: int = 0
    moved: int = 0


@dataclass(frozen=True)
class Sorted:
    """The usable pictures of a model: SHA-256 to (class, file), and what cannot be used: (file,
    reason).
    """

    pictures: dict[str, tuple[str, Path]] = field(default_factory=dict)
    left_out: list[tuple[Path, str]] = field(default_factory=list)

    def classes(self) -> Counter[str]:
        """Return how many pictures each class has."""
        return Counter(name for name, _ in self.pictures.values())


def read_sorted(path: Path, model: str | None = None) -> Sorted:
    """Find the pictures that were sorted for one model, and see which of them can be used.

    Args:
        path: Frigate's clips folder, a model's folder in it, or that one's `dataset`.
        model: Which model, where there are several.

    Raises:
        DatasetError: There is no such model, or several and none is named.
    """
    root = Path(os.path.realpath(path))
    found, classes = Sorted(), dict[str, set[str]]()
    for folder in entries(_dataset(root, model)):
        if not folder.is_dir():
            continue
        if not _is_below(root, folder):
            found.left_out.append((folder, _ELSEWHERE))
            continue
        for file in (file for file in entries(folder) if file.suffix.lower() in _SUFFIXES):
            try:
                data = _bytes(root, file)
                decode(data, _CHECKED_PX)
            except UnusablePicture as error:
                found.left_out.append((file, error.reason))
                continue
            digest = hashlib.sha256(data).hexdigest()
            classes.setdefault(digest, set()).add(folder.name)
            found.pictures.setdefault(digest, (folder.name, file))
    for digest, names in classes.items():
        if len(names) > 1:
            found.left_out.append((found.pictures.pop(digest)[1], "in several classes at once"))
    return found


def take_over(
    found: Sorted, root: Path, client: str, positive: str | None = None
) -> dict[str, Imported]:
    """Add pictures to a client's folders, each class as a detector; doing it again adds nothing.

    Args:
        found: What was sorted in Frigate.
        root: The data set's folder.
        client: Name of the client's folder.
        positive: Make a detector of this class only.

    Returns:
        Detector to what was done for it.

    Raises:
        DatasetError: There is nothing to tell apart, no such class, or two are called the same
            here.
        StorageFailed: The data set's folder cannot be written.
    """
    classes = found.classes()
    chosen = [name for name in sorted(classes) if name != _NONE and positive in (None, name)]
    if positive is not None and not chosen:
        raise _nothing(
            f"There is no class {positive!r} with usable pictures, only"
            f" {', '.join(sorted(classes)) or 'none'}"
        )
    if len(classes) < 2 or not chosen:
        have = ", ".join(sorted(classes)) or "no class"
        raise _nothing(
            "Two classes with usable pictures are needed to learn a difference, and there is"
            f" {have}"
        )
    detectors = {name: detector_name(name) for name in chosen}
    if len(set(detectors.values())) < len(detectors):
        raise _nothing(f"Two of the classes {', '.join(chosen)} would have the same name here")
    done = {detector: Imported() for detector in detectors.values()}
    for digest, (name, file) in sorted(found.pictures.items()):
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() == digest:  # else Frigate has just replaced it
            for wanted, detector in detectors.items():
                folder = split_folder(root, detector, client, split_of(digest))
                place = f"frigate-{digest[:16]}{_SUFFIX_OF[data[:2]]}"
                _add(folder, detector, name == wanted, place, data, done[detector])
    return done


def detector_name(name: str) -> str:
    """Return what a class of Frigate's is called here: small letters, digits, `_` and `-`.

    Raises:
        DatasetError: Nothing of the name is left.
    """
    plain = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_-")[:_LONGEST_NAME]
    if not NAME.fullmatch(plain):
        raise _nothing(f"The class {name!r} cannot name a detector")
    return plain


def add_import(subparsers: Any) -> None:
    """Register `import frigate PATH`; the parsed `run(args)` carries it out.

    Args:
        subparsers: What `ArgumentParser.add_subparsers()` returned.
    """
    parser = subparsers.add_parser("import", help="take over pictures that were sorted elsewhere")
    parser.add_argument("kind", choices=("frigate",), help="whose pictures")
    parser.add_argument(
        "path", type=Path, metavar="PATH", help="Frigate's clips folder, or a model's folder in it"
    )
    parser.add_argument("--client", help="for which client; that of device 1 if left out")
    parser.add_argument("--model", help="which of Frigate's models, where there are several")
    parser.add_argument("--positive", metavar="CLASS", help="make a detector of this class only")
    parser.set_defaults(run=run_import)


def run_import(args: argparse.Namespace) -> None:
    """Carry out `import` and say what was added, and what was left out and why.

    Args:
        args: With `path`, `client`, `model` and `positive`.
    """
    settings = PictureSettings.read(1)
    client = args.client or settings.client
    found = read_sorted(args.path, args.model)
    done = take_over(found, settings.data, client, args.positive)
    for detector, count in done.items():
        sys.stdout.write(f"{detector}: {_said(count)}{_missing(settings.data, detector, client)}\n")
    if found.left_out:
        reasons = Counter(reason for _, reason in found.left_out).most_common()
        sys.stdout.write(
            f"Left out: {', '.join(f'{reason}: {number}' for reason, number in reasons)}.\n"
        )
    sys.stdout.write(
        f"The pictures are in {settings.data}, for {client}; Frigate's own are unchanged.\n"
    )


def _said(count: Imported) -> str:
    said = f"added {count.positive} pictures of it and {count.negative} of anything else."
    said += f" {count.known} were there already." if count.known else ""
    return said + (f" {count.moved} have changed sides." if count.moved else "")


def _missing(root: Path, detector: str, client: str) -> str:
    """Name the splits that lack a class: a device cannot do with less."""
    missing = [
        split
        for split, counts in census(root, detector, client).items()
        if not all(counts.values())
    ]
    return (
        f" Too few to fill {' and '.join(missing)} on both sides: sort more, and import again."
        if missing
        else ""
    )


def _dataset(root: Path, model: str | None) -> Path:
    """Return the folder that holds the classes."""
    if root.name == "dataset" and model is None:
        return root
    folders = [root] if (root / "dataset").is_dir() else entries(root)
    models = {folder.name: folder / "dataset" for folder in folders if model in (None, folder.name)}
    models = {
        name: folder
        for name, folder in models.items()
        if folder.is_dir() and _is_below(root, folder)
    }
    if not models:
        which = "model" if model is None else f"model {model!r}"
        raise _nothing(
            f"{root} holds no {which} with a folder 'dataset'",
            "Name Frigate's clips folder, or a model's in it.",
        )
    if len(models) > 1:
        raise _nothing(
            f"{root} holds several models: {', '.join(sorted(models))}", "Name one with --model."
        )
    return next(iter(models.values()))


def _bytes(root: Path, file: Path) -> bytes:
    try:
        status = file.stat() if _is_below(root, file) else None
        if status is None or not stat.S_ISREG(status.st_mode):
            raise UnusablePicture(_ELSEWHERE if status is None else "not a file")
        check_file_size(status.st_size)
        return file.read_bytes()
    except OSError as error:
        raise UnusablePicture(f"cannot be read: {error.strerror}") from error


def _is_below(root: Path, path: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(root)


def _add(
    folder: Path, detector: str, positive: bool, name: str, data: bytes, count: Imported
) -> None:
    place = folder / class_names(detector, positive)[0] / name
    other = folder / class_names(detector, not positive)[0] / name
    if place.exists():
        count.known += 1
        return
    with storage_errors(f"The folder {place.parent}"):
        place.parent.mkdir(parents=True, exist_ok=True)
    write_durably(place, data)
    if other.exists():
        with storage_errors(f"The folder {other.parent}"):
            other.unlink()
        count.moved += 1
    elif positive:
        count.positive += 1
    else:
        count.negative += 1


def _nothing(happened: str, todo: str = "") -> DatasetError:
    return DatasetError(
        f"{happened}.",
        kept="Nothing was imported.",
        todo=todo
        or "Sort pictures into two or more classes on Frigate's Classification page, then retry.",
    )
