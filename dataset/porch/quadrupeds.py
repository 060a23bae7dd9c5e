"""The body of a four-legged animal seen from the side, and the parts that several animals share.

A device's set-up runs it.
"""

from __future__ import annotations

from dataclasses import dataclass

from dataset.porch.brush import Brush, Colour, toned

DARK: Colour = (28, 24, 24)
CREAM: Colour = (236, 226, 206)


@dataclass(frozen=True)
class Build:
    """The measures of a four-legged animal seen from the side, in units.

    Attributes:
        leg: Length of the legs.
        half: Half the length of the trunk.
        deep: Depth of the trunk.
        head: Where the middle of the head lies, seen from the shoulder.
        skull: Radius of the head.
        snout: Length of the muzzle.
        slim: Width of a leg.
    """

    leg: float
    half: float
    deep: float
    head: tuple[float, float]
    skull: float
    snout: float
    slim: float


def _legs(brush: Brush, build: Build, coat: Colour, foot: Colour, stride: float) -> None:
    hips = -build.half * 0.82
    shoulders = build.half * 0.78
    for side, tone in ((-1, 0.68), (1, 0.95)):
        for joint, bend in ((hips, -0.05), (shoulders, 0.03)):
            swing = side * stride * (1 if joint == hips else -1)
            knee = (joint + swing * 0.5 + bend, build.leg * 0.5)
            chain = (
                (joint, build.leg * 1.12),
                knee,
                (joint + swing, build.slim * 0.4),
            )
            brush.limb(
                chain, (build.slim * 1.9, build.slim * 1.1, build.slim * 0.9), toned(coat, tone)
            )
            brush.disc(
                joint + swing + 0.01,
                build.slim * 0.4,
                build.slim * 0.75,
                toned(foot, tone),
                build.slim * 0.42,
            )


def paint_side(
    brush: Brush, build: Build, coat: Colour, belly: Colour, foot: Colour, stride: float
) -> tuple[float, float]:
    """Paint trunk, legs, neck and skull from the side and return where the head is."""
    half = build.half
    low = build.leg
    high = build.leg + build.deep
    brush.shadow(0.0, half * 1.4)
    _legs(brush, build, coat, foot, stride)
    back = (-half * 1.05, (low + high) / 2)
    chest = (half * 1.02, (low + high) / 2)
    trunk = (
        back,
        (-half * 0.8, high),
        (0, high - build.deep * 0.06),
        (half * 0.75, high + 0.01),
        chest,
    )
    brush.blob(
        (
            *trunk,
            (half * 0.65, low - 0.01),
            (0, low + build.deep * 0.1),
            (-half * 0.75, low + 0.01),
        ),
        coat,
    )
    brush.disc(
        half * 0.05,
        low + build.deep * 0.14,
        half * 0.6,
        belly,
        build.deep * 0.1,
    )
    x, y = half * 0.8 + build.head[0], high - build.deep * 0.25 + build.head[1]
    neck = build.skull * 1.35
    brush.limb(
        ((half * 0.68, high - build.deep * 0.36), (x - 0.01, y)),
        (build.deep * 0.78, neck),
        toned(coat, 1.04),
    )
    brush.disc(x, y, build.skull, toned(coat, 1.06), build.skull * 0.92)
    return x, y


def paint_muzzle(
    brush: Brush, build: Build, at: tuple[float, float], colour: Colour, droop: float = 0.35
) -> None:
    """Paint muzzle, nose and mouth on the head at this place."""
    (x, y) = at
    r = build.skull
    tip = (x + r * 0.7 + build.snout, y - r * droop)
    brush.limb(
        ((x + r * 0.35, y - r * 0.15), tip),
        (r * 1.25, r * 0.62),
        colour,
    )
    brush.disc(
        tip[0] + r * 0.2,
        tip[1] + r * 0.12,
        r * 0.24,
        DARK,
        r * 0.2,
    )
    brush.line(
        (
            (tip[0], tip[1] - r * 0.2),
            (x + r * 0.55, y - r * 0.5),
        ),
        r * 0.1,
        toned(colour, 0.5),
    )


def paint_eye(brush: Brush, x: float, y: float, radius: float, iris: Colour = DARK) -> None:
    """Paint an eye that shines at night."""
    brush.disc(x, y, radius, iris)
    brush.disc(x, y, radius * 0.55, DARK)
    brush.disc(
        x + radius * 0.3,
        y + radius * 0.35,
        radius * 0.28,
        (250, 250, 250),
    )
    brush.eyeshine(x, y, radius * 0.95)


def paint_prick_ear(
    brush: Brush, x: float, y: float, size: float, coat: Colour, lean: float = 0.0
) -> None:
    """Paint a pointed ear that leans to the right by this share of its size."""
    tip = (x + lean * size, y + size * 1.5)
    brush.area(
        ((x - size * 0.62, y), tip, (x + size * 0.62, y)),
        coat,
    )
    brush.area(
        (
            (x - size * 0.3, y + size * 0.1),
            (tip[0], y + size * 1.1),
            (x + size * 0.3, y + size * 0.1),
        ),
        (206, 150, 140),
    )
