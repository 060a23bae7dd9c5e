"""Lay out public photos as the folders of two unlike clients, for people without doorbell pictures.

Run by hand, on one machine, before anything federated starts.

CIFAR-10 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009), 32×32, two
detectors:

    animal   client_1: cats, dogs against cars, lorries
             client_2: birds, deer, frogs, horses against aeroplanes, ships
    vehicle  client_1: lorries against cars, dogs
             client_2: lorries against ships, horses

LFW (Huang et al., "Labeled Faces in the Wild", 2007), one detector:

    face     client_1: people with many photos (a household)
             client_2: people with a single photo (strangers)

LFW has no pictures without a face, and pictures from elsewhere would be told apart by their
sharpness instead of by the face. So `not_face` shows the upper left corner of the same photos: same
camera, same light, same scene. It is background, sometimes with a hat, hair, or part of a
bystander: a detector that does well here has learned "a face fills the picture", not "a person is
somewhere in it". No person appears in two splits, nor with both clients.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.errors import DatasetError

# Pictures per client and detector, half of them with the object.
COUNTS: Mapping[str, int] = {"train": 200, "valid": 40, "test": 60}

# detector -> client -> (CIFAR-10 labels that show the object, labels that do not)
CIFAR10_WORLDS: Mapping[str, Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]] = {
    "animal": {"client_1": ((3, 5), (1, 9)), "client_2": ((2, 4, 6, 7), (0, 8))},
    "vehicle": {"client_1": ((9,), (1, 5)), "client_2": ((9,), (8, 7))},
}

# LFW photos are 250×250 with the face in the middle; both crops have its shape, and they do not
# overlap.
LFW_FACE = (slice(70, 195), slice(78, 172))
LFW_CORNER = (slice(0, 70), slice(0, 52))
_HOUSEHOLD_PHOTOS = 5
_MOST_PHOTOS_OF_ONE = 10

# (path below root, RGB pixels)
_Placed = tuple[Path, NDArray[Any]]


def lay_out_cifar10(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    root: Path,
    *,
    test_images: NDArray[np.uint8],
    test_labels: NDArray[np.integer[Any]],
    counts: Mapping[str, int] = COUNTS,
    seed: int = 0,
) -> tuple[str, ...]:
    """Lay out CIFAR-10 as the detectors `animal` and `vehicle`.

    Train and valid come from the data set's training part, test from its test part. Within a
    detector no picture is used twice.

    Args:
        images: The training part, RGB uint8 [n, 32, 32, 3].
        labels: Its classes 0 to 9, [n] or [n, 1].
        root: The data set folder to lay out in.
        test_images: The test part.
        test_labels: Its classes.
        counts: Split name -> pictures per client and detector.
        seed: The same seed chooses the same pictures.

    Returns:
        The detectors laid out.

    Raises:
        DatasetError: A detector's folder exists already, there are too few pictures, or they cannot
            be written.
    """

    def placed() -> Iterator[_Placed]:
        for detector, worlds in CIFAR10_WORLDS.items():
            rng = np.random.default_rng(seed)
            given: set[bytes] = set()
            own = _Supply(images, labels, rng, given)
            held_back = _Supply(test_images, test_labels, rng, given)
            for client, classes in worlds.items():
                for split, count in counts.items():
                    supply = held_back if split == "test" else own
                    for (folder, half), among in zip(
                        _halves(detector, count), classes, strict=True
                    ):
                        for index in range(half):
                            path = Path(detector, client, split, folder, f"{index:04}.png")
                            yield path, supply.take(among[index % len(among)])

    return _write(root, tuple(CIFAR10_WORLDS), placed())


def lay_out_lfw(
    faces: NDArray[np.float32],
    corners: NDArray[np.float32],
    people: NDArray[np.integer[Any]],
    root: Path,
    *,
    counts: Mapping[str, int] = COUNTS,
    seed: int = 0,
) -> tuple[str, ...]:
    """Lay out LFW as the detector `face`.

    Args:
        faces: The middle of each photo, RGB float32 [n, height, width, 3] from 0 to 1.
        corners: The upper left corner of the same photos, of any size.
        people: Who is in each photo, [n].
        root: The data set folder to lay out in.
        counts: Split name -> pictures per client.
        seed: The same seed chooses the same pictures.

    Returns:
        The detectors laid out.

    Raises:
        DatasetError: The detector's folder exists already, there are too few people, or pictures
            cannot be written.
    """

    def placed() -> Iterator[_Placed]:
        rng = np.random.default_rng(seed)
        for client, photos in _households_and_strangers(people, rng).items():
            for split, count in counts.items():
                (face, half), (not_face, rest) = _halves("face", count)
                chosen = _take_people(photos, max(half, rest))
                for index, photo in enumerate(chosen[:half]):
                    yield (
                        Path("face", client, split, face, f"{index:04}.png"),
                        _as_uint8(faces[photo]),
                    )
                for index, photo in enumerate(chosen[:rest]):
                    yield (
                        Path("face", client, split, not_face, f"{index:04}.png"),
                        _as_uint8(corners[photo]),
                    )

    return _write(root, ("face",), placed())


def fetch_cifar10(root: Path) -> tuple[str, ...]:
    """Download CIFAR-10 (170 MB, kept in Keras's own cache) and lay it out.

    Args:
        root: The data set folder to lay out in.

    Returns:
        The detectors laid out.

    Raises:
        DatasetError: The download failed, or see `lay_out_cifar10`.
    """
    _check_free(root, tuple(CIFAR10_WORLDS))
    try:
        import keras  # noqa: PLC0415 - brings TensorFlow along, which only this command needs

        (images, labels), (test_images, test_labels) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a bare Exception when the network fails
        raise _not_fetched("CIFAR-10", root, error) from error
    return lay_out_cifar10(images, labels, root, test_images=test_images, test_labels=test_labels)


def fetch_lfw(root: Path) -> tuple[str, ...]:
    """Download LFW (180 MB, kept in scikit-learn's own cache) and lay it out.

    Args:
        root: The data set folder to lay out in.

    Returns:
        The detectors laid out.

    Raises:
        DatasetError: The download failed, or see `lay_out_lfw`.
    """
    _check_free(root, ("face",))
    try:
        from sklearn.datasets import fetch_lfw_people  # noqa: PLC0415 - slow to import

        # Not the funneled photos: their black rims from turning would give the corners away.
        crops = [
            fetch_lfw_people(color=True, funneled=False, slice_=part)
            for part in (LFW_FACE, LFW_CORNER)
        ]
    except Exception as error:
        raise _not_fetched("LFW", root, error) from error
    faces, corners = crops
    return lay_out_lfw(faces.images, corners.images, faces.target, root)


def add_fetch(subparsers: Any) -> None:
    """Register `fetch {cifar10,lfw} --out DIR`; the parsed `run(args)` carries it out.

    Args:
        subparsers: What `ArgumentParser.add_subparsers()` returned.
    """
    parser = subparsers.add_parser(
        "fetch", help="download public photos and lay them out for two clients"
    )
    parser.add_argument("name", choices=("cifar10", "lfw"), help="which photos")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the data set folder to lay out in"
    )
    parser.set_defaults(run=run_fetch)


def run_fetch(args: argparse.Namespace) -> None:
    """Carry out `fetch` and say what was laid out.

    Args:
        args: With `name` and `out`.
    """
    laid_out = (fetch_cifar10 if args.name == "cifar10" else fetch_lfw)(args.out)
    sys.stdout.write(f"Laid out {', '.join(laid_out)} in {args.out}.\n")


class _Supply:
    """The pictures of each class in random order, each given away once; equal pictures count as
    one.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer[Any]],
        rng: np.random.Generator,
        given: set[bytes],
    ) -> None:
        flat = np.asarray(labels).reshape(-1)
        self._images, self._given = images, given
        self._left = {
            int(label): iter(rng.permutation(np.flatnonzero(flat == label)))
            for label in np.unique(flat)
        }

    def take(self, label: int) -> NDArray[np.uint8]:
        for index in self._left.get(label, iter(())):
            picture: NDArray[np.uint8] = self._images[index]
            if picture.tobytes() not in self._given:
                self._given.add(picture.tobytes())
                return picture
        raise _too_few(f"pictures of class {label}")


def _halves(detector: str, count: int) -> tuple[tuple[str, int], tuple[str, int]]:
    return (detector, count // 2), (f"not_{detector}", count - count // 2)


def _households_and_strangers(
    people: NDArray[np.integer[Any]], rng: np.random.Generator
) -> dict[str, Iterator[list[int]]]:
    """Give each client its people in random order, each as the list of their photos."""
    photos = [
        np.flatnonzero(people == person).tolist() for person in rng.permutation(np.unique(people))
    ]
    households = [some[:_MOST_PHOTOS_OF_ONE] for some in photos if len(some) >= _HOUSEHOLD_PHOTOS]
    return {
        "client_1": iter(households),
        "client_2": iter([some for some in photos if len(some) == 1]),
    }


def _take_people(photos: Iterator[list[int]], count: int) -> list[int]:
    """Take whole people, so that the last one's spare photos go nowhere, and nobody is in two
    splits.
    """
    taken: list[int] = []
    while len(taken) < count:
        person = next(photos, None)
        if person is None:
            raise _too_few("people")
        taken += person
    return taken[:count]


def _as_uint8(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    scaled: NDArray[np.uint8] = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    return scaled


def _write(root: Path, detectors: tuple[str, ...], pictures: Iterable[_Placed]) -> tuple[str, ...]:
    """Write beside the detectors' folders, in a hidden one, and rename when everything is there."""
    _check_free(root, detectors)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".laying-out-", dir=root) as staging:
            for path, pixels in pictures:
                target = staging / path
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(target)
            for detector in detectors:
                Path(staging, detector).rename(root / detector)
    except OSError as error:
        raise DatasetError(
            f"The pictures could not be written to {root}: {error.strerror}.",
            kept="What was in the folder before is unchanged.",
            todo="Choose a folder that can be written to, with 20 MB to spare.",
        ) from error
    return detectors


def _check_free(root: Path, detectors: tuple[str, ...]) -> None:
    for detector in detectors:
        if (root / detector).exists():
            raise DatasetError(
                f"{root / detector} exists already.",
                kept="It was left as it is.",
                todo="Choose another folder with --out, or move this one away.",
            )


def _too_few(what: str) -> DatasetError:
    return DatasetError(
        f"The photos hold too few {what} for two clients.",
        kept="No folder was laid out.",
        todo="Ask for fewer pictures, or download the data set again.",
    )


def _not_fetched(name: str, root: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{name} could not be downloaded: {error}.".replace("..", "."),
        kept=f"Nothing was written to {root}.",
        todo=(
            "Check the network connection and try again, or draw pictures with `python -m dataset"
            " draw`."
        ),
    )
