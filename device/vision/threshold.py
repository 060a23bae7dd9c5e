"""The threshold: the lowest score with a positive verdict."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def threshold_for(
    labels: NDArray[np.uint8], scores: NDArray[np.float32], false_alarms: float
) -> float | None:
    """Choose the lowest threshold that few enough negatives reach.

    It lies in the middle between the highest score that must be a no and the next higher score, so
    that a slightly different picture falls on the same side.

    Args:
        labels: uint8[n], 1 where the picture shows the object.
        scores: float32[n], probabilities.
        false_alarms: Largest share of negatives that may reach the threshold, 0 to 1.

    Returns:
        The threshold, from 0 to 1; None where there is no negative.
    """
    negatives = scores[labels == 0].astype(np.float64)
    if not len(negatives):
        return None
    highest_first = np.sort(negatives)[::-1]
    highest_no = highest_first[int(false_alarms * len(negatives))]
    higher = scores[scores > highest_no].astype(np.float64)
    # Where no score is higher, 1 is the upper end.
    next_score = higher.min() if len(higher) else 1.0
    return float((highest_no + next_score) / 2)
