"""The far side of the street: houses, hedge and trees.

A device's set-up runs it.
"""

from __future__ import annotations

from dataset.porch.brush import Brush, Colour, toned
from dataset.porch.site import Hour, Site
from dataset.porch.traits import Traits

WINDOW: Colour = (70, 82, 94)
LAMPLIT: Colour = (246, 204, 120)


def _house(
    brush: Brush,
    corner: tuple[float, float],
    width: float,
    height: float,
    place: Site,
    tone: float,
    lit: bool,
) -> None:
    left, base = corner
    wall = toned(place.wall, tone)
    right = left + width
    eaves = base + height
    brush.box(left, base, right, eaves, wall)
    for row in range(1, 6):
        brush.line(
            (
                (left, base + height * row / 6),
                (right, base + height * row / 6),
            ),
            0.003,
            toned(wall, 0.9),
        )
    overhang = width * 0.07
    ridge = (
        (left - overhang, eaves),
        (left + width * 0.25, eaves + height * 0.55),
        (right - width * 0.25, eaves + height * 0.55),
    )
    brush.area((*ridge, (right + overhang, eaves)), toned(place.roof, tone))
    for share in (0.2, 0.72):
        x, y = left + width * share - width * 0.09, base + height * 0.42
        brush.box(
            x - 0.006,
            y - 0.006,
            x + width * 0.18 + 0.006,
            y + height * 0.36 + 0.006,
            (224, 222, 216),
        )
        shine = lit and share < 0.5
        brush.box(
            x, y, x + width * 0.18, y + height * 0.36, LAMPLIT if shine else WINDOW, glow=shine
        )
        brush.line(
            (
                (x + width * 0.09, y),
                (x + width * 0.09, y + height * 0.36),
            ),
            0.005,
            (224, 222, 216),
        )
    door = left + width * 0.46
    brush.box(
        door,
        base,
        door + width * 0.13,
        base + height * 0.6,
        toned(place.roof, 0.75),
    )


def _tree(brush: Brush, x: float, base: float, size: float, place: Site, traits: Traits) -> None:
    brush.box(
        x - size * 0.07,
        base,
        x + size * 0.07,
        base + size * 0.6,
        (92, 70, 52),
    )
    for _ in range(14):
        leaf = toned(place.lawn, traits.vary(0.55, 0.9))
        brush.disc(
            x + traits.vary(-0.32, 0.32) * size,
            base + size * traits.vary(0.5, 1.1),
            size * 0.17,
            leaf,
        )


def paint_far_side(
    brush: Brush, place: Site, hour: Hour, traits: Traits, base: float, scale: float
) -> None:
    """Paint the houses, hedge and trees across the street."""
    start = traits.vary(-0.2, 0.0)
    for step, tone in enumerate((0.92, 1.06, 0.82, 0.98)):
        corner = (start + step * 0.42 * scale, base)
        height = traits.vary(0.15, 0.2) * scale
        _house(brush, corner, 0.33 * scale, height, place, tone, hour != "day" and step != 1)
    for x in place.trees:
        _tree(brush, x, base, traits.vary(0.2, 0.3) * scale, place, traits)
    for step in range(34):
        leaf = toned(place.lawn, traits.vary(0.55, 0.78))
        brush.disc(
            step / 33,
            base + 0.005,
            0.022 * scale,
            leaf,
            traits.vary(0.016, 0.034) * scale,
        )
