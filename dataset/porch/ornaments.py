"""What is mistaken for a face: statues, pumpkins, wreaths and clocks.

A device's set-up runs it.
"""

from __future__ import annotations

import numpy as np

from dataset.porch.brush import Brush, Colour, mirrored, toned
from dataset.porch.faces import HEAD, TURNED_AWAY
from dataset.porch.traits import Kind, Traits

STONES: tuple[Colour, ...] = ((176, 172, 162), (148, 150, 148))
STONES_UNSEEN: tuple[Colour, ...] = ((206, 194, 172), (118, 122, 116))
LEAVES: tuple[Colour, ...] = ((58, 104, 54), (76, 122, 58))
LEAVES_UNSEEN: tuple[Colour, ...] = ((44, 84, 66), (112, 136, 62))
WOOD: Colour = (132, 94, 62)
INK: Colour = (34, 30, 30)


def statue(brush: Brush, traits: Traits) -> None:
    """Paint a stone bust on a plinth, its eyes blank."""
    stone = traits.tint(traits.pick(STONES, STONES_UNSEEN))
    dark = toned(stone, 0.66)
    yaw = traits.span(-0.03, 0.03, 0.065)
    brush.box(-0.26, -0.3, 0.26, 0.06, toned(stone, 0.8))
    brush.box(-0.32, 0.04, 0.32, 0.1, toned(stone, 1.08))
    brush.blob(
        mirrored(((0.1, 0.34), (0.28, 0.24), (0.3, 0.14), (0.12, 0.1))),
        toned(stone, 0.94),
    )
    brush.limb(((0.0, 0.4), (0.0, 0.26)), (0.17, 0.2), dark)
    brush.blob(mirrored(HEAD), stone)
    for x in (-0.18, -0.12, -0.06, 0.0, 0.06, 0.12, 0.18):
        brush.disc(
            x,
            0.78 - x * x * 2.4,
            0.055,
            toned(stone, 0.86 + (x * 50 % 2) * 0.06),
        )
    for side in (-1, 1):
        x = yaw + side * 0.085
        brush.disc(x, 0.58, 0.052, dark, 0.034)
        brush.disc(x, 0.575, 0.038, toned(stone, 1.08), 0.024)
        brush.line(((x - 0.055, 0.625), (x + 0.055, 0.63)), 0.02, dark)
    brush.area(
        (
            (yaw - 0.02, 0.6),
            (yaw + 0.02, 0.6),
            (yaw + 0.045, 0.47),
            (yaw - 0.045, 0.47),
        ),
        toned(stone, 1.1),
    )
    brush.line(((yaw - 0.045, 0.465), (yaw + 0.045, 0.465)), 0.02, dark)
    brush.line(((yaw - 0.06, 0.395), (yaw + 0.06, 0.395)), 0.022, dark)
    brush.line(((0.1, 0.72), (0.14, 0.62), (0.11, 0.56), (0.15, 0.46)), 0.01, toned(stone, 0.5))


def pumpkin(brush: Brush, traits: Traits) -> None:
    """Paint a pumpkin, often with a face cut into it and a candle behind it."""
    skin = traits.tint(
        traits.pick(((222, 122, 36), (204, 104, 30)), ((232, 160, 66), (178, 92, 44)))
    )
    wide = traits.span(0.34, 0.4, 0.43)
    brush.shadow(0.0, 0.45)
    for share, tone in ((1.0, 0.74), (0.74, 0.86), (0.42, 0.98), (0.0, 1.08)):
        for side in (-1, 1):
            brush.disc(
                side * wide * share * 0.62,
                0.32,
                wide * 0.45,
                toned(skin, tone),
                0.31 + 0.02 * (1 - share),
            )
    brush.curve((0.0, 0.6), (0.0, 0.72), (0.1, 0.76), 0.07, (86, 102, 52))
    if traits.chance(0.75):
        _cut_face(
            brush, (252, 206, 92) if traits.chance(0.5) else (46, 24, 14), traits.pick((3, 4), (5,))
        )


def _cut_face(brush: Brush, light: Colour, teeth: int) -> None:
    glow = light[0] > 200
    for side in (-1, 1):
        brush.area(
            ((side * 0.2, 0.37), (side * 0.06, 0.37), (side * 0.13, 0.49)),
            light,
            glow=glow,
        )
    brush.area(((-0.035, 0.29), (0.035, 0.29), (0.0, 0.35)), light, glow=glow)
    xs = np.linspace(-0.24, 0.24, 2 * teeth + 1)
    upper = [
        (float(x), 0.2 + 0.9 * float(x) ** 2 + (0.05 if step % 2 else 0.0))
        for step, x in enumerate(xs)
    ]
    lower = [(float(x), 0.11 + 1.9 * float(x) ** 2) for x in xs]
    brush.area((*upper, *reversed(lower)), light, glow=glow)


def _post(brush: Brush, traits: Traits) -> None:
    wood = traits.tint(WOOD)
    brush.shadow(0.0, 0.2)
    brush.box(-0.055, -0.1, 0.055, 0.98, wood)
    brush.line(((0.02, 0.0), (0.02, 0.95)), 0.012, toned(wood, 0.7))
    brush.area(((-0.09, 0.97), (0.09, 0.97), (0.0, 1.04)), toned(wood, 0.8))


def wreath(brush: Brush, traits: Traits) -> None:
    """Paint a round wreath with berries and a bow, on a post."""
    leaf = traits.pick(LEAVES, LEAVES_UNSEEN)
    berry = traits.pick(((196, 38, 42),), ((236, 196, 84), (226, 226, 232)))
    bow = traits.pick(((188, 34, 44),), ((60, 82, 150),))
    _post(brush, traits)
    for step in range(26):
        angle = step * 2 * np.pi / 26
        reach = 0.235 + 0.04 * (step % 3 - 1)
        x, y = reach * float(np.cos(angle)), 0.56 + reach * float(np.sin(angle))
        brush.disc(
            x,
            y,
            0.085,
            toned(leaf, traits.vary(0.7, 1.35)),
            0.04,
            turn=angle + traits.vary(0.5, 2.4),
        )
    for step in range(9):
        angle = step * 2 * np.pi / 9 + 0.3
        brush.disc(
            0.24 * float(np.cos(angle)),
            0.56 + 0.24 * float(np.sin(angle)),
            0.026,
            berry,
        )
    for side in (-1, 1):
        brush.area(
            ((0.0, 0.3), (side * 0.05, 0.08), (side * 0.13, 0.12)),
            toned(bow, 0.8),
        )
        brush.blob(
            ((0.0, 0.32), (side * 0.1, 0.4), (side * 0.17, 0.36), (side * 0.15, 0.26)),
            bow,
        )
    brush.disc(0.0, 0.32, 0.04, toned(bow, 0.75))


def clock(brush: Brush, traits: Traits) -> None:
    """Paint a round clock on a post."""
    rim = traits.pick(((52, 56, 60), (128, 92, 52)), ((44, 84, 72), (176, 150, 84)))
    face = traits.tint(traits.pick(((238, 232, 216), (224, 198, 164)), ((206, 216, 220),)))
    _post(brush, traits)
    brush.disc(0.0, 0.56, 0.32, rim)
    brush.disc(0.0, 0.56, 0.26, face)
    for hour in range(12):
        x, y = float(np.sin(hour * np.pi / 6)), float(np.cos(hour * np.pi / 6))
        inner = 0.19 if hour % 3 == 0 else 0.21
        brush.line(
            (
                (inner * x, 0.56 + inner * y),
                (0.235 * x, 0.56 + 0.235 * y),
            ),
            0.028 if hour % 3 == 0 else 0.016,
            INK,
        )
    for length, width in ((0.13, 0.032), (0.19, 0.022)):
        angle = traits.vary(0, 2 * np.pi)
        brush.line(
            (
                (0.0, 0.56),
                (
                    length * float(np.sin(angle)),
                    0.56 + length * float(np.cos(angle)),
                ),
            ),
            width,
            INK,
        )
    brush.disc(0.0, 0.56, 0.026, (180, 50, 40))


NOT_FACES: tuple[Kind, ...] = (
    Kind("statue", statue, (0.84, 0.98), (0.96, 1.0), 0.09),
    Kind("pumpkin", pumpkin, (0.78, 0.95), (0.92, 0.98), 0.09),
    TURNED_AWAY,
    Kind("wreath", wreath, (0.84, 0.96), (0.96, 1.0), 0.09),
    Kind("clock", clock, (0.84, 0.96), (0.96, 1.0), 0.09),
)
