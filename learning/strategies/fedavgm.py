"""FedAvgM (Hsu, Qi and Brown, "Measuring the effects of non-identical data distribution", 2019).

The server keeps a momentum of the mean deltas, so a direction that many rounds agree on is taken
faster, and what a single cohort pulls one way is smoothed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from learning.server_state import ServerState
from learning.strategies.strategy import Needs, parameter, weighted_mean
from shared.round.fixed_point import Mean


@dataclass(frozen=True)
class FedAvgM:
    """m = momentum * m + D; x += lr * m.

    Attributes:
        momentum: How much of the last step goes into the next, from 0 to 0.999.
    """

    needs: ClassVar[Needs] = Needs.SUM
    momentum: float = parameter(0.9, 0.0, 0.999)

    def step(self, state: ServerState, means: Sequence[Mean], learning_rate: float) -> ServerState:
        """Return the state after one round; the momentum begins with zeros."""
        before = state.array("fedavgm", "momentum")
        momentum = np.float32(self.momentum) * before + weighted_mean(means)
        params = state.params + np.float32(learning_rate) * momentum
        return ServerState(params, "fedavgm", {"momentum": momentum})
