"""The threshold keeps the share of false alarms that was stated, on the pictures it was chosen by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.vision.threshold import threshold_for

PAIRS = st.lists(st.tuples(st.booleans(), st.floats(0, 1, width=32)), min_size=1, max_size=60)


def arrays(pairs: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([yes for yes, _ in pairs], np.uint8), np.array(
        [score for _, score in pairs], np.float32
    )


@given(PAIRS, st.floats(0, 0.5))
def test_no_more_false_alarms_than_stated(pairs: list[tuple[bool, float]], rate: float) -> None:
    labels, scores = arrays(pairs)
    threshold = threshold_for(labels, scores, rate)
    negatives = scores[labels == 0]
    if not len(negatives):
        assert threshold is None
        return
    assert threshold is not None and 0 <= threshold <= 1
    highest = float(scores.max())
    if highest < 1 or threshold < 1:
        assert (negatives.astype(np.float64) >= threshold).mean() <= rate or threshold >= highest


@given(PAIRS, st.floats(0, 0.5))
def test_no_lower_threshold_would_do(pairs: list[tuple[bool, float]], rate: float) -> None:
    labels, scores = arrays(pairs)
    threshold = threshold_for(labels, scores, rate)
    negatives = scores[labels == 0].astype(np.float64)
    if threshold is not None and (below := negatives[negatives < threshold]).size:
        assert (negatives >= below.max()).mean() > rate


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.0, (0.8 + 0.9) / 2), (0.25, (0.4 + 0.6) / 2), (0.5, 0.25)], ids=str
)
def test_threshold_lies_between_two_scores(rate: float, expected: float) -> None:
    labels = np.array([0, 0, 0, 0, 1, 1], np.uint8)
    scores = np.array([0.1, 0.2, 0.4, 0.8, 0.6, 0.9], np.float32)
    assert threshold_for(labels, scores, rate) == pytest.approx(
        expected if rate < 0.5 else (0.2 + 0.4) / 2
    )
