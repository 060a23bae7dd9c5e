"""How well a device's own model and the global one tell its test pictures apart: the evaluation
report that a device sends to the main server.

The device measures and sends, the main server checks and shows. No picture, no file name and no
score of a single picture is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Generic, NewType, TypeVar

from msgspec import Meta, field

from shared.messages import Count, Message, Name, RoundNumber, Version, convert, matching

METRICS: Final = {
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
}
"""What is measured, and how it is called on a page."""

ROWS: Final = ("local", "global", "difference")
"""Of what it is measured; the difference is global minus local, on the same pictures."""

_PERCENT: Final = ("accuracy", "precision", "recall")

Share = NewType("Share", Annotated[float, Meta(ge=0, le=1)])
Difference = NewType("Difference", Annotated[float, Meta(ge=-1, le=1)])
Bounded_co = TypeVar("Bounded_co", bound=float, covariant=True)


class Estimate(Message, Generic[Bounded_co], frozen=True):
    """A measured value and the ends of its 95 % interval; None where it cannot be known."""

    noun: ClassVar[str] = "estimate"

    value: Bounded_co | None
    low: Bounded_co | None
    high: Bounded_co | None

    def __post_init__(self) -> None:
        """Refuse an interval of no value, with one end, or with its ends in the wrong order."""
        # A ValueError is what the decoder turns into the refusal of a message.
        if (self.low is None) != (self.high is None):
            raise ValueError("An interval has two ends")
        if self.value is None and self.low is not None:
            raise ValueError("An interval without a value")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("An interval ends before it begins")


Figures = Mapping[str, Mapping[str, Estimate[float]]]  # of `ROWS`, then of `METRICS`
Metric = Annotated[str, matching("|".join(METRICS))]
# As many as there are metrics, and no other name: every metric is there.
_EVERY = Meta(min_length=len(METRICS), max_length=len(METRICS))
_Shares = Annotated[dict[Metric, Estimate[Share]], _EVERY]
_Differences = Annotated[dict[Metric, Estimate[Difference]], _EVERY]


class Comparison(Message, frozen=True, kw_only=True):
    """An estimate of every metric: of the local model, of the global one, and of global minus
    local.
    """

    noun: ClassVar[str] = "comparison of two models"

    local: _Shares
    global_: _Shares = field(name="global")  # a keyword of Python's
    difference: _Differences

    @property
    def figures(self) -> Figures:
        """The three rows by their names in `ROWS`."""
        return {"local": self.local, "global": self.global_, "difference": self.difference}


class Performance(Comparison, frozen=True, kw_only=True):
    """What one device measured of one detector.

    Attributes:
        detector: Its name.
        trained_round: The local model was trained for this round.
        version: Of the global model.
        pictures: Number of test pictures.
    """

    noun: ClassVar[str] = "evaluation report"

    detector: Name
    trained_round: RoundNumber
    version: Version
    pictures: Count


def performance_of(
    detector: str, trained_round: int, version: str, pictures: int, figures: Figures
) -> Performance:
    """Return a report of these figures; raises as `shared.messages.convert`."""
    measured = {
        "detector": detector,
        "trained_round": trained_round,
        "version": version,
        "pictures": pictures,
    }
    return convert(Performance, measured | figures_to_json(figures))


def figures_to_json(figures: Figures) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return figures as plain values."""
    return {
        row: {metric: estimate.to_json() for metric, estimate in estimates.items()}
        for row, estimates in figures.items()
    }


def parse_figures(rows: Mapping[str, object]) -> Figures:
    """Return figures of plain values, such as a database keeps; the inverse of `figures_to_json`.

    Raises:
        InvalidMessage: One is missing, unknown, no number, out of range, or an interval without its
            ends in order.
    """
    return convert(Comparison, rows).figures


def shown(metric: str, estimate: Estimate[float], signed: bool = False) -> str:
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
    in_percent = metric in _PERCENT
    scale, digits = (100, 1) if in_percent else (1, 3)
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    value = form.format(scale * estimate.value)
    if in_percent:
        value += " points" if signed else " %"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({form.format(scale * estimate.low)} to {form.format(scale * estimate.high)})"
