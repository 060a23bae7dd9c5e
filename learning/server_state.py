"""What the server carries from round to round, as in fedjax: params, and the strategy's own arrays.

A state belongs to a version. The params are the version's model; the arrays (momentum, second
moments) are kept beside it in a container of their own, come back with it on a rollback, and are in
its backup. FedAvg has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidMessage
from shared.round.container import pack, unpack

STATE = "doorbell-state/1"


@dataclass(frozen=True, eq=False)
class ServerState:
    """The server's half of the optimizer's state, after one round and before the next.

    Attributes:
        params: float32[d], the global model.
        strategy: Name of the strategy that the arrays belong to; "" before the first step.
        arrays: The strategy's own float32[d] arrays by name; empty where it has none.
    """

    params: NDArray[np.float32]
    strategy: str = ""
    arrays: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def array(self, strategy: str, name: str) -> NDArray[np.float32]:
        """Return one of a strategy's arrays; zeros where it has not made a step yet.

        Arrays of another strategy mean something else, so a changed strategy starts afresh.
        """
        if self.strategy != strategy or name not in self.arrays:
            return np.zeros_like(self.params)
        return self.arrays[name]

    def arrays_to_bytes(self) -> bytes | None:
        """Return the container of the arrays, or None where there are none.

        `with_arrays` is the inverse.
        """
        if not self.arrays:
            return None
        return pack(STATE, {"strategy": self.strategy}, self.arrays)


def with_arrays(params: NDArray[np.float32], data: bytes | None) -> ServerState:
    """Return the state of a version from its params and the container kept beside it.

    Args:
        params: float32[d].
        data: What `arrays_to_bytes` returned.

    Raises:
        InvalidMessage: That is no state of so many params, or a value in it is not finite.
    """
    if data is None:
        return ServerState(params)
    metadata, arrays = unpack(data, STATE)
    for value in arrays.values():
        if value.shape != params.shape or value.dtype != np.dtype("<f4"):
            raise InvalidMessage("This server state does not fit its model.")
        if not np.isfinite(value).all():
            raise InvalidMessage("This server state holds a value that is not finite.")
    return ServerState(params, metadata.get("strategy", ""), arrays)
