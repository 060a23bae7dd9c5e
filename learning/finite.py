"""Whether numbers are finite, asked in numpy where they enter and leave a model. The device runs
it, in all processes.

No answer comes from how a kernel treats NaN: `max(nan, 0)` is NaN on one processor and 0 on
another, so that a value that is not finite may go into a network, spoil its params, and still never
show in the loss or the scores.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def all_finite(*arrays: NDArray[Any]) -> bool:
    """Return whether every value of every array is finite; integers always are.

    Args:
        *arrays: Of any shape; an empty one is finite.
    """
    return all(bool(np.isfinite(array).all()) for array in arrays)
