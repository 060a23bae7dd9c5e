"""The project's default pictures: what a doorbell's camera sees, drawn by code. A device's set-up
runs it.

Every device has its own place and camera, and sees its own mix: of each class, two kinds of subject
make up most of what it meets. The test split is drawn in shapes, poses and colours that training
and validation never had.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.porch import animals, faces, hazards, noteworthy_vehicles, ornaments, toys, vehicles
from dataset.porch import camera as porch_camera
from dataset.porch import scene as porch_scene
from dataset.porch.brush import Brush
from dataset.porch.site import Hour, View, site
from dataset.porch.traits import Kind, Traits
from shared.errors import DatasetError

DETECTORS: tuple[str, ...] = ("face", "animal", "unsafe", "vehicle")
SPLIT_SIZES: Mapping[str, int] = {"train": 200, "valid": 40, "test": 60}
"""Pictures of one device and detector, half of them positive."""

SUBJECTS: Mapping[str, tuple[tuple[Kind, ...], tuple[Kind, ...]]] = {
    "face": (ornaments.NOT_FACES, faces.FACES),
    "animal": (toys.NOT_ANIMALS, animals.KINDS),
    "unsafe": (hazards.SAFE, hazards.UNSAFE),
    "vehicle": (vehicles.ORDINARY, noteworthy_vehicles.NOTEWORTHY),
}
"""What each detector must leave alone, and what it must find."""
SPLITS: tuple[str, ...] = tuple(SPLIT_SIZES)
HOURS: tuple[tuple[Hour, float], ...] = (
    ("day", 0.58),
    ("dusk", 0.2),
    ("night", 0.22),
)
FAVOURITE_SHARE = 0.8
JPEG_QUALITY = 92
PAPER = 245
"""Grey of a sheet where no picture stands."""


@dataclass(frozen=True)
class Shot:
    """What one picture is going to show.

    Attributes:
        kind: The subject.
        hour: The light it is seen in.
        traits: The chances that decide everything else.
    """

    kind: Kind
    hour: Hour
    traits: Traits


def favourites(camera: int, kinds: Sequence[Kind]) -> tuple[Kind, Kind]:
    """Return the two kinds that this device's camera meets most."""
    first = 2 * (camera - 1) % len(kinds)
    return kinds[first], kinds[(first + 1) % len(kinds)]


def plan(
    detector: str, positive: bool, camera: int, split: str, index: int, *, seed: int = 0
) -> Shot:
    """Return what `draw` shows for the same arguments."""
    if detector not in DETECTORS or split not in SPLITS or min(camera - 1, index, seed) < 0:
        raise DatasetError(
            f"There is no drawn picture {index} of {detector!r}, camera {camera}, {split!r}, seed"
            f" {seed}.",
            todo=(
                f"Detectors: {', '.join(DETECTORS)}; splits: {', '.join(SPLITS)}; cameras count"
                " from 1."
            ),
        )
    place = (DETECTORS.index(detector), int(positive), camera, SPLITS.index(split), index)
    rng = np.random.default_rng(np.random.SeedSequence((seed, *place)))
    kinds = SUBJECTS[detector][int(positive)]
    if rng.random() < FAVOURITE_SHARE:
        kinds = favourites(camera, kinds)
    kind = kinds[int(rng.integers(len(kinds)))]
    hour = HOURS[
        int(
            np.searchsorted(
                np.cumsum([share for _, share in HOURS]),
                rng.random(),
            )
        )
    ][0]
    if hour == "night" and not kind.at_night:
        hour = "dusk"
    return Shot(kind, hour, Traits(rng, unseen=split == "test"))


def draw(
    detector: str,
    positive: bool,
    camera: int,
    split: str,
    index: int,
    *,
    seed: int = 0,
    size_px: int = 128,
) -> NDArray[np.uint8]:
    """Draw one picture; the same arguments give the same pixels.

    Args:
        detector: One of `DETECTORS`.
        positive: True for what the detector must find, False for what it must leave alone.
        camera: The device's number, from 1.
        split: "train", "valid" or "test".
        index: The picture's number within class and split, from 0.
        seed: The neighbourhood's number, from 0.
        size_px: Edge of the picture in pixels.

    Returns:
        The picture, RGB, uint8 [size_px, size_px, 3].

    Raises:
        DatasetError: If there is no such detector, split, camera, index or seed.
    """
    shot = plan(detector, positive, camera, split, index, seed=seed)
    view: View = "street" if detector == "vehicle" else "porch"
    place = site(seed, camera)
    scene = porch_scene.backdrop(seed, camera, view, shot.hour, size_px)
    brush = Brush(size_px, night=shot.hour == "night")
    if view == "porch":
        porch_scene.clutter(brush, shot.traits)
    paint_subject(brush, shot.kind, shot.traits)
    light = porch_camera.lit(scene, brush, shot.hour, place.sun)
    return porch_camera.exposed(light, place, shot.hour, shot.traits.rng)


def paint_subject(brush: Brush, kind: Kind, traits: Traits) -> None:
    """Paint one subject of this kind somewhere it may stand."""
    brush.place(
        0.5 + traits.vary(-kind.aside, kind.aside),
        traits.vary(*kind.ground),
        traits.vary(*kind.unit),
        stretch=traits.span(0.94, 1.06, 0.86) * (1 if traits.chance(0.5) else -1),
        tilt=traits.vary(-0.04, 0.04),
    )
    kind.paint(brush, traits)


def write_default(
    root: Path,
    *,
    clients: int = 2,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
    sizes: Mapping[str, int] = SPLIT_SIZES,
) -> int:
    """Draw every device's pictures into `<root>/<detector>/client_<k>/<split>/<class>/<nnnn>.jpg`.

    Args:
        root: A folder that does not exist yet, or is empty.
        clients: How many devices to draw for.
        seed: The neighbourhood's number, from 0.
        on_progress: Called after each picture with the number drawn and the number to draw.
        sizes: Pictures of one device and detector in each split, half of them positive.

    Returns:
        The number of pictures.

    Raises:
        DatasetError: If the folder holds something already, or is no folder.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DatasetError(
            f"{root} is not an empty folder.",
            kept="It was left as it is.",
            todo="Name a new folder, or remove this one first.",
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    half_done = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        count = _write_all(half_done, clients, seed, sizes, on_progress)
        half_done.chmod(0o755)
        half_done.replace(root)
    finally:
        shutil.rmtree(half_done, ignore_errors=True)
    return count


def _files(clients: int, sizes: Mapping[str, int]) -> Iterator[tuple[str, bool, int, str, int]]:
    for detector in DETECTORS:
        for camera in range(1, clients + 1):
            for split, size in sizes.items():
                for number in range(size):
                    yield detector, number % 2 == 0, camera, split, number // 2


def _write_all(
    folder: Path,
    clients: int,
    seed: int,
    sizes: Mapping[str, int],
    on_progress: Callable[[int, int], None] | None,
) -> int:
    files = list(_files(clients, sizes))
    for done, (detector, positive, camera, split, index) in enumerate(files, start=1):
        label = detector if positive else f"not_{detector}"
        path = folder / detector / f"client_{camera}" / split / label / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = draw(detector, positive, camera, split, index, seed=seed)
        data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        path.write_bytes(data.tobytes())
        if on_progress is not None:
            on_progress(done, len(files))
    return len(files)


def montage(
    pictures: Sequence[NDArray[np.uint8]], columns: int, captions: Sequence[str] | None = None
) -> NDArray[np.uint8]:
    """Lay pictures of one size out in a grid, row by row.

    Args:
        pictures: uint8 [height, width, 3], all alike; at least one.
        columns: How many stand in a row.
        captions: What to write under each; an empty one leaves its place blank.

    Returns:
        The sheet, uint8 [rows * (height + margin), columns * (width + margin), 3], in the pictures'
        order of colours.
    """
    height, width = pictures[0].shape[:2]
    gap = 4
    strip = 16 if captions else 0
    rows = -(-len(pictures) // columns)
    sheet = np.full(
        (
            rows * (height + gap + strip) + gap,
            columns * (width + gap) + gap,
            3,
        ),
        PAPER,
        np.uint8,
    )
    for number, picture in enumerate(pictures):
        y, x = (
            gap + number // columns * (height + gap + strip),
            gap + number % columns * (width + gap),
        )
        sheet[y : y + height, x : x + width] = picture
        if captions:
            place = (x + 1, y + height + strip - 5)
            cv2.putText(
                sheet,
                captions[number],
                place,
                cv2.FONT_HERSHEY_SIMPLEX,
                0.33,
                (30, 30, 30),
                1,
                cv2.LINE_AA,
            )
    return sheet
