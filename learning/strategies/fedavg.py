"""FedAvg (McMahan et al., 2017), in the form of Reddi et al. (2021), Algorithm 1 with SGD.

The mean delta is a pseudo-gradient, and the server takes a step along it. With a learning rate of 1
the new model is the weighted mean of the trained ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from learning.server_state import ServerState
from learning.strategies.strategy import Needs, weighted_mean
from shared.round.fixed_point import Mean


@dataclass(frozen=True)
class FedAvg:
    """x += lr * D."""

    needs: ClassVar[Needs] = Needs.SUM

    def step(self, state: ServerState, means: Sequence[Mean], learning_rate: float) -> ServerState:
        """Return the state after one round; FedAvg keeps no arrays."""
        delta = weighted_mean(means)
        return ServerState(state.params + np.float32(learning_rate) * delta, "fedavg")
