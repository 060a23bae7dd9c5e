"""From painted layers to a photo: light, lens, sensor and compression of a camera.

A device's set-up runs it.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset.porch.brush import Brush
from dataset.porch.site import LIGHT, Hour, Site

NIGHT_NOISE = 2.5
NIGHT_VIGNETTE = 0.35
INFRA_RED: tuple[float, float, float] = (0.45, 0.4, 0.15)
"""How much each colour adds to what an infra-red sensor sees."""
RELIEF = 1.6
"""How strongly rounded forms turn light and dark."""


def lit(scene: NDArray[np.float32], brush: Brush, hour: Hour, sun: int) -> NDArray[np.float32]:
    """Lay a brush's layers over an empty scene.

    Args:
        scene: float32 [size_px, size_px, 3], 0 to 255.
        brush: What was painted.
        hour: Sets the colour of the light.
        sun: -1 where the light comes from the left, 1 where it comes from the right.

    Returns:
        The picture as the light reaches the lens, float32 [size_px, size_px, 3], 0 to 255.
    """
    size_px = len(scene)
    light = np.asarray(LIGHT[hour], np.float32)
    picture = _over(scene, np.zeros_like(scene), _softened(brush.shade, size_px) / np.float32(255))
    solid, cover = _parted(_reduced(brush.solid, size_px))
    picture = _over(picture, solid * _spread(_relief(cover, sun)) * light, cover)
    if brush.haze.any():
        haze, cover = _parted(_softened(brush.haze, size_px))
        picture = _over(picture, haze * light, cover)
    if brush.glow.any():
        glow, cover = _parted(_reduced(brush.glow, size_px))
        bloom = cv2.resize(glow, (size_px // 4, size_px // 4), interpolation=cv2.INTER_AREA)
        bloom = cv2.resize(cv2.GaussianBlur(bloom, (0, 0), size_px / 48), (size_px, size_px))
        picture = _over(picture, glow + bloom * np.float32(0.25 if hour == "day" else 0.45), cover)
    return picture


def _spread(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the plane three times over: products of equal shapes are several times faster than
    broadcast ones.
    """
    return np.asarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB), np.float32)


def _parted(layer: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a layer's colour, 0 to 255, premultiplied by its cover, and its cover, 0 to 1."""
    return np.asarray(cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), np.float32), np.asarray(
        layer[..., 3] / 255, np.float32
    )


def _over(
    below: NDArray[np.float32], colour: NDArray[np.float32], cover: NDArray[np.float32]
) -> NDArray[np.float32]:
    return np.asarray(below * (1 - _spread(cover)) + colour, np.float32)


def _reduced(layer: NDArray[np.uint8], size_px: int) -> NDArray[np.float32]:
    return np.asarray(
        cv2.resize(layer, (size_px, size_px), interpolation=cv2.INTER_AREA), np.float32
    )


def _softened(layer: NDArray[np.uint8], size_px: int) -> NDArray[np.float32]:
    blurred = cv2.GaussianBlur(layer, (0, 0), len(layer) / 40)
    return np.asarray(
        cv2.resize(blurred, (size_px, size_px), interpolation=cv2.INTER_LINEAR), np.float32
    )


def _relief(cover: NDArray[np.float32], sun: int) -> NDArray[np.float32]:
    """Return the gain that makes a flat shape look round: light on the sun's side and above, dark
    below.
    """
    small = cv2.resize(cover, (48, 48), interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), 2.5)
    slope = (
        -sun * cv2.Sobel(soft, cv2.CV_32F, 1, 0) * 0.16
        + cv2.Sobel(
            soft,
            cv2.CV_32F,
            0,
            1,
        )
        * 0.2
    )
    gain = (1.0 + RELIEF * slope).clip(0.55, 1.35)
    return np.asarray(cv2.resize(gain, cover.shape[::-1]), np.float32)


@lru_cache(maxsize=16)
def _lens(bend: float, size_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the places a barrel-shaped lens takes its pixels from; the corners stay where they
    are.
    """
    axis = (np.arange(size_px) + 0.5) * 2 / size_px - 1
    x, y = np.meshgrid(axis, axis)
    scale = (1 + bend * (x**2 + y**2)) / (1 + 2 * bend)
    maps = tuple(((part * scale + 1) * size_px / 2 - 0.5).astype(np.float32) for part in (x, y))
    for part in maps:
        part.setflags(write=False)
    return maps[0], maps[1]


@lru_cache(maxsize=16)
def _vignette(strength: float, size_px: int) -> NDArray[np.float32]:
    axis = (np.arange(size_px) + 0.5) * 2 / size_px - 1
    x, y = np.meshgrid(axis, axis)
    falloff = _spread((1 - strength * ((x**2 + y**2) / 2) ** 1.2).astype(np.float32))
    falloff.setflags(write=False)
    return falloff


def exposed(
    light: NDArray[np.float32], place: Site, hour: Hour, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return what the device's camera makes of the light: RGB, uint8 [size_px, size_px, 3]; grey at
    night.
    """
    size_px = len(light)
    night = hour == "night"
    if night:
        light = _spread(_infra_red(light))
    picture = cv2.remap(
        light, *_lens(place.bend, size_px), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    picture = cv2.GaussianBlur(picture, (0, 0), place.softness_px * size_px / 128)
    gains = np.ones(3) if night else np.asarray(place.white_balance) * rng.uniform(0.94, 1.06, 3)
    gains = np.asarray(gains * place.exposure * rng.uniform(0.88, 1.12), np.float32)
    picture = picture * _vignette(place.vignette + NIGHT_VIGNETTE * night, size_px) * gains
    noise = np.float32(place.noise + NIGHT_NOISE * night)
    picture = picture + _spread(rng.standard_normal((size_px, size_px), np.float32) * noise)
    return _compressed(picture.clip(0, 255).astype(np.uint8), place.jpeg_quality)


def _infra_red(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what an infra-red sensor sees: one plane, the dark parts lifted."""
    grey = (light @ np.asarray(INFRA_RED, np.float32)).clip(0, 255)
    return np.asarray(255 * (grey / 255) ** np.float32(0.72), np.float32)


def _compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
