"""The vehicles of the default pictures, noteworthy and ordinary. A device's set-up runs it.

One unit is about the length of a vehicle, which is seen from the side and looks to the right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataset.porch.brush import Brush, Colour, Kind, Traits, toned

GLASS: Colour = (58, 74, 88)
TYRE: Colour = (30, 30, 32)
CHROME: Colour = (186, 190, 194)
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
_RING = tuple((float(np.cos(turn)), float(np.sin(turn))) for turn in np.linspace(0, 2 * np.pi, 13))


def _wheels(brush: Brush, places: tuple[float, ...], radius: float) -> None:
    for x in places:
        brush.disc(x, radius, radius * 1.18, (22, 22, 24))
        brush.disc(x, radius, radius, TYRE)
        brush.disc(x, radius, radius * 0.56, CHROME)
        brush.disc(x, radius, radius * 0.2, (70, 72, 76))


def _lights(brush: Brush, front: float, back: float, y: float) -> None:
    """Paint head lamp and tail lamp; at night they are lit."""
    brush.disc(front, y, 0.022, (250, 240, 200), 0.024, glow=brush.night)
    brush.disc(back, y, 0.014, (200, 30, 30), 0.026, glow=brush.night)


def _beacon(
    brush: Brush, x: float, y: float, traits: Traits, second: Colour = (40, 90, 255)
) -> None:
    """Paint the two lamps of a light bar, one of them flashing."""
    brush.box(x - 0.06, y - 0.005, x + 0.06, y + 0.012, (40, 42, 46))
    flash = traits.chance(0.5)
    for left, colour, lit in ((x - 0.058, (50, 110, 255), flash), (x + 0.008, second, not flash)):
        shown = toned(colour, 1.1) if lit else toned(colour, 0.75)
        brush.box(left, y + 0.01, left + 0.05, y + 0.05, shown, glow=lit)


def _checks(
    brush: Brush, left: float, right: float, y: float, height: float, colours: tuple[Colour, Colour]
) -> None:
    step = height
    count = int((right - left) / step)
    for row in range(2):
        for column in range(count):
            low, x = y + row * step / 2, left + column * step
            brush.box(x, low, x + step, low + step / 2, colours[(row + column) % 2])
            if (row + column) % 2 and column % 2:
                brush.reflector(x, low, x + step * 0.6, low + step * 0.4)


def _cab(brush: Brush, paint: Colour, left: float, top: float, slope: float) -> None:
    """Paint the driver's cab of a van or truck: nose, windscreen, side window, door."""
    nose = ((left, 0.08), (0.5, 0.08), (0.5, 0.22), (0.47, 0.25), (0.47 - slope, top), (left, top))
    brush.area(nose, paint)
    brush.area(
        ((left + 0.03, 0.25), (0.44, 0.25), (0.445 - slope, top - 0.03), (left + 0.03, top - 0.03)),
        GLASS,
    )
    brush.line(((left + 0.02, 0.09), (left + 0.02, top - 0.02)), 0.008, toned(paint, 0.6))
    brush.line(((left + 0.04, 0.21), (left + 0.08, 0.21)), 0.012, toned(paint, 0.5))


def fire_engine(brush: Brush, traits: Traits) -> None:
    """Paint a fire engine: red, lockers, ladder on the roof, blue lights."""
    red = traits.tint(traits.pick(((196, 26, 26), (176, 24, 30)), ((222, 62, 24), (160, 26, 44))))
    stripe = traits.pick(((240, 226, 120), (240, 240, 236)), ((200, 240, 70),))
    top = traits.span(0.4, 0.43, 0.47)
    brush.shadow(0.0, 0.56, depth=0.1)
    brush.box(-0.52, 0.08, 0.26, top, red)
    _cab(brush, toned(red, 1.06), 0.22, top, 0.03)
    for x in (-0.48, -0.3, -0.12, 0.06):
        brush.box(x, 0.19, x + 0.15, top - 0.05, CHROME)
        for y in (0.22, 0.25, 0.28, 0.31):
            brush.line(((x + 0.01, y), (x + 0.14, y)), 0.006, (130, 134, 140))
    brush.box(-0.52, 0.125, 0.49, 0.165, stripe)
    brush.reflector(-0.5, 0.13, 0.2, 0.155)
    for y in (top + 0.035, top + 0.085):
        brush.line(((-0.54, y), (0.2, y + 0.01)), 0.016, (222, 222, 218))
    for step in range(9):
        brush.line(
            ((-0.5 + 0.08 * step, top + 0.035), (-0.5 + 0.08 * step, top + 0.09)),
            0.011,
            (222, 222, 218),
        )
    _beacon(brush, 0.35, top, traits)
    _lights(brush, 0.485, -0.51, 0.15)
    _wheels(brush, traits.pick(((-0.3, 0.34),), ((-0.38, -0.22, 0.34),)), 0.085)


def ambulance(brush: Brush, traits: Traits) -> None:
    """Paint an ambulance: a white box with a cross, a chequered band and blue lights."""
    white = traits.tint(traits.pick(((236, 236, 232),), ((238, 214, 92),)))
    band = traits.pick(
        (((236, 210, 40), (36, 130, 70)), ((206, 36, 36), white)), (((230, 110, 30), white),)
    )
    top = traits.span(0.42, 0.46, 0.5)
    brush.shadow(0.0, 0.54, depth=0.1)
    brush.box(-0.5, 0.08, 0.22, top, white)
    _cab(brush, toned(white, 0.97), 0.2, 0.38, 0.09)
    _checks(brush, -0.49, 0.2, 0.13, 0.075, band)
    cross, x, y = (204, 32, 36), -0.16, 0.32
    brush.box(x - 0.08, y - 0.026, x + 0.08, y + 0.026, cross)
    brush.box(x - 0.026, y - 0.08, x + 0.026, y + 0.08, cross)
    brush.box(-0.44, 0.28, -0.3, 0.39, GLASS)
    brush.line(((0.03, 0.1), (0.03, top - 0.02)), 0.008, (150, 152, 154))
    _beacon(brush, 0.13, top, traits)
    _beacon(brush, -0.42, top, traits)
    _lights(brush, 0.485, -0.49, 0.17)
    _wheels(brush, (-0.3, 0.33), 0.08)


def courier_van(brush: Brush, traits: Traits) -> None:
    """Paint a courier's van: a long closed box in the firm's colours with a parcel drawn on it."""
    colours = (
        ((92, 58, 34), (236, 178, 40)),
        ((236, 188, 30), (190, 30, 36)),
        ((240, 240, 238), (86, 44, 132)),
    )
    unseen = (
        ((22, 92, 152), (240, 240, 240)),
        ((226, 106, 26), (40, 44, 52)),
        ((48, 120, 84), (244, 222, 120)),
    )
    paint, mark = traits.pick(colours, unseen)
    paint, top = traits.tint(paint), traits.span(0.42, 0.46, 0.5)
    brush.shadow(0.0, 0.54, depth=0.1)
    brush.blob(
        (
            (-0.5, 0.08),
            (-0.51, 0.25),
            (-0.49, top),
            (-0.1, top + 0.015),
            (0.22, top),
            (0.3, 0.3),
            (0.28, 0.08),
            (0, 0.08),
        ),
        paint,
    )
    _cab(brush, paint, 0.2, top - 0.04, 0.12)
    brush.area(((-0.5, 0.13), (0.2, 0.13), (0.12, 0.18), (-0.5, 0.18)), mark)
    x, y = -0.17, 0.3
    brush.area(
        ((x - 0.1, y - 0.08), (x + 0.06, y - 0.08), (x + 0.06, y + 0.05), (x - 0.1, y + 0.05)), mark
    )
    brush.area(
        ((x - 0.1, y + 0.05), (x + 0.06, y + 0.05), (x + 0.1, y + 0.085), (x - 0.06, y + 0.085)),
        toned(mark, 1.2),
    )
    brush.area(
        ((x + 0.06, y - 0.08), (x + 0.1, y - 0.045), (x + 0.1, y + 0.085), (x + 0.06, y + 0.05)),
        toned(mark, 0.7),
    )
    brush.line(((x - 0.02, y - 0.08), (x - 0.02, y + 0.05), (x + 0.02, y + 0.085)), 0.016, paint)
    brush.line(((0.06, 0.1), (0.06, top - 0.03)), 0.008, toned(paint, 0.6))
    brush.line(((-0.5, 0.22), (-0.4, 0.22)), 0.01, toned(paint, 0.6))
    _lights(brush, 0.485, -0.5, 0.18)
    _wheels(brush, (-0.32, 0.32), 0.08)


def _saloon(brush: Brush, paint: Colour, roof: float, tail: float) -> None:
    """Paint the shell of a car with a roof of this height and a boot that ends in this height."""
    brush.shadow(0.0, 0.54, depth=0.1)
    cabin = (
        (-0.34 - (tail - 0.2), 0.2),
        (-0.22 - (tail - 0.2) * 1.5, roof - 0.01),
        (0.05, roof + 0.005),
        (0.25, 0.2),
    )
    brush.area(cabin, paint)
    lower = (
        (-0.5, 0.1),
        (-0.51, 0.17),
        (-0.46, tail),
        (-0.2, 0.22),
        (0.2, 0.215),
        (0.42, 0.185),
        (0.51, 0.14),
        (0.5, 0.07),
    )
    brush.blob((*lower, (0.0, 0.06), (-0.45, 0.06)), paint)
    back = -0.2 - (tail - 0.2) * 1.4
    brush.area(
        ((back - 0.08, 0.215), (back, roof - 0.03), (-0.06, roof - 0.022), (-0.06, 0.215)), GLASS
    )
    brush.area(
        ((-0.035, 0.215), (-0.035, roof - 0.022), (0.04, roof - 0.025), (0.19, 0.215)), GLASS
    )
    brush.area(
        (
            (back - 0.02, 0.24),
            (back + 0.02, roof - 0.05),
            (back + 0.06, roof - 0.05),
            (back + 0.02, 0.24),
        ),
        (112, 132, 148),
    )
    for x in (-0.26, -0.05, 0.19):
        brush.line(((x, 0.09), (x, 0.21)), 0.006, toned(paint, 0.6))
    for x in (-0.15, 0.08):
        brush.line(((x, 0.18), (x + 0.035, 0.18)), 0.011, toned(paint, 0.55))
    brush.line(((-0.48, 0.085), (0.48, 0.085)), 0.016, toned(paint, 0.5))
    _lights(brush, 0.48, -0.49, 0.155)
    _wheels(brush, (-0.31, 0.32), 0.078)


def police_car(brush: Brush, traits: Traits) -> None:
    """Paint a police car: a light bar on the roof and a chequered or two-tone side."""
    roof = traits.span(0.33, 0.36, 0.4)
    if traits.pick((False,), (True,)):
        _saloon(brush, (34, 34, 38), roof, 0.21)
        brush.area(((-0.25, 0.09), (0.19, 0.09), (0.19, 0.215), (-0.25, 0.215)), (238, 238, 236))
        brush.disc(-0.03, 0.15, 0.035, (206, 170, 60))
    else:
        _saloon(brush, (236, 236, 234), roof, 0.21)
        _checks(brush, -0.42, 0.42, 0.115, 0.07, ((236, 214, 30), (28, 70, 160)))
    _beacon(brush, -0.06, roof, traits, second=(255, 50, 50))


def saloon(brush: Brush, traits: Traits) -> None:
    """Paint an ordinary car with a boot."""
    _saloon(
        brush, traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN)), traits.span(0.33, 0.37, 0.41), 0.21
    )


def hatchback(brush: Brush, traits: Traits) -> None:
    """Paint a small ordinary car without a boot, sometimes with a roof box."""
    roof = traits.span(0.36, 0.4, 0.44)
    _saloon(
        brush, traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN)), roof, traits.span(0.26, 0.28, 0.3)
    )
    if traits.chance(0.25):
        brush.blob(
            ((-0.26, roof + 0.01), (-0.26, roof + 0.06), (0.02, roof + 0.07), (0.06, roof + 0.01)),
            (50, 52, 56),
        )


def pickup(brush: Brush, traits: Traits) -> None:
    """Paint a pick-up truck with an open bed."""
    paint, top = traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN)), traits.span(0.38, 0.42, 0.46)
    brush.shadow(0.0, 0.54, depth=0.1)
    brush.area(((-0.12, 0.1), (0.26, 0.1), (0.26, 0.25), (0.12, top), (-0.1, top)), paint)
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
    brush.area(((-0.09, 0.26), (0.22, 0.26), (0.11, top - 0.03), (-0.085, top - 0.03)), GLASS)
    brush.line(((0.04, 0.1), (0.04, top - 0.03)), 0.012, toned(paint, 0.7))
    brush.line(((-0.5, 0.26), (-0.14, 0.265)), 0.022, toned(paint, 0.55))
    if traits.chance(0.4):
        for x in (-0.42, -0.3, -0.2):
            brush.disc(x, 0.29, 0.07, (92, 112, 58), 0.05)
    _lights(brush, 0.48, -0.5, 0.18)
    _wheels(brush, (-0.32, 0.32), 0.09)


def bicycle(brush: Brush, traits: Traits) -> None:
    """Paint a bicycle at the kerb, often with its rider."""
    frame = traits.tint(traits.pick(PAINTS, PAINTS_UNSEEN))
    brush.shadow(0.0, 0.4, depth=0.1)
    for x in (-0.25, 0.25):
        ring = [(x + 0.15 * dx, 0.16 + 0.15 * dy) for dx, dy in _RING]
        brush.line(ring, 0.024, TYRE)
        for dx, dy in _RING[:-1:2]:
            brush.line(((x, 0.16), (x + 0.14 * dx, 0.16 + 0.14 * dy)), 0.005, CHROME)
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
        brush.limb(((-0.1, 0.46), (0.03, 0.36), (-0.03, 0.14)), (0.09, 0.075, 0.05), (58, 62, 84))
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
                ((x - 0.07, 0.0), (x + 0.07, 0.0), (x + 0.015, 0.2), (x - 0.015, 0.2)),
                (232, 98, 30),
            )
            brush.area(
                ((x - 0.045, 0.08), (x + 0.045, 0.08), (x + 0.03, 0.13), (x - 0.03, 0.13)),
                (238, 238, 236),
            )


def _kind(
    name: str, paint: Callable[[Brush, Traits], None], least: float = 0.72, most: float = 0.86
) -> Kind:
    return Kind(name, paint, (least, most), (0.74, 0.8), 0.06)


NOTEWORTHY: tuple[Kind, ...] = (
    _kind("fire engine", fire_engine),
    _kind("ambulance", ambulance),
    _kind("courier van", courier_van),
    _kind("police car", police_car, 0.78, 0.9),
)
ORDINARY: tuple[Kind, ...] = (
    _kind("saloon", saloon, 0.78, 0.9),
    _kind("bicycle", bicycle, 0.6, 0.75),
    _kind("hatchback", hatchback, 0.78, 0.9),
    _kind("empty street", empty_street, 0.8, 1.0),
    _kind("pick-up", pickup, 0.78, 0.9),
)
