"""`efficientnet-lite0-head`: two dense layers on a frozen body (Tan and Le, EfficientNet, 2019).

The body is the same for every detector and every device, and never trained. So a picture is
embedded once, and only the head's 82,049 parameters travel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from learning.architectures.architecture import Architecture, Params, Picture, dense
from learning.finite import all_finite
from shared.round.plan import LocalWork

if TYPE_CHECKING:
    import keras

BODY_VERSION: Final = "efficientnet-lite0-57934424-128px-fp16-1"
"""Names the body in every cache: checkpoint, input size, precision of the weights, revision of the
export.
"""

FEATURES: Final = 1280
_HIDDEN: Final = 64


def build(architecture: Architecture) -> keras.Model:
    """Build the head in Keras."""
    import keras  # noqa: PLC0415 - whoever only reads specs does without
    from keras import layers  # noqa: PLC0415

    features, width = architecture.specs[0].shape
    inputs = keras.Input((features,), name="features")
    hidden = layers.Dense(width, activation="relu", name="hidden")(inputs)
    logit = layers.Dense(1, name="logit")(hidden)
    return keras.Model(inputs, logit, name="head")


def head_score(params: Params, embedding: NDArray[np.float32]) -> float:
    """Compute the head with numpy: a hidden layer with ReLU, and a logistic output.

    Args:
        params: Kernels float32[1280, h] and float32[h, 1], with their biases.
        embedding: float32[1280], the frozen body's features.

    Returns:
        The probability, from 0 to 1; NaN where the features or the logit are not finite.
    """
    hidden = embedding @ params["hidden/kernel"] + params["hidden/bias"]
    rectified = np.maximum(hidden, 0.0)
    logit = rectified @ params["logit/kernel"] + params["logit/bias"]
    # Asked of the numbers, since kernels differ in what a ReLU makes of NaN.
    if not all_finite(embedding, logit):
        return math.nan
    # 1 / (1 + exp(-logit)), without overflow for a large negative logit.
    return math.exp(-np.logaddexp(0.0, -float(logit[0])))


def _score(_: Architecture, params: Params, picture: Picture) -> float:
    return head_score(params, picture.embedding())


EFFICIENTNET_LITE0_HEAD: Final = Architecture(
    name="efficientnet-lite0-head",
    input_px=128,
    specs=(
        *dense("hidden", FEATURES, _HIDDEN, "he_normal"),
        *dense("logit", _HIDDEN, 1, "glorot_uniform"),
    ),
    inputs="features",
    work=LocalWork(epochs=5, batch_size=16, learning_rate=0.01),
    weight_decay=0.01,
    builder=build,
    scorer=_score,
    network=BODY_VERSION,
    network_title="frozen body",
)
