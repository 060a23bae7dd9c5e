"""The people of the default pictures, from head to foot: a visitor and an intruder.

A device's set-up runs it.
"""

from __future__ import annotations

from dataset.porch.brush import Brush, Colour, mirrored, toned
from dataset.porch.traits import Kind, Traits

SKINS: tuple[Colour, ...] = (
    (242, 208, 180),
    (222, 172, 132),
    (170, 118, 82),
    (112, 74, 52),
)
SKINS_UNSEEN: tuple[Colour, ...] = (
    (232, 190, 158),
    (198, 146, 106),
    (140, 94, 66),
    (88, 58, 44),
)
HAIRS: tuple[Colour, ...] = ((36, 28, 26), (94, 60, 36), (204, 166, 96))
HAIRS_UNSEEN: tuple[Colour, ...] = ((156, 74, 38), (178, 176, 172), (62, 46, 40))
CLOTHS: tuple[Colour, ...] = (
    (46, 74, 128),
    (150, 46, 48),
    (62, 66, 70),
    (70, 112, 74),
    (206, 200, 188),
)
CLOTHS_UNSEEN: tuple[Colour, ...] = (
    (112, 66, 124),
    (214, 150, 52),
    (42, 128, 134),
    (128, 98, 74),
)
BLACK: Colour = (30, 30, 34)


def _figure(brush: Brush, coat: Colour, trousers: Colour, skin: Colour, stride: float) -> None:
    """Paint legs, trunk and neck of a standing person one unit high."""
    brush.shadow(0.0, 0.3)
    for side in (-1, 1):
        foot = side * (0.07 + stride)
        brush.limb(
            ((side * 0.06, 0.46), (foot * 0.9, 0.24), (foot, 0.03)),
            (0.13, 0.1, 0.08),
            toned(trousers, 1 + side * 0.12),
        )
        brush.disc(foot + side * 0.02, 0.018, 0.06, (40, 34, 32), 0.026)
    brush.limb(((0.0, 0.86), (0.0, 0.78)), (0.08, 0.1), toned(skin, 0.8))
    brush.blob(
        mirrored(((0.05, 0.81), (0.15, 0.77), (0.16, 0.6), (0.13, 0.42), (0.05, 0.41))), coat
    )
    brush.line(((0.0, 0.78), (0.0, 0.43)), 0.012, toned(coat, 0.6))


def visitor(brush: Brush, traits: Traits) -> None:
    """Paint a harmless visitor with a parcel or a bag, the face in the open."""
    skin = traits.tint(traits.pick(SKINS, SKINS_UNSEEN))
    hair = traits.pick(HAIRS, HAIRS_UNSEEN)
    coat = traits.tint(traits.pick((*CLOTHS, BLACK), CLOTHS_UNSEEN))
    _figure(
        brush,
        coat,
        traits.pick(((58, 62, 88), (72, 64, 56)), ((98, 98, 104), (44, 52, 48))),
        skin,
        traits.span(0.0, 0.03, 0.07),
    )
    brush.disc(0.0, 0.91, 0.078, skin, 0.095)
    brush.blob(mirrored(((0.04, 1.02), (0.088, 0.95), (0.08, 0.9), (0.03, 0.965))), hair)
    for side in (-1, 1):
        brush.disc(side * 0.03, 0.915, 0.013, BLACK)
        brush.eyeshine(side * 0.03, 0.915, 0.009)
    brush.line(((-0.03, 0.865), (0.0, 0.858), (0.03, 0.865)), 0.012, (150, 70, 66))
    sleeve = toned(coat, 0.85)
    parcel = traits.pick(((190, 146, 96),), ((226, 220, 208), (150, 112, 78)))
    brush.box(-0.15, 0.5, 0.15, 0.68, parcel)
    brush.box(-0.025, 0.5, 0.025, 0.68, toned(parcel, 0.75))
    for side in (-1, 1):
        brush.limb(
            ((side * 0.15, 0.74), (side * 0.22, 0.58), (side * 0.13, 0.53)),
            (0.09, 0.08, 0.07),
            sleeve,
        )
        brush.disc(side * 0.12, 0.53, 0.034, skin)


def _mask(brush: Brush, skin: Colour, cover: Colour, style: str) -> None:
    brush.blob(
        mirrored(((0.05, 1.05), (0.115, 0.96), (0.1, 0.84), (0.05, 0.79))), toned(cover, 0.8)
    )
    brush.disc(0.0, 0.91, 0.082, toned(cover, 1.35), 0.1)
    if style == "slit":
        brush.disc(0.0, 0.925, 0.068, skin, 0.026)
    elif style == "holes":
        for x, y, r in ((-0.034, 0.925, 0.026), (0.034, 0.925, 0.026), (0.0, 0.862, 0.026)):
            brush.disc(x, y, r, skin, r * 0.8)
    else:
        brush.disc(0.0, 0.93, 0.076, skin, 0.045)
        brush.area(((-0.085, 0.905), (0.085, 0.905), (0.0, 0.79)), (150, 36, 36))
    for side in (-1, 1):
        brush.disc(side * 0.034, 0.925, 0.012, BLACK)
        brush.eyeshine(side * 0.034, 0.925, 0.011)


def _tool(brush: Brush, hand: tuple[float, float], style: str) -> None:
    x, y = hand
    if style == "crowbar":
        brush.line(
            (
                (x - 0.05, y - 0.14),
                (x + 0.08, y + 0.25),
                (x + 0.03, y + 0.32),
                (x - 0.03, y + 0.3),
            ),
            0.034,
            (168, 60, 46),
        )
    elif style == "bat":
        brush.limb(
            ((x - 0.03, y - 0.08), (x + 0.12, y + 0.36)),
            (0.03, 0.085),
            (176, 134, 84),
        )
    else:
        brush.line(
            ((x - 0.03, y - 0.08), (x + 0.07, y + 0.24)),
            0.032,
            (150, 108, 66),
        )
        brush.limb(
            ((x - 0.03, y + 0.28), (x + 0.17, y + 0.21)),
            (0.08, 0.08),
            (142, 146, 152),
        )


def intruder(brush: Brush, traits: Traits) -> None:
    """Paint a masked person who lifts a crowbar."""
    skin = traits.pick(SKINS, SKINS_UNSEEN)
    coat = traits.tint(
        traits.pick(
            ((40, 40, 46), (52, 58, 54)),
            ((58, 44, 40), (36, 44, 62)),
        )
    )
    _figure(brush, coat, toned(coat, 0.8), skin, traits.span(0.03, 0.07, 0.12))
    _mask(brush, skin, coat, traits.pick(("slit", "kerchief"), ("holes",)))
    hand = (0.3, traits.span(0.74, 0.84, 0.94))
    _tool(brush, hand, traits.pick(("crowbar", "crowbar", "bat"), ("hammer",)))
    brush.limb(((0.14, 0.74), (0.28, 0.62), hand), (0.1, 0.085, 0.075), toned(coat, 1.3))
    brush.limb(
        ((-0.14, 0.74), (-0.23, 0.58), (-0.2, 0.44)),
        (0.1, 0.085, 0.075),
        toned(coat, 1.2),
    )
    for x, y in (hand, (-0.2, 0.42)):
        brush.disc(x, y, 0.04, (22, 22, 24))


VISITOR = Kind("visitor", visitor, (0.72, 0.84), (0.92, 0.97), 0.12)
INTRUDER = Kind("intruder", intruder, (0.72, 0.84), (0.92, 0.97), 0.12)
