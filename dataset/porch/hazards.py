"""Flames and smoke, and the lights and mists that are mistaken for them.

A device's set-up runs it.
"""

from __future__ import annotations

import numpy as np

from dataset.porch.brush import Brush, Colour, toned
from dataset.porch.people import INTRUDER, VISITOR
from dataset.porch.traits import Kind, Traits

FLAME: tuple[Colour, ...] = (
    (206, 52, 12),
    (246, 122, 20),
    (255, 196, 54),
    (255, 246, 190),
)
FLAME_UNSEEN: tuple[Colour, ...] = (
    (226, 92, 10),
    (252, 152, 34),
    (255, 218, 92),
    (255, 252, 222),
)
METAL: Colour = (52, 56, 60)


def _tongue(
    brush: Brush, x: float, base: float, wide: float, high: float, lean: float, colour: Colour
) -> None:
    """Paint one tongue of flame: round below, a bent tip above."""
    outline = (
        (-0.5, 0.12),
        (-0.42, 0.36),
        (-0.2, 0.55),
        (-0.12 + lean * 0.5, 0.78),
        (lean, 1.0),
    )
    other = (
        (0.2 + lean * 0.5, 0.74),
        (0.28, 0.5),
        (0.48, 0.32),
        (0.46, 0.1),
        (0.0, -0.04),
    )
    brush.blob(
        [
            (
                x + wide * px,
                base + high * py,
            )
            for px, py in (*outline, *other)
        ],
        colour,
        glow=True,
    )


def _blaze(brush: Brush, traits: Traits, base: float, half: float, high: float) -> None:
    """Paint a fire as layers of tongues, the hot ones inside."""
    tongues = traits.pick((3, 4), (5, 6))
    spots = [
        (
            -half + 2 * half * (step + 0.5) / tongues,
            traits.vary(0.55, 1.0),
            traits.vary(-0.3, 0.3),
        )
        for step in range(tongues)
    ]
    spots[tongues // 2] = (
        spots[tongues // 2][0],
        1.1,
        spots[tongues // 2][2],
    )
    for depth, colour in enumerate(traits.pick((FLAME,), (FLAME_UNSEEN,))):
        shrink = 1.0 - 0.24 * depth
        for x, share, lean in spots:
            wide = 2.6 * half / tongues * shrink
            _tongue(
                brush,
                x * (1 - 0.08 * depth),
                base,
                wide,
                high * share * shrink * 0.94,
                lean,
                colour,
            )
    for _ in range(7):
        brush.disc(
            traits.vary(-half, half) * 1.2,
            base + high * traits.vary(0.9, 1.45),
            0.011,
            (255, 190, 80),
            glow=True,
        )


def _plume(
    brush: Brush, traits: Traits, base: float, colour: Colour, density: float, drift: float
) -> None:
    """Paint smoke that rises, widens and drifts."""
    for step in range(22):
        rise = step / 21
        x = drift * rise**1.4 + traits.vary(-0.12, 0.12) * (0.5 + rise)
        brush.puff(
            x,
            base + rise * 0.95,
            0.09 + 0.15 * rise,
            toned(colour, traits.vary(0.72, 1.25)),
            density * (1 - 0.2 * rise),
        )


def flames(brush: Brush, traits: Traits) -> None:
    """Paint a fire that burns on the porch floor among charred wood."""
    brush.shadow(0.0, 0.5, density=0.85)
    _plume(brush, traits, 0.5, (66, 62, 62), 0.5, traits.span(-0.25, 0.2, 0.45))
    for lean in (-0.3, 0.05, 0.34):
        brush.line(
            (
                (-0.32 + lean * 0.3, 0.0),
                (0.32 + lean * 0.3, 0.03 + abs(lean) * 0.35),
            ),
            0.075,
            (44, 32, 26),
        )
    _blaze(brush, traits, 0.02, traits.span(0.24, 0.32, 0.42), traits.span(0.6, 0.76, 0.9))


def burning_bin(brush: Brush, traits: Traits) -> None:
    """Paint a bin on fire (in the test split, a cardboard box on fire)."""
    brush.shadow(0.0, 0.36)
    _plume(brush, traits, 0.7, (52, 50, 52), 0.6, traits.span(-0.2, 0.2, 0.4))
    if traits.unseen:
        brush.box(-0.32, 0.0, 0.32, 0.34, (150, 112, 74))
        brush.box(-0.05, 0.0, 0.05, 0.34, (120, 88, 58))
        brush.area(
            ((-0.32, 0.34), (0.32, 0.34), (0.3, 0.22), (0.1, 0.28), (-0.1, 0.2), (-0.3, 0.27)),
            (36, 28, 24),
        )
        _blaze(brush, traits, 0.27, 0.26, traits.vary(0.5, 0.66))
        return
    side = traits.tint(traits.pick((METAL, (70, 92, 76)), (METAL,)))
    brush.area(((-0.2, 0.0), (0.2, 0.0), (0.26, 0.46), (-0.26, 0.46)), side)
    for x in (-0.13, 0.0, 0.13):
        brush.line(((x, 0.03), (x * 1.25, 0.42)), 0.02, toned(side, 0.7))
    brush.line(((-0.26, 0.46), (0.26, 0.46)), 0.06, toned(side, 1.3))
    _blaze(brush, traits, 0.44, 0.21, traits.vary(0.46, 0.6))


def smoke(brush: Brush, traits: Traits) -> None:
    """Paint thick smoke that wells up from the floor, with embers at its foot."""
    colour = traits.pick(((86, 84, 86), (60, 58, 60)), ((112, 98, 84), (42, 42, 46)))
    drift = traits.span(-0.2, 0.25, 0.5)
    brush.shadow(0.0, 0.45, density=0.8)
    for lean in (-0.25, 0.22):
        brush.line(
            (
                (-0.28 + lean * 0.4, 0.0),
                (0.28 + lean * 0.4, 0.04 + abs(lean) * 0.25),
            ),
            0.08,
            (40, 32, 28),
        )
    for _ in range(2):
        _plume(brush, traits, 0.08, colour, 0.96, drift)
    for _ in range(9):
        brush.disc(
            traits.vary(-0.26, 0.26), traits.vary(0.0, 0.07), 0.022, (250, 116, 30), glow=True
        )


def lamp(brush: Brush, traits: Traits) -> None:
    """Paint a lit lantern on a post (in the test split, a round globe lamp)."""
    light = traits.pick(((255, 206, 112), (255, 178, 74)), ((255, 234, 176), (250, 152, 60)))
    metal = traits.tint(traits.pick((METAL, (40, 44, 42)), ((106, 82, 50),)))
    brush.shadow(0.0, 0.25)
    brush.box(-0.035, 0.0, 0.035, 0.5, metal)
    brush.box(-0.13, 0.0, 0.13, 0.06, metal)
    brush.box(-0.14, 0.47, 0.14, 0.53, metal)
    if traits.unseen:
        brush.disc(0.0, 0.74, 0.24, toned(light, 0.86), glow=True)
        brush.disc(0.0, 0.74, 0.17, light, glow=True)
        return
    brush.area(
        ((-0.14, 0.53), (0.14, 0.53), (0.2, 0.88), (-0.2, 0.88)), toned(light, 0.8), glow=True
    )
    brush.disc(0.0, 0.69, 0.085, (255, 246, 214), 0.13, glow=True)
    brush.area(((-0.27, 0.88), (0.27, 0.88), (0.08, 1.03), (-0.08, 1.03)), metal)
    brush.disc(0.0, 1.05, 0.035, metal)
    for x, top in ((-0.14, -0.2), (0.0, 0.0), (0.14, 0.2)):
        brush.line(((x, 0.53), (top, 0.88)), 0.024, metal, glow=True)


def sunset(brush: Brush, traits: Traits) -> None:
    """Paint the sun as it sinks behind a dark hedge under a red sky."""
    sky = traits.pick(((238, 110, 40), (226, 84, 46)), ((232, 96, 96), (244, 158, 62)))
    for layer in range(6):
        glow = toned(sky, 0.66 + 0.09 * layer)
        brush.puff(0.0, 0.06, 1.1 - 0.17 * layer, glow, 0.5 + 0.07 * layer, floor=0.04)
    x = traits.span(-0.15, 0.1, 0.3)
    for y in (0.34, 0.46, 0.56):
        brush.disc(x + traits.vary(-0.3, 0.3), y, 0.34, (196, 92, 84), 0.018, glow=True)
    high = traits.span(0.06, 0.14, 0.24)
    brush.disc(x, high, 0.2, (255, 172, 62), glow=True)
    brush.disc(x, high, 0.16, (255, 226, 140), glow=True)
    hedge = traits.pick(((30, 30, 32), (36, 32, 26)), ((44, 30, 38),))
    brush.box(-1.2, -0.14, 1.2, 0.0, hedge, glow=True)
    for step in range(25):
        brush.disc(-1.2 + step * 0.1, 0.0, traits.vary(0.05, 0.1), hedge, glow=True)


def string_lights(brush: Brush, traits: Traits) -> None:
    """Paint chains of little lamps between two posts."""
    warm = ((255, 214, 130), (255, 190, 90))
    many = ((255, 90, 70), (110, 220, 120), (110, 160, 255), (255, 214, 110))
    bulbs = traits.pick((warm, warm[:1]), (many,))
    sag = traits.span(0.1, 0.2, 0.3)
    for x in (-0.62, 0.62):
        brush.box(x - 0.03, 0.0, x + 0.03, 1.0, (70, 54, 42))
    for row, top in enumerate((0.96, 0.72, 0.48)):
        xs = np.linspace(-0.62, 0.62, 11)
        chain = [
            (
                float(x),
                top - sag * (1 - (float(x) / 0.62) ** 2),
            )
            for x in xs
        ]
        brush.line(chain, 0.014, (30, 30, 30))
        for step, (x, y) in enumerate(chain[1:-1]):
            brush.disc(
                x,
                y - 0.03,
                0.032,
                bulbs[(step + row) % len(bulbs)],
                0.042,
                glow=True,
            )


def fog(brush: Brush, traits: Traits) -> None:
    """Paint pale mist that lies over garden and street in level banks."""
    pale = traits.pick(((206, 210, 214), (190, 196, 202)), ((216, 208, 200), (172, 178, 184)))
    thickness = 0.6 if brush.night else 1.0
    for step in range(30):
        x, y = traits.vary(-0.7, 0.7), 0.85 - 0.8 * step / 30
        density = (
            0.45
            + 0.45 * float(np.sin(np.pi * step / 30))
            + traits.vary(
                -0.1,
                0.1,
            )
        )
        brush.puff(
            x,
            y,
            traits.vary(0.3, 0.5),
            toned(pale, traits.vary(0.94, 1.06)),
            density * thickness,
            squash=0.28,
        )


UNSAFE: tuple[Kind, ...] = (
    Kind("flames", flames, (0.66, 0.84)),
    Kind("smoke", smoke, (0.74, 0.9)),
    INTRUDER,
    Kind("burning bin", burning_bin, (0.66, 0.8)),
)
SAFE: tuple[Kind, ...] = (
    Kind("lamp", lamp, (0.6, 0.76)),
    Kind("fog", fog, (0.8, 1.0), (0.85, 0.95)),
    VISITOR,
    Kind("sunset", sunset, (0.6, 0.8), (0.5, 0.56), 0.1, at_night=False),
    Kind("string lights", string_lights, (0.66, 0.78), (0.9, 0.96)),
)
