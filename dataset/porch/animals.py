"""The animals of the default pictures: cat, dog, deer, bird and fox. A device's set-up runs it."""

from __future__ import annotations

from dataclasses import dataclass

from dataset.porch.brush import Brush, Colour, Kind, Traits, mirrored, toned

DARK: Colour = (28, 24, 24)
CREAM: Colour = (236, 226, 206)
CAT_COATS: tuple[Colour, ...] = ((206, 128, 58), (92, 88, 88), (60, 54, 52), (214, 196, 168))
CAT_COATS_UNSEEN: tuple[Colour, ...] = ((150, 132, 112), (232, 222, 210), (122, 84, 58))
DOG_COATS: tuple[Colour, ...] = ((142, 92, 52), (212, 172, 112), (58, 48, 44))
DOG_COATS_UNSEEN: tuple[Colour, ...] = ((172, 76, 42), (226, 216, 200), (112, 108, 112))
DEER_COATS: tuple[Colour, ...] = ((164, 112, 68), (138, 96, 64))
DEER_COATS_UNSEEN: tuple[Colour, ...] = ((196, 138, 84), (112, 92, 78))
BIRD_COATS: tuple[Colour, ...] = ((74, 82, 98), (126, 96, 70), (44, 46, 56), (70, 110, 168))
BIRD_COATS_UNSEEN: tuple[Colour, ...] = ((172, 60, 48), (164, 168, 172), (92, 112, 64))
FOX_COATS: tuple[Colour, ...] = ((204, 100, 40), (188, 88, 36))
FOX_COATS_UNSEEN: tuple[Colour, ...] = ((156, 82, 48), (222, 130, 66))


@dataclass(frozen=True)
class Build:
    """The measures of a four-legged animal seen from the side, in units.

    Attributes:
        leg: Length of the legs.
        half: Half the length of the trunk.
        deep: Depth of the trunk.
        head: Where the middle of the head lies, seen from the shoulder.
        skull: Radius of the head.
        snout: Length of the muzzle.
        slim: Width of a leg.
    """

    leg: float
    half: float
    deep: float
    head: tuple[float, float]
    skull: float
    snout: float
    slim: float


def _legs(brush: Brush, build: Build, coat: Colour, foot: Colour, stride: float) -> None:
    hips, shoulders = -build.half * 0.82, build.half * 0.78
    for side, tone in ((-1, 0.68), (1, 0.95)):
        for joint, bend in ((hips, -0.05), (shoulders, 0.03)):
            swing = side * stride * (1 if joint == hips else -1)
            knee = (joint + swing * 0.5 + bend, build.leg * 0.5)
            chain = ((joint, build.leg * 1.12), knee, (joint + swing, build.slim * 0.4))
            brush.limb(
                chain, (build.slim * 1.9, build.slim * 1.1, build.slim * 0.9), toned(coat, tone)
            )
            brush.disc(
                joint + swing + 0.01,
                build.slim * 0.4,
                build.slim * 0.75,
                toned(foot, tone),
                build.slim * 0.42,
            )


def _side(
    brush: Brush, build: Build, coat: Colour, belly: Colour, foot: Colour, stride: float
) -> tuple[float, float]:
    """Paint trunk, legs, neck and skull from the side and return where the head is."""
    half, low, high = build.half, build.leg, build.leg + build.deep
    brush.shadow(0.0, half * 1.4)
    _legs(brush, build, coat, foot, stride)
    back, chest = (-half * 1.05, (low + high) / 2), (half * 1.02, (low + high) / 2)
    trunk = (
        back,
        (-half * 0.8, high),
        (0, high - build.deep * 0.06),
        (half * 0.75, high + 0.01),
        chest,
    )
    brush.blob(
        (
            *trunk,
            (half * 0.65, low - 0.01),
            (0, low + build.deep * 0.1),
            (-half * 0.75, low + 0.01),
        ),
        coat,
    )
    brush.disc(half * 0.05, low + build.deep * 0.14, half * 0.6, belly, build.deep * 0.1)
    x, y = half * 0.8 + build.head[0], high - build.deep * 0.25 + build.head[1]
    neck = build.skull * 1.35
    brush.limb(
        ((half * 0.68, high - build.deep * 0.36), (x - 0.01, y)),
        (build.deep * 0.78, neck),
        toned(coat, 1.04),
    )
    brush.disc(x, y, build.skull, toned(coat, 1.06), build.skull * 0.92)
    return x, y


def _muzzle(
    brush: Brush, build: Build, at: tuple[float, float], colour: Colour, droop: float = 0.35
) -> None:
    (x, y), r = at, build.skull
    tip = (x + r * 0.7 + build.snout, y - r * droop)
    brush.limb(((x + r * 0.35, y - r * 0.15), tip), (r * 1.25, r * 0.62), colour)
    brush.disc(tip[0] + r * 0.2, tip[1] + r * 0.12, r * 0.24, DARK, r * 0.2)
    brush.line(
        ((tip[0], tip[1] - r * 0.2), (x + r * 0.55, y - r * 0.5)), r * 0.1, toned(colour, 0.5)
    )


def _eye(brush: Brush, x: float, y: float, radius: float, iris: Colour = DARK) -> None:
    brush.disc(x, y, radius, iris)
    brush.disc(x, y, radius * 0.55, DARK)
    brush.disc(x + radius * 0.3, y + radius * 0.35, radius * 0.28, (250, 250, 250))
    brush.eyeshine(x, y, radius * 0.95)


def _prick_ear(
    brush: Brush, x: float, y: float, size: float, coat: Colour, lean: float = 0.0
) -> None:
    tip = (x + lean * size, y + size * 1.5)
    brush.area(((x - size * 0.62, y), tip, (x + size * 0.62, y)), coat)
    brush.area(
        (
            (x - size * 0.3, y + size * 0.1),
            (tip[0], y + size * 1.1),
            (x + size * 0.3, y + size * 0.1),
        ),
        (206, 150, 140),
    )


def sitting_cat(brush: Brush, traits: Traits) -> None:
    """Paint a cat that sits and looks at the camera."""
    coat, iris = (
        traits.tint(traits.pick(CAT_COATS, CAT_COATS_UNSEEN)),
        traits.pick(((150, 190, 70),), ((226, 170, 50),)),
    )
    pale, stripe = traits.pick((coat, CREAM), (CREAM,)), toned(coat, 0.62)
    side, turn = (1 if traits.chance(0.5) else -1), traits.span(-0.04, 0.04, 0.09)
    brush.shadow(0.0, 0.42)
    brush.curve(
        (0.18 * side, 0.06),
        (0.62 * side, 0.02),
        (0.46 * side, traits.span(0.25, 0.4, 0.62)),
        0.085,
        toned(coat, 0.85),
    )
    brush.blob(mirrored(((0.1, 0.6), (0.17, 0.46), (0.27, 0.2), (0.24, 0.02), (0.08, 0.0))), coat)
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
        _prick_ear(brush, x + side * 0.135, 0.8, 0.12, coat, lean=side * 0.35)
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
                ((x + side * 0.07, 0.615), (x + side * 0.29, 0.62 + rise)), 0.006, (238, 234, 226)
            )
    brush.area(((x - 0.032, 0.65), (x + 0.032, 0.65), (x, 0.615)), (214, 120, 120))
    brush.line(((x - 0.05, 0.582), (x, 0.605), (x + 0.05, 0.582)), 0.012, DARK)


def walking_cat(brush: Brush, traits: Traits) -> None:
    """Paint a cat from the side, its tail up."""
    coat = traits.tint(traits.pick(CAT_COATS, CAT_COATS_UNSEEN))
    low = traits.span(0.0, 0.08, -0.16)
    build = Build(0.26, 0.36, 0.25, (0.14, 0.2 + low), 0.135, 0.02, 0.075)
    sway = traits.span(-0.18, 0.0, 0.16)
    brush.curve((-0.34, 0.47), (-0.55, 0.6), (-0.46 + sway, 0.92), 0.075, toned(coat, 0.9))
    x, y = _side(
        brush, build, coat, toned(coat, 1.15), toned(coat, 1.2), traits.span(0.03, 0.1, 0.15)
    )
    for stripe in (-0.25, -0.12, 0.01, 0.14):
        brush.line(((stripe, 0.5), (stripe + 0.02, 0.36)), 0.028, toned(coat, 0.62))
    for dx in (-0.07, 0.07):
        _prick_ear(brush, x + dx, y + 0.08, 0.09, toned(coat, 0.95), lean=dx * 3)
    _muzzle(brush, build, (x, y), toned(coat, 1.2), droop=0.3)
    _eye(brush, x + 0.06, y + 0.03, 0.034, (160, 190, 80))
    for rise in (-0.03, 0.03):
        brush.line(((x + 0.1, y - 0.04), (x + 0.27, y - 0.04 + rise)), 0.006, (238, 234, 226))


def cat(brush: Brush, traits: Traits) -> None:
    """Paint a cat."""
    (sitting_cat if traits.chance(0.65) else walking_cat)(brush, traits)


def dog(brush: Brush, traits: Traits) -> None:
    """Paint a dog: standing, or sitting with its tongue out."""
    (_sitting_dog if traits.chance(0.5) else _standing_dog)(brush, traits)


def _standing_dog(brush: Brush, traits: Traits) -> None:
    coat = traits.tint(traits.pick(DOG_COATS, DOG_COATS_UNSEEN))
    pale = traits.pick((coat, CREAM), (toned(coat, 1.25),))
    build = Build(0.34, 0.35, 0.26, (0.13, traits.span(0.16, 0.26, -0.02)), 0.125, 0.1, 0.08)
    wag = traits.span(0.2, 0.34, 0.44)
    brush.curve((-0.33, 0.55), (-0.5, 0.6), (-0.52, 0.55 + wag), 0.06, toned(coat, 0.9))
    x, y = _side(brush, build, coat, pale, pale, traits.span(0.02, 0.09, 0.14))
    _muzzle(brush, build, (x, y), pale)
    _eye(brush, x + 0.05, y + 0.035, 0.028)
    brush.disc(x - 0.07, y - 0.03, 0.055, toned(coat, 0.62), 0.13, turn=-0.25)
    collar = traits.pick(((190, 40, 40), (40, 70, 170)), ((40, 140, 80), (220, 180, 40)))
    brush.line(((x - 0.16, y - 0.02), (x - 0.03, y - 0.17)), 0.045, collar)


def _sitting_dog(brush: Brush, traits: Traits) -> None:
    coat = traits.tint(traits.pick(DOG_COATS, DOG_COATS_UNSEEN))
    pale, ear = traits.pick((coat, CREAM), (toned(coat, 1.2),)), toned(coat, 0.6)
    tail = traits.span(0.1, 0.25, 0.42)
    brush.shadow(0.0, 0.4)
    brush.curve((0.2, 0.08), (0.42, 0.06), (0.46, tail), 0.07, toned(coat, 0.85))
    brush.blob(mirrored(((0.14, 0.62), (0.2, 0.42), (0.28, 0.16), (0.24, 0.02), (0.08, 0.0))), coat)
    brush.blob(mirrored(((0.08, 0.58), (0.11, 0.42), (0.05, 0.26))), pale)
    for x in (-0.1, 0.1):
        brush.limb(((x, 0.4), (x, 0.06)), (0.13, 0.11), toned(coat, 1.1))
        brush.disc(x * 1.05, 0.04, 0.085, pale, 0.045)
    brush.line(((0, 0.26), (0, 0.03)), 0.02, toned(coat, 0.5))
    brush.blob(mirrored(((0.1, 0.93), (0.17, 0.8), (0.14, 0.66), (0.07, 0.57))), toned(coat, 1.06))
    drop = traits.span(0.12, 0.17, 0.24)
    for side in (-1, 1):
        brush.disc(side * 0.185, 0.88 - drop, 0.06, ear, drop, turn=side * 0.2)
        _eye(brush, side * 0.075, 0.79, 0.03)
    brush.disc(0, 0.665, 0.095, toned(pale, 1.1), 0.085)
    brush.disc(0, 0.7, 0.045, DARK, 0.034)
    brush.line(((-0.05, 0.62), (0, 0.64), (0.05, 0.62)), 0.014, DARK)
    brush.disc(0.0, 0.585, 0.03, (222, 110, 120), 0.05)


def deer(brush: Brush, traits: Traits) -> None:
    """Paint a deer from the side, with antlers or without."""
    coat = traits.tint(traits.pick(DEER_COATS, DEER_COATS_UNSEEN))
    reach, rise = traits.span(0.1, 0.16, 0.22), traits.span(0.24, 0.32, 0.12)
    build = Build(0.42, 0.27, 0.21, (reach, rise), 0.07, 0.08, 0.046)
    brush.disc(-0.29, 0.56, 0.035, CREAM, 0.06)
    x, y = _side(brush, build, coat, CREAM, (60, 46, 38), traits.span(0.02, 0.07, 0.11))
    for dx, dy in ((-0.16, 0.0), (-0.08, 0.03), (0.0, -0.01), (0.08, 0.03), (-0.04, -0.04)):
        brush.disc(dx, 0.58 + dy, 0.014, CREAM)
    _muzzle(brush, build, (x, y), toned(coat, 1.1), droop=0.5)
    for lean in (-1.5, -0.6):
        brush.disc(
            x - 0.055, y + 0.07, 0.025, toned(coat, 0.8 - lean * 0.1), 0.065, turn=-lean * 0.6
        )
    _eye(brush, x + 0.025, y + 0.02, 0.018)
    if traits.chance(0.6):
        points = traits.pick((2, 3), (4,))
        for shift in (-0.02, 0.03):
            top = (x - 0.12 + shift * 3, y + 0.3)
            brush.curve(
                (x + shift, y + 0.06), (x - 0.14 + shift, y + 0.14), top, 0.02, (214, 196, 160)
            )
            for step in range(points):
                base = y + 0.12 + 0.15 * step / points
                brush.line(
                    ((x - 0.09 + shift, base), (x - 0.01 + shift * 3, base + 0.07)),
                    0.013,
                    (214, 196, 160),
                )


def bird(brush: Brush, traits: Traits) -> None:
    """Paint a bird that stands on the porch."""
    coat = traits.tint(traits.pick(BIRD_COATS, BIRD_COATS_UNSEEN))
    breast, bill = (
        traits.pick(((214, 108, 62), CREAM), ((236, 204, 110), (150, 150, 156))),
        (232, 168, 52),
    )
    brush.shadow(0.0, 0.32)
    for x in (-0.02, 0.08):
        brush.line(((x, 0.26), (x + 0.02, 0.03)), 0.028, (170, 110, 60))
        brush.line(((x - 0.04, 0.02), (x + 0.1, 0.02)), 0.026, (170, 110, 60))
    cock = traits.span(0.24, 0.4, 0.56)
    brush.area(
        ((-0.22, 0.42), (-0.62, cock - 0.06), (-0.6, cock + 0.06), (-0.15, 0.56)), toned(coat, 0.7)
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
    brush.area(((x + 0.13, y + 0.05), (x + 0.34, y - 0.03), (x + 0.13, y - 0.06)), bill)
    brush.line(((x + 0.13, y - 0.005), (x + 0.3, y - 0.025)), 0.012, toned(bill, 0.5))
    _eye(brush, x + 0.06, y + 0.035, 0.036)
    brush.blob(
        ((0.1, 0.62), (0.06, 0.44), (-0.2, 0.34), (-0.42, 0.4), (-0.2, 0.54)), toned(coat, 0.72)
    )
    for step in (0.0, 0.07):
        brush.line(((0.02, 0.5 - step), (-0.3, 0.42 - step * 0.6)), 0.016, toned(coat, 0.5))


def fox(brush: Brush, traits: Traits) -> None:
    """Paint a fox from the side: red coat, white bib, dark stockings, thick tail."""
    coat = traits.tint(traits.pick(FOX_COATS, FOX_COATS_UNSEEN))
    build = Build(0.3, 0.34, 0.2, (0.12, traits.span(0.08, 0.18, -0.1)), 0.11, 0.1, 0.06)
    fall = traits.span(0.14, 0.26, 0.46)
    brush.limb(((-0.3, 0.44), (-0.5, 0.36), (-0.68, fall)), (0.08, 0.17, 0.12), toned(coat, 0.9))
    brush.disc(-0.72, fall - 0.01, 0.07, CREAM, 0.05, turn=0.5)
    x, y = _side(brush, build, coat, CREAM, (48, 36, 34), traits.span(0.03, 0.1, 0.14))
    for dx in (-0.06, 0.05):
        _prick_ear(brush, x + dx, y + 0.07, 0.085, toned(coat, 0.75), lean=dx * 4)
    _muzzle(brush, build, (x, y), coat)
    brush.disc(x + 0.05, y - 0.07, 0.1, CREAM, 0.04, turn=-0.25)
    _eye(brush, x + 0.05, y + 0.02, 0.024)


KINDS: tuple[Kind, ...] = (
    Kind("cat", cat, (0.56, 0.7)),
    Kind("dog", dog, (0.58, 0.72)),
    Kind("deer", deer, (0.66, 0.82)),
    Kind("bird", bird, (0.5, 0.64)),
    Kind("fox", fox, (0.58, 0.7)),
)
