"""Fixed point: exact sums, a stated error, no wrap, no bias; numpy's own weighted mean is the
oracle.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from shared.errors import InvalidMessage
from shared.round.fixed_point import decode, encode, scale_of
from shared.round.plan import RoundPlan, parse_round_plan

RoundSettingsFactory = Callable[..., RoundPlan]
VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "round.json").read_text())
CHUNK = 1 << 16
ALMOST_ONE = math.nextafter(1.0, 0.0)


class Constant:
    """Stands in for numpy's generator, and always draws the same number."""

    def __init__(self, drawn: float) -> None:
        self._drawn = drawn

    def random(self, size: int) -> NDArray[np.float64]:
        return np.full(size, self._drawn)


def constant(drawn: float) -> np.random.Generator:
    generator: Any = Constant(drawn)
    return generator


def total_of(encoded: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """Add modulo 2^32, as the aggregator does."""
    return np.add.reduce(encoded, dtype=np.uint32)


def steps_of(encoded: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The coordinates as signed whole steps."""
    return encoded[:-2].view(np.int32).astype(np.int64)


def vector(values: object) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def quantisation_error(
    chosen: RoundPlan, cohort: int, weight: int, mean: NDArray[np.float64]
) -> Any:
    """What `decode` states: cohort / (scale x summed weight), beside the rounding to float32."""
    return cohort / (scale_of(chosen) * weight) * (1 + 1e-6) + np.abs(mean) * 2.0**-23 + 2.0**-148


@given(
    values=npst.arrays(np.float32, st.integers(1, 20), elements=st.floats(-1, 1, width=32)),
    weight=st.integers(1, 100),
    seed=st.integers(0, 2**32),
)
def test_decode_gives_back_one_delta_within_one_step(
    round_settings: RoundSettingsFactory, values: NDArray[np.float32], weight: int, seed: int
) -> None:
    chosen = round_settings(size=values.size)
    mean = decode(encode(values, weight, chosen, np.random.default_rng(seed)), chosen)
    bound = quantisation_error(chosen, 1, weight, values.astype(np.float64))
    assert (np.abs(mean.delta.astype(np.float64) - values) <= bound).all()
    assert (mean.weight, mean.clamped) == (weight, 0)
    assert mean.delta.dtype == np.float32


@given(data=st.data())
@settings(max_examples=200)
def test_cohort_decodes_to_numpys_weighted_mean(
    round_settings: RoundSettingsFactory, data: st.DataObject
) -> None:
    cohort_cap = data.draw(st.integers(2, 1024), "cohort_cap")
    weight_cap = data.draw(st.sampled_from([1, 7, 4096, 2**20]), "weight_cap")
    value_range = data.draw(st.sampled_from([1e-6, 0.5, 1.0, 3e4]), "value_range")
    size = data.draw(st.integers(1, 8), "size")
    chosen = round_settings(
        size=size, cohort_cap=cohort_cap, weight_cap=weight_cap, value_range=value_range
    )
    cohort = data.draw(st.integers(1, min(cohort_cap, 12)), "cohort")
    weights = data.draw(
        st.lists(st.integers(1, weight_cap), min_size=cohort, max_size=cohort), "weights"
    )
    largest = float(np.nextafter(np.float32(value_range), np.float32(0)))
    values = st.floats(-largest, largest, width=32)
    deltas = data.draw(npst.arrays(np.float32, (cohort, size), elements=values), "deltas")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    pairs = zip(deltas, weights, strict=True)
    mean = decode(total_of([encode(delta, weight, chosen, rng) for delta, weight in pairs]), chosen)
    expected = np.average(deltas.astype(np.float64), axis=0, weights=weights)
    bound = quantisation_error(chosen, cohort, sum(weights), expected)
    assert (np.abs(mean.delta.astype(np.float64) - expected) <= bound).all()
    assert (mean.weight, mean.clamped) == (sum(weights), 0)


@given(st.permutations(range(6)))
def test_order_of_the_cohort_does_not_change_the_sum(
    round_settings: RoundSettingsFactory, order: list[int]
) -> None:
    chosen, rng = round_settings(size=50), np.random.default_rng(0)
    encoded = [
        encode(rng.normal(0, 0.3, 50).astype(np.float32), i + 1, chosen, rng) for i in range(6)
    ]
    np.testing.assert_array_equal(total_of(encoded), total_of([encoded[i] for i in order]))


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("whole", [-3, -1, 0, 2])
def test_rounding_is_unbiased(
    round_settings: RoundSettingsFactory, whole: int, fraction: float
) -> None:
    size = 100_000
    chosen = round_settings(size=size, weight_cap=1, cohort_cap=2, value_range=1e9)
    delta = np.full(size, (whole + fraction) / scale_of(chosen), np.float32)
    exact = float(delta[0]) * scale_of(chosen)
    steps = steps_of(encode(delta, 1, chosen, np.random.default_rng(7)))
    assert set(steps) <= {math.floor(exact), math.floor(exact) + 1}
    assert abs(steps.mean() - exact) <= 6 * 0.5 / math.sqrt(size)


def test_rounding_goes_both_ways(round_settings: RoundSettingsFactory) -> None:
    chosen = round_settings(size=1000)
    delta = np.full(1000, 10.5 / scale_of(chosen), np.float32)
    assert len(set(steps_of(encode(delta, 1, chosen, np.random.default_rng(0))))) == 2


@given(
    npst.arrays(np.float32, 10, elements=st.floats(-(2.0**100), 2.0**100, width=32)),
    st.integers(1, 100),
)
def test_clamping_is_counted_and_bounded(
    round_settings: RoundSettingsFactory, values: NDArray[np.float32], weight: int
) -> None:
    chosen = round_settings(size=10, value_range=0.5)
    mean = decode(encode(values, weight, chosen, np.random.default_rng(0)), chosen)
    assert mean.clamped == int((np.abs(values) > 0.5).sum())
    clipped = np.clip(values, -0.5, 0.5).astype(np.float64)
    assert (np.abs(mean.delta - clipped) <= quantisation_error(chosen, 1, weight, clipped)).all()


def test_clamped_coordinates_add_up_over_cohort_and_chunks(
    round_settings: RoundSettingsFactory,
) -> None:
    chosen = round_settings(size=CHUNK + 2)
    delta = np.zeros(CHUNK + 2, np.float32)
    delta[[0, CHUNK - 1, CHUNK, CHUNK + 1]] = 2, -2, 3, 1
    encoded = [encode(delta, 5, chosen, np.random.default_rng(i)) for i in range(3)]
    assert decode(total_of(encoded), chosen).clamped == 9


def test_coordinate_as_large_as_the_range_is_not_clamped(
    round_settings: RoundSettingsFactory,
) -> None:
    chosen = round_settings(size=2)
    assert int(encode(vector([1, -1]), 1, chosen, constant(0.0))[-1]) == 0


@pytest.mark.parametrize("drawn", [0.0, ALMOST_ONE], ids=["rounding down", "rounding up"])
@pytest.mark.parametrize("sign", [1, -1])
@given(
    cohort_cap=st.integers(2, 40),
    weight_cap=st.integers(1, 2**20),
    value_range=st.floats(1e-9, 1e9),
)
@settings(max_examples=30)
def test_sum_of_a_full_cohort_of_extreme_devices_does_not_wrap(
    round_settings: RoundSettingsFactory,
    cohort_cap: int,
    weight_cap: int,
    value_range: float,
    sign: int,
    drawn: float,
) -> None:
    chosen = round_settings(
        size=1, cohort_cap=cohort_cap, weight_cap=weight_cap, value_range=value_range
    )
    one = encode(vector([sign * np.finfo(np.float32).max]), 2**40, chosen, constant(drawn))
    exact = cohort_cap * int(steps_of(one)[0])
    assert -(2**31) <= exact < 2**31
    mean = decode(total_of([one] * cohort_cap), chosen)
    assert mean.delta[0] == pytest.approx(sign * value_range, rel=1e-3)
    assert (mean.weight, mean.clamped) == (cohort_cap * weight_cap, cohort_cap)


@pytest.mark.parametrize("cohort_cap", [2, 8, 1024, 2048])
def test_scale_wastes_less_than_one_percent_of_the_integers(
    round_settings: RoundSettingsFactory, cohort_cap: int
) -> None:
    chosen = round_settings(cohort_cap=cohort_cap, size=1)
    largest = int(steps_of(encode(vector([1]), 100, chosen, constant(ALMOST_ONE)))[0])
    assert 0.99 * 2**31 < largest * cohort_cap < 2**31


def test_weight_above_the_cap_counts_as_the_cap(round_settings: RoundSettingsFactory) -> None:
    chosen, delta = round_settings(weight_cap=10), vector([0.1, -0.2, 0.3])
    at_cap = encode(delta, 10, chosen, constant(0.5))
    np.testing.assert_array_equal(encode(delta, 10**12, chosen, constant(0.5)), at_cap)
    assert decode(at_cap, chosen).weight == 10


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_delta_that_is_not_finite_is_refused(
    round_settings: RoundSettingsFactory, bad: float, place: int
) -> None:
    delta = vector([0, 0, 0])
    delta[place] = bad
    with pytest.raises(InvalidMessage, match="not finite"):
        encode(delta, 1, round_settings(), np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(0,), (2,), (4,), (3, 1), (1, 3), ()])
def test_delta_of_another_shape_is_refused(
    round_settings: RoundSettingsFactory, shape: tuple[int, ...]
) -> None:
    with pytest.raises(InvalidMessage, match="wrong length"):
        encode(np.zeros(shape, np.float32), 1, round_settings(), np.random.default_rng(0))


@pytest.mark.parametrize("weight", [0, -1])
def test_delta_without_weight_is_refused(round_settings: RoundSettingsFactory, weight: int) -> None:
    with pytest.raises(InvalidMessage, match="no weight"):
        encode(vector([0, 0, 0]), weight, round_settings(), np.random.default_rng(0))


@pytest.mark.parametrize("length", [0, 2, 4, 6])
def test_sum_of_another_length_is_refused(
    round_settings: RoundSettingsFactory, length: int
) -> None:
    with pytest.raises(InvalidMessage, match="another length"):
        decode(np.ones(length, np.uint32), round_settings())


@pytest.mark.parametrize(
    ("weight", "clamped"),
    [(0, 0), (801, 0), (2**32 - 1, 0), (1, 25), (1, 2**32 - 1)],
    ids=[
        "no weight",
        "weight above the caps",
        "largest weight",
        "more clamped than there are",
        "largest count",
    ],
)
def test_sum_that_no_honest_cohort_has_is_refused(
    round_settings: RoundSettingsFactory, weight: int, clamped: int
) -> None:
    with pytest.raises(InvalidMessage, match="makes no sense"):
        decode(np.array([0, 0, 0, weight, clamped], np.uint32), round_settings())


def test_largest_sum_an_honest_cohort_can_have_is_accepted(
    round_settings: RoundSettingsFactory,
) -> None:
    mean = decode(np.array([0, 0, 0, 800, 24], np.uint32), round_settings())
    assert (mean.weight, mean.clamped) == (800, 24)


@pytest.mark.parametrize(("weight", "clamped"), [(201, 0), (1, 7)], ids=["weight", "clamp count"])
def test_sum_that_no_cohort_of_that_many_devices_has_is_refused(
    round_settings: RoundSettingsFactory, weight: int, clamped: int
) -> None:
    total = np.array([0, 0, 0, weight, clamped], np.uint32)
    assert decode(total, round_settings(), cohort=3).weight == weight
    with pytest.raises(InvalidMessage, match="makes no sense"):
        decode(total, round_settings(), cohort=2)


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1])
def test_chunks_do_not_show_in_the_result(round_settings: RoundSettingsFactory, size: int) -> None:
    chosen, rng = round_settings(size=size), np.random.default_rng(1)
    delta = rng.uniform(-1, 1, size).astype(np.float32)
    encoded = encode(delta, 9, chosen, constant(0.5))
    factor = 9 * scale_of(chosen)
    np.testing.assert_array_equal(
        steps_of(encoded), np.floor(delta.astype(np.float64) * factor + 0.5)
    )
    np.testing.assert_array_equal(
        decode(encoded, chosen).delta, (steps_of(encoded) / factor).astype(np.float32)
    )


def test_encode_leaves_the_delta_as_it_was(round_settings: RoundSettingsFactory) -> None:
    delta = vector([5, -5, 0.5])
    encode(delta, 3, round_settings(), np.random.default_rng(0))
    np.testing.assert_array_equal(delta, vector([5, -5, 0.5]))


def test_encoded_integers_are_the_pinned_ones() -> None:
    chosen = parse_round_plan(VECTOR["round_settings"])
    encoded = encode(vector(VECTOR["delta"]), VECTOR["weight"], chosen, constant(0.5))
    assert encoded.tolist() == VECTOR["encoded"]
    assert encoded.dtype == np.dtype("<u4")
