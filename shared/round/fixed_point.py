"""Floats to integers modulo 2^32 and back, so that masked updates can be added exactly.

Devices encode, the main server decodes. A weighted delta becomes two's-complement fixed point with
stochastic rounding (unbiased; Gupta et al., 2015), the representation of secure aggregation after
Bonawitz et al. (2017). The scale follows from the largest value, weight and cohort, so no sum of
honest updates can wrap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidMessage
from shared.round.plan import RoundPlan

_CHUNK = 1 << 16


@dataclass(frozen=True, eq=False)
class Mean:
    """What the main server learns from a sum.

    Attributes:
        delta: Weighted mean of the cohort's deltas, float32[d].
        weight: Sum of the weights, in training pictures.
        clamped: How many coordinates were clamped, over the whole cohort.
    """

    delta: NDArray[np.float32]
    weight: int
    clamped: int


def scale_of(plan: RoundPlan) -> float:
    """Return fixed-point steps per unit: the largest scale at which `cohort_cap` devices cannot
    wrap.
    """
    largest_coordinate = (2**31 - 1) / plan.cohort_cap - 1  # the 1 is for rounding up
    return largest_coordinate / (plan.weight_cap * plan.value_range)


def encode(
    delta: NDArray[np.float32], weight: int, plan: RoundPlan, rng: np.random.Generator
) -> NDArray[np.uint32]:
    """Encode one device's weighted delta.

    Args:
        delta: float32[d], finite.
        weight: Number of training pictures; counted as `weight_cap` where it is more.
        plan: The round's plan.
        rng: Source of the rounding; nothing secret depends on it.

    Returns:
        uint32[d + 2]: weight x delta in fixed point, then the weight, then the number of clamped
        coordinates.

    Raises:
        InvalidMessage: The delta has another length, a value that is not finite, or no weight.
    """
    if delta.shape != (plan.size,) or not np.isfinite(delta).all() or weight < 1:
        raise InvalidMessage(
            "This delta cannot be sent: wrong length, no weight, or a value that is not finite."
        )
    weight = min(weight, plan.weight_cap)
    factor = weight * scale_of(plan)
    encoded = np.empty(plan.vector_size, "<u4")
    clamped = 0
    for start in range(0, plan.size, _CHUNK):
        part = delta[start : start + _CHUNK].astype(np.float64)
        clamped += int(np.count_nonzero(np.abs(part) > plan.value_range))
        np.clip(part, -plan.value_range, plan.value_range, out=part)
        part *= factor
        part += rng.random(part.size)
        encoded[start : start + part.size] = np.floor(part).astype(np.int32).view(np.uint32)
    encoded[-2:] = weight, clamped
    return encoded


def decode(total: NDArray[np.uint32], plan: RoundPlan, cohort: int | None = None) -> Mean:
    """Decode the unmasked sum of a cohort's encoded deltas; the inverse of `encode` for a cohort.

    Args:
        total: uint32[d + 2].
        plan: The round's plan.
        cohort: Number of devices in the sum, at most `cohort_cap`; the cap where it is None.

    Returns:
        The weighted mean; each coordinate is off by less than cohort / (scale x summed weight),
        beside float32.

    Raises:
        InvalidMessage: The length is wrong, or the summed weight or clamp count is one no honest
            cohort has.
    """
    if total.shape != (plan.vector_size,):
        raise InvalidMessage("This sum has another length than the round's model.")
    weight, clamped = int(total[-2]), int(total[-1])
    cohort = cohort or plan.cohort_cap
    if not 1 <= weight <= plan.weight_cap * cohort or clamped > plan.size * cohort:
        raise InvalidMessage(
            "The unmasked sum makes no sense: a device masked its update with another seed than it"
            " sealed.",
            kept="The global model is as it was.",
            todo="Open the next round; if it happens again, look for a faulty device.",
        )
    signed = total[: plan.size].view(np.int32)
    delta = np.empty(plan.size, np.float32)
    for start in range(0, plan.size, _CHUNK):
        delta[start : start + _CHUNK] = signed[start : start + _CHUNK] / (scale_of(plan) * weight)
    return Mean(delta, weight, clamped)
