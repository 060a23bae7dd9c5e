"""A notification: one ring as the owner hears of it, with what the models predicted. Plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from device.vision.prediction import Prediction
from shared.errors import InvalidMessage
from shared.names import checked_name, checked_version

SOURCES: Final = ("button", "motion", "upload")
"""What rings a doorbell."""


@dataclass(frozen=True)
class Notification:
    """One ring, as the owner is notified of it.

    Attributes:
        id: Number of the event; it grows with time, and no number is used twice.
        at: Time of the ring, in seconds since the epoch.
        device: The device's name.
        source: "button", "motion" or "upload".
        answers: Detector to prediction.
        picture: A JPEG where the owner allows pictures, else None.
    """

    id: int
    at: float
    device: str
    source: str
    answers: Mapping[str, Prediction]
    picture: bytes | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """Home Assistant's event type: "motion" where the watch rang, else "ring"."""
        return "motion" if self.source == "motion" else "ring"

    def facts(self) -> dict[str, Any]:
        """Return everything but the picture as JSON, with checked names and numbers.

        Raises:
            InvalidMessage: A name is not valid, or a number is not between 0 and 1.
        """
        if self.source not in SOURCES:
            raise InvalidMessage(
                "Unknown source of a ring.",
                todo=f"It is one of {', '.join(SOURCES)}.",
            )
        answers = {
            checked_name(name, "detector"): _facts_of(prediction)
            for name, prediction in self.answers.items()
        }
        at = datetime.fromtimestamp(self.at, UTC)
        return {
            "id": self.id,
            "at": at.isoformat(timespec="milliseconds"),
            "device": checked_name(self.device, "device"),
            "source": self.source,
            "answers": answers,
        }


def _facts_of(prediction: Prediction) -> dict[str, object]:
    for number in (prediction.score, prediction.threshold):
        if not (math.isfinite(number) and 0 <= number <= 1):
            raise InvalidMessage("A score or a threshold is not between 0 and 1.")
    return {
        "score": round(float(prediction.score), 6),
        "verdict": bool(prediction.verdict),
        "threshold": round(float(prediction.threshold), 6),
        "version": checked_version(prediction.version),
    }
