"""What leaves a device: the delta's sign, the clip, and masks that come off with the sealed seed
alone.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from learning.architectures import PORCH_CNN
from learning.round import clip, local_result
from shared.errors import InvalidMessage
from shared.round.fixed_point import decode, scale_of
from shared.round.masking import SealingKey, new_private_key, unmask
from shared.round.plan import RoundPlan
from tests.updates import masked_update, plain_update

KEY = SealingKey.from_private(new_private_key())
SIZE = 5
VECTORS = arrays(np.float32, st.integers(1, 20), elements=st.floats(-1e6, 1e6, width=32))


def round_plan(**changed: Any) -> RoundPlan:
    members: dict[str, Any] = {
        "federation": "test",
        "detector": "package",
        "round": 3,
        "base_version": "a" * 64,
        "architecture": "porch-cnn",
        "size": SIZE,
        "topology": "secure",
        "epochs": 1,
        "batch_size": 1,
        "learning_rate": 0.1,
        "clipping_norm": None,
        "value_range": 8.0,
        "weight_cap": 100,
        "cohort_cap": 4,
        "min_cohort": 2,
        "strategy": "fedavg",
        "server_learning_rate": 1.0,
        "sealing_key": base64.b64encode(KEY.public).decode(),
    }
    return RoundPlan(**(members | changed))


def opened(update: Any, plan: RoundPlan) -> Any:
    """Unmask and decode one update, as only the main server could."""
    context = plan.context(update.device)
    total = update.masked.copy()
    unmask(total, KEY.open_sealed(update.sealed_seed, context), context)
    return decode(total, plan)


def test_delta_is_trained_minus_base_in_the_architectures_order() -> None:
    base = PORCH_CNN.initial(np.random.default_rng(0))
    step = PORCH_CNN.unflatten(np.arange(PORCH_CNN.size, dtype=np.float32))
    trained = {name: base[name] + step[name] for name in reversed(base)}
    result = local_result(base, trained, 7, round_plan(size=PORCH_CNN.size))
    np.testing.assert_allclose(result.delta, np.arange(PORCH_CNN.size), atol=0.01)
    assert result.weight == 7


def test_clip_leaves_short_delta_unchanged() -> None:
    delta = np.array([0.3, -0.4], np.float32)
    np.testing.assert_array_equal(clip(delta, 0.5000001), delta)


def test_clip_without_a_norm_leaves_delta_unchanged() -> None:
    delta = np.array([3e30, 4e30], np.float32)
    np.testing.assert_array_equal(clip(delta, None), delta)


def test_clip_shortens_long_delta_to_the_norm_and_keeps_its_direction() -> None:
    clipped = clip(np.array([30.0, -40.0], np.float32), 5.0)
    np.testing.assert_allclose(clipped, [3.0, -4.0], rtol=1e-6)
    assert clipped.dtype == np.float32


def test_clip_of_zero_is_zero() -> None:
    np.testing.assert_array_equal(clip(np.zeros(4, np.float32), 1.0), np.zeros(4))


@given(VECTORS, st.floats(0.01, 1e6))
def test_clipped_norm_is_the_smaller_of_both(delta: np.ndarray, norm: float) -> None:
    length = np.linalg.norm(delta.astype(np.float64))
    clipped = np.linalg.norm(clip(delta, norm).astype(np.float64))
    assert clipped == pytest.approx(min(length, norm), rel=1e-5, abs=1e-30)


def test_masked_update_opens_to_the_clipped_delta_and_its_weight() -> None:
    plan = round_plan(clipping_norm=1.0)
    delta = np.array([3.0, -4.0, 0.0, 0.0, 0.0], np.float32)
    update = masked_update(delta, 7, plan, "device-1", np.random.default_rng(0))
    mean = opened(update, plan)
    np.testing.assert_allclose(
        mean.delta, [0.6, -0.8, 0, 0, 0], atol=1 / (7 * scale_of(plan)) + 1e-6
    )
    assert (mean.weight, mean.clamped) == (7, 0)
    assert (update.detector, update.round, update.base_version, update.device) == (
        "package",
        3,
        "a" * 64,
        "device-1",
    )


def test_weight_above_the_cap_counts_as_the_cap() -> None:
    plan = round_plan()
    update = masked_update(
        np.ones(SIZE, np.float32), 5000, plan, "device-1", np.random.default_rng(0)
    )
    assert opened(update, plan).weight == 100
    assert plain_update(np.ones(SIZE, np.float32), 5000, plan, "device-1").weight == 100


def test_values_beyond_the_range_are_clamped_and_counted() -> None:
    plan = round_plan(value_range=1.0)
    delta = np.array([5.0, -5.0, 0.5, 1.0, 0.0], np.float32)
    mean = opened(masked_update(delta, 10, plan, "device-1", np.random.default_rng(0)), plan)
    np.testing.assert_allclose(mean.delta, [1, -1, 0.5, 1, 0], atol=1e-4)
    assert mean.clamped == 2


def test_each_call_masks_afresh() -> None:
    plan, delta = round_plan(), np.ones(SIZE, np.float32)
    first, second = (
        masked_update(delta, 7, plan, "device-1", np.random.default_rng(0)) for _ in range(2)
    )
    assert not np.array_equal(first.masked, second.masked)
    assert first.sealed_seed != second.sealed_seed
    np.testing.assert_array_equal(opened(first, plan).delta, opened(second, plan).delta)


@pytest.mark.parametrize(
    "changed", [{"round": 4}, {"base_version": "b" * 64}, {"federation": "other"}]
)
def test_seed_opens_in_its_own_round_alone(changed: dict[str, Any]) -> None:
    update = masked_update(
        np.ones(SIZE, np.float32), 7, round_plan(), "device-1", np.random.default_rng(0)
    )
    with pytest.raises(InvalidMessage, match="does not open"):
        opened(update, round_plan(**changed))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_delta_that_is_not_finite_is_never_sent(bad: float) -> None:
    delta = np.full(SIZE, bad, np.float32)
    with pytest.raises(InvalidMessage, match="not finite"):
        masked_update(delta, 7, round_plan(), "device-1", np.random.default_rng(0))


@pytest.mark.parametrize("norm", [None, 1.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_plain_delta_that_is_not_finite_is_never_sent(bad: float, norm: float | None) -> None:
    delta = np.ones(SIZE, np.float32)
    delta[2] = bad
    with pytest.raises(InvalidMessage, match="not finite"):
        plain_update(delta, 7, round_plan(clipping_norm=norm), "device-1")


def test_update_without_a_picture_is_never_sent() -> None:
    with pytest.raises(InvalidMessage, match="no weight"):
        masked_update(
            np.ones(SIZE, np.float32), 0, round_plan(), "device-1", np.random.default_rng(0)
        )


def test_plain_update_is_clipped_and_nothing_else() -> None:
    plan = round_plan(clipping_norm=1.0)
    update = plain_update(np.array([3.0, 4.0, 0, 0, 0], np.float32), 7, plan, "device-1")
    np.testing.assert_allclose(update.delta, [0.6, 0.8, 0, 0, 0], rtol=1e-6)
    assert update.weight == 7
