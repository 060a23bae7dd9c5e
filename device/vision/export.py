"""`python -m device export`: an active model as a file for others, which answers as rings are
answered or is not kept.

The training child writes the file. It is then run, by LiteRT, by ONNX Runtime, or by Keras in the
child, on this device's own pictures and on drawn ones, and every answer is compared with the one
that a ring would get.

For Frigate (frigate/data_processing/real_time/custom_classification.py, release 0.17): it hands
over 224 px RGB pixels as uint8, divides what comes back by its sum, and takes the best line of
labelmap.txt; "none" it does not report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset import folders, layout
from dataset.decoding import UnusablePicture, decode
from dataset.porch import drawing as porch
from device.context import Device
from device.store.records import GlobalModel
from device.training.jobs import Export, PrepareRings
from device.training.results import Exported as Written
from device.vision.litert import Network
from device.vision.predictor import Predictor, active_models, open_predictor
from learning.architectures import Architecture, architecture
from learning.finite import all_finite
from learning.model import parse_model
from shared.errors import DatasetError, DoorbellError, InvalidMessage, NotFound
from shared.storage.blobs import storage_errors, write_durably

FRIGATE_PX: Final = 224
TOLERANCES: Final[Mapping[str, float]] = MappingProxyType(
    {"frigate": 0.05, "keras": 0.01, "onnx": 0.01}
)
"""Largest difference between a file's probability and that of a ring, for any picture.

Frigate's includes its resizing.
"""

_OWN = 16  # pictures of each split and class
_DRAWN = 2  # drawn pictures of each kind
_DRAWN_PX = 256
_NONE: Final = "none"
_NAMES: Final = {"frigate": "model.tflite", "keras": "model.keras", "onnx": "model.onnx"}


class NotFaithful(DoorbellError):
    """A file that does not answer as the doorbell does."""

    slug = "not-faithful"


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        held: The model.
        path: The file; beside Frigate's lies labelmap.txt.
        pictures: Number of pictures that it was checked on.
        difference: The largest between its probability and that of a ring.
        threshold: The lowest score with a positive verdict.
    """

    held: GlobalModel
    path: Path
    pictures: int
    difference: float
    threshold: float


def export(device: Device, form: str, detector: str, to: Path) -> Exported:
    """Write the active model of a detector.

    Args:
        device: The device, which may be running.
        form: "frigate", "keras" or "onnx".
        detector: The detector.
        to: Folder that gets a folder of the detector's name; former files are replaced once the
            new ones are checked.

    Raises:
        NotFound: The detector has no active model.
        NotFaithful: The file does not answer as rings are answered.
        CannotTrain: TensorFlow is not installed.
        StorageFailed: The folder cannot be written.
    """
    model, threshold = _active(device, detector)
    predictor = open_predictor(device, lambda: {model: threshold})
    with TemporaryDirectory() as work:
        differences = _differences(device, form, model, predictor, Path(work))
        _require_faithful(form, detector, differences)
        written = (Path(work) / _NAMES[form]).read_bytes()
    path = to / detector / _NAMES[form]
    with storage_errors(f"The folder {to}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    if form == "frigate":
        lines = "".join(f"{line}\n" for line in labels(detector))
        write_durably(path.with_name("labelmap.txt"), lines.encode())
    write_durably(path, written)
    return Exported(model, path, len(differences), max(differences), threshold)


def labels(detector: str) -> tuple[str, str]:
    """Return the lines of labelmap.txt, in the order of the numbers of an answer.

    Raises:
        InvalidMessage: The detector has the name that Frigate does not report.
    """
    if detector == _NONE:
        raise InvalidMessage(
            f"Frigate does not report the class {_NONE!r}.",
            todo="Rename the detector.",
        )
    return detector, _NONE


def _active(device: Device, detector: str) -> tuple[GlobalModel, float]:
    for model, threshold in active_models(device).items():
        if model.detector == detector:
            return model, threshold
    raise NotFound(
        f"No model of {detector!r} is active on this device.",
        todo="Train and share one first.",
    )


def _require_faithful(form: str, detector: str, differences: Sequence[float]) -> None:
    if not all_finite(np.array(differences)):  # asked first: no comparison with NaN holds
        failure = "gives scores that are not finite"
    elif max(differences) > TOLERANCES[form]:
        failure = (
            f"differs from the doorbell's scores by up to {max(differences):.3f}; "
            f"{TOLERANCES[form]} is allowed"
        )
    else:
        return
    raise NotFaithful(
        f"The {form} file of {detector} {failure}.",
        kept="It was not kept; a file from before is still there.",
        todo="Please report this, with the versions that pip lists.",
    )


def _differences(
    device: Device, form: str, model: GlobalModel, predictor: Predictor, work: Path
) -> list[float]:
    """Write a file and run it; return how far each of its answers is from that of a ring."""
    path = work / _NAMES[form]
    container = parse_model(device.blobs.get(model.version))
    kind = architecture(container.architecture)
    side = FRIGATE_PX if form == "frigate" else kind.input_px
    pictures = list(_pictures(device, model.detector))
    pixels = np.stack([decode(picture, side) for picture in pictures])
    if form == "frigate":  # both answer the pixels that Frigate hands over
        pictures = [_png(one) for one in pixels]
    written = _write(device, form, model, kind, pixels, path)
    scores = _RUN[form](path, pixels, written)
    expected = [_ring_score(predictor, model, picture) for picture in pictures]
    return [abs(float(score) - wanted) for score, wanted in zip(scores, expected, strict=True)]


def _write(
    device: Device,
    form: str,
    model: GlobalModel,
    kind: Architecture,
    pixels: NDArray[np.uint8],
    path: Path,
) -> Written:
    """Let the training child write a file, and what rings need where that is missing."""
    shown = None
    if form == "keras":  # the child answers these pictures too, since only it has Keras
        shown = path.with_name("pixels.npy")
        np.save(shown, pixels.astype(np.float32))
    device.trainer.run(
        PrepareRings(
            detector=model.detector,
            folders=device.folders,
            architecture=kind.name,
        )
    )
    job = Export(
        detector=model.detector,
        folders=device.folders,
        form=form,
        model=device.blobs.path(model.version),
        to=path,
        pixels=shown,
    )
    return device.trainer.run(job)


def _ring_score(predictor: Predictor, model: GlobalModel, picture: bytes) -> float:
    predictions = predictor.predict(picture)
    if model.detector not in predictions:
        raise NotFound(
            f"The model of {model.detector!r} does not answer rings here.",
            todo="Train and share once more, then export.",
        )
    return predictions[model.detector].score


def _run_frigate(path: Path, pixels: NDArray[np.uint8], _: Written) -> Iterator[float]:
    network = Network(path)
    if network.takes != ((1, FRIGATE_PX, FRIGATE_PX, 3), np.dtype(np.uint8)):
        raise NotFaithful(
            f"The frigate file takes {network.takes}, which is not what Frigate hands over."
        )
    for one in pixels:
        row = network.run(one[np.newaxis])
        # As Frigate does: the share of the sum.
        yield float((row / row.sum(axis=0))[0])


def _run_onnx(path: Path, pixels: NDArray[np.uint8], _: Written) -> NDArray[np.float32]:
    import onnxruntime  # noqa: PLC0415 - for this form alone

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    output = session.run(None, {"pixels": pixels.astype(np.float32)})[0]
    scores: NDArray[np.float32] = output[:, 0]
    return scores


def _scores_of_keras(_: Path, __: NDArray[np.uint8], written: Written) -> Sequence[float]:
    """Return what Keras answered in the training child."""
    return written.scores


_RUN: Final[Mapping[str, Callable[[Path, NDArray[np.uint8], Written], Any]]] = MappingProxyType(
    {"frigate": _run_frigate, "onnx": _run_onnx, "keras": _scores_of_keras}
)


def _pictures(device: Device, detector: str) -> Iterator[bytes]:
    """Yield pictures to check a file on: some of this device's own, and drawn ones."""
    for split, positive in product(layout.SPLITS, (True, False)):
        yield from _own_pictures(device, detector, split, positive)
    for kind, positive, index in product(porch.DETECTORS, (True, False), range(_DRAWN)):
        yield _png(porch.draw(kind, positive, 1, "test", index, size_px=_DRAWN_PX))


def _own_pictures(device: Device, detector: str, split: str, positive: bool) -> Iterator[bytes]:
    """Yield usable pictures of a split and class, at most `_OWN`."""
    settings = device.settings
    with suppress(DatasetError):
        names = folders.names(settings.data, detector, settings.client, split, positive)
        for name in names[:_OWN]:
            with suppress(UnusablePicture, OSError):
                picture = (settings.data / name).read_bytes()
                decode(picture, 1)
                yield picture


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8[h, w, 3], RGB, without loss."""
    bgr = pixels[..., ::-1]  # OpenCV's order
    return bytes(cv2.imencode(".png", bgr)[1])
