"""Keras and the specs describe the same models."""

from __future__ import annotations

import numpy as np
import pytest

from device.training.models import get_params, set_params
from learning.architectures import ARCHITECTURES, Architecture
from shared.errors import NotFound

pytestmark = pytest.mark.heavy  # imports TensorFlow

EACH = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)


@EACH
def test_keras_agrees_with_the_specs_name_by_name_and_shape_by_shape(arch: Architecture) -> None:
    built = [
        (variable.path, tuple(variable.shape)) for variable in arch.build().trainable_variables
    ]
    assert built == [(spec.name, spec.shape) for spec in arch.specs]


@EACH
def test_model_has_no_state_beside_the_specs(arch: Architecture) -> None:
    assert arch.build().non_trainable_variables == []


@EACH
def test_input_is_what_the_architecture_looks_at(arch: Architecture) -> None:
    looks_at = {"features": (1280,), "pixels": (arch.input_px, arch.input_px, 3)}
    expected = (None, *looks_at[arch.inputs])
    assert arch.build().input_shape == expected


@EACH
def test_output_is_one_logit(arch: Architecture) -> None:
    model = arch.build()
    logits = model(np.zeros((2, *model.input_shape[1:]), np.float32))
    assert logits.shape == (2, 1)
    assert model.layers[-1].activation.__name__ == "linear"


@EACH
def test_params_come_back_as_they_were_set(arch: Architecture) -> None:
    model, params = arch.build(), arch.initial(np.random.default_rng(3))
    set_params(model, arch, params)
    back = get_params(model, arch)
    assert list(back) == [spec.name for spec in arch.specs]
    assert all(np.array_equal(back[name], params[name]) for name in params)


@EACH
def test_params_are_a_copy(arch: Architecture) -> None:
    model = arch.build()
    before = get_params(model, arch)
    set_params(model, arch, {name: value + 1 for name, value in before.items()})
    assert all(
        np.array_equal(get_params(model, arch)[name], value + 1) for name, value in before.items()
    )


def test_head_computes_what_numpy_computes() -> None:
    arch = ARCHITECTURES["efficientnet-lite0-head"]
    model, params = arch.build(), arch.initial(np.random.default_rng(0))
    set_params(model, arch, params)
    features = np.random.default_rng(1).random((5, 1280), np.float32)
    hidden = np.maximum(features @ params["hidden/kernel"] + params["hidden/bias"], 0)
    expected = hidden @ params["logit/kernel"] + params["logit/bias"]
    np.testing.assert_allclose(np.asarray(model(features)), expected, rtol=1e-4, atol=1e-5)


def test_architecture_known_by_its_specs_alone_cannot_be_built() -> None:
    porch = ARCHITECTURES["porch-cnn"]
    with pytest.raises(NotFound):
        Architecture(
            name="elsewhere", input_px=64, specs=porch.specs, inputs="pixels", work=porch.work
        ).build()
