"""The animals of the default pictures: cat, dog, deer, bird and fox. A device's set-up runs it."""

from __future__ import annotations

from dataset.porch.brush import Brush, Colour, toned
from dataset.porch.cats import cat
from dataset.porch.dogs import dog
from dataset.porch.quadrupeds import (
    CREAM,
    Build,
    paint_eye,
    paint_muzzle,
    paint_prick_ear,
    paint_side,
)
from dataset.porch.traits import Kind, Traits

DEER_COATS: tuple[Colour, ...] = ((164, 112, 68), (138, 96, 64))
DEER_COATS_UNSEEN: tuple[Colour, ...] = ((196, 138, 84), (112, 92, 78))
BIRD_COATS: tuple[Colour, ...] = (
    (74, 82, 98),
    (126, 96, 70),
    (44, 46, 56),
    (70, 110, 168),
)
BIRD_COATS_UNSEEN: tuple[Colour, ...] = ((172, 60, 48), (164, 168, 172), (92, 112, 64))
FOX_COATS: tuple[Colour, ...] = ((204, 100, 40), (188, 88, 36))
FOX_COATS_UNSEEN: tuple[Colour, ...] = ((156, 82, 48), (222, 130, 66))


def deer(brush: Brush, traits: Traits) -> None:
    """Paint a deer from the side, with antlers or without."""
    coat = traits.tint(traits.pick(DEER_COATS, DEER_COATS_UNSEEN))
    reach = traits.span(0.1, 0.16, 0.22)
    rise = traits.span(0.24, 0.32, 0.12)
    build = Build(0.42, 0.27, 0.21, (reach, rise), 0.07, 0.08, 0.046)
    brush.disc(-0.29, 0.56, 0.035, CREAM, 0.06)
    x, y = paint_side(brush, build, coat, CREAM, (60, 46, 38), traits.span(0.02, 0.07, 0.11))
    for dx, dy in (
        (-0.16, 0.0),
        (-0.08, 0.03),
        (0.0, -0.01),
        (0.08, 0.03),
        (-0.04, -0.04),
    ):
        brush.disc(dx, 0.58 + dy, 0.014, CREAM)
    paint_muzzle(brush, build, (x, y), toned(coat, 1.1), droop=0.5)
    for lean in (-1.5, -0.6):
        brush.disc(
            x - 0.055,
            y + 0.07,
            0.025,
            toned(
                coat,
                0.8 - lean * 0.1,
            ),
            0.065,
            turn=-lean * 0.6,
        )
    paint_eye(brush, x + 0.025, y + 0.02, 0.018)
    if traits.chance(0.6):
        points = traits.pick((2, 3), (4,))
        for shift in (-0.02, 0.03):
            top = (x - 0.12 + shift * 3, y + 0.3)
            brush.curve(
                (x + shift, y + 0.06),
                (
                    x - 0.14 + shift,
                    y + 0.14,
                ),
                top,
                0.02,
                (214, 196, 160),
            )
            for step in range(points):
                base = y + 0.12 + 0.15 * step / points
                brush.line(
                    (
                        (x - 0.09 + shift, base),
                        (x - 0.01 + shift * 3, base + 0.07),
                    ),
                    0.013,
                    (214, 196, 160),
                )


def bird(brush: Brush, traits: Traits) -> None:
    """Paint a bird that stands on the porch."""
    coat = traits.tint(traits.pick(BIRD_COATS, BIRD_COATS_UNSEEN))
    breast = traits.pick(((214, 108, 62), CREAM), ((236, 204, 110), (150, 150, 156)))
    bill = (232, 168, 52)
    brush.shadow(0.0, 0.32)
    for x in (-0.02, 0.08):
        brush.line(((x, 0.26), (x + 0.02, 0.03)), 0.028, (170, 110, 60))
        brush.line(((x - 0.04, 0.02), (x + 0.1, 0.02)), 0.026, (170, 110, 60))
    cock = traits.span(0.24, 0.4, 0.56)
    brush.area(
        (
            (-0.22, 0.42),
            (-0.62, cock - 0.06),
            (-0.6, cock + 0.06),
            (-0.15, 0.56),
        ),
        toned(coat, 0.7),
    )
    brush.blob(
        (
            (-0.32, 0.46),
            (-0.12, 0.64),
            (0.12, 0.74),
            (0.3, 0.62),
            (0.28, 0.4),
            (0.06, 0.22),
            (-0.2, 0.3),
        ),
        coat,
    )
    brush.blob(
        ((0.28, 0.62), (0.32, 0.48), (0.2, 0.3), (0.02, 0.24), (0.08, 0.42), (0.18, 0.58)), breast
    )
    dx, dy = traits.span(0.0, 0.04, 0.1), traits.span(-0.01, 0.04, -0.12)
    x, y = 0.22 + dx, 0.77 + dy
    brush.disc(x, y, 0.165, toned(coat, 1.08), 0.155)
    brush.area(
        (
            (x + 0.13, y + 0.05),
            (x + 0.34, y - 0.03),
            (x + 0.13, y - 0.06),
        ),
        bill,
    )
    brush.line(
        ((x + 0.13, y - 0.005), (x + 0.3, y - 0.025)),
        0.012,
        toned(bill, 0.5),
    )
    paint_eye(brush, x + 0.06, y + 0.035, 0.036)
    brush.blob(
        (
            (0.1, 0.62),
            (0.06, 0.44),
            (-0.2, 0.34),
            (-0.42, 0.4),
            (-0.2, 0.54),
        ),
        toned(coat, 0.72),
    )
    for step in (0.0, 0.07):
        brush.line(
            ((0.02, 0.5 - step), (-0.3, 0.42 - step * 0.6)),
            0.016,
            toned(coat, 0.5),
        )


def fox(brush: Brush, traits: Traits) -> None:
    """Paint a fox from the side: red coat, white bib, dark stockings, thick tail."""
    coat = traits.tint(traits.pick(FOX_COATS, FOX_COATS_UNSEEN))
    build = Build(0.3, 0.34, 0.2, (0.12, traits.span(0.08, 0.18, -0.1)), 0.11, 0.1, 0.06)
    fall = traits.span(0.14, 0.26, 0.46)
    brush.limb(
        ((-0.3, 0.44), (-0.5, 0.36), (-0.68, fall)),
        (0.08, 0.17, 0.12),
        toned(coat, 0.9),
    )
    brush.disc(-0.72, fall - 0.01, 0.07, CREAM, 0.05, turn=0.5)
    x, y = paint_side(brush, build, coat, CREAM, (48, 36, 34), traits.span(0.03, 0.1, 0.14))
    for dx in (-0.06, 0.05):
        paint_prick_ear(brush, x + dx, y + 0.07, 0.085, toned(coat, 0.75), lean=dx * 4)
    paint_muzzle(brush, build, (x, y), coat)
    brush.disc(x + 0.05, y - 0.07, 0.1, CREAM, 0.04, turn=-0.25)
    paint_eye(brush, x + 0.05, y + 0.02, 0.024)


KINDS: tuple[Kind, ...] = (
    Kind("cat", cat, (0.56, 0.7)),
    Kind("dog", dog, (0.58, 0.72)),
    Kind("deer", deer, (0.66, 0.82)),
    Kind("bird", bird, (0.5, 0.64)),
    Kind("fox", fox, (0.58, 0.7)),
)
