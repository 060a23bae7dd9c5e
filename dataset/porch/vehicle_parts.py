"""The parts that several vehicles share: wheels, lamps, light bar, chequered band, cab and shell.

A device's set-up runs it. One unit is about the length of a vehicle, which is seen from the side
and looks to the right.
"""

from __future__ import annotations

from collections.abc import Callable

from dataset.porch.brush import Brush, Colour, toned
from dataset.porch.traits import Kind, Traits

GLASS: Colour = (58, 74, 88)
TYRE: Colour = (30, 30, 32)
CHROME: Colour = (186, 190, 194)


def paint_wheels(brush: Brush, places: tuple[float, ...], radius: float) -> None:
    """Paint wheels of this radius that stand on the ground at these places."""
    for x in places:
        brush.disc(x, radius, radius * 1.18, (22, 22, 24))
        brush.disc(x, radius, radius, TYRE)
        brush.disc(x, radius, radius * 0.56, CHROME)
        brush.disc(x, radius, radius * 0.2, (70, 72, 76))


def paint_lamps(brush: Brush, front: float, back: float, y: float) -> None:
    """Paint head lamp and tail lamp; at night they are lit."""
    brush.disc(front, y, 0.022, (250, 240, 200), 0.024, glow=brush.night)
    brush.disc(back, y, 0.014, (200, 30, 30), 0.026, glow=brush.night)


def paint_light_bar(
    brush: Brush, x: float, y: float, traits: Traits, second: Colour = (40, 90, 255)
) -> None:
    """Paint the two lamps of a light bar, one of them flashing."""
    brush.box(x - 0.06, y - 0.005, x + 0.06, y + 0.012, (40, 42, 46))
    flash = traits.chance(0.5)
    for left, colour, lit in (
        (x - 0.058, (50, 110, 255), flash),
        (x + 0.008, second, not flash),
    ):
        shown = toned(colour, 1.1) if lit else toned(colour, 0.75)
        brush.box(left, y + 0.01, left + 0.05, y + 0.05, shown, glow=lit)


def paint_chequers(
    brush: Brush, left: float, right: float, y: float, height: float, colours: tuple[Colour, Colour]
) -> None:
    """Paint two rows of a chequered band; some of its fields reflect at night."""
    step = height
    count = int((right - left) / step)
    for row in range(2):
        for column in range(count):
            low = y + row * step / 2
            x = left + column * step
            brush.box(
                x,
                low,
                x + step,
                low + step / 2,
                colours[(row + column) % 2],
            )
            if (row + column) % 2 and column % 2:
                brush.reflector(x, low, x + step * 0.6, low + step * 0.4)


def paint_cab(brush: Brush, paint: Colour, left: float, top: float, slope: float) -> None:
    """Paint the driver's cab of a van or truck: nose, windscreen, side window, door."""
    nose = (
        (left, 0.08),
        (0.5, 0.08),
        (0.5, 0.22),
        (0.47, 0.25),
        (0.47 - slope, top),
        (left, top),
    )
    brush.area(nose, paint)
    brush.area(
        (
            (left + 0.03, 0.25),
            (0.44, 0.25),
            (0.445 - slope, top - 0.03),
            (left + 0.03, top - 0.03),
        ),
        GLASS,
    )
    brush.line(
        ((left + 0.02, 0.09), (left + 0.02, top - 0.02)),
        0.008,
        toned(paint, 0.6),
    )
    brush.line(((left + 0.04, 0.21), (left + 0.08, 0.21)), 0.012, toned(paint, 0.5))


def paint_shell(brush: Brush, paint: Colour, roof: float, tail: float) -> None:
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
        (
            (back - 0.08, 0.215),
            (back, roof - 0.03),
            (-0.06, roof - 0.022),
            (-0.06, 0.215),
        ),
        GLASS,
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
    paint_lamps(brush, 0.48, -0.49, 0.155)
    paint_wheels(brush, (-0.31, 0.32), 0.078)


def vehicle_kind(
    name: str, paint: Callable[[Brush, Traits], None], least: float = 0.72, most: float = 0.86
) -> Kind:
    """Return a kind that stands in the street, near the middle of the picture."""
    return Kind(name, paint, (least, most), (0.74, 0.8), 0.06)
