"""Metrics against the definitions, counted by hand and by pairs; intervals against loops and known
distributions.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from device.evaluation.metrics import (
    _draws,
    compare,
    confusion,
    measure,
    reliability,
    report,
    roc_curve,
    worst_mistakes,
)
from device.evaluation.plot_child import comparison_plot
from shared.protocol.evaluations import METRICS, Estimate

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


@settings(deadline=None)
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


@settings(deadline=None)
@given(SPLITS)
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[int, float]]) -> None:
    yes, no = ([score for label, score in pairs if label == wanted] for wanted in (1, 0))
    if not yes or not no:
        return
    won = sum((a > b) + (a == b) / 2 for a in yes for b in no)
    assert measured(pairs)["roc_auc"] == pytest.approx(won / (len(yes) * len(no)))


# --- intervals


def split(count: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """Labels, and scores of two models of which the second is better."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.uint8)
    noise = rng.normal(0.5, 0.2, (2, count)) + np.array([[0.05], [0.2]]) * (2.0 * labels - 1)
    return labels, *np.clip(noise, 0, 1).astype(np.float32)


@settings(deadline=None, max_examples=50)
@given(SPLITS, st.randoms(use_true_random=False))
def test_estimated_values_are_those_that_are_measured(
    pairs: list[tuple[int, float]], random: Any
) -> None:
    labels, scores = np.array(pairs, np.float32).T
    labels = labels.astype(np.uint8)
    other = np.array([random.random() for _ in scores], np.float32)
    figures = compare(labels, scores, other, resamples=2)
    for row, of in (("local", scores), ("global", other)):
        expected = measure(labels, of)
        for name in METRICS:
            known = figures[row][name].value
            assert (
                (expected[name] in (0.0, None))
                if known is None
                else known == pytest.approx(expected[name])
            )


@pytest.mark.heavy
def test_interval_is_that_of_a_loop_over_the_same_draws() -> None:
    labels, local, better = split(40)
    draws = _draws(np.random.default_rng(3), 20, 40)
    figures = compare(labels, local, better, resamples=20, seed=3)
    for name in METRICS:
        values = []
        for counts in draws.astype(int):
            again = np.repeat(np.arange(40), counts)
            one, two = (measure(labels[again], scores[again])[name] for scores in (local, better))
            values.append((one, two, two - one))
        for row, column in zip(
            ("local", "global", "difference"), zip(*values, strict=True), strict=True
        ):
            estimate = figures[row][name]
            assert (estimate.low, estimate.high) == pytest.approx(
                tuple(np.quantile(column, (0.025, 0.975)))
            )


def test_interval_of_accuracy_is_the_binomial_one() -> None:
    """The bootstrap of a share draws from the binomial distribution, whose quantiles are known."""
    labels = np.ones(200, np.uint8)
    scores = np.where(np.arange(200) < 150, 0.9, 0.1).astype(np.float32)
    accuracy = compare(labels, scores, scores, resamples=4000)["local"]["accuracy"]
    deviation = np.sqrt(0.75 * 0.25 / 200)
    assert accuracy.value == 0.75
    assert accuracy.low == pytest.approx(0.75 - 1.96 * deviation, abs=0.006)
    assert accuracy.high == pytest.approx(0.75 + 1.96 * deviation, abs=0.006)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = np.zeros(2)
    rng = np.random.default_rng(5)
    for seed in range(200):
        labels = np.ones(100, np.uint8)
        local, better = ((rng.random(100) < share).astype(np.float32) for share in (0.7, 0.8))
        figures = compare(labels, local, better, resamples=300, seed=seed)
        for k, (row, truth) in enumerate((("global", 0.8), ("difference", 0.1))):
            covered[k] += figures[row]["accuracy"].low <= truth <= figures[row]["accuracy"].high
    assert (np.array([0.89, 0.89]) <= covered / 200).all() and (covered / 200 <= 0.99).all()


def test_difference_is_paired() -> None:
    """Two models that are right about the same pictures do not differ, however unsure their
    accuracy is.
    """
    labels, local, better = split(60)
    same = compare(labels, local, np.where(local >= 0.5, 0.75, 0.25).astype(np.float32))
    assert (same["difference"]["accuracy"].low, same["difference"]["accuracy"].high) == (0.0, 0.0)
    assert same["local"]["accuracy"].high - same["local"]["accuracy"].low > 0.15
    figures = compare(labels, local, better)
    difference = figures["difference"]["roc_auc"]
    assert difference.value == pytest.approx(
        figures["global"]["roc_auc"].value - figures["local"]["roc_auc"].value
    )


def test_same_pictures_give_the_same_intervals_and_another_seed_others() -> None:
    assert compare(*split(30)) == compare(*split(30)) != compare(*split(30), seed=1)


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = compare(*split(30), resamples=50)
    monkeypatch.setattr("device.evaluation.metrics._MAX_CELLS", 7 * 30)
    assert compare(*split(30), resamples=50) == expected


@pytest.mark.parametrize("label", [0, 1])
def test_what_one_class_cannot_tell_is_unknown(label: int) -> None:
    labels = np.full(6, label, np.uint8)
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.6, 0.9], np.float32)
    local = compare(labels, scores, scores)["local"]
    unknown = {name for name, estimate in local.items() if estimate == Estimate(None, None, None)}
    assert unknown == ({"recall", "roc_auc"} if label == 0 else {"roc_auc"})


def test_draws_of_one_class_are_left_out() -> None:
    labels, scores = np.array([1, 0], np.uint8), np.array([0.9, 0.1], np.float32)
    local = compare(labels, scores, scores)["local"]
    assert local["roc_auc"] == Estimate(1.0, 1.0, 1.0)
    assert local["recall"] == Estimate(1.0, 1.0, 1.0)


def test_value_of_which_no_draw_tells_stands_without_an_interval() -> None:
    labels, scores = np.array([1, 0], np.uint8), np.array([0.9, 0.1], np.float32)
    seed = next(
        n for n in range(99) if _draws(np.random.default_rng(n), 1, 2).max() == 2
    )  # one picture, twice
    assert compare(labels, scores, scores, resamples=1, seed=seed)["local"]["roc_auc"] == Estimate(
        1.0, None, None
    )


def test_model_that_never_says_yes_has_no_precision() -> None:
    labels, scores = np.array([1, 0, 1], np.uint8), np.array([0.1, 0.2, 0.3], np.float32)
    assert compare(labels, scores, scores)["local"]["precision"] == Estimate(None, None, None)
    assert compare(labels, scores, scores)["difference"]["precision"] == Estimate(None, None, None)


def test_intervals_of_a_thousand_pictures_take_well_under_a_second() -> None:
    begun = time.process_time()
    compare(*split(1000))
    assert time.process_time() - begun < 1.0


# --- reliability, and mistakes


def test_reliability_counted_by_hand() -> None:
    labels = np.array([0, 1, 1, 1, 0], np.uint8)
    scores = np.array([0.05, 0.12, 0.18, 1.0, 0.95], np.float32)
    curve, error = reliability(labels, scores)
    assert [(each["pictures"], each["observed"]) for each in curve] == [
        (1, 0.0),
        (2, 1.0),
        (2, 0.5),
    ]
    assert [each["predicted"] for each in curve] == pytest.approx([0.05, 0.15, 0.975])
    assert error == pytest.approx((1 * 0.05 + 2 * 0.85 + 2 * 0.475) / 5)


def test_model_that_is_as_sure_as_it_is_right_has_no_calibration_error() -> None:
    labels = np.array([1, 0, 0, 0], np.uint8)
    assert reliability(labels, np.full(4, 0.25, np.float32))[1] == 0.0


def test_worst_mistakes_are_the_surest_and_come_first() -> None:
    labels = np.array([0, 0, 1, 1, 1, 0], np.uint8)
    scores = np.array([0.6, 0.99, 0.2, 0.9, 0.45, 0.1], np.float32)
    assert worst_mistakes(labels, scores) == [1, 2, 0, 4]
    assert worst_mistakes(labels, scores, most=2) == [1, 2]


@pytest.mark.parametrize("label", [0, 1])
def test_report_of_one_class_is_whole_and_plain(label: int) -> None:
    labels, scores = np.full(3, label, np.uint8), np.array([0.1, 0.6, 0.9], np.float32)
    found = json.loads(
        json.dumps(report(labels, {"local": scores, "global": scores}), allow_nan=False)
    )
    assert found["models"]["local"]["roc"] == []
    assert found["figures"]["local"]["roc_auc"] == {"value": None, "low": None, "high": None}
    assert comparison_plot("package", found).startswith(b"\x89PNG")


@settings(deadline=None)
@given(SPLITS)
def test_roc_curve_and_confusion_are_those_of_scikit_learn(pairs: list[tuple[int, float]]) -> None:
    labels, scores = np.array(pairs, np.float32).T
    labels = labels.astype(np.uint8)
    expected = metrics.confusion_matrix(labels, scores >= 0.5, labels=[0, 1])
    assert confusion(labels, scores) == expected.tolist()
    if len(set(labels)) == 1:
        assert roc_curve(labels, scores) == []
        return
    for rates, known in zip(
        roc_curve(labels, scores), metrics.roc_curve(labels, scores)[:2], strict=True
    ):
        assert rates == pytest.approx(known)


def test_report_says_of_each_model_what_it_did() -> None:
    labels, local, better = split(50)
    found = json.loads(
        json.dumps(report(labels, {"local": local, "global": better}), allow_nan=False)
    )
    assert found["pictures"] == 50
    assert found["models"]["global"]["confusion"] == measure(labels, better)["confusion"]
    false_positives, true_positives = found["models"]["local"]["roc"]
    assert (false_positives[0], true_positives[0], false_positives[-1], true_positives[-1]) == (
        0,
        0,
        1,
        1,
    )
    assert np.trapezoid(true_positives, false_positives) == pytest.approx(
        measure(labels, local)["roc_auc"]
    )
    for mistake in found["models"]["local"]["mistakes"]:
        assert (mistake["label"], mistake["score"]) == (
            labels[mistake["index"]],
            local[mistake["index"]],
        )
        assert (mistake["score"] >= 0.5) != mistake["label"]
