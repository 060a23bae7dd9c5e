"""FedAvgM against numpy, written from the paper; its state goes to bytes and back."""

from __future__ import annotations

import numpy as np
import pytest

from learning.server_state import ServerState, with_arrays
from learning.strategies.fedavg import FedAvg
from learning.strategies.fedavgm import FedAvgM
from shared.errors import InvalidMessage
from shared.round.fixed_point import Mean

RNG = np.random.default_rng(0)
DELTAS = RNG.normal(size=(5, 7)).astype(np.float32)
START = RNG.normal(size=7).astype(np.float32)


def test_five_rounds_are_those_of_the_paper() -> None:
    state = ServerState(START)
    momentum, params = np.zeros(7), START.astype(np.float64)
    for delta in DELTAS:
        state = FedAvgM(momentum=0.9).step(state, [Mean(delta, 10, 0)], 0.5)
        momentum = 0.9 * momentum + delta
        params = params + 0.5 * momentum
        np.testing.assert_allclose(state.params, params, rtol=1e-5, atol=1e-5)
    assert state.params.dtype == np.float32


def test_without_momentum_it_is_fedavg() -> None:
    ours = theirs = ServerState(START)
    for delta in DELTAS:
        ours = FedAvgM(momentum=0.0).step(ours, [Mean(delta, 10, 0)], 1.0)
        theirs = FedAvg().step(theirs, [Mean(delta, 10, 0)], 1.0)
    np.testing.assert_array_equal(ours.params, theirs.params)


def test_state_that_was_stored_goes_on_bit_for_bit() -> None:
    first = FedAvgM().step(ServerState(START), [Mean(DELTAS[0], 1, 0)], 1.0)
    stored = with_arrays(first.params, first.arrays_to_bytes())
    went_on, restored = (
        FedAvgM().step(state, [Mean(DELTAS[1], 1, 0)], 1.0) for state in (first, stored)
    )
    np.testing.assert_array_equal(went_on.params, restored.params)
    np.testing.assert_array_equal(went_on.arrays["momentum"], restored.arrays["momentum"])


def test_arrays_of_another_strategy_are_not_taken_for_its_own() -> None:
    other = ServerState(START, "fedadam", {"momentum": np.full(7, 9.0, np.float32)})
    state = FedAvgM().step(other, [Mean(DELTAS[0], 1, 0)], 1.0)
    np.testing.assert_array_equal(state.arrays["momentum"], DELTAS[0])


@pytest.mark.parametrize("size", [6, 8])
def test_state_of_another_model_is_refused(size: int) -> None:
    data = ServerState(START, "fedavgm", {"momentum": START}).arrays_to_bytes()
    with pytest.raises(InvalidMessage, match="does not fit"):
        with_arrays(np.zeros(size, np.float32), data)
