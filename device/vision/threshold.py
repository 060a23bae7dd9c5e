"""From which score on a detector's verdict is yes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def threshold_for(
    labels: NDArray[np.uint8], scores: NDArray[np.float32], false_alarms: float
) -> float | None:
    """Choose the lowest threshold at which few enough pictures without the object are taken for one
    with it.

    It lies in the middle between the score that must still be a no and the next higher score, so
    that a picture that is a little different falls on the same side.

    Args:
        labels: uint8[n], 1 where the picture shows the object.
        scores: float32[n], probabilities.
        false_alarms: The share of the pictures without the object that may be taken for one with
            it, 0 to 1.

    Returns:
        The threshold, from 0 to 1; None where there is no picture without the object.
    """
    negatives = np.sort(scores[labels == 0].astype(np.float64))[::-1]
    if not len(negatives):
        return None
    highest_no = negatives[int(false_alarms * len(negatives))]
    higher = scores[scores > highest_no].astype(np.float64)
    return float((highest_no + (higher.min() if len(higher) else 1.0)) / 2)
