"""What is mistaken for an animal: plush toys, garden gnomes, plants and rocking horses.

A device's set-up runs it.
"""

from __future__ import annotations

import numpy as np

from dataset.porch.brush import Brush, Colour, mirrored, toned
from dataset.porch.ornaments import INK, LEAVES, LEAVES_UNSEEN
from dataset.porch.traits import Kind, Traits

PLUSHES: tuple[Colour, ...] = ((178, 126, 76), (206, 168, 118), (150, 104, 72))
PLUSHES_UNSEEN: tuple[Colour, ...] = ((226, 170, 178), (150, 168, 190), (116, 84, 66))


def teddy(brush: Brush, traits: Traits) -> None:
    """Paint a plush bear (in the test split, often a plush rabbit) that sits."""
    plush = traits.tint(traits.pick(PLUSHES, PLUSHES_UNSEEN))
    pale = toned(plush, 1.32)
    ribbon = traits.pick(((186, 42, 52), (52, 84, 160)), ((86, 150, 92), (226, 186, 70)))
    brush.shadow(0.0, 0.45)
    for side in (-1, 1):
        if traits.unseen:
            brush.disc(side * 0.1, 0.98, 0.06, plush, 0.2, turn=-side * 0.15)
            brush.disc(side * 0.1, 0.98, 0.03, pale, 0.14, turn=-side * 0.15)
        else:
            brush.disc(side * 0.18, 0.9, 0.09, plush)
            brush.disc(side * 0.18, 0.9, 0.05, pale)
        brush.limb(
            ((side * 0.18, 0.5), (side * 0.34, traits.span(0.26, 0.36, 0.5))),
            (0.14, 0.13),
            toned(plush, 0.88),
        )
    brush.disc(0.0, 0.32, 0.24, plush, 0.29)
    brush.disc(0.0, 0.3, 0.15, pale, 0.19)
    for side in (-1, 1):
        brush.limb(
            ((side * 0.16, 0.12), (side * 0.33, 0.09)),
            (0.18, 0.19),
            toned(plush, 0.94),
        )
        brush.disc(side * 0.36, 0.1, 0.075, pale, 0.09)
    brush.disc(0.0, 0.74, 0.235, toned(plush, 1.05), 0.21)
    brush.disc(0.0, 0.67, 0.11, pale, 0.085)
    for side in (-1, 1):
        brush.disc(side * 0.09, 0.79, 0.026, INK)
        brush.disc(side * 0.09 + 0.008, 0.8, 0.009, (240, 240, 240))
        brush.blob(((0.0, 0.54), (side * 0.12, 0.6), (side * 0.13, 0.48)), ribbon)
    brush.disc(0.0, 0.7, 0.04, INK, 0.028)
    brush.line(
        ((-0.05, 0.635), (0.0, 0.65), (0.0, 0.69), (0.0, 0.65), (0.05, 0.635)),
        0.014,
        INK,
    )
    brush.line(((0.0, 0.5), (0.0, 0.14)), 0.01, toned(plush, 0.6))


def gnome(brush: Brush, traits: Traits) -> None:
    """Paint a garden gnome with a pointed hat and a white beard."""
    hat = traits.tint(
        traits.pick(
            ((196, 44, 40), (170, 36, 50)),
            ((58, 110, 70), (196, 120, 40)),
        )
    )
    coat = traits.tint(
        traits.pick(((52, 84, 150), (60, 110, 72)), ((128, 62, 110), (150, 120, 60)))
    )
    brush.shadow(0.0, 0.32)
    for side in (-1, 1):
        brush.disc(side * 0.11, 0.05, 0.12, (66, 46, 34), 0.055)
    brush.blob(mirrored(((0.12, 0.52), (0.21, 0.36), (0.22, 0.12), (0.1, 0.06))), coat)
    brush.line(((-0.2, 0.2), (0.2, 0.2)), 0.05, INK)
    for side in (-1, 1):
        brush.limb(
            ((side * 0.18, 0.44), (side * 0.26, 0.26)),
            (0.11, 0.09),
            toned(coat, 0.8),
        )
        brush.disc(side * 0.26, 0.24, 0.045, (226, 176, 142))
    brush.disc(0.0, 0.58, 0.15, (228, 176, 142), 0.12)
    brush.blob(mirrored(((0.05, 0.55), (0.155, 0.56), (0.13, 0.36), (0.03, 0.24))), (238, 236, 230))
    brush.disc(0.0, 0.56, 0.045, (214, 130, 108))
    for side in (-1, 1):
        brush.disc(side * 0.065, 0.61, 0.016, INK)
    bend = traits.span(-0.05, 0.05, 0.14)
    brush.blob(
        (
            (-0.19, 0.64),
            (-0.1, 0.84),
            (bend, 1.06),
            (0.1, 0.84),
            (0.19, 0.64),
            (0.0, 0.67),
        ),
        hat,
    )


def plant_pot(brush: Brush, traits: Traits) -> None:
    """Paint a leafy plant in a pot."""
    clay = traits.tint(
        traits.pick(((178, 98, 62), (96, 102, 112)), ((216, 208, 192), (70, 90, 130)))
    )
    leaf = traits.pick(LEAVES, LEAVES_UNSEEN)
    spread = traits.span(0.26, 0.34, 0.44)
    brush.shadow(0.0, 0.36)
    for step in range(17):
        angle = np.pi * (0.04 + 0.92 * ((step * 7) % 17) / 16)
        x, y = (
            spread * float(np.cos(angle)) * 1.15,
            0.46 + 0.46 * float(np.sin(angle)) * traits.vary(0.7, 1.1),
        )
        brush.curve(
            (0.0, 0.36),
            (x * 0.3, y * 0.8),
            (x, y),
            0.03,
            toned(leaf, 0.7),
        )
        brush.disc(x, y, 0.12, toned(leaf, traits.vary(0.75, 1.3)), 0.055, turn=angle)
    if traits.chance(0.5):
        bloom = traits.pick(((206, 62, 84), (236, 196, 70)), ((150, 90, 180), (236, 236, 240)))
        for _ in range(6):
            brush.disc(traits.vary(-0.26, 0.26), traits.vary(0.62, 0.92), 0.05, bloom)
    brush.area(((-0.16, 0.0), (0.16, 0.0), (0.23, 0.36), (-0.23, 0.36)), clay)
    brush.box(-0.26, 0.34, 0.26, 0.43, toned(clay, 1.12))


def rocking_horse(brush: Brush, traits: Traits) -> None:
    """Paint a wooden rocking horse from the side."""
    wood = traits.tint(
        traits.pick(((176, 122, 72), (150, 96, 58)), ((216, 206, 190), (104, 112, 128)))
    )
    rocker = traits.tint(
        traits.pick(((168, 44, 44), (50, 80, 140)), ((70, 120, 84), (210, 160, 60)))
    )
    brush.shadow(0.0, 0.5)
    brush.curve((-0.52, 0.2), (0.0, -0.14), (0.52, 0.2), 0.06, rocker)
    for x, lean in ((-0.24, -0.1), (0.22, 0.1)):
        brush.line(((x, 0.46), (x + lean, 0.1)), 0.075, toned(wood, 0.85))
    brush.box(-0.3, 0.4, 0.28, 0.6, wood)
    rise = traits.span(0.9, 0.96, 1.04)
    brush.area(((0.12, 0.58), (0.28, 0.44), (0.46, rise - 0.1), (0.3, rise)), wood)
    brush.area(
        (
            (0.3, rise),
            (0.44, rise),
            (0.62, rise - 0.2),
            (0.54, rise - 0.27),
            (0.4, rise - 0.18),
        ),
        toned(wood, 1.08),
    )
    brush.area(
        ((0.3, rise - 0.02), (0.36, rise + 0.08), (0.4, rise - 0.02)),
        wood,
    )
    for step in range(5):
        brush.disc(
            0.14 + step * 0.04,
            0.62 + step * (rise - 0.64) / 4,
            0.06,
            (232, 220, 186),
        )
    brush.curve((-0.3, 0.56), (-0.46, 0.56), (-0.44, 0.32), 0.07, (232, 220, 186))
    brush.box(-0.14, 0.56, 0.1, 0.66, rocker)
    brush.line(((-0.02, 0.6), (-0.02, 0.34)), 0.03, toned(rocker, 0.7))
    brush.line(((0.34, rise - 0.16), (0.46, rise - 0.18)), 0.04, rocker)
    brush.disc(0.43, rise - 0.07, 0.024, INK)


def empty_porch(brush: Brush, traits: Traits) -> None:
    """Paint a doormat and nothing else."""
    mat = traits.tint(
        traits.pick(
            ((118, 88, 58), (88, 90, 92)),
            ((92, 104, 72), (128, 70, 60)),
        )
    )
    brush.area(((-0.42, 0.0), (0.42, 0.0), (0.34, 0.22), (-0.34, 0.22)), mat)
    brush.line(
        ((-0.36, 0.03), (0.36, 0.03), (0.3, 0.19), (-0.3, 0.19), (-0.36, 0.03)),
        0.025,
        toned(mat, 0.65),
    )


NOT_ANIMALS: tuple[Kind, ...] = (
    Kind("plush toy", teddy, (0.56, 0.68)),
    Kind("plant pot", plant_pot, (0.58, 0.72)),
    Kind("toy horse", rocking_horse, (0.6, 0.7)),
    Kind("gnome", gnome, (0.62, 0.74)),
    Kind("empty porch", empty_porch, (0.6, 0.8)),
)
