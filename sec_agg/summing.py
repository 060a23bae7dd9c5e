"""Addition of masked vectors: the only arithmetic that the secure aggregator does. Pure functions.

The vectors are integers modulo 2^32 that are uniform to everybody without the seeds, so there is
nothing to read in them; see docs/reference/protocol.md, step 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def sum_buckets(
    updates: Iterable[NDArray[np.uint32]], assignment: Sequence[int]
) -> list[NDArray[np.uint32]]:
    """Add masked vectors up, modulo 2^32, one sum per bucket.

    Args:
        updates: uint32[n] each, of one length; one is read at a time, so they may share a buffer.
        assignment: The bucket of each update, numbered from 0 without a gap. All zeros are one
            bucket, today's sum.

    Returns:
        uint32[n] per bucket.

    Raises:
        ValueError: A bucket is empty, or the lengths differ.
    """
    buckets = len(set(assignment))
    if not assignment or set(assignment) != set(range(buckets)):
        raise ValueError("every bucket needs an update")
    sums: dict[int, NDArray[np.uint32]] = {}
    for update, bucket in zip(updates, assignment, strict=True):
        if bucket in sums:
            np.add(sums[bucket], update, out=sums[bucket])
        else:
            sums[bucket] = update.copy()
    return [sums[bucket] for bucket in range(buckets)]
