"""The body: the right network, exported once, and the same features from LiteRT as from Keras."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from device.training import backbone
from device.training.checkpoint import Tensors, load_efficientnet_lite0
from device.vision.embedding import FEATURES, INPUT_PX, Embedder
from learning.architectures.efficientnet_lite0_head import BODY_VERSION

pytestmark = pytest.mark.heavy  # imports TensorFlow

ROOT = Path(__file__).resolve().parents[3]
PHOTOS = Path(__file__).resolve().parents[4] / "shared/data/photos"
ANIMAL_CLASSES = 398  # ImageNet lists its animals first
MILITARY_UNIFORM = 652


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    return load_efficientnet_lite0()


@pytest.fixture(scope="module")
def model(tensors):
    return backbone.build_body(tensors)


@pytest.fixture(scope="module")
def cache(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("machine")
    (folder / f"{BODY_VERSION}.tflite").write_bytes(
        backbone.to_litert(
            lambda pixels: model(pixels, training=False),
            ((1, INPUT_PX, INPUT_PX, 3), "float32", "pixels"),
        )
    )
    return folder


@pytest.fixture(scope="module")
def embedder(cache) -> Embedder:
    return Embedder(backbone.ensure_exported(cache), num_threads=2)


def pictures(count: int) -> NDArray[np.uint8]:
    """Smooth random scenes, more like photos than noise is."""
    coarse = np.random.default_rng(5).integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.array(
        [
            cv2.resize(picture, (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_CUBIC)
            for picture in coarse
        ]
    )


def photos(detector: str, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    files = sorted((PHOTOS / detector).glob(f"client_*/{split}/*/*.jpg"))
    bgr = [cv2.resize(cv2.imread(str(file)), (INPUT_PX, INPUT_PX)) for file in files]
    return np.array(bgr)[..., ::-1], np.array(
        [file.parent.name == detector for file in files], np.uint8
    )


def normalised(x: NDArray[np.float32], tensors: Tensors, norm: str) -> NDArray[np.float32]:
    gamma, beta, mean, variance = (
        tensors[f"{norm}.{n}"] for n in ("weight", "bias", "running_mean", "running_var")
    )
    return np.clip(gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta, 0, 6)


def inner(model, name: str, images: NDArray[np.uint8]):
    """Return a layer's input and its output after the ReLU6 that follows it."""
    layer = model.get_layer(name)
    x, y = keras.Model(model.input, [layer.input, layer.output])(images.astype(np.float32))
    return np.asarray(x), np.clip(np.asarray(y), 0, 6)


def test_stem_scales_pads_at_the_far_edges_convolves_and_normalises(model, tensors) -> None:
    image = pictures(1)
    padded = np.pad((image[0] - 127.0) / 128, ((0, 1), (0, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    expected = normalised(
        np.einsum("hwcij,ocij->hwo", windows, tensors["_conv_stem.weight"]), tensors, "_bn0"
    )
    np.testing.assert_allclose(inner(model, "conv_stem", image)[1][0], expected, atol=1e-3)


def test_depthwise_convolution_pads_as_tensorflow_does(model, tensors) -> None:
    x, y = inner(model, "blocks_3_depthwise_conv", pictures(1))
    padded = np.pad(x[0], ((1, 2), (1, 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(0, 1))[::2, ::2]
    kernel = tensors["_blocks.3._depthwise_conv.weight"][:, 0]
    expected = normalised(np.einsum("hwcij,cij->hwc", windows, kernel), tensors, "_blocks.3._bn1")
    np.testing.assert_allclose(y[0], expected, atol=1e-3)


def test_pooled_features_are_the_mean_of_the_last_convolution(model, tensors) -> None:
    image = pictures(1)
    x, _ = inner(model, "conv_head", image)
    last = normalised(x @ tensors["_conv_head.weight"][:, :, 0, 0].T, tensors, "_bn1")
    features = np.asarray(model(image.astype(np.float32)))
    np.testing.assert_allclose(features, last.mean(axis=(1, 2)), atol=1e-3)


def test_every_convolution_of_the_checkpoint_is_used(model, tensors) -> None:
    convolutions = {name for name in tensors if "conv" in name}
    kernels = [
        weight for layer in model.layers for weight in layer.weights if "kernel" in weight.name
    ]
    assert len(kernels) == len(convolutions) == 49
    assert sum(np.prod(kernel.shape) for kernel in kernels) == sum(
        tensors[name].size for name in convolutions
    )


def test_blocks_of_equal_width_are_residual(model) -> None:
    assert sum(type(layer).__name__ == "Add" for layer in model.layers) == 9


def test_litert_agrees_with_keras(model, embedder) -> None:
    images = pictures(8)
    ours, theirs = embedder.embed(images), np.asarray(model(images.astype(np.float32)))
    cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosine.min() >= 0.999
    assert np.linalg.norm(ours, axis=1) == pytest.approx(np.linalg.norm(theirs, axis=1), rel=0.01)


def test_exported_weights_are_half_precision(cache) -> None:
    assert 6e6 < (cache / f"{BODY_VERSION}.tflite").stat().st_size < 7.5e6


def test_finding_the_export_takes_no_tensorflow(cache) -> None:
    program = (
        "import sys; from pathlib import Path; from device.training.backbone import ensure_exported;"
        "from device.vision.embedding import Embedder; Embedder(ensure_exported(Path(sys.argv[1])));"
        "print(sorted({'tensorflow', 'keras'} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, cache], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.strip() == "[]"


@pytest.fixture
def exports(monkeypatch) -> list[float]:
    """Replace the export by a slow one that is counted."""
    calls: list[float] = []

    def slow(*_: object) -> bytes:
        calls.append(time.monotonic())
        time.sleep(0.2)
        return b"body"

    monkeypatch.setattr(backbone, "load_efficientnet_lite0", dict)
    monkeypatch.setattr(backbone, "build_body", lambda tensors: tensors)
    monkeypatch.setattr(backbone, "to_litert", slow)
    return calls


def test_devices_that_start_together_export_once(exports, tmp_path) -> None:
    cache, found = tmp_path / "not" / "there", []
    threads = [
        threading.Thread(target=lambda: found.append(backbone.ensure_exported(cache)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(exports) == 1
    assert [path.read_bytes() for path in found] == [b"body"] * 4


def test_second_start_does_not_export_again(exports, tmp_path) -> None:
    assert backbone.ensure_exported(tmp_path) == backbone.ensure_exported(tmp_path)
    assert len(exports) == 1


def test_failed_export_leaves_nothing_that_a_reader_would_find(
    exports, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(backbone, "build_body", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backbone.ensure_exported(tmp_path)
    assert list(tmp_path.glob("*.tflite")) == []
    monkeypatch.setattr(backbone, "build_body", lambda tensors: tensors)
    assert backbone.ensure_exported(tmp_path).read_bytes() == b"body"


def test_uniform_is_recognised_on_the_portrait_that_comes_with_matplotlib(
    embedder, tensors
) -> None:
    with get_sample_data("grace_hopper.jpg") as file:
        portrait = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
    square = cv2.resize(portrait[:512], (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_AREA)
    logits = embedder.embed(square[None])[0] @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert MILITARY_UNIFORM in logits.argsort()[-3:]


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos are not there")
def test_checkpoint_tells_animals_from_the_rest_without_any_training(embedder, tensors) -> None:
    images, labels = photos("animal", "test")
    logits = embedder.embed(images) @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert ((logits.argmax(axis=1) < ANIMAL_CLASSES) == labels).mean() >= 0.82


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos are not there")
def test_features_separate_vehicles_linearly(embedder) -> None:
    (train, train_labels), (test, test_labels) = (
        photos("vehicle", "train"),
        photos("vehicle", "test"),
    )
    probe = LogisticRegression(max_iter=2000).fit(embedder.embed(train), train_labels)
    assert embedder.embed(test).shape == (len(test), FEATURES)
    assert probe.score(embedder.embed(test), test_labels) >= 0.96
