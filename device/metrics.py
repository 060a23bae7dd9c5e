"""How well scores tell the two classes apart, by scikit-learn. The training child runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics


def measure(labels: NDArray[np.uint8], scores: NDArray[np.float32], threshold: float = 0.5) -> dict[str, Any]:
    """Measure a model on one split.

    Args:
        labels: uint8[n], 1 where the picture shows the object.
        scores: float32[n], probabilities.
        threshold: From which score on the answer is yes.

    Returns:
        pictures, accuracy, precision, recall, f1, roc_auc (None where one class is missing), and confusion:
        [[true negatives, false positives], [false negatives, true positives]].
    """
    answers = (scores >= threshold).astype(np.uint8)
    both = len(np.unique(labels)) == 2
    return {
        "pictures": len(labels),
        "accuracy": float(metrics.accuracy_score(labels, answers)),
        "precision": float(metrics.precision_score(labels, answers, zero_division=0.0)),
        "recall": float(metrics.recall_score(labels, answers, zero_division=0.0)),
        "f1": float(metrics.f1_score(labels, answers, zero_division=0.0)),
        "roc_auc": float(metrics.roc_auc_score(labels, scores)) if both else None,
        "confusion": metrics.confusion_matrix(labels, answers, labels=[0, 1]).tolist(),
    }
