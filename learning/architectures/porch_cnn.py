"""`porch-cnn`: a small convolutional network from pixels, all of it trained.

It has group norm (Wu and He, 2018), which behaves the same for a device with few pictures as for
one with many, and no statistics that would have to be exchanged beside the parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from learning.architectures.architecture import Architecture, conv, dense
from shared.round.plan import LocalWork

if TYPE_CHECKING:
    import keras

NORM_GROUPS: Final = 8


def build(architecture: Architecture) -> keras.Model:
    """Build the network in Keras.

    It normalises after pooling rather than before: a quarter of the work, the same model family.
    """
    import keras  # noqa: PLC0415 - whoever only reads specs does without
    from keras import layers  # noqa: PLC0415

    pixels = keras.Input((architecture.input_px, architecture.input_px, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1.0, name="scale")(pixels)
    for spec in architecture.specs:
        layer, _, variable = spec.name.partition("/")
        if variable != "kernel" or not layer.endswith("_conv"):
            continue
        name = layer.removesuffix("_conv")
        is_stem = name == "stem"
        x = layers.Conv2D(
            spec.shape[-1],
            kernel_size=3,
            strides=2 if is_stem else 1,
            padding="same",
            use_bias=False,
            name=layer,
        )(x)
        if not is_stem:
            x = layers.MaxPooling2D(name=f"{name}_pool")(x)
        x = layers.GroupNormalization(NORM_GROUPS, name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    return keras.Model(pixels, layers.Dense(1, name="logit")(x), name="porch_cnn")


PORCH_CNN: Final = Architecture(
    name="porch-cnn",
    input_px=64,
    specs=(
        *conv("stem", 3, 16),
        *conv("block1", 16, 32),
        *conv("block2", 32, 64),
        *conv("block3", 64, 128),
        *conv("block4", 128, 96),
        *dense("logit", 96, 1, "glorot_uniform"),
    ),
    inputs="pixels",
    work=LocalWork(epochs=4, batch_size=16, learning_rate=0.02),
    is_augmented=True,
    builder=build,
    network="porch-cnn-64px-1",
    network_title="network porch-cnn",
)
