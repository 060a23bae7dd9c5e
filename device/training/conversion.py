"""Models as files of another kind, from pixels to answer. The device's training child runs it.

    frigate  for Frigate: uint8[1, 224, 224, 3] to what each line of labelmap.txt gets,
             float32[1, 2]
    keras    float32[n, px, px, 3] to the probability, float32[n, 1]
    onnx     the same

Pixels are RGB from 0 to 255. The frozen body is part of the file: nothing else is needed to run it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
import tensorflow as tf

from device.training.backbone import build_body, export_body, once, to_litert
from device.training.checkpoint import load_efficientnet_lite0
from device.training.models import set_params
from device.vision.export import FRIGATE_PX
from device.vision.litert import answering_file, input_name
from learning.architectures import Architecture, architecture
from learning.model import Model
from shared.storage.blobs import storage_errors, write_durably


def convert(model: Model, form: str, path: Path, pixels: Path | None) -> tuple[float, ...]:
    """Write a model to a file.

    Args:
        model: The model.
        form: One of `FORMS`.
        path: The file; its folder is there.
        pixels: A .npy file, float32[n, px, px, 3], that the written Keras file is to answer.

    Returns:
        n probabilities where `pixels` is given, else nothing.

    Raises:
        StorageFailed: The file cannot be written.
    """
    network = whole(model)
    with storage_errors(f"The folder {path.parent}"):
        FORMS[form](network, path)
    if pixels is None:
        return ()
    written = keras.models.load_model(path, compile=False)
    answers = written(np.load(pixels, allow_pickle=False), training=False).numpy()
    return tuple(answers[:, 0].tolist())


def ensure_answering(cache: Path, kind: Architecture) -> Path:
    """Return the file that an architecture needs to answer rings, after exporting it if it is not
    there.

    Args:
        cache: Folder for files that every device on this machine may share; made if missing.
        kind: The architecture. If it takes features, the file is the frozen body. If it takes
            pixels, the network's inputs are the picture and every parameter, and its output is the
            probability, float32[1, 1].
    """
    return once(answering_file(cache, kind), lambda: _EXPORTS[kind.inputs](kind))


def _export_network(kind: Architecture) -> bytes:
    """Export the whole network, with every parameter as an input beside the picture."""
    network = kind.build()
    variables = {variable.path: variable for variable in network.trainable_variables}

    def answer(pixels: Any, *params: Any) -> Any:
        given = [
            (variables[spec.name], value) for spec, value in zip(kind.specs, params, strict=True)
        ]
        with keras.StatelessScope(state_mapping=given):
            return tf.sigmoid(network(pixels, training=False))

    inputs: list[tuple[tuple[int, ...], str, str]] = [
        ((1, kind.input_px, kind.input_px, 3), "float32", "pixels")
    ]
    inputs += [(spec.shape, "float32", input_name(spec.name)) for spec in kind.specs]
    return to_litert(answer, *inputs, halved=False)


_EXPORTS: Final[dict[str, Callable[[Architecture], bytes]]] = {
    "features": lambda _: export_body(),
    "pixels": _export_network,
}


def whole(model: Model) -> keras.Model:
    """Build a model from pixels, float32[n, px, px, 3], to the probability, float32[n, 1]."""
    kind = architecture(model.architecture)
    trained = kind.build()
    set_params(trained, kind, model.params)
    pixels = keras.Input((kind.input_px, kind.input_px, 3), name="pixels")
    logit = trained(kind.inputs_of(pixels, _embed))
    return keras.Model(
        pixels, keras.layers.Activation("sigmoid", name="probability")(logit), name=model.detector
    )


def _embed(pixels: Any) -> Any:
    return build_body(load_efficientnet_lite0())(pixels)


def _frigate(network: keras.Model, path: Path) -> None:
    input_px = network.input_shape[1]

    def labelled(pixels: Any) -> Any:
        # Two steps, the second a mean: close to how a picture is decoded here, where every pixel
        # counts.
        enlarged = tf.image.resize(tf.cast(pixels, tf.float32), (2 * input_px, 2 * input_px))
        probability = network(tf.nn.avg_pool2d(enlarged, 2, 2, "VALID"), training=False)
        return tf.concat([probability, 1 - probability], axis=1)

    write_durably(path, to_litert(labelled, ((1, FRIGATE_PX, FRIGATE_PX, 3), "uint8", "pixels")))


def _keras(network: keras.Model, path: Path) -> None:
    network.save(path)


def _onnx(network: keras.Model, path: Path) -> None:
    pixels = keras.InputSpec(shape=(None, *network.input_shape[1:]), dtype="float32", name="pixels")
    network.export(path, format="onnx", verbose=False, input_signature=[pixels])


FORMS: Final[dict[str, Callable[[keras.Model, Path], None]]] = {
    "frigate": _frigate,
    "keras": _keras,
    "onnx": _onnx,
}
