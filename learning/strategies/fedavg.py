"""How the global model takes the cohort's mean delta: the server's half of federated averaging.

FedAvg (McMahan et al., 2017) in the form of Reddi et al. (2021): the mean delta is a
pseudo-gradient, and the server takes a step along it. With a learning rate of 1 the new model is
the weighted mean of the trained ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def step(
    params: NDArray[np.float32], mean_delta: NDArray[np.float32], learning_rate: float
) -> NDArray[np.float32]:
    """Return the next global params.

    Args:
        params: float32[d], the round's base.
        mean_delta: float32[d], trained minus base, weighted mean over the cohort.
        learning_rate: 1.0 is plain federated averaging.

    Returns:
        float32[d].
    """
    return params + np.float32(learning_rate) * mean_delta


def weighted_mean(deltas: list[NDArray[np.float32]], weights: list[int]) -> NDArray[np.float32]:
    """Return the mean of plain deltas, each float32[d], weighted by its number of pictures (direct
    topology).
    """
    total = np.zeros_like(deltas[0], np.float64)
    for delta, weight in zip(deltas, weights, strict=True):
        total += delta * np.float64(weight)
    mean: NDArray[np.float32] = (total / sum(weights)).astype(np.float32)
    return mean
