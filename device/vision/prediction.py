"""A prediction: what one detector's model says of one picture. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What one detector's model says of one picture.

    Attributes:
        score: Probability that the picture shows the object, 0 to 1.
        verdict: Whether the score reaches the threshold.
        threshold: The lowest score with a positive verdict, 0 to 1.
        version: Version of the model, 64 hexadecimal digits.
    """

    score: float
    verdict: bool
    threshold: float
    version: str
