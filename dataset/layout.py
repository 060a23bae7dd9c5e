"""Find one's way in a tree of picture folders by listing alone: nothing is opened here. The device
runs it.

    <root>/<detector>/<client>/{train,valid,test}/{<detector>,not_<detector>}/*

The class folders may also be called `object` and `not_object`; where both names exist, both are
read. A detector is a folder whose name matches `[a-z0-9][a-z0-9_-]{0,31}`: no list of detectors
exists anywhere. Hidden files and folders are passed over in silence.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from shared.errors import DatasetError
from shared.names import NAME

SPLITS: tuple[str, ...] = ("train", "valid", "test")
TRAIN_PERCENT, VALID_PERCENT = 70, 15
"""How many of a hundred pictures whose split nobody chose are learned from, and how many validate;
the others test.
"""

_NAME_RULE = "1 to 32 of a-z, 0-9, _ and -, the first a letter or digit"
_LISTED = 5


def detectors(root: Path, client: str) -> tuple[str, ...]:
    """Name the detectors a client has a folder for.

    Args:
        root: The data set's folder; where it does not exist, there are no detectors.
        client: The client's folder name.

    Returns:
        The sorted names; empty if there are none.
    """
    _check_client_name(client)
    return tuple(
        name for name in _folders(root) if NAME.fullmatch(name) and (root / name / client).is_dir()
    )


def census(root: Path, detector: str, client: str) -> dict[str, dict[bool, int]]:
    """Count the files that may be pictures.

    Args:
        root: The data set's folder.
        detector: The detector's name.
        client: The client's folder name.

    Returns:
        Split name -> {True: files of the object, False: files without it}; a missing folder counts
        0.
    """
    return {
        split: {
            positive: sum(
                each.is_file()
                for name in class_names(detector, positive)
                for each in _listed(split_folder(root, detector, client, split) / name)
            )
            for positive in (True, False)
        }
        for split in SPLITS
    }


def check(root: Path) -> tuple[str, ...]:
    """Look over the whole tree before anything is decoded or trained.

    A folder without folders in it, and one whose name starts with a dot, is not taken for a
    detector.

    Args:
        root: The data set's folder.

    Returns:
        The sorted names of all detectors.

    Raises:
        DatasetError: Root is missing, empty or laid out otherwise, or a split or class is missing
            or has no files.
    """
    if not root.exists():
        raise unfit(f"The data set folder {root} does not exist")
    if not root.is_dir():
        raise unfit(f"{root} is a file where the data set folder should be")
    homes = [(name, client) for name in _folders(root) for client in _folders(root / name)]
    laid_out = [home for home in homes if set(SPLITS) & set(_folders(root.joinpath(*home)))]
    if not laid_out:
        expected = "<detector>/<client>/train/<detector>"
        raise unfit(
            f"{root} holds {_listing(root)}, but no folders like {expected} were found in it"
        )
    for name, client in homes:
        if NAME.fullmatch(name):
            _check_home(root, name, client)
        elif (name, client) in laid_out:
            raise unfit(
                f"{root / name} is laid out as a detector, but a detector's name is {_NAME_RULE}"
            )
    return tuple(sorted({name for name, _ in homes if NAME.fullmatch(name)}))


def _check_home(root: Path, detector: str, client: str) -> None:
    for split, counts in census(root, detector, client).items():
        for positive, count in counts.items():
            folder = class_folders(root, detector, client, split, positive)[0]
            if count == 0:
                raise unfit(f"{folder} has no files")


def split_folder(root: Path, detector: str, client: str, split: str) -> Path:
    """Return the path of a split's folder, which may or may not exist.

    Args:
        root: The data set's folder.
        detector: The detector's name.
        client: The client's folder name.
        split: One of `SPLITS`.

    Returns:
        The path below root.

    Raises:
        DatasetError: A name is not one; it could lead out of root.
    """
    if not NAME.fullmatch(detector):
        raise unfit(f"{detector!r} is not a detector's name: that is {_NAME_RULE}")
    _check_client_name(client)
    if split not in SPLITS:
        raise unfit(f"{split!r} is none of the splits {', '.join(SPLITS)}")
    return root / detector / client / split


def split_of(sha256: str) -> str:
    """Return the split that a picture belongs to: decided by its bytes alone, so it never moves.

    Args:
        sha256: Of the file's bytes, as hex.
    """
    percent = int(sha256[:8], 16) % 100
    return (
        SPLITS[0]
        if percent < TRAIN_PERCENT
        else SPLITS[1]
        if percent < TRAIN_PERCENT + VALID_PERCENT
        else SPLITS[2]
    )


def class_names(detector: str, positive: bool) -> tuple[str, ...]:
    """Return the folder names a class may have, the detector's own name first.

    Args:
        detector: The detector's name.
        positive: Whether the class shows the object.

    Returns:
        One or two names.
    """
    own = detector if positive else f"not_{detector}"
    if detector in ("object", "not_object"):  # the other name would be the same, or the wrong class
        return (own,)
    return (own, "object" if positive else "not_object")


def class_folders(
    root: Path, detector: str, client: str, split: str, positive: bool
) -> tuple[Path, ...]:
    """Return the existing folders of one class.

    Args:
        root: The data set's folder.
        detector: The detector's name.
        client: The client's folder name.
        split: One of `SPLITS`.
        positive: Whether the class shows the object.

    Returns:
        One or two folders.

    Raises:
        DatasetError: The split or the class is missing.
    """
    folder = split_folder(root, detector, client, split)
    if not folder.is_dir():
        raise unfit(f"{folder.parent} has no folder {split!r}: it holds {_listing(folder.parent)}")
    names = class_names(detector, positive)
    found = tuple(folder / name for name in names if (folder / name).is_dir())
    if not found:
        raise unfit(
            f"{folder} has no folder {' or '.join(map(repr, names))}: it holds {_listing(folder)}"
        )
    return found


def entries(folder: Path) -> list[Path]:
    """List a folder without its hidden files, sorted by name; empty where there is no such folder.

    Args:
        folder: Any path.

    Returns:
        The paths in it.

    Raises:
        DatasetError: The folder exists but may not be listed.
    """
    return [folder / name for name in sorted(each.name for each in _listed(folder))]


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [each for each in found if not each.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unfit(f"{folder} cannot be listed: {error.strerror}") from error


def unfit(happened: str) -> DatasetError:
    """Say what is wrong with a data set, in one sentence that names the folder and has no full
    stop.
    """
    return DatasetError(
        f"{happened}.",
        kept="No picture was changed.",
        todo=(
            "Lay the pictures out as"
            " <detector>/<client>/{train,valid,test}/{<detector>,not_<detector>}."
        ),
    )


def _folders(folder: Path) -> list[str]:
    return [path.name for path in entries(folder) if path.is_dir()]


def _listing(folder: Path) -> str:
    names = [path.name for path in entries(folder)]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return (", ".join(names[:_LISTED]) or "nothing") + more


def _check_client_name(client: str) -> None:
    if not client or client.startswith(".") or re.search(r"[/\\\0]", client):
        raise unfit(f"{client!r} is not the name of a client's folder")
