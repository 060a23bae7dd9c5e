"""What lies in front of a device's door: its porch, garden, street and sky, by day, dusk and night.

A device's set-up runs it. Everything here depends on the seed and the camera's number alone and is
drawn once.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.porch.brush import Brush, Colour, toned
from dataset.porch.neighbourhood import LAMPLIT, paint_far_side
from dataset.porch.site import LIGHT, Hour, Site, View, site
from dataset.porch.traits import Traits

SKIES: dict[Hour, tuple[tuple[Colour, Colour], ...]] = {
    "day": (
        ((112, 162, 218), (206, 222, 232)),
        ((186, 190, 196), (220, 220, 218)),
        ((146, 176, 204), (226, 224, 214)),
    ),
    "dusk": (
        ((66, 66, 112), (214, 140, 104)),
        ((84, 70, 98), (184, 126, 128)),
        ((50, 62, 104), (224, 168, 112)),
    ),
    "night": (((7, 7, 7), (16, 16, 16)),),
}
HORIZON = 0.56


@lru_cache(maxsize=32)
def backdrop(seed: int, camera: int, view: View, hour: Hour, size_px: int) -> NDArray[np.float32]:
    """Return the empty scene, lit, float32 [size_px, size_px, 3] from 0 to 255; nobody may write to
    it.
    """
    place = site(seed, camera)
    traits = Traits(np.random.default_rng(np.random.SeedSequence((seed, camera, 2))), unseen=False)
    brush = Brush(size_px, hour == "night")
    brush.place(0.0, 1.0, 1.0)
    (_paint_porch if view == "porch" else _paint_street)(brush, place, hour, traits)
    scene = _flattened(brush, _sky(place, hour, size_px), hour, traits.rng)
    scene.setflags(write=False)
    return scene


def clutter(brush: Brush, traits: Traits) -> None:
    """Paint what lies about on any porch: a parcel, a watering can, or nothing."""
    what = traits.vary(0, 1)
    left = traits.chance(0.5)
    if what > 0.4:
        return
    x = traits.vary(0.08, 0.2) if left else traits.vary(0.8, 0.92)
    brush.place(x, traits.vary(0.8, 0.86), traits.vary(0.16, 0.22), stretch=1 if left else -1)
    brush.shadow(0.0, 0.5)
    if what < 0.2:
        brush.box(-0.4, 0.0, 0.4, 0.5, (186, 144, 96))
        brush.area(
            ((-0.4, 0.5), (0.4, 0.5), (0.3, 0.66), (-0.3, 0.66)),
            (204, 164, 116),
        )
        brush.box(-0.06, 0.0, 0.06, 0.5, (160, 120, 78))
    else:
        brush.area(
            ((-0.3, 0.0), (0.3, 0.0), (0.24, 0.6), (-0.24, 0.6)),
            (86, 118, 122),
        )
        brush.line(((0.26, 0.2), (0.62, 0.66)), 0.1, (86, 118, 122))
        brush.curve((-0.2, 0.58), (-0.66, 0.5), (-0.28, 0.12), 0.07, (70, 98, 102))


def _sky(place: Site, hour: Hour, size_px: int) -> NDArray[np.float32]:
    options = SKIES[hour]
    top, low = (
        np.asarray(
            colour,
            np.float32,
        )
        for colour in options[place.sky % len(options)]
    )
    share = np.linspace(0, 1 / (1 - HORIZON + 0.16), size_px, dtype=np.float32).clip(
        0,
        1,
    )[:, None, None]
    return np.broadcast_to(
        top * (1 - share) + low * share,
        (size_px, size_px, 3),
    ).astype(np.float32)


def _flattened(
    brush: Brush, sky: NDArray[np.float32], hour: Hour, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Light what was painted, give it grain and lay it over the sky."""
    size_px = len(sky)
    solid = cv2.resize(brush.solid, (size_px, size_px), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    glow = cv2.resize(brush.glow, (size_px, size_px), interpolation=cv2.INTER_AREA).astype(
        np.float32
    )
    grain = rng.normal(1.0, 0.035, (size_px, size_px, 1)).astype(np.float32)
    light = np.asarray(LIGHT[hour], np.float32) * grain
    if hour == "night":
        near = np.linspace(0, 1, size_px, dtype=np.float32)[:, None, None]
        light = light * (0.16 + 0.6 * near**1.8)
    scene = solid[..., :3] * light + sky * (1 - solid[..., 3:] / 255)
    bloom = cv2.GaussianBlur(glow[..., :3], (0, 0), size_px / 32) * 0.5
    lit: NDArray[np.float32] = (
        (scene * (1 - glow[..., 3:] / 255) + glow[..., :3] + bloom)
        .clip(
            0,
            255,
        )
        .astype(np.float32)
    )
    return lit


def _paint_porch(brush: Brush, place: Site, hour: Hour, traits: Traits) -> None:
    paint_far_side(brush, place, hour, traits, HORIZON, 0.85)
    brush.box(-0.1, 0.5, 1.1, HORIZON, (104, 104, 108))
    brush.box(-0.1, 0.49, 1.1, 0.505, (168, 164, 158))
    brush.box(-0.1, 0.2, 1.1, 0.49, place.lawn)
    for _ in range(40):
        x, y = traits.vary(0, 1), traits.vary(0.28, 0.48)
        brush.disc(
            x,
            y,
            0.03 * (0.7 - y),
            toned(place.lawn, traits.vary(0.82, 1.14)),
            0.012,
        )
    brush.area(
        ((0.28, 0.26), (0.72, 0.26), (place.path + 0.06, 0.49), (place.path - 0.06, 0.49)),
        toned(place.floor, 1.12),
    )
    _paint_floor(brush, place, traits)
    for x in place.posts:
        brush.box(x - 0.04, 0.2, x + 0.04, 1.02, (226, 222, 212))
        brush.line(
            (
                (x + 0.025 * place.sun, 0.2),
                (x + 0.025 * place.sun, 1.02),
            ),
            0.014,
            (184, 180, 172),
        )
        brush.box(x - 0.055, 0.17, x + 0.055, 0.23, (206, 202, 192))
    if len(place.posts) == 1:
        _railing(brush, place.posts[0])


def _railing(brush: Brush, post: float) -> None:
    ends = (-0.02, 0.24) if post < 0.5 else (0.76, 1.02)
    for y in (0.26, 0.42):
        brush.line(((ends[0], y), (ends[1], y)), 0.022, (216, 212, 202))
    for step in range(6):
        x = ends[0] + (ends[1] - ends[0]) * (step + 0.5) / 6
        brush.line(((x, 0.26), (x, 0.42)), 0.012, (216, 212, 202))


def _paint_floor(brush: Brush, place: Site, traits: Traits) -> None:
    """Paint the porch floor in perspective, its joints running together far away."""
    floor = place.floor
    joint = toned(place.floor, 0.7)
    edge = 0.27
    brush.box(-0.1, -0.1, 1.1, edge, floor)
    columns = {"planks": 11, "tiles": 7, "bricks": 13, "slabs": 4}[place.pattern]
    for step in range(columns + 1):
        near = (step / columns - 0.5) * 2.2 + 0.5
        far = (step / columns - 0.5) * 1.3 + 0.5
        after = near + 2.2 / columns
        shade = toned(floor, traits.vary(0.92, 1.06))
        brush.area(
            (
                (near, -0.02),
                (after, -0.02),
                (far + 1.3 / columns, edge),
                (far, edge),
            ),
            shade,
        )
        brush.line(((near, -0.02), (far, edge)), 0.006, joint)
    if place.pattern != "planks":
        for row in range(1, 6):
            y = edge * (1 - 1 / (1 + row * 0.32)) / (1 - 1 / 2.9)
            brush.line(((-0.1, edge - y), (1.1, edge - y)), 0.006, joint)
    brush.box(-0.1, edge - 0.012, 1.1, edge + 0.008, toned(floor, 0.62))


def _paint_street(brush: Brush, place: Site, hour: Hour, traits: Traits) -> None:
    paint_far_side(brush, place, hour, traits, 0.54, 1.15)
    brush.box(-0.1, 0.49, 1.1, 0.54, toned(place.lawn, 0.9))
    brush.box(-0.1, 0.455, 1.1, 0.49, (172, 168, 162))
    brush.box(-0.1, 0.13, 1.1, 0.455, (98, 98, 102))
    for step in range(6):
        brush.area(
            (
                (step * 0.22 - 0.1, 0.36),
                (step * 0.22, 0.36),
                (step * 0.22 - 0.005, 0.375),
                (step * 0.22 - 0.1, 0.375),
            ),
            (206, 204, 196),
        )
    brush.box(-0.1, 0.1, 1.1, 0.135, (184, 180, 172))
    brush.box(-0.1, -0.1, 1.1, 0.1, place.lawn)
    for _ in range(30):
        brush.disc(
            traits.vary(0, 1),
            traits.vary(0, 0.09),
            0.03,
            toned(place.lawn, traits.vary(0.8, 1.15)),
            0.014,
        )
    x = 0.12 if place.sun > 0 else 0.88
    brush.box(x - 0.01, 0.47, x + 0.01, 0.96, (66, 68, 72))
    brush.disc(
        x - 0.03 * place.sun,
        0.95,
        0.045,
        LAMPLIT if hour != "day" else (210, 208, 200),
        0.02,
        glow=hour != "day",
    )
