"""The brush that every subject of the default pictures is painted with. A device's set-up runs it.

A subject is painted in its own frame: x to the right, y up, the ground at y = 0, one unit about its
height. The brush keeps four layers at twice the picture's size (soft ones at half of it), so that
edges come out smooth:

    shade   what the subject takes from the light on the ground
    solid   what it is, lit by the scene's light
    haze    what is soft and half transparent: smoke, fog
    glow    what shines by itself: flames, lamps, eyes in infra-red
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""
Points = Sequence[tuple[float, float]]
OVERSAMPLING = 2
SOFTNESS = 4
"""How many solid pixels lie along one pixel of a soft layer."""
_FRACTION_BITS = 4
_CIRCLE = np.stack(
    [
        np.cos(np.linspace(0, 2 * np.pi, 28, False)),
        np.sin(np.linspace(0, 2 * np.pi, 28, False)),
    ],
    1,
)
_T = np.linspace(0, 1, 6, False)
_CATMULL_ROM = 0.5 * np.stack(
    [
        -_T + 2 * _T**2 - _T**3,
        2 - 5 * _T**2 + 3 * _T**3,
        _T + 4 * _T**2 - 3 * _T**3,
        -(_T**2) + _T**3,
    ],
    1,
)


def toned(colour: Colour, gain: float) -> Colour:
    """Return the colour made darker (gain below 1) or lighter (above 1)."""
    red, green, blue = (min(255, max(0, round(part * gain))) for part in colour)
    return red, green, blue


def mirrored(points: Points) -> list[tuple[float, float]]:
    """Return the right half of an outline, from top to bottom, followed by its mirror image."""
    return [*points, *((-x, y) for x, y in reversed(points))]


class Brush:
    """Paints with subpixel places and smooth edges on the four layers.

    Args:
        size_px: Edge of the finished picture in pixels.
        night: True where the camera sees by infra-red, which makes eyes and reflectors shine.
    """

    def __init__(self, size_px: int, night: bool = False) -> None:
        edge = OVERSAMPLING * size_px
        soft = edge // SOFTNESS
        self.night = night
        self.shade: NDArray[np.uint8] = np.zeros((soft, soft), np.uint8)
        self.solid: NDArray[np.uint8] = np.zeros((edge, edge, 4), np.uint8)
        self.haze: NDArray[np.uint8] = np.zeros((soft, soft, 4), np.uint8)
        self.glow: NDArray[np.uint8] = np.zeros((edge, edge, 4), np.uint8)
        self._edge = edge
        self.place(0.5, 1.0, 1.0)

    def place(
        self, x: float, ground: float, unit: float, *, stretch: float = 1.0, tilt: float = 0.0
    ) -> None:
        """Move the frame.

        Args:
            x: Where x = 0 lies, as a share of the picture from the left.
            ground: Where y = 0 lies, as a share of the picture from the top.
            unit: How long one unit is, as a share of the picture.
            stretch: How much wider than high; negative to look the other way.
            tilt: Lean to the right in radians.
        """
        turn = np.array(
            [
                [np.cos(tilt), -np.sin(tilt)],
                [np.sin(tilt), np.cos(tilt)],
            ]
        )
        steps = self._edge * 2**_FRACTION_BITS
        self._matrix = (
            np.array(
                [
                    [stretch, 0.0],
                    [0.0, -1.0],
                ]
            )
            @ turn
            * (unit * steps)
        ).T
        self._origin = np.array([x * steps, ground * steps])
        self._unit_px = unit * self._edge

    def area(self, points: Points, colour: Colour, *, glow: bool = False) -> None:
        """Fill the polygon."""
        self._fill(np.asarray(points, np.float64), colour, glow)

    def blob(self, points: Points, colour: Colour, *, glow: bool = False) -> None:
        """Fill the round outline that runs through the points (a closed Catmull-Rom curve)."""
        corners = np.asarray(points, np.float64)
        around = corners[(np.arange(len(corners))[:, None] + (-1, 0, 1, 2)) % len(corners)]
        self._fill((_CATMULL_ROM @ around).reshape(-1, 2), colour, glow)

    def disc(
        self,
        x: float,
        y: float,
        rx: float,
        colour: Colour,
        ry: float | None = None,
        *,
        turn: float = 0.0,
        glow: bool = False,
    ) -> None:
        """Fill the ellipse around (x, y), turned counter-clockwise by `turn` radians."""
        ring = _CIRCLE * (rx, rx if ry is None else ry)
        if turn:
            ring = ring @ np.array(
                [
                    [np.cos(turn), np.sin(turn)],
                    [-np.sin(turn), np.cos(turn)],
                ]
            )
        self._fill(ring + np.array((x, y)), colour, glow)

    def box(
        self,
        left: float,
        bottom: float,
        right: float,
        top: float,
        colour: Colour,
        *,
        glow: bool = False,
    ) -> None:
        """Fill the rectangle."""
        self.area(
            ((left, bottom), (right, bottom), (right, top), (left, top)),
            colour,
            glow=glow,
        )

    def line(self, points: Points, width: float, colour: Colour, *, glow: bool = False) -> None:
        """Draw a line of this width with round ends."""
        layer = self.glow if glow else self.solid
        places = self._pixels(np.asarray(points, np.float64))
        thickness = max(1, round(width * self._unit_px))
        cv2.polylines(
            layer, [places], False, (*colour, 255), thickness, cv2.LINE_AA, _FRACTION_BITS
        )

    def curve(
        self,
        start: tuple[float, float],
        bend: tuple[float, float],
        end: tuple[float, float],
        width: float,
        colour: Colour,
        *,
        glow: bool = False,
    ) -> None:
        """Draw a bent line (a quadratic Bezier curve) of this width."""
        t = np.linspace(0, 1, 9)[:, None]
        path = (
            (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)
        )
        self.line(
            [(float(x), float(y)) for x, y in path],
            width,
            colour,
            glow=glow,
        )

    def limb(self, points: Points, widths: Sequence[float], colour: Colour) -> None:
        """Draw a limb: a chain of round joints with these widths and flesh between them."""
        for (x, y), width in zip(points, widths, strict=True):
            self.disc(x, y, width / 2, colour)
        for (x0, y0), (x1, y1), w0, w1 in zip(
            points,
            points[1:],
            widths,
            widths[1:],
            strict=False,
        ):
            length = max(1e-6, float(np.hypot(x1 - x0, y1 - y0)))
            nx, ny = (y0 - y1) / length / 2, (x1 - x0) / length / 2
            corners = (
                (x0 + nx * w0, y0 + ny * w0),
                (x1 + nx * w1, y1 + ny * w1),
            )
            others = (
                (x1 - nx * w1, y1 - ny * w1),
                (x0 - nx * w0, y0 - ny * w0),
            )
            self.area((*corners, *others), colour)

    def puff(
        self,
        x: float,
        y: float,
        radius: float,
        colour: Colour,
        density: float,
        *,
        squash: float = 1.0,
        floor: float = -9.0,
    ) -> None:
        """Add one soft ball of haze.

        Args:
            x: Its middle.
            y: Its middle.
            radius: Half its width.
            colour: Its colour.
            density: From 0 (nothing) to 1 (hides what is behind).
            squash: Its height as a share of its width.
            floor: Where it ends below.
        """
        ring = _CIRCLE * (radius, radius * squash) + (x, y)
        places = self._pixels(np.maximum(ring, (-9.0, floor))) // SOFTNESS
        cv2.fillPoly(
            self.haze,
            [places],
            [round(part * density) for part in (*colour, 255)],
            cv2.LINE_AA,
            _FRACTION_BITS,
        )

    def shadow(
        self, x: float, half_width: float, *, depth: float = 0.25, density: float = 0.6
    ) -> None:
        """Darken the ground under the subject."""
        places = (
            self._pixels(
                _CIRCLE
                * (
                    half_width,
                    half_width * depth,
                )
                + (x, 0.0)
            )
            // SOFTNESS
        )
        cv2.fillPoly(self.shade, [places], (round(255 * density),), cv2.LINE_AA, _FRACTION_BITS)

    def eyeshine(self, x: float, y: float, radius: float) -> None:
        """At night, let an eye throw the infra-red light back."""
        if self.night:
            self.disc(x, y, radius, (235, 240, 235), glow=True)

    def reflector(self, left: float, bottom: float, right: float, top: float) -> None:
        """At night, let a plate or a stripe throw the infra-red light back."""
        if self.night:
            self.box(left, bottom, right, top, (200, 205, 205), glow=True)

    def _pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.asarray(np.rint(points @ self._matrix + self._origin), np.int32)

    def _fill(self, points: NDArray[np.float64], colour: Colour, glow: bool) -> None:
        layer = self.glow if glow else self.solid
        cv2.fillPoly(layer, [self._pixels(points)], (*colour, 255), cv2.LINE_AA, _FRACTION_BITS)
