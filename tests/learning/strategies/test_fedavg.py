"""The server's step against numpy's own arithmetic."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from learning.server_state import ServerState
from learning.strategies.fedavg import FedAvg
from learning.strategies.strategy import weighted_mean
from shared.round.fixed_point import Mean


def step(
    params: NDArray[np.float32], delta: NDArray[np.float32], rate: float
) -> NDArray[np.float32]:
    return FedAvg().step(ServerState(params), [Mean(delta, 7, 0)], rate).params


def means(deltas: Iterable[NDArray[np.float32]], weights: list[int]) -> list[Mean]:
    return [Mean(delta, weight, 0) for delta, weight in zip(deltas, weights, strict=True)]


VALUES = st.floats(-100, 100, width=32)
COHORTS = st.integers(1, 6).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, 5), elements=VALUES),
        st.lists(st.integers(1, 4096), min_size=n, max_size=n),
    )
)


def test_step_with_rate_one_adds_the_mean_delta() -> None:
    params, delta = np.array([1.0, 2.0], np.float32), np.array([0.5, -3.0], np.float32)
    np.testing.assert_array_equal(step(params, delta, 1.0), [1.5, -1.0])


def test_step_scales_the_mean_delta_by_its_rate_and_stays_float32() -> None:
    params, delta = np.array([1.0, 2.0], np.float32), np.array([0.5, -3.0], np.float32)
    stepped = step(params, delta, 0.5)
    np.testing.assert_array_equal(stepped, [1.25, 0.5])
    assert stepped.dtype == np.float32
    np.testing.assert_array_equal(params, [1.0, 2.0])


def test_averaging_deltas_and_stepping_equals_averaging_the_trained_models() -> None:
    rng = np.random.default_rng(0)
    base, trained = (
        rng.normal(size=9).astype(np.float32),
        rng.normal(size=(3, 9)).astype(np.float32),
    )
    stepped = step(
        base, weighted_mean(means([params - base for params in trained], [1, 2, 5])), 1.0
    )
    np.testing.assert_allclose(
        stepped, np.average(trained, axis=0, weights=[1, 2, 5]), rtol=1e-5, atol=1e-6
    )


@given(COHORTS)
def test_weighted_mean_is_numpys(cohort: tuple[np.ndarray, list[int]]) -> None:
    deltas, weights = cohort
    mean = weighted_mean(means(deltas, weights))
    assert mean.dtype == np.float32
    np.testing.assert_allclose(
        mean, np.average(deltas.astype(np.float64), axis=0, weights=weights), rtol=1e-6, atol=1e-6
    )


@given(COHORTS, st.randoms(use_true_random=False))
def test_order_of_the_cohort_does_not_matter(
    cohort: tuple[np.ndarray, list[int]], random: object
) -> None:
    deltas, weights = cohort
    order = list(range(len(weights)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = weighted_mean(means([deltas[i] for i in order], [weights[i] for i in order]))
    np.testing.assert_allclose(
        shuffled, weighted_mean(means(deltas, weights)), rtol=1e-6, atol=1e-6
    )
