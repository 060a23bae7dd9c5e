"""The ordinary vehicles of the default pictures, which no detector reports. The set-up runs it."""

from __future__ import annotations

import numpy as np

from dataset.porch.brush import Brush, Colour, toned
from dataset.porch.traits import Kind, Traits
from dataset.porch.vehicle_parts import (
    CHROME,
    GLASS,
    TYRE,
    paint_lamps,
    paint_shell,
    paint_wheels,
    vehicle_kind,
)

PAINTS: tuple[Colour, ...] = (
    (184, 34, 36),
    (226, 226, 224),
    (56, 60, 66),
    (48, 82, 140),
    (158, 162, 166),
    (196, 160, 60),
)
PAINTS_UNSEEN: tuple[Colour, ...] = (
    (206, 64, 34),
    (208, 200, 182),
    (38, 92, 74),
    (104, 40, 52),
    (92, 120, 150),
)
_RING = tuple(
    (
        float(np.cos(turn)),
        float(np.sin(turn)),
    )
    for turn in np.linspace(0, 2 * np.pi, 13)
)


def saloon(brush: Brush, traits: Traits) -> None:
    """Paint an ordinary car with a boot."""
    paint_shell(
        brush, traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN)), traits.span(0.33, 0.37, 0.41), 0.21
    )


def hatchback(brush: Brush, traits: Traits) -> None:
    """Paint a small ordinary car without a boot, sometimes with a roof box."""
    roof = traits.span(0.36, 0.4, 0.44)
    paint_shell(
        brush, traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN)), roof, traits.span(0.26, 0.28, 0.3)
    )
    if traits.chance(0.25):
        brush.blob(
            (
                (-0.26, roof + 0.01),
                (-0.26, roof + 0.06),
                (0.02, roof + 0.07),
                (0.06, roof + 0.01),
            ),
            (50, 52, 56),
        )


def pickup(brush: Brush, traits: Traits) -> None:
    """Paint a pick-up truck with an open bed."""
    paint = traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN))
    top = traits.span(0.38, 0.42, 0.46)
    brush.shadow(0.0, 0.54, depth=0.1)
    brush.area(
        ((-0.12, 0.1), (0.26, 0.1), (0.26, 0.25), (0.12, top), (-0.1, top)),
        paint,
    )
    brush.blob(
        (
            (-0.5, 0.1),
            (-0.51, 0.26),
            (-0.1, 0.27),
            (0.3, 0.25),
            (0.46, 0.23),
            (0.5, 0.17),
            (0.49, 0.09),
            (0.0, 0.08),
        ),
        paint,
    )
    brush.area(
        ((-0.09, 0.26), (0.22, 0.26), (0.11, top - 0.03), (-0.085, top - 0.03)),
        GLASS,
    )
    brush.line(((0.04, 0.1), (0.04, top - 0.03)), 0.012, toned(paint, 0.7))
    brush.line(((-0.5, 0.26), (-0.14, 0.265)), 0.022, toned(paint, 0.55))
    if traits.chance(0.4):
        for x in (-0.42, -0.3, -0.2):
            brush.disc(x, 0.29, 0.07, (92, 112, 58), 0.05)
    paint_lamps(brush, 0.48, -0.5, 0.18)
    paint_wheels(brush, (-0.32, 0.32), 0.09)


def bicycle(brush: Brush, traits: Traits) -> None:
    """Paint a bicycle at the kerb, often with its rider."""
    frame = traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN))
    brush.shadow(0.0, 0.4, depth=0.1)
    for x in (-0.25, 0.25):
        ring = [(x + 0.15 * dx, 0.16 + 0.15 * dy) for dx, dy in _RING]
        brush.line(ring, 0.024, TYRE)
        for dx, dy in _RING[:-1:2]:
            brush.line(
                ((x, 0.16), (x + 0.14 * dx, 0.16 + 0.14 * dy)),
                0.005,
                CHROME,
            )
    for path in (
        ((-0.25, 0.16), (-0.03, 0.14), (0.17, 0.38), (-0.1, 0.38), (-0.03, 0.14)),
        ((-0.25, 0.16), (-0.1, 0.38)),
        ((0.25, 0.16), (0.16, 0.45)),
    ):
        brush.line(path, 0.024, frame)
    brush.line(((-0.16, 0.43), (-0.05, 0.43)), 0.03, TYRE)
    brush.line(((0.1, 0.46), (0.18, 0.46)), 0.02, TYRE)
    if traits.chance(0.5):
        coat = traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN))
        brush.limb(
            ((-0.1, 0.46), (0.03, 0.36), (-0.03, 0.14)),
            (0.09, 0.075, 0.05),
            (58, 62, 84),
        )
        brush.limb(((-0.1, 0.48), (0.02, 0.7)), (0.12, 0.13), coat)
        brush.limb(((0.02, 0.7), (0.1, 0.56), (0.15, 0.47)), (0.07, 0.055, 0.045), toned(coat, 0.8))
        brush.disc(0.06, 0.83, 0.062, (214, 166, 130))
        brush.disc(0.05, 0.86, 0.066, toned(frame, 0.8), 0.045)


def empty_street(brush: Brush, traits: Traits) -> None:
    """Paint a post box or a cone at the kerb and nothing else."""
    if traits.pick((True,), (False,)):
        paint = traits.tint((186, 34, 36))
        brush.shadow(0.3, 0.1)
        brush.box(0.24, 0.0, 0.36, 0.3, paint)
        brush.disc(0.3, 0.3, 0.06, paint)
        brush.box(0.26, 0.24, 0.34, 0.26, TYRE)
    else:
        for x in (-0.3, 0.1):
            brush.area(
                (
                    (x - 0.07, 0.0),
                    (x + 0.07, 0.0),
                    (x + 0.015, 0.2),
                    (x - 0.015, 0.2),
                ),
                (232, 98, 30),
            )
            brush.area(
                (
                    (x - 0.045, 0.08),
                    (x + 0.045, 0.08),
                    (x + 0.03, 0.13),
                    (x - 0.03, 0.13),
                ),
                (238, 238, 236),
            )


ORDINARY: tuple[Kind, ...] = (
    vehicle_kind("saloon", saloon, 0.78, 0.9),
    vehicle_kind("bicycle", bicycle, 0.6, 0.75),
    vehicle_kind("hatchback", hatchback, 0.78, 0.9),
    vehicle_kind("empty street", empty_street, 0.8, 1.0),
    vehicle_kind("pick-up", pickup, 0.78, 0.9),
)
