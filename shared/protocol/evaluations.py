"""How well a device's own model and the global one tell its test pictures apart: numbers that a
device may pass on.

The device measures and sends them, the main server checks and shows them. No picture, no file name
and no score of a single picture is among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from shared.errors import InvalidMessage
from shared.names import checked_name, checked_version
from shared.web.openapi import NAME_TEXT, VERSION_TEXT, Schema, as_json, record

METRICS: Final = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
}
"""What is measured, and how it is called on a page."""
ROWS: Final = {"local": (0.0, 1.0), "global": (0.0, 1.0), "difference": (-1.0, 1.0)}
"""Of what it is measured, and between what bounds; the difference is global minus local, on the
same pictures.
"""
_SHARES = ("accuracy", "precision", "recall")
_MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Estimate:
    """A measured value and the ends of its 95 % interval; None where it cannot be known."""

    value: float | None
    low: float | None
    high: float | None


Figures = Mapping[str, Mapping[str, Estimate]]  # of `ROWS`, then of `METRICS`


@dataclass(frozen=True)
class Performance:
    """What one device measured of one detector.

    Attributes:
        detector: Its name.
        trained_round: The local model was trained for this round.
        version: Of the global model.
        pictures: Number of test pictures.
        figures: "local", "global" and "difference", each with an estimate of every metric.
    """

    detector: str
    trained_round: int
    version: str
    pictures: int
    figures: Figures

    def to_json(self) -> dict[str, object]:
        """Return the form that travels."""
        named = {
            "detector": self.detector,
            "trained_round": self.trained_round,
            "version": self.version,
        }
        return named | {"pictures": self.pictures} | figures_to_json(self.figures)


def figures_to_json(figures: Figures) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return figures as plain values."""
    return {
        row: {name: asdict(estimate) for name, estimate in of.items()}
        for row, of in figures.items()
    }


def parse_figures(message: Mapping[str, object]) -> Figures:
    """Return the figures among the members of a decoded JSON message.

    Raises:
        InvalidMessage: One is missing, unknown, no number, out of range, or an interval without its
            ends in order.
    """
    return {row: _estimates(message.get(row), *bounds) for row, bounds in ROWS.items()}


def parse_performance(message: object) -> Performance:
    """Return the performance in a decoded JSON message.

    Raises:
        InvalidMessage: It is anything else.
    """
    names = {"detector", "trained_round", "version", "pictures", *ROWS}
    if not isinstance(message, Mapping) or set(message) != names:
        raise InvalidMessage(
            "This is not what a device measured.", todo="Run the same version of every service."
        )
    for name in ("trained_round", "pictures"):
        if type(message[name]) is not int or not 0 < message[name] <= _MAX_NUMBER:
            raise InvalidMessage(f"What a device measured has a whole number above 0 as {name}.")
    return Performance(
        checked_name(message["detector"], "detector"),
        message["trained_round"],
        checked_version(message["version"]),
        message["pictures"],
        parse_figures(message),
    )


def shown(metric: str, estimate: Estimate, signed: bool = False) -> str:
    """Return an estimate as a person reads it: "92.5 % (84.1 to 97.7)", or a dash where it cannot
    be known.

    Args:
        metric: One of `METRICS`: shares are shown in per cent, differences of them in percentage
            points.
        estimate: Value and interval.
        signed: Whether it is a difference.
    """
    if estimate.value is None:
        return "–"
    scale, digits = (100, 1) if metric in _SHARES else (1, 3)
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    value = form.format(scale * estimate.value) + (
        "" if scale == 1 else " points" if signed else " %"
    )
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({form.format(scale * estimate.low)} to {form.format(scale * estimate.high)})"


def _estimates(value: object, low: float, high: float) -> Mapping[str, Estimate]:
    if not isinstance(value, Mapping) or set(value) != set(METRICS):
        raise InvalidMessage("What a device measured has a value of each metric for each model.")
    return {name: _estimate(value[name], low, high) for name in METRICS}


def _estimate(value: Any, low: float, high: float) -> Estimate:
    if not isinstance(value, Mapping) or set(value) != set(Estimate.__dataclass_fields__):
        raise InvalidMessage("A measured value comes with the ends of its interval.")
    numbers = [value[name] for name in Estimate.__dataclass_fields__]
    known = [number for number in numbers if number is not None]
    if any(type(n) not in (int, float) or not low <= n <= high for n in known):  # NaN is not
        raise InvalidMessage(f"A measured value and its interval lie between {low:g} and {high:g}.")
    middle, first, last = (None if number is None else float(number) for number in numbers)
    if (first is None) != (last is None) or (middle is None and first is not None):
        raise InvalidMessage("An interval has two ends, and is one of a value.")
    if first is not None and last is not None and first > last:
        raise InvalidMessage("An interval begins before it ends.")
    return Estimate(middle, first, last)


def _schema(low: float, high: float) -> Schema:
    number = {"type": ["number", "null"], "minimum": low, "maximum": high}
    estimate = {**record(value=number, low=number, high=number), "additionalProperties": False}
    return {**record(**dict.fromkeys(METRICS, estimate)), "additionalProperties": False}


_NUMBER = {"type": "integer", "minimum": 1, "maximum": _MAX_NUMBER}
PERFORMANCE = as_json(
    {
        **record(
            detector=NAME_TEXT,
            trained_round=_NUMBER,
            version=VERSION_TEXT,
            pictures=_NUMBER,
            **{row: _schema(*bounds) for row, bounds in ROWS.items()},
        ),
        "additionalProperties": False,
    }
)
