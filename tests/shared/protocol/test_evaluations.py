"""What a device tells of its measurement: the same on both ends, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from shared.errors import InvalidMessage
from shared.messages import convert, decode, encode
from shared.protocol.evaluations import METRICS, Estimate, Performance, shown

SCHEMA = Draft202012Validator(msgspec.json.schema(Performance))


def message() -> dict[str, Any]:
    """Return a whole message, its parts its own."""
    of = {name: {"value": 0.75, "low": 0.5, "high": 1} for name in METRICS}
    between = {name: {"value": -0.25, "low": -1, "high": 0.0} for name in METRICS}
    said = {"detector": "package", "trained_round": 3, "version": "0" * 64, "pictures": 40}
    said |= {
        "local": of,
        "global": of | {"roc_auc": dict.fromkeys(("value", "low", "high"))},
        "difference": between,
    }
    return dict(json.loads(json.dumps(said)))


def test_what_one_end_writes_the_other_reads() -> None:
    performance = convert(Performance, message())
    assert performance.figures["local"]["f1"] == Estimate(0.75, 0.5, 1.0)
    assert performance.figures["global"]["roc_auc"] == Estimate(None, None, None)
    assert decode(Performance, encode(performance)) == performance
    SCHEMA.validate(performance.to_json())


def change(said: dict[str, Any], path: str, value: object) -> None:
    *parts, last = path.split("/")
    for part in parts:
        said = said[part]
    said[last] = value


NUMBERS = ["0.5", True, [], {}, float("nan"), float("inf"), -0.1, 1.1, 10**400]
WRONG: list[tuple[str, object]] = [
    *(("local/accuracy/value", value) for value in NUMBERS),
    *(("global/f1/high", value) for value in NUMBERS),
    ("difference/recall/low", -1.5),
    ("difference/recall/value", float("-inf")),
    ("detector", "Package"),
    ("detector", "../x"),
    ("detector", None),
    ("version", "0" * 63),
    ("version", 0),
    ("pictures", 0),
    ("pictures", -1),
    ("pictures", 1.5),
    ("pictures", True),
    ("pictures", 2**31),
    ("pictures", "4"),
    ("trained_round", 0),
    ("trained_round", None),
    ("more", 1),
    ("local/more", {}),
    ("local/accuracy/more", 1),
    ("local", None),
    ("local/accuracy", 0.5),
    ("local/accuracy", []),
    ("difference", []),
    ("global", "good"),
]


@pytest.mark.parametrize(
    ("path", "value"), WRONG, ids=[f"{n}-{path}" for n, (path, _) in enumerate(WRONG)]
)
def test_anything_else_is_refused(path: str, value: object) -> None:
    said = message()
    change(said, path, value)
    with pytest.raises(InvalidMessage):
        convert(Performance, said)
    if not isinstance(value, float) or math.isfinite(
        value
    ):  # JSON has no other; Python's reader does
        assert not SCHEMA.is_valid(said)


@pytest.mark.parametrize("path", ["pictures", "local", "difference/f1", "global/accuracy/low"])
def test_nothing_may_be_missing(path: str) -> None:
    said: Any = message()
    *parts, last = path.split("/")
    part = said
    for name in parts:
        part = part[name]
    del part[last]
    with pytest.raises(InvalidMessage):
        convert(Performance, said)
    assert not SCHEMA.is_valid(said)


@pytest.mark.parametrize(
    "estimate",
    [(0.5, 0.6, 0.4), (0.5, None, 0.6), (0.5, 0.4, None), (None, 0.4, 0.6), (None, None, 0.6)],
    ids=str,
)
def test_interval_has_both_ends_in_order_and_a_value(estimate: Any) -> None:
    said = message()
    said["local"]["accuracy"] = dict(zip(("value", "low", "high"), estimate, strict=True))
    with pytest.raises(InvalidMessage):
        convert(Performance, said)


@pytest.mark.parametrize("said", [None, [], "x", 1, {}, {"local": {}}], ids=str)
def test_what_is_no_measurement_at_all_is_refused(said: object) -> None:
    with pytest.raises(InvalidMessage, match="Invalid evaluation report"):
        convert(Performance, said)


@pytest.mark.parametrize(
    ("show", "text"),
    [
        (lambda: shown("accuracy", Estimate(0.925, 0.8, 1.0)), "92.5 % (80.0 to 100.0)"),
        (lambda: shown("roc_auc", Estimate(0.925, None, None)), "0.925"),
        (lambda: shown("f1", Estimate(0.05, -0.1, 0.2), signed=True), "+0.050 (-0.100 to +0.200)"),
        (
            lambda: shown("recall", Estimate(-0.05, -0.1, 0.0), signed=True),
            "-5.0 points (-10.0 to +0.0)",
        ),
        (lambda: shown("precision", Estimate(None, None, None)), "–"),
    ],
    ids=["share", "without interval", "difference", "points", "unknown"],
)
def test_estimate_in_words(show: Callable[[], str], text: str) -> None:
    assert show() == text
