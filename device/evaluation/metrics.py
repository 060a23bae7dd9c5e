"""How well scores tell the two classes apart, and how sure that is. The training child runs it.

Intervals are bootstrap percentile intervals (Efron & Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13): the test pictures are drawn again with replacement, as many as there are, a
thousand times, and the middle 95 % of what is measured on the draws is the interval. Two models are
measured on the same draws, so that their difference is paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.protocol.evaluations import METRICS, ROWS, Estimate, Figures, figures_to_json

RESAMPLES: Final = 1000
BINS: Final = 10
MISTAKES: Final = 6
_LEVEL: Final = (0.025, 0.975)
_MAX_CELLS: Final = 1 << 20  # of a table of draws: 8 MB

Labels = NDArray[np.uint8]
Scores = NDArray[np.float32]


def measure(labels: Labels, scores: Scores, threshold: float = 0.5) -> dict[str, Any]:
    """Measure a model on one split.

    Args:
        labels: uint8[n], 1 where the picture shows the object.
        scores: float32[n], probabilities.
        threshold: From which score on the answer is yes.

    Returns:
        pictures, accuracy, precision, recall, f1, roc_auc (None where one class is missing), and
        confusion: [[true negatives, false positives], [false negatives, true positives]].
    """
    (values,) = _metrics(np.ones((1, len(labels))), labels, scores, threshold)
    accuracy, precision, recall, f1 = (float(value) for value in np.nan_to_num(values[:4]))
    auc = float(values[4])
    return {
        "pictures": len(labels),
        "accuracy": accuracy,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "roc_auc": None if math.isnan(auc) else auc,
        "confusion": confusion(labels, scores, threshold),
    }


def confusion(labels: Labels, scores: Scores, threshold: float = 0.5) -> list[list[int]]:
    """Return [[true negatives, false positives], [false negatives, true positives]]."""
    cases = 2 * labels.astype(np.int64) + (scores >= threshold)
    counts: list[list[int]] = np.bincount(cases, minlength=4).reshape(2, 2).tolist()
    return counts


def compare(
    labels: Labels,
    local_scores: Scores,
    global_scores: Scores,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Figures:
    """Estimate each metric of two models, and of global minus local, with 95 % intervals.

    A metric that is 0 / 0 on a draw, as the AUC of one class is, is left out of that draw.

    Args:
        labels: uint8[n], 1 where the picture shows the object; at least one picture.
        local_scores: float32[n], probabilities.
        global_scores: float32[n], probabilities, of the same pictures.
        resamples: How often the pictures are drawn again.
        seed: Decides the draws.

    Returns:
        "local", "global" and "difference", each metric to its estimate.
    """
    both, count = (local_scores, global_scores), len(labels)
    once = np.stack([_metrics(np.ones((1, count)), labels, scores) for scores in both])
    rng, drawn, rows = np.random.default_rng(seed), [], max(1, _MAX_CELLS // count)
    for start in range(0, resamples, rows):
        counts = _draws(rng, min(rows, resamples - start), count)
        drawn.append(np.stack([_metrics(counts, labels, scores) for scores in both]))
    again = np.concatenate(drawn, axis=1)
    rows_of = (*zip(once, again, strict=True), (once[1] - once[0], again[1] - again[0]))
    return {
        row: {name: _estimate(values[0, k], draws[:, k]) for k, name in enumerate(METRICS)}
        for row, (values, draws) in zip(ROWS, rows_of, strict=True)
    }


def reliability(
    labels: Labels, scores: Scores, bins: int = BINS
) -> tuple[list[dict[str, float]], float]:
    """Hold predicted probabilities against how often the object was there.

    Args:
        labels: uint8[n], 1 where the picture shows the object.
        scores: float32[n], probabilities.
        bins: Number of equally wide ranges of probability.

    Returns:
        Of each bin that is not empty: predicted (mean probability), observed (share of pictures
        that show the object) and pictures; and the expected calibration error (Guo et al., On
        Calibration of Modern Neural Networks, ICML 2017) of these probabilities: the mean gap
        between the two, weighted by pictures.
    """
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    pictures = np.bincount(which, minlength=bins)
    predicted, observed = (
        np.bincount(which, weights=each.astype(np.float64), minlength=bins)
        for each in (scores, labels)
    )
    curve = [
        {
            "predicted": float(predicted[k] / pictures[k]),
            "observed": float(observed[k] / pictures[k]),
            "pictures": int(pictures[k]),
        }
        for k in np.flatnonzero(pictures)
    ]
    return curve, float(np.abs(predicted - observed).sum() / len(labels))


def roc_curve(labels: Labels, scores: Scores) -> list[list[float]]:
    """Return the receiver operating characteristic's corners, from (0, 0) to (1, 1).

    Args:
        labels: uint8[n], 1 where the picture shows the object.
        scores: float32[n], probabilities.

    Returns:
        False positive rates and true positive rates, one of each for every threshold at which the
        curve turns; empty where one class is missing.
    """
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(labels[order], dtype=np.int64)
    alarms = np.arange(1, len(order) + 1) - found
    if not len(order) or not found[-1] or not alarms[-1]:
        return []
    # Equal scores pass a threshold together, so only the last of them is a point of the curve.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    points = np.stack([alarms[last], found[last]])
    # A point on the straight line between its neighbours says nothing.
    turns = np.diff(points, 2, axis=1).any(axis=0)
    points = points[:, np.concatenate([[True], turns, [True]])] if len(last) > 1 else points
    points = np.pad(points, ((0, 0), (1, 0)))
    rates: list[list[float]] = (points / points[:, -1:]).tolist()
    return rates


def worst_mistakes(labels: Labels, scores: Scores, most: int = MISTAKES) -> list[int]:
    """Return the indices of the most confident mistakes, the surest first."""
    wrong = np.flatnonzero((scores >= 0.5) != labels)
    surest = np.argsort(-np.abs(scores[wrong] - 0.5), kind="stable")
    return [int(index) for index in wrong[surest[:most]]]


def examine(labels: Labels, scores: Scores) -> dict[str, Any]:
    """Look at a model's scores from every side that a page shows.

    Returns:
        confusion, as `measure` has it; roc: false and true positive rates, empty where one class is
        missing; reliability and calibration_error, as `reliability` has them.
    """
    curve, error = reliability(labels, scores)
    return {
        "confusion": confusion(labels, scores),
        "roc": roc_curve(labels, scores),
        "reliability": curve,
        "calibration_error": error,
    }


def report(labels: Labels, scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Compare "local" and "global" scores of the same pictures in full, as plain values.

    Returns:
        pictures; figures, as `compare` gives them; models: name to what `examine` says, and
        `mistakes`: index, label (1 where the picture shows the object) and score of each of the
        worst.
    """
    models = {}
    for name, of in scores.items():
        worst = [
            {"index": k, "label": int(labels[k]), "score": float(of[k])}
            for k in worst_mistakes(labels, of)
        ]
        models[name] = examine(labels, of) | {"mistakes": worst}
    figures = compare(labels, scores["local"], scores["global"])
    return {"pictures": len(labels), "figures": figures_to_json(figures), "models": models}


def _draws(rng: np.random.Generator, rows: int, count: int) -> NDArray[np.float64]:
    """Return how often each picture is in each bootstrap draw, float64[rows, count]."""
    chosen = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, np.newaxis]
    return (
        np.bincount(chosen.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)
    )


def _metrics(
    counts: NDArray[np.float64], labels: Labels, scores: Scores, threshold: float = 0.5
) -> NDArray[np.float64]:
    """Return the metrics of each draw, float64[draws, 5] in the order of METRICS; NaN where one is
    0 / 0.
    """
    there, yes = labels == 1, scores >= threshold
    cases = np.stack([yes == there, yes & there, yes & ~there, ~yes & there], axis=1)
    right, tp, fp, fn = (counts @ cases).T
    with np.errstate(invalid="ignore"):
        precision, recall, f1 = tp / (tp + fp), tp / (tp + fn), 2 * tp / (2 * tp + fp + fn)
        return np.stack(
            [right / len(labels), precision, recall, f1, _auc(counts, there, scores)], axis=1
        )


def _auc(
    counts: NDArray[np.float64], there: NDArray[np.bool_], scores: Scores
) -> NDArray[np.float64]:
    """Return each draw's share of pairs, one picture of each class, in the right order; a tie is
    half a pair.
    """
    order = np.argsort(scores, kind="stable")
    ranked, places = counts[:, order], np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    yes, no = (np.add.reduceat(ranked * of, places, axis=1) for of in (there[order], ~there[order]))
    below = np.cumsum(no, axis=1) - no
    won: NDArray[np.float64] = (yes * (below + no / 2)).sum(axis=1) / (
        yes.sum(axis=1) * no.sum(axis=1)
    )
    return won


def _estimate(value: np.float64, draws: NDArray[np.float64]) -> Estimate[float]:
    if np.isnan(value):
        return Estimate(None, None, None)
    known = draws[~np.isnan(draws)]
    low, high = map(float, np.quantile(known, _LEVEL)) if len(known) else (None, None)
    return Estimate(float(value), low, high)
