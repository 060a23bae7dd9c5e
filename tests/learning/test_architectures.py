"""Architectures as plain data: sizes, version 0, and vectors that come back as the params they
were.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learning.architectures import (
    ARCHITECTURES,
    DEFAULT,
    Architecture,
    ParamSpec,
    architecture,
)
from shared.errors import NotFound
from shared.round.plan import LocalWork

ROOT = Path(__file__).resolve().parents[2]
EACH = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)
WORK = LocalWork(epochs=1, batch_size=1, learning_rate=0.1)
SHAPES = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5
)


def of_shapes(shapes: list[tuple[int, ...]]) -> Architecture:
    specs = tuple(
        ParamSpec(f"layer{i}/kernel", shape, "he_normal") for i, shape in enumerate(shapes)
    )
    return Architecture(name="any", input_px=64, specs=specs, inputs="pixels", work=WORK)


def test_default_head_has_the_size_the_documents_state() -> None:
    assert architecture(DEFAULT).size == 82_049


def test_porch_cnn_has_about_two_hundred_thousand_parameters() -> None:
    assert 150_000 < architecture("porch-cnn").size < 250_000


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotFound, match="efficientnet-lite0-head, porch-cnn"):
        architecture("resnet")


@EACH
def test_every_architecture_is_filed_under_its_own_name(arch: Architecture) -> None:
    assert ARCHITECTURES[arch.name] is arch


@EACH
def test_names_of_parameters_are_unique(arch: Architecture) -> None:
    names = [spec.name for spec in arch.specs]
    assert len(set(names)) == len(names)


@EACH
def test_version_0_has_the_shapes_of_the_specs_in_float32(arch: Architecture) -> None:
    params = arch.initial(np.random.default_rng(0))
    assert {name: value.shape for name, value in params.items()} == {
        spec.name: spec.shape for spec in arch.specs
    }
    assert all(value.dtype == np.float32 for value in params.values())


@EACH
def test_version_0_follows_from_the_generator_alone(arch: Architecture) -> None:
    first, again, other = (
        arch.flatten(arch.initial(np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("initialiser", "shape", "deviation"),
    [
        ("he_normal", (3, 3, 64, 128), (2 / (9 * 64)) ** 0.5),
        ("he_normal", (1280, 64), (2 / 1280) ** 0.5),
        ("glorot_uniform", (400, 200), (2 / 600) ** 0.5),
        ("zeros", (7,), 0.0),
    ],
)
def test_initial_spread_is_the_published_one(initialiser, shape, deviation) -> None:
    value = ParamSpec("x/kernel", shape, initialiser).initial(np.random.default_rng(0))
    assert value.std() == pytest.approx(deviation, rel=0.03)
    assert value.mean() == pytest.approx(0, abs=0.02)


def test_ones_are_ones() -> None:
    assert np.array_equal(
        ParamSpec("x/gamma", (3,), "ones").initial(np.random.default_rng(0)), [1, 1, 1]
    )


@given(SHAPES, st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_unflatten_undoes_flatten(shapes, seed) -> None:
    arch = of_shapes(shapes)
    params = arch.initial(np.random.default_rng(seed))
    back = arch.unflatten(arch.flatten(params))
    assert back.keys() == params.keys()
    assert all(np.array_equal(back[name], params[name]) for name in params)


def test_flatten_follows_the_specs_and_not_the_order_of_the_keys() -> None:
    arch = of_shapes([(2,), (1, 2)])
    params = {
        "layer1/kernel": np.array([[3, 4]], np.float32),
        "layer0/kernel": np.array([1, 2], np.float32),
    }
    assert arch.flatten(params).tolist() == [1, 2, 3, 4]


def test_unflattened_params_do_not_share_memory_with_the_vector() -> None:
    vector = np.zeros(2, np.float32)
    of_shapes([(2,)]).unflatten(vector)["layer0/kernel"][0] = 1
    assert vector[0] == 0


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"layer0/kernel": np.zeros((2, 1), np.float32)},
        {"layer0/kernel": np.zeros(2, np.float32), "stray": np.zeros(1, np.float32)},
    ],
)
def test_flatten_refuses_params_of_another_architecture(params) -> None:
    with pytest.raises(ValueError, match="not the parameters of any"):
        of_shapes([(2,)]).flatten(params)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2)])
def test_unflatten_refuses_a_vector_of_another_shape(shape) -> None:
    with pytest.raises(ValueError, match="has 2 parameters"):
        of_shapes([(2,)]).unflatten(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "module",
    [
        "learning.architectures",
        "device.vision.embedding",
        "device.training.checkpoint",
        "device.training.backbone",
    ],
)
def test_module_imports_no_framework(module) -> None:
    program = f"import sys, {module}; print(sorted({{'tensorflow', 'keras', 'torch'}} & sys.modules.keys()))"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "[]"
