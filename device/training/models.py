"""Builds each architecture in Keras. The device's training child runs it; the specs in `shared` say
what it must be.

Layers carry the names of the specs, so Keras' path of a variable ("hidden/kernel") is the spec's
name.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from learning.architectures import EFFICIENTNET_LITE0_HEAD, PORCH_CNN, Architecture, Params
from shared.errors import NotFound

NORM_GROUPS = 8


def build(architecture: Architecture) -> keras.Model:
    """Build an architecture's trainable model.

    Args:
        architecture: One of `learning.architectures.ARCHITECTURES`.

    Returns:
        A model whose output is one logit, float32[n, 1]. Its input is float32[n, 1280], the body's
        features, or for an architecture without a body float32[n, px, px, 3], RGB from 0 to 255.

    Raises:
        NotFound: The architecture has specs but no model here.
    """
    builders = {EFFICIENTNET_LITE0_HEAD.name: _head, PORCH_CNN.name: _porch_cnn}
    if architecture.name not in builders:
        raise NotFound(f"This device cannot build the architecture {architecture.name!r}.")
    return builders[architecture.name](architecture)


def get_params(model: keras.Model, architecture: Architecture) -> Params:
    """Copy the model's parameters out, under the names of the specs; the inverse of `set_params`."""
    values = {
        variable.path: np.array(variable.numpy(), np.float32)
        for variable in model.trainable_variables
    }
    return {spec.name: values[spec.name] for spec in architecture.specs}


def set_params(model: keras.Model, architecture: Architecture, params: Params) -> None:
    """Copy params into the model; the inverse of `get_params`."""
    variables = {variable.path: variable for variable in model.trainable_variables}
    for spec in architecture.specs:
        variables[spec.name].assign(params[spec.name])


def _head(architecture: Architecture) -> keras.Model:
    features, width = architecture.specs[0].shape
    inputs = keras.Input((features,), name="features")
    hidden = layers.Dense(width, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(1, name="logit")(hidden), name="head")


def _porch_cnn(architecture: Architecture) -> keras.Model:
    """Normalise after pooling rather than before: a quarter of the work, the same model family."""
    pixels = keras.Input((architecture.input_px, architecture.input_px, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale")(pixels)
    for spec in architecture.specs:
        name, _, variable = spec.name.removesuffix("_conv/kernel").partition("/")
        if variable:
            continue
        stride = 2 if name == "stem" else 1
        x = layers.Conv2D(
            spec.shape[-1], 3, stride, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        if name != "stem":
            x = layers.MaxPooling2D(name=f"{name}_pool")(x)
        x = layers.GroupNormalization(NORM_GROUPS, name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    return keras.Model(pixels, layers.Dense(1, name="logit")(x), name="porch_cnn")
