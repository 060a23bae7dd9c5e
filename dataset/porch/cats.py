"""The cats of the default pictures, sitting and walking. A device's set-up runs it."""

from __future__ import annotations

from dataset.porch.brush import Brush, Colour, mirrored, toned
from dataset.porch.quadrupeds import (
    CREAM,
    DARK,
    Build,
    paint_eye,
    paint_muzzle,
    paint_prick_ear,
    paint_side,
)
from dataset.porch.traits import Traits

CAT_COATS: tuple[Colour, ...] = (
    (206, 128, 58),
    (92, 88, 88),
    (60, 54, 52),
    (214, 196, 168),
)
CAT_COATS_UNSEEN: tuple[Colour, ...] = ((150, 132, 112), (232, 222, 210), (122, 84, 58))


def sitting_cat(brush: Brush, traits: Traits) -> None:
    """Paint a cat that sits and looks at the camera."""
    coat = traits.tint(traits.pick(CAT_COATS, CAT_COATS_UNSEEN))
    iris = traits.pick(((150, 190, 70),), ((226, 170, 50),))
    pale = traits.pick((coat, CREAM), (CREAM,))
    stripe = toned(coat, 0.62)
    side = 1 if traits.chance(0.5) else -1
    turn = traits.span(-0.04, 0.04, 0.09)
    brush.shadow(0.0, 0.42)
    brush.curve(
        (0.18 * side, 0.06),
        (0.62 * side, 0.02),
        (0.46 * side, traits.span(0.25, 0.4, 0.62)),
        0.085,
        toned(coat, 0.85),
    )
    brush.blob(
        mirrored(((0.1, 0.6), (0.17, 0.46), (0.27, 0.2), (0.24, 0.02), (0.08, 0.0))),
        coat,
    )
    brush.disc(0.0, 0.38, 0.1, pale, 0.17)
    for x in (-0.08, 0.08):
        brush.limb(((x, 0.36), (x * 1.05, 0.05)), (0.12, 0.1), toned(coat, 1.1))
        brush.disc(x * 1.1, 0.035, 0.075, pale, 0.04)
    brush.line(((0, 0.3), (0, 0.04)), 0.018, toned(coat, 0.5))
    for y in (0.14, 0.24, 0.34):
        brush.line(((0.26 * side, y), (0.15 * side, y + 0.03)), 0.025, stripe)
    _cat_face(brush, turn, coat, pale, iris)
    for x in (-0.05, 0.0, 0.05):
        brush.line(((turn + x, 0.86), (turn + x * 0.8, 0.79)), 0.02, stripe)


def _cat_face(brush: Brush, x: float, coat: Colour, pale: Colour, iris: Colour) -> None:
    for side in (-1, 1):
        paint_prick_ear(brush, x + side * 0.135, 0.8, 0.12, coat, lean=side * 0.35)
    brush.blob(
        [
            (x + dx, y)
            for dx, y in mirrored(((0.1, 0.86), (0.21, 0.74), (0.19, 0.62), (0.08, 0.55)))
        ],
        toned(coat, 1.06),
    )
    brush.disc(x, 0.61, 0.09, pale, 0.055)
    for side in (-1, 1):
        brush.disc(x + side * 0.09, 0.715, 0.052, iris, 0.045)
        brush.disc(x + side * 0.09, 0.715, 0.018, DARK, 0.042)
        brush.eyeshine(x + side * 0.09, 0.715, 0.042)
        for rise in (-0.03, 0.02):
            brush.line(
                (
                    (x + side * 0.07, 0.615),
                    (x + side * 0.29, 0.62 + rise),
                ),
                0.006,
                (238, 234, 226),
            )
    brush.area(
        ((x - 0.032, 0.65), (x + 0.032, 0.65), (x, 0.615)),
        (214, 120, 120),
    )
    brush.line(((x - 0.05, 0.582), (x, 0.605), (x + 0.05, 0.582)), 0.012, DARK)


def walking_cat(brush: Brush, traits: Traits) -> None:
    """Paint a cat from the side, its tail up."""
    coat = traits.tint(traits.pick(CAT_COATS, CAT_COATS_UNSEEN))
    low = traits.span(0.0, 0.08, -0.16)
    build = Build(0.26, 0.36, 0.25, (0.14, 0.2 + low), 0.135, 0.02, 0.075)
    sway = traits.span(-0.18, 0.0, 0.16)
    brush.curve(
        (-0.34, 0.47),
        (-0.55, 0.6),
        (-0.46 + sway, 0.92),
        0.075,
        toned(coat, 0.9),
    )
    x, y = paint_side(
        brush, build, coat, toned(coat, 1.15), toned(coat, 1.2), traits.span(0.03, 0.1, 0.15)
    )
    for stripe in (-0.25, -0.12, 0.01, 0.14):
        brush.line(((stripe, 0.5), (stripe + 0.02, 0.36)), 0.028, toned(coat, 0.62))
    for dx in (-0.07, 0.07):
        paint_prick_ear(brush, x + dx, y + 0.08, 0.09, toned(coat, 0.95), lean=dx * 3)
    paint_muzzle(brush, build, (x, y), toned(coat, 1.2), droop=0.3)
    paint_eye(brush, x + 0.06, y + 0.03, 0.034, (160, 190, 80))
    for rise in (-0.03, 0.03):
        brush.line(
            ((x + 0.1, y - 0.04), (x + 0.27, y - 0.04 + rise)),
            0.006,
            (238, 234, 226),
        )


def cat(brush: Brush, traits: Traits) -> None:
    """Paint a cat."""
    (sitting_cat if traits.chance(0.65) else walking_cat)(brush, traits)
