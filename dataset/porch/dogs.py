"""The dogs of the default pictures, sitting and standing. A device's set-up runs it."""

from __future__ import annotations

from dataset.porch.brush import Brush, Colour, mirrored, toned
from dataset.porch.quadrupeds import CREAM, DARK, Build, paint_eye, paint_muzzle, paint_side
from dataset.porch.traits import Traits

DOG_COATS: tuple[Colour, ...] = ((142, 92, 52), (212, 172, 112), (58, 48, 44))
DOG_COATS_UNSEEN: tuple[Colour, ...] = ((172, 76, 42), (226, 216, 200), (112, 108, 112))


def dog(brush: Brush, traits: Traits) -> None:
    """Paint a dog: standing, or sitting with its tongue out."""
    (_sitting_dog if traits.chance(0.5) else _standing_dog)(brush, traits)


def _standing_dog(brush: Brush, traits: Traits) -> None:
    coat = traits.tint(traits.pick(DOG_COATS, DOG_COATS_UNSEEN))
    pale = traits.pick((coat, CREAM), (toned(coat, 1.25),))
    build = Build(0.34, 0.35, 0.26, (0.13, traits.span(0.16, 0.26, -0.02)), 0.125, 0.1, 0.08)
    wag = traits.span(0.2, 0.34, 0.44)
    brush.curve(
        (-0.33, 0.55),
        (-0.5, 0.6),
        (-0.52, 0.55 + wag),
        0.06,
        toned(coat, 0.9),
    )
    x, y = paint_side(brush, build, coat, pale, pale, traits.span(0.02, 0.09, 0.14))
    paint_muzzle(brush, build, (x, y), pale)
    paint_eye(brush, x + 0.05, y + 0.035, 0.028)
    brush.disc(x - 0.07, y - 0.03, 0.055, toned(coat, 0.62), 0.13, turn=-0.25)
    collar = traits.pick(((190, 40, 40), (40, 70, 170)), ((40, 140, 80), (220, 180, 40)))
    brush.line(
        ((x - 0.16, y - 0.02), (x - 0.03, y - 0.17)),
        0.045,
        collar,
    )


def _sitting_dog(brush: Brush, traits: Traits) -> None:
    coat = traits.tint(traits.pick(DOG_COATS, DOG_COATS_UNSEEN))
    pale = traits.pick((coat, CREAM), (toned(coat, 1.2),))
    ear = toned(coat, 0.6)
    tail = traits.span(0.1, 0.25, 0.42)
    brush.shadow(0.0, 0.4)
    brush.curve((0.2, 0.08), (0.42, 0.06), (0.46, tail), 0.07, toned(coat, 0.85))
    brush.blob(
        mirrored(((0.14, 0.62), (0.2, 0.42), (0.28, 0.16), (0.24, 0.02), (0.08, 0.0))),
        coat,
    )
    brush.blob(mirrored(((0.08, 0.58), (0.11, 0.42), (0.05, 0.26))), pale)
    for x in (-0.1, 0.1):
        brush.limb(((x, 0.4), (x, 0.06)), (0.13, 0.11), toned(coat, 1.1))
        brush.disc(x * 1.05, 0.04, 0.085, pale, 0.045)
    brush.line(((0, 0.26), (0, 0.03)), 0.02, toned(coat, 0.5))
    brush.blob(
        mirrored(((0.1, 0.93), (0.17, 0.8), (0.14, 0.66), (0.07, 0.57))),
        toned(coat, 1.06),
    )
    drop = traits.span(0.12, 0.17, 0.24)
    for side in (-1, 1):
        brush.disc(side * 0.185, 0.88 - drop, 0.06, ear, drop, turn=side * 0.2)
        paint_eye(brush, side * 0.075, 0.79, 0.03)
    brush.disc(0, 0.665, 0.095, toned(pale, 1.1), 0.085)
    brush.disc(0, 0.7, 0.045, DARK, 0.034)
    brush.line(((-0.05, 0.62), (0, 0.64), (0.05, 0.62)), 0.014, DARK)
    brush.disc(0.0, 0.585, 0.03, (222, 110, 120), 0.05)
