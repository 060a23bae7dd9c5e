"""What happened at the door: one ring, what the models answered, and who is to be told.

Plain data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shared.errors import InvalidMessage
from shared.names import checked_name, checked_version

SOURCES = ("button", "motion", "upload")


@dataclass(frozen=True)
class Answer:
    """What one detector's model answered.

    Attributes:
        score: Probability that the picture shows it, 0 to 1.
        verdict: Whether that is enough.
        threshold: From which score on it is.
        version: Of the model, 64 hexadecimal digits.
    """

    score: float
    verdict: bool
    threshold: float
    version: str


@dataclass(frozen=True)
class Happening:
    """One ring, as its owner is told of it.

    Attributes:
        id: Grows with time; no number is used twice.
        at: When, in seconds since the epoch.
        device: The device's name.
        source: "button", "motion" or "upload".
        answers: What each detector answered.
        picture: A JPEG, where whoever tells of it may show it; else None.
    """

    id: int
    at: float
    device: str
    source: str
    answers: Mapping[str, Answer]
    picture: bytes | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """What Home Assistant calls it: "ring", or "motion" where nobody rang."""
        return "motion" if self.source == "motion" else "ring"

    def facts(self) -> dict[str, Any]:
        """Return all but the picture as JSON has it, with names and numbers that are safe to pass
        on.

        Raises:
            InvalidMessage: A name is none, or a number is not between 0 and 1.
        """
        if self.source not in SOURCES:
            raise InvalidMessage(
                "That is not what rings a doorbell.", todo=f"It is one of {', '.join(SOURCES)}."
            )
        return {
            "id": self.id,
            "at": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds"),
            "device": checked_name(self.device, "device"),
            "source": self.source,
            "answers": {
                checked_name(name, "detector"): _facts(answer)
                for name, answer in self.answers.items()
            },
        }


def _facts(answer: Answer) -> dict[str, object]:
    for number in (answer.score, answer.threshold):
        if not (math.isfinite(number) and 0 <= number <= 1):
            raise InvalidMessage("A score or a threshold is not between 0 and 1.")
    return {
        "score": round(float(answer.score), 6),
        "verdict": bool(answer.verdict),
        "threshold": round(float(answer.threshold), 6),
        "version": checked_version(answer.version),
    }
