"""The vehicles that a detector must find: emergency services and couriers.

A device's set-up runs it.
"""

from __future__ import annotations

from dataset.porch.brush import Brush, toned
from dataset.porch.traits import Kind, Traits
from dataset.porch.vehicle_parts import (
    CHROME,
    GLASS,
    paint_cab,
    paint_chequers,
    paint_lamps,
    paint_light_bar,
    paint_shell,
    paint_wheels,
    vehicle_kind,
)


def fire_engine(brush: Brush, traits: Traits) -> None:
    """Paint a fire engine: red, lockers, ladder on the roof, blue lights."""
    red = traits.tint(
        traits.pick(
            ((196, 26, 26), (176, 24, 30)),
            ((222, 62, 24), (160, 26, 44)),
        )
    )
    stripe = traits.pick(((240, 226, 120), (240, 240, 236)), ((200, 240, 70),))
    top = traits.span(0.4, 0.43, 0.47)
    brush.shadow(0.0, 0.56, depth=0.1)
    brush.box(-0.52, 0.08, 0.26, top, red)
    paint_cab(brush, toned(red, 1.06), 0.22, top, 0.03)
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
            (
                (-0.5 + 0.08 * step, top + 0.035),
                (-0.5 + 0.08 * step, top + 0.09),
            ),
            0.011,
            (222, 222, 218),
        )
    paint_light_bar(brush, 0.35, top, traits)
    paint_lamps(brush, 0.485, -0.51, 0.15)
    paint_wheels(brush, traits.pick(((-0.3, 0.34),), ((-0.38, -0.22, 0.34),)), 0.085)


def ambulance(brush: Brush, traits: Traits) -> None:
    """Paint an ambulance: a white box with a cross, a chequered band and blue lights."""
    white = traits.tint(traits.pick(((236, 236, 232),), ((238, 214, 92),)))
    band = traits.pick(
        (
            ((236, 210, 40), (36, 130, 70)),
            ((206, 36, 36), white),
        ),
        (((230, 110, 30), white),),
    )
    top = traits.span(0.42, 0.46, 0.5)
    brush.shadow(0.0, 0.54, depth=0.1)
    brush.box(-0.5, 0.08, 0.22, top, white)
    paint_cab(brush, toned(white, 0.97), 0.2, 0.38, 0.09)
    paint_chequers(brush, -0.49, 0.2, 0.13, 0.075, band)
    cross = (204, 32, 36)
    x = -0.16
    y = 0.32
    brush.box(x - 0.08, y - 0.026, x + 0.08, y + 0.026, cross)
    brush.box(x - 0.026, y - 0.08, x + 0.026, y + 0.08, cross)
    brush.box(-0.44, 0.28, -0.3, 0.39, GLASS)
    brush.line(((0.03, 0.1), (0.03, top - 0.02)), 0.008, (150, 152, 154))
    paint_light_bar(brush, 0.13, top, traits)
    paint_light_bar(brush, -0.42, top, traits)
    paint_lamps(brush, 0.485, -0.49, 0.17)
    paint_wheels(brush, (-0.3, 0.33), 0.08)


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
    paint = traits.tint(paint)
    top = traits.span(0.42, 0.46, 0.5)
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
    paint_cab(brush, paint, 0.2, top - 0.04, 0.12)
    brush.area(((-0.5, 0.13), (0.2, 0.13), (0.12, 0.18), (-0.5, 0.18)), mark)
    x, y = -0.17, 0.3
    brush.area(
        (
            (x - 0.1, y - 0.08),
            (x + 0.06, y - 0.08),
            (x + 0.06, y + 0.05),
            (x - 0.1, y + 0.05),
        ),
        mark,
    )
    brush.area(
        (
            (x - 0.1, y + 0.05),
            (x + 0.06, y + 0.05),
            (x + 0.1, y + 0.085),
            (x - 0.06, y + 0.085),
        ),
        toned(mark, 1.2),
    )
    brush.area(
        (
            (x + 0.06, y - 0.08),
            (x + 0.1, y - 0.045),
            (x + 0.1, y + 0.085),
            (x + 0.06, y + 0.05),
        ),
        toned(mark, 0.7),
    )
    brush.line(
        (
            (x - 0.02, y - 0.08),
            (x - 0.02, y + 0.05),
            (x + 0.02, y + 0.085),
        ),
        0.016,
        paint,
    )
    brush.line(((0.06, 0.1), (0.06, top - 0.03)), 0.008, toned(paint, 0.6))
    brush.line(((-0.5, 0.22), (-0.4, 0.22)), 0.01, toned(paint, 0.6))
    paint_lamps(brush, 0.485, -0.5, 0.18)
    paint_wheels(brush, (-0.32, 0.32), 0.08)


def police_car(brush: Brush, traits: Traits) -> None:
    """Paint a police car: a light bar on the roof and a chequered or two-tone side."""
    roof = traits.span(0.33, 0.36, 0.4)
    if traits.pick((False,), (True,)):
        paint_shell(brush, (34, 34, 38), roof, 0.21)
        brush.area(
            ((-0.25, 0.09), (0.19, 0.09), (0.19, 0.215), (-0.25, 0.215)),
            (238, 238, 236),
        )
        brush.disc(-0.03, 0.15, 0.035, (206, 170, 60))
    else:
        paint_shell(brush, (236, 236, 234), roof, 0.21)
        paint_chequers(brush, -0.42, 0.42, 0.115, 0.07, ((236, 214, 30), (28, 70, 160)))
    paint_light_bar(brush, -0.06, roof, traits, second=(255, 50, 50))


NOTEWORTHY: tuple[Kind, ...] = (
    vehicle_kind("fire engine", fire_engine),
    vehicle_kind("ambulance", ambulance),
    vehicle_kind("courier van", courier_van),
    vehicle_kind("police car", police_car, 0.78, 0.9),
)
