"""One device's place and camera: house, floor, lawn, trees, sky, lens and sensor.

A device's set-up runs it. A site depends on the seed and the camera's number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from dataset.porch.brush import Colour

Hour = Literal["day", "dusk", "night"]
View = Literal["porch", "street"]
WALLS: tuple[Colour, ...] = (
    (176, 92, 72),
    (206, 198, 178),
    (112, 134, 152),
    (188, 164, 116),
    (150, 156, 138),
)
ROOFS: tuple[Colour, ...] = (
    (92, 58, 52),
    (74, 78, 88),
    (122, 74, 54),
    (64, 60, 62),
    (96, 100, 84),
)
FLOORS: tuple[Colour, ...] = (
    (152, 112, 78),
    (150, 150, 152),
    (158, 88, 70),
    (176, 166, 146),
    (104, 98, 96),
)
LAWNS: tuple[Colour, ...] = (
    (88, 128, 62),
    (128, 132, 84),
    (72, 112, 74),
    (116, 140, 70),
    (96, 116, 88),
)
PATTERNS = ("planks", "tiles", "bricks", "slabs", "tiles")
LIGHT: dict[Hour, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "dusk": (0.66, 0.54, 0.55),
    "night": (0.95,) * 3,
}


@dataclass(frozen=True)
class Site:
    """One device's place and camera.

    Attributes:
        wall: Colour of the houses across the street; roof, floor, lawn likewise.
        pattern: How the porch floor is laid.
        posts: Places of the porch posts, as shares of the picture from the left.
        path: Where the garden path ends, as a share of the picture from the left.
        trees: Places of the trees.
        sky: Which sky this place is used to.
        sun: -1 where the light comes from the left, 1 where it comes from the right.
        bend: Strength of the lens's barrel distortion.
        vignette: How much darker the corners are, 0 to 1.
        white_balance: Gains of red, green and blue.
        exposure: Gain of everything.
        softness_px: Blur of the lens at 128 pixels.
        noise: Noise of the sensor by day, in steps of 255.
        jpeg_quality: What the camera's own compression is set to.
    """

    wall: Colour
    roof: Colour
    floor: Colour
    lawn: Colour
    pattern: str
    posts: tuple[float, ...]
    path: float
    trees: tuple[float, ...]
    sky: int
    sun: int
    bend: float
    vignette: float
    white_balance: tuple[float, float, float]
    exposure: float
    softness_px: float
    noise: float
    jpeg_quality: int


@lru_cache(maxsize=64)
def site(seed: int, camera: int) -> Site:
    """Return the place and camera of one device; neighbours in number never share house, floor or
    lens.
    """
    rng = np.random.default_rng(np.random.SeedSequence((seed, camera, 0)))
    turn = camera + int(np.random.default_rng(np.random.SeedSequence((seed, 1))).integers(20))
    odd = turn % 2
    (wall, roof, floor, lawn) = ((turn * step) % 5 for step in (1, 2, 1, 3))
    warm = float(rng.uniform(0.04, 0.08)) * (1 if odd else -1)
    return Site(
        WALLS[wall],
        ROOFS[roof],
        FLOORS[floor],
        LAWNS[lawn],
        PATTERNS[floor],
        posts=((0.04, 0.96), (0.05,), (0.95,))[turn % 3],
        path=float(rng.uniform(0.3, 0.7)),
        trees=tuple(float(x) for x in rng.uniform(0.05, 0.95, 2 + odd)),
        sky=turn % 3,
        sun=1 if odd else -1,
        bend=float(rng.uniform(0.02, 0.05)) + 0.06 * odd,
        vignette=float(rng.uniform(0.12, 0.2)) + 0.14 * odd,
        white_balance=(1 + warm, 1.0, 1 - warm),
        exposure=float(rng.uniform(0.96, 1.02)) + 0.08 * (1 - odd),
        softness_px=float(rng.uniform(0.3, 0.4)) + 0.15 * odd,
        noise=float(rng.uniform(1.5, 2.0)) + 1.5 * (1 - odd),
        jpeg_quality=int(rng.integers(78, 84)) + 8 * odd,
    )
