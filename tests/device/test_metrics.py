"""Metrics against the definitions, counted by hand and by pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device.metrics import measure

SPLITS = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1, width=32)), min_size=1, max_size=30)


def measured(pairs: list[tuple[int, float]], threshold: float = 0.5) -> dict[str, object]:
    labels, scores = zip(*pairs, strict=True)
    return measure(np.array(labels, np.uint8), np.array(scores, np.float32), threshold)


def test_small_split_counted_by_hand() -> None:
    result = measured([(1, 0.9), (1, 0.6), (1, 0.4), (0, 0.7), (0, 0.2)])
    assert result == {
        "pictures": 5,
        "accuracy": pytest.approx(3 / 5),
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "roc_auc": pytest.approx(4 / 6),
        "confusion": [[1, 1], [1, 2]],
    }


def test_score_at_the_threshold_is_a_yes() -> None:
    assert measured([(1, 0.5), (0, 0.25)])["confusion"] == [[1, 0], [0, 1]]
    assert measured([(1, 0.5), (0, 0.25)], threshold=0.75)["confusion"] == [[1, 0], [1, 0]]


@pytest.mark.parametrize("label", [0, 1])
def test_split_of_one_class_has_no_auc_and_a_whole_confusion_matrix(label: int) -> None:
    result = measured([(label, 0.9), (label, 0.1)])
    assert result["roc_auc"] is None
    assert np.sum(result["confusion"]) == 2
    assert np.shape(result["confusion"]) == (2, 2)


def test_model_that_never_says_yes_has_precision_zero_without_a_warning() -> None:
    result = measured([(1, 0.1), (0, 0.1)])
    assert (result["precision"], result["recall"], result["f1"]) == (0.0, 0.0, 0.0)


@given(SPLITS)
def test_metrics_follow_from_the_confusion_matrix(pairs: list[tuple[int, float]]) -> None:
    result = measured(pairs)
    (tn, fp), (fn, tp) = result["confusion"]
    assert tp == sum(label and score >= 0.5 for label, score in pairs)
    assert fp == sum(not label and score >= 0.5 for label, score in pairs)
    assert tn + fp + fn + tp == result["pictures"] == len(pairs)
    assert result["accuracy"] == pytest.approx((tp + tn) / len(pairs))
    assert result["precision"] == pytest.approx(tp / (tp + fp) if tp + fp else 0)
    assert result["recall"] == pytest.approx(tp / (tp + fn) if tp + fn else 0)
    assert result["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)


@given(SPLITS)
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[int, float]]) -> None:
    yes, no = ([score for label, score in pairs if label == wanted] for wanted in (1, 0))
    if not yes or not no:
        return
    won = sum((a > b) + (a == b) / 2 for a in yes for b in no)
    assert measured(pairs)["roc_auc"] == pytest.approx(won / (len(yes) * len(no)))
