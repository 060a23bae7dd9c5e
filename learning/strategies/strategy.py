"""What a strategy is: a frozen dataclass whose fields are its parameters, and one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from enum import Enum
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from learning.server_state import ServerState
from shared.round.fixed_point import Mean


class Needs(Enum):
    """What a strategy has to be given; a run that cannot give it is refused at its start."""

    SUM = "one mean over the whole cohort"
    BUCKETS = "means over several buckets of devices"
    UPDATES = "the update of every single device"


class Strategy(Protocol):
    """How the server uses the means of a round."""

    needs: ClassVar[Needs]

    def step(self, state: ServerState, means: Sequence[Mean], learning_rate: float) -> ServerState:
        """Return the state after one round.

        Args:
            state: The state that the round started from.
            means: One without buckets, one per bucket, or one per device in the direct topology.
            learning_rate: The server's step size.
        """


def parameter(default: float, low: float, high: float) -> Any:  # a dataclass field of any type
    """Return the dataclass field of a strategy's parameter, with its default and bounds."""
    return field(default=default, metadata={"bounds": (low, high)})


def weighted_mean(means: Sequence[Mean]) -> NDArray[np.float32]:
    """Return the mean of means, each float32[d], by their weights (number of pictures)."""
    total = np.zeros(means[0].delta.shape, np.float64)
    for mean in means:
        total += mean.delta * np.float64(mean.weight)
    weight = sum(mean.weight for mean in means)
    result: NDArray[np.float32] = (total / weight).astype(np.float32)
    return result
