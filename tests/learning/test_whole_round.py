"""A whole secure round by the pure functions alone: no HTTP, database, file, clock or framework."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from numpy.typing import NDArray

from learning.architectures import PORCH_CNN, Params
from learning.round import LocalResult, client_update, mean_of_sum, server_update, share
from learning.server_state import ServerState
from sec_agg.summing import sum_buckets
from shared.errors import InvalidMessage
from shared.round.fixed_point import Mean, scale_of
from shared.round.masking import SealingKey, new_private_key
from shared.round.payloads import MaskedUpdate, PlainUpdate
from shared.round.plan import LocalWork, RoundPlan

KEY = SealingKey.from_private(new_private_key())
PLAN = RoundPlan(
    federation="test",
    detector="animal",
    round=1,
    base_version="0" * 64,
    architecture=PORCH_CNN.name,
    size=PORCH_CNN.size,
    topology="secure",
    epochs=1,
    batch_size=1,
    learning_rate=0.1,
    clipping_norm=None,
    value_range=1.0,
    weight_cap=4096,
    cohort_cap=1024,
    min_cohort=2,
    sealing_key=base64.b64encode(KEY.public).decode(),
    strategy="fedavg",
    server_learning_rate=1.0,
)


@dataclass(frozen=True)
class Pictures:
    labels: NDArray[np.uint8]


class Nudge:
    """A learner without a framework: it moves every parameter by an amount that the seed decides."""

    def train(
        self,
        params: Params,
        train: Pictures,
        valid: Pictures,
        work: LocalWork,
        seed: int,
        on_progress: Callable[[Any], None],
    ) -> tuple[Params, tuple[Any, ...]]:
        rng = np.random.default_rng(seed)
        moved = {
            name: value + rng.uniform(-0.5, 0.5, value.shape).astype(np.float32)
            for name, value in params.items()
        }
        return moved, ()


def results(base: Params, weights: Mapping[str, int], plan: RoundPlan) -> dict[str, LocalResult]:
    return {
        device: client_update(
            base,
            Pictures(np.ones(weight, np.uint8)),
            Pictures(np.ones(1, np.uint8)),
            plan,
            Nudge(),
            seed=number,
        )
        for number, (device, weight) in enumerate(weights.items())
    }


def masked(results: Mapping[str, LocalResult], plan: RoundPlan) -> list[MaskedUpdate]:
    rng = np.random.default_rng(0)
    updates = [share(result, plan, device, rng) for device, result in results.items()]
    return [update for update in updates if isinstance(update, MaskedUpdate)]


def opened(updates: list[MaskedUpdate], plan: RoundPlan) -> dict[str, bytes]:
    return {
        each.device: KEY.open_sealed(each.sealed_seed, plan.context(each.device))
        for each in updates
    }


def secure_round(base: Params, weights: Mapping[str, int], plan: RoundPlan) -> ServerState:
    """What the services do over HTTP, in five calls."""
    updates = masked(results(base, weights, plan), plan)
    (total,) = sum_buckets([update.masked for update in updates], [0] * len(updates))
    mean = mean_of_sum(total, opened(updates, plan), plan)
    return server_update(ServerState(PORCH_CNN.flatten(base)), [mean], plan)


WEIGHTS = {"device-1": 40, "device-2": 400, "device-3": 7}
BASE = PORCH_CNN.initial(np.random.default_rng(0))


def test_secure_round_steps_to_the_weighted_mean_of_the_trained_models() -> None:
    state = secure_round(BASE, WEIGHTS, PLAN)
    trained = [PORCH_CNN.flatten(result.params) for result in results(BASE, WEIGHTS, PLAN).values()]
    mean = np.average(trained, axis=0, weights=list(WEIGHTS.values()))
    step = len(WEIGHTS) / (scale_of(PLAN) * sum(WEIGHTS.values()))  # of the fixed point
    np.testing.assert_allclose(state.params, mean, atol=step + 1e-6)


def test_secure_and_direct_topology_come_to_the_same_model() -> None:
    direct = structs.replace(PLAN, topology="direct", sealing_key="")
    means = []
    for device, result in results(BASE, WEIGHTS, direct).items():
        update = share(result, direct, device, np.random.default_rng(0))
        assert isinstance(update, PlainUpdate)
        means.append(Mean(update.delta, update.weight, 0))
    plain = server_update(ServerState(PORCH_CNN.flatten(BASE)), means, direct)
    np.testing.assert_allclose(plain.params, secure_round(BASE, WEIGHTS, PLAN).params, atol=1e-4)


def test_sum_without_one_devices_seed_is_refused_or_noise() -> None:
    updates = masked(results(BASE, WEIGHTS, PLAN), PLAN)
    (total,) = sum_buckets([update.masked for update in updates], [0] * len(updates))
    seeds = opened(updates, PLAN)
    seeds["device-3"] = bytes(32)
    with pytest.raises(InvalidMessage, match="makes no sense"):
        mean_of_sum(total, seeds, PLAN)


def test_servers_step_size_comes_from_the_plan() -> None:
    whole = secure_round(BASE, WEIGHTS, PLAN).params
    half = secure_round(BASE, WEIGHTS, structs.replace(PLAN, server_learning_rate=0.5)).params
    base = PORCH_CNN.flatten(BASE)
    np.testing.assert_allclose(half - base, (whole - base) / 2, atol=1e-6)


def test_step_to_a_value_that_is_not_finite_is_refused() -> None:
    state = ServerState(np.full(3, 3e38, np.float32))
    means = [Mean(np.full(3, 3e38, np.float32), 1, 0)]
    with pytest.raises(InvalidMessage, match="not finite"), np.errstate(over="ignore"):
        server_update(state, means, PLAN)


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=12).filter(
        lambda buckets: set(buckets) == set(range(max(buckets) + 1))
    ),
    st.integers(0, 2**32 - 1),
)
def test_sums_of_buckets_are_numpys_and_add_up_to_the_whole(buckets: list[int], seed: int) -> None:
    updates = np.random.default_rng(seed).integers(0, 2**32, (len(buckets), 5), dtype=np.uint32)
    sums = sum_buckets(iter(updates), buckets)
    for number, total in enumerate(sums):
        mine = updates[[bucket == number for bucket in buckets]].astype(np.uint64)
        np.testing.assert_array_equal(total, (mine.sum(axis=0) % 2**32).astype(np.uint32))
    (whole,) = sum_buckets(sums, [0] * len(sums))
    np.testing.assert_array_equal(whole, updates.sum(axis=0, dtype=np.uint64) % 2**32)


@pytest.mark.parametrize("assignment", [[], [1], [0, 2], [-1, 0]])
def test_bucket_without_an_update_is_refused(assignment: list[int]) -> None:
    with pytest.raises(ValueError, match="every bucket"):
        sum_buckets([np.zeros(1, np.uint32)] * len(assignment), assignment)
