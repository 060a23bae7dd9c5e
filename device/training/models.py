"""Copies parameters into Keras models and out of them, under the names of the specs.

The device's training child runs it; `learning.architectures` builds the models.
"""

from __future__ import annotations

import keras
import numpy as np

from learning.architectures import Architecture, Params


def get_params(model: keras.Model, architecture: Architecture) -> Params:
    """Copy the model's params out, by the specs' names; the inverse of `set_params`."""
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
