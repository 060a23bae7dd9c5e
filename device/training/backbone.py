"""The frozen body: EfficientNet-Lite0, exported once per machine to LiteRT. The device's training
child runs it.

The network is that of Tan and Le (EfficientNet, 2019) in its Lite form: no squeeze-and-excite,
ReLU6 throughout. Its ImageNet weights come from a PyTorch checkpoint that was converted from
TensorFlow (its kernels lie in memory in TensorFlow's order), so padding is TensorFlow's "same" and
the batch norms' epsilon is 1e-3. Each batch norm is folded into its convolution, as inference
allows.

TensorFlow takes seconds to import and is only needed for the export, so it is imported inside the
functions.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from device.training.checkpoint import Tensors, load_efficientnet_lite0
from device.vision.embedding import INPUT_PX
from device.vision.litert import answering_file
from learning.architectures import EFFICIENTNET_LITE0_HEAD
from shared.storage.blobs import write_durably

if TYPE_CHECKING:
    import keras

BATCH_NORM_EPSILON: Final = 1e-3


@dataclass(frozen=True)
class _Stage:
    """Inverted-residual blocks in a row; the first alone has the stride.

    Widths are those of the checkpoint.
    """

    blocks: int
    kernel_px: int
    stride: int
    expands: bool = True


_STAGES: Final = (
    _Stage(1, 3, 1, expands=False),
    _Stage(2, 3, 2),
    _Stage(2, 5, 2),
    _Stage(3, 3, 2),
    _Stage(3, 5, 1),
    _Stage(4, 5, 2),
    _Stage(1, 3, 1),
)
_BLOCKS: Final = tuple(
    (stage, 1 if repeat else stage.stride) for stage in _STAGES for repeat in range(stage.blocks)
)


def _folded(
    tensors: Tensors, conv: str, norm: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return kernel and bias, in Keras' layout, of a convolution that does its batch norm's work
    too.
    """
    gamma, beta, mean, variance = (
        tensors[f"{norm}.{name}"].astype(np.float32)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    kernel = tensors[f"{conv}.weight"].astype(np.float32) * scale[:, None, None, None]
    axes = (2, 3, 0, 1) if "depthwise" in conv else (2, 3, 1, 0)
    return kernel.transpose(axes), beta - mean * scale


def _keras_name(name: str) -> str:
    """Return "blocks_1_expand_conv" for "_blocks.1._expand_conv": LiteRT's export refuses leading
    underscores.
    """
    return name.lstrip("_").replace("._", "_").replace(".", "_")


def build_body(tensors: Tensors) -> keras.Model:
    """Rebuild EfficientNet-Lite0 without its classifier.

    Args:
        tensors: The checkpoint's state dict.

    Returns:
        A Keras model from float32[n, 128, 128, 3], RGB from 0 to 255, to the float32[n, 1280]
        pooled features.
    """
    import keras  # noqa: PLC0415
    from keras import layers  # noqa: PLC0415

    folded: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def conv(x: Any, name: str, norm: str, kernel_px: int, stride: int) -> Any:
        kernel, _ = folded[_keras_name(name)] = _folded(tensors, name, norm)
        kind = (
            layers.DepthwiseConv2D
            if "depthwise" in name
            else partial(layers.Conv2D, kernel.shape[-1])
        )
        return kind(kernel_px, stride, padding="same", name=_keras_name(name))(x)

    def block(x: Any, prefix: str, stage: _Stage, stride: int) -> Any:
        y = x
        if stage.expands:
            y = layers.ReLU(6.0)(conv(y, f"{prefix}._expand_conv", f"{prefix}._bn0", 1, 1))
        depthwise = conv(y, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stage.kernel_px, stride)
        y = conv(layers.ReLU(6.0)(depthwise), f"{prefix}._project_conv", f"{prefix}._bn2", 1, 1)
        return layers.Add()([x, y]) if x.shape == y.shape else y

    pixels = keras.Input((INPUT_PX, INPUT_PX, 3), name="pixels")
    x = layers.Rescaling(1 / 128, -127 / 128, name="scale")(pixels)
    x = layers.ReLU(6.0)(conv(x, "_conv_stem", "_bn0", 3, 2))
    for number, (stage, stride) in enumerate(_BLOCKS):
        x = block(x, f"_blocks.{number}", stage, stride)
    x = layers.ReLU(6.0)(conv(x, "_conv_head", "_bn1", 1, 1))
    model = keras.Model(
        pixels, layers.GlobalAveragePooling2D(name="pooled")(x), name="efficientnet_lite0"
    )
    for name, kernel_and_bias in folded.items():
        model.get_layer(name).set_weights(kernel_and_bias)
    return model


def ensure_exported(cache: Path) -> Path:
    """Return the exported body, after exporting it if this machine has not done so before; see
    `once`.

    Args:
        cache: Folder for files that every device on this machine may share; made if missing.

    Raises:
        CheckpointError: The package with the weights is missing or damaged.
    """
    return once(answering_file(cache, EFFICIENTNET_LITE0_HEAD), export_body)


def export_body() -> bytes:
    """Convert the body to LiteRT.

    Raises:
        CheckpointError: The package with the weights is missing or damaged.
    """
    body = build_body(load_efficientnet_lite0())
    return to_litert(
        lambda pixels: body(pixels, training=False),
        ((1, INPUT_PX, INPUT_PX, 3), "float32", "pixels"),
    )


def to_litert(
    call: Callable[..., Any], *inputs: tuple[tuple[int, ...], str, str], halved: bool = True
) -> bytes:
    """Convert what a model does for one picture.

    Args:
        call: From tensors to a tensor.
        inputs: Shape, dtype and name of each.
        halved: Whether constants are kept in float16, in half the space.
    """
    import tensorflow as tf  # noqa: PLC0415

    function = tf.function(call, autograph=False)
    # Without a trackable object the weights are frozen into the graph, which is also the quicker
    # way.
    concrete = function.get_concrete_function(*(tf.TensorSpec(*each) for each in inputs))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if halved:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content


def once(path: Path, make: Callable[[], bytes]) -> Path:
    """Return a file that every device on this machine shares, after making it if it is not there.

    Devices that start together wait for one another here, and one of them makes it. Finding the
    file takes no TensorFlow.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            write_durably(path, make())
    return path


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
