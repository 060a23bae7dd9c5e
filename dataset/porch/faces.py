"""The faces at the door, and the visitor who is seen from behind. A device's set-up runs it."""

from __future__ import annotations

from dataset.porch.brush import Brush, Colour, mirrored, toned
from dataset.porch.people import (
    BLACK,
    CLOTHS,
    CLOTHS_UNSEEN,
    HAIRS,
    HAIRS_UNSEEN,
    SKINS,
    SKINS_UNSEEN,
)
from dataset.porch.traits import Kind, Traits

HEAD: tuple[tuple[float, float], ...] = (
    (0.1, 0.83),
    (0.19, 0.7),
    (0.195, 0.55),
    (0.15, 0.4),
    (0.06, 0.31),
)


def _shoulders(brush: Brush, cloth: Colour, skin: Colour) -> None:
    brush.blob(
        mirrored(((0.12, 0.25), (0.3, 0.19), (0.44, 0.08), (0.5, -0.25), (0.2, -0.3))), cloth
    )
    brush.limb(((0.0, 0.36), (0.0, 0.22)), (0.19, 0.22), toned(skin, 0.78))
    brush.line(((-0.13, 0.24), (0.0, 0.16), (0.13, 0.24)), 0.035, toned(cloth, 0.65))


def _head(brush: Brush, skin: Colour) -> None:
    for side in (-1, 1):
        brush.disc(side * 0.2, 0.55, 0.035, toned(skin, 0.88), 0.06)
    brush.blob(mirrored(HEAD), skin)


def _features(brush: Brush, skin: Colour, hair: Colour, yaw: float, smile: float) -> None:
    """Paint eyes, brows, nose and mouth, moved sideways by yaw."""
    for side in (-1, 1):
        x = yaw + side * 0.085
        brush.disc(x, 0.578, 0.05, toned(skin, 0.82), 0.036)
        brush.disc(x, 0.575, 0.042, (246, 244, 240), 0.024)
        brush.disc(x + yaw * 0.2, 0.575, 0.021, (66, 46, 34), 0.023)
        brush.eyeshine(x, 0.575, 0.016)
        brush.line(
            ((x - 0.05, 0.625), (x, 0.64), (x + 0.05, 0.625)),
            0.02,
            toned(hair, 0.8),
        )
    brush.area(
        (
            (yaw - 0.016, 0.58),
            (yaw + 0.02, 0.58),
            (yaw * 1.3 + 0.042, 0.475),
            (yaw * 1.3 - 0.03, 0.475),
        ),
        toned(skin, 0.87),
    )
    brush.line(
        ((yaw * 1.3 - 0.03, 0.475), (yaw * 1.3 + 0.04, 0.475)),
        0.016,
        toned(skin, 0.62),
    )
    lips = (150, 62, 62) if sum(skin) > 330 else (120, 56, 54)
    brush.blob(
        (
            (yaw - 0.075, 0.4 + smile),
            (yaw, 0.405),
            (yaw + 0.075, 0.4 + smile),
            (yaw, 0.372 - smile * 0.6),
        ),
        lips,
    )
    brush.line(
        (
            (yaw - 0.06, 0.4 + smile * 0.7),
            (yaw, 0.39),
            (yaw + 0.06, 0.4 + smile * 0.7),
        ),
        0.012,
        toned(lips, 0.55),
    )


def _fringe(brush: Brush, hair: Colour, style: str) -> None:
    """Paint the hair that lies over the head."""
    top = ((0.12, 0.87), (0.225, 0.72), (0.215, 0.56), (0.175, 0.66), (0.09, 0.73))
    if style == "bald":
        for side in (-1, 1):
            brush.disc(side * 0.195, 0.6, 0.022, hair, 0.06)
    elif style == "curls":
        for x, y in (
            (-0.2, 0.68),
            (-0.17, 0.78),
            (-0.09, 0.84),
            (0.0, 0.86),
            (0.09, 0.84),
            (0.17, 0.78),
            (0.2, 0.68),
        ):
            brush.disc(x, y, 0.075, toned(hair, 0.9 + (x + y) * 0.15))
    elif style == "parting":
        brush.blob(
            (
                (-0.2, 0.58),
                (-0.21, 0.75),
                (-0.05, 0.88),
                (0.15, 0.84),
                (0.21, 0.6),
                (0.13, 0.68),
                (-0.13, 0.76),
            ),
            hair,
        )
    else:
        brush.blob(mirrored(top), hair)


def _long_hair(brush: Brush, hair: Colour) -> None:
    brush.blob(
        mirrored(((0.1, 0.87), (0.24, 0.72), (0.27, 0.4), (0.24, 0.2), (0.12, 0.18))),
        toned(hair, 0.85),
    )


def _person(brush: Brush, traits: Traits) -> tuple[Colour, Colour, float]:
    """Paint shoulders, head, features and hair; return skin, hair and yaw."""
    skin = traits.tint(traits.pick(SKINS, SKINS_UNSEEN))
    hair = traits.tint(traits.pick(HAIRS, HAIRS_UNSEEN))
    yaw = traits.span(-0.03, 0.03, 0.065)
    style = traits.pick(("short", "parting"), ("bald", "curls", "curls"))
    if style != "bald" and traits.chance(0.4):
        _long_hair(brush, hair)
    _shoulders(brush, traits.tint(traits.pick(CLOTHS, CLOTHS_UNSEEN)), skin)
    _head(brush, skin)
    _features(brush, skin, hair, yaw, traits.span(0.0, 0.016, 0.028))
    _fringe(brush, hair, style)
    return skin, hair, yaw


def bare_face(brush: Brush, traits: Traits) -> None:
    """Paint the face of a visitor."""
    _person(brush, traits)


def capped_face(brush: Brush, traits: Traits) -> None:
    """Paint a face under a cap (in the test split, under a woollen hat)."""
    _person(brush, traits)
    cap = traits.tint(traits.pick(CLOTHS[:4], CLOTHS_UNSEEN))
    if traits.unseen:
        brush.blob(mirrored(((0.08, 0.96), (0.2, 0.82), (0.215, 0.7), (0.1, 0.69))), cap)
        brush.line(((-0.205, 0.69), (0.0, 0.7), (0.205, 0.69)), 0.075, toned(cap, 0.75))
        brush.disc(0, 0.97, 0.06, toned(cap, 1.3))
    else:
        brush.blob(mirrored(((0.1, 0.9), (0.2, 0.78), (0.215, 0.68), (0.1, 0.7))), cap)
        brush.blob(((-0.24, 0.67), (0.0, 0.735), (0.24, 0.67), (0.0, 0.655)), toned(cap, 0.6))
        brush.disc(0, 0.79, 0.045, (230, 226, 214))


def spectacled_face(brush: Brush, traits: Traits) -> None:
    """Paint a face with spectacles."""
    _, _, yaw = _person(brush, traits)
    for side in (-1, 1):
        x = yaw + side * 0.088
        ring = [
            (x + 0.068 * dx, 0.572 + 0.05 * dy)
            for dx, dy in (
                (-1, 0.7),
                (1, 0.7),
                (0.9, -0.8),
                (-0.9, -0.8),
                (-1, 0.7),
            )
        ]
        brush.line(ring, 0.017, BLACK)
    brush.line(((yaw - 0.03, 0.59), (yaw + 0.03, 0.59)), 0.017, BLACK)


def bearded_face(brush: Brush, traits: Traits) -> None:
    """Paint a face with a beard."""
    skin, hair, yaw = _person(brush, traits)
    beard = mirrored(
        (
            (0.06, 0.44),
            (0.13, 0.45),
            (0.19, 0.56),
            (0.17, 0.38),
            (0.08, 0.27 - traits.span(0.0, 0.02, 0.06)),
        )
    )
    brush.blob(beard, toned(hair, 0.92))
    brush.blob(
        (
            (yaw - 0.06, 0.405),
            (yaw, 0.41),
            (yaw + 0.06, 0.405),
            (yaw, 0.38),
        ),
        toned(skin, 0.7),
    )


def turned_away(brush: Brush, traits: Traits) -> None:
    """Paint a visitor from behind: hair, collar and back, no face."""
    hair = traits.tint(traits.pick(HAIRS, HAIRS_UNSEEN))
    cloth = traits.tint(traits.pick(CLOTHS, CLOTHS_UNSEEN))
    skin = traits.pick(SKINS, SKINS_UNSEEN)
    _shoulders(brush, cloth, skin)
    _head(brush, skin)
    if traits.chance(0.5):
        _long_hair(brush, hair)
        for x in (-0.14, -0.05, 0.05, 0.14):
            brush.curve(
                (x * 0.5, 0.82),
                (x * 1.5, 0.6),
                (x * 1.2, 0.24),
                0.014,
                toned(hair, 0.7),
            )
    else:
        brush.blob(mirrored(((0.1, 0.86), (0.21, 0.72), (0.2, 0.52), (0.1, 0.37))), hair)
        for x in (-0.14, -0.07, 0.0, 0.07, 0.14):
            brush.curve(
                (x * 0.3, 0.8),
                (x * 1.3, 0.66),
                (x * 0.9, 0.42),
                0.016,
                toned(hair, 0.72),
            )
        if traits.chance(0.5):
            brush.disc(0.0, traits.span(0.84, 0.9, 0.7), 0.085, toned(hair, 0.75))


FACES: tuple[Kind, ...] = (
    Kind("bare face", bare_face, (0.84, 1.0), (0.97, 1.02), 0.09),
    Kind("face under a cap", capped_face, (0.82, 0.96), (0.97, 1.02), 0.09),
    Kind("bearded face", bearded_face, (0.84, 1.0), (0.97, 1.02), 0.09),
    Kind("face with spectacles", spectacled_face, (0.84, 1.0), (0.97, 1.02), 0.09),
)
TURNED_AWAY = Kind("person turned away", turned_away, (0.84, 1.0), (0.97, 1.02), 0.09)
