"""The chances and the stand of a subject: what one picture of a kind looks like, and where it is.

A device's set-up runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from dataset.porch.brush import Brush, Colour

T = TypeVar("T")


@dataclass(frozen=True)
class Traits:
    """The chances that decide what one subject looks like.

    Attributes:
        rng: Where every chance comes from.
        unseen: True for the test split: shapes, poses and colours that training never had.
    """

    rng: np.random.Generator
    unseen: bool

    def pick(self, seen: Sequence[T], unseen: Sequence[T]) -> T:
        """Return one of the options of this split."""
        options = unseen if self.unseen else seen
        return options[int(self.rng.integers(len(options)))]

    def span(self, low: float, high: float, beyond: float) -> float:
        """Return a number from [low, high) for training, from outside of it as far as beyond for
        the test split.
        """
        if not self.unseen:
            return float(self.rng.uniform(low, high))
        return float(self.rng.uniform(*((high, beyond) if beyond > high else (beyond, low))))

    def vary(self, low: float, high: float) -> float:
        """Return a number from [low, high), in every split."""
        return float(self.rng.uniform(low, high))

    def chance(self, probability: float) -> bool:
        """Return True this often."""
        return bool(self.rng.random() < probability)

    def tint(self, colour: Colour) -> Colour:
        """Return the colour a little lighter or darker, and a little off its hue."""
        gains = self.rng.uniform(0.88, 1.1) * self.rng.uniform(0.96, 1.04, 3)
        red, green, blue = (
            min(255, round(part * gain)) for part, gain in zip(colour, gains, strict=True)
        )
        return red, green, blue


@dataclass(frozen=True)
class Kind:
    """One kind of subject and where it stands in the picture.

    Attributes:
        name: What a person would call it.
        paint: Paints it in its own frame.
        unit: Least and greatest share of the picture that one unit takes.
        ground: Highest and lowest place of its ground, as a share of the picture from the top.
        aside: How far it may stand from the middle, as a share of the picture.
        at_night: False where it cannot be met at night.
    """

    name: str
    paint: Callable[[Brush, Traits], None]
    unit: tuple[float, float]
    ground: tuple[float, float] = (0.88, 0.95)
    aside: float = 0.12
    at_night: bool = True
