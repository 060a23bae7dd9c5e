"""`python -m device export`: a model in force as a file for others, which answers as rings are
answered or is not kept.

The training child writes the file. What is written is then run, by LiteRT, by ONNX Runtime, or by
Keras in the child, on this device's own pictures and on drawn ones, and every answer is held
against the one that a ring would get.

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
from device.store.records import Held
from device.training.jobs import Export, PrepareRings
from device.training.jobs import Exported as Written
from device.vision.litert import Network
from device.vision.predictor import Seer, in_force, open_seer
from learning.architectures import architecture
from learning.finite import all_finite
from learning.model import parse_model
from shared.errors import DatasetError, DoorbellError, InvalidMessage, NotFound
from shared.storage.blobs import storage_errors, write_durably

FRIGATE_PX: Final = 224
TOLERANCES: Final[Mapping[str, float]] = MappingProxyType(
    {"frigate": 0.05, "keras": 0.01, "onnx": 0.01}
)
"""How far a file's probability may be from that of a ring, for any picture.

Frigate's resizing comes on top there.
"""

_OWN, _DRAWN, _DRAWN_PX = 16, 2, 256
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
        pictures: How many it was checked on.
        difference: The largest between its probability and that of a ring.
        threshold: From which probability on the doorbell says yes.
    """

    held: Held
    path: Path
    pictures: int
    difference: float
    threshold: float


def export(device: Device, form: str, detector: str, to: Path) -> Exported:
    """Write the model of a detector that is in force.

    Args:
        device: Whose model; the device may be running.
        form: "frigate", "keras" or "onnx".
        detector: Which detector.
        to: Folder that gets a folder of the detector's name; files from before are replaced once
            the new are checked.

    Raises:
        NotFound: No model of it is in force.
        NotFaithful: The file does not answer as rings are answered.
        CannotTrain: TensorFlow is not installed.
        StorageFailed: The folder cannot be written.
    """
    found = {
        held: threshold for held, threshold in in_force(device).items() if held.detector == detector
    }
    if not found:
        raise NotFound(
            f"No model of {detector!r} is in force on this device.",
            todo="Train and share one first.",
        )
    ((held, threshold),) = found.items()
    seer = open_seer(device)
    seer.follow(lambda: found)
    with TemporaryDirectory() as work:
        differences = _differences(device, form, held, seer, Path(work))
        _require_faithful(form, detector, differences)
        path, written = to / detector / _NAMES[form], (Path(work) / _NAMES[form]).read_bytes()
    with storage_errors(f"The folder {to}"):
        path.parent.mkdir(parents=True, exist_ok=True)
    if form == "frigate":
        write_durably(
            path.with_name("labelmap.txt"), "".join(f"{one}\n" for one in labels(detector)).encode()
        )
    write_durably(path, written)
    return Exported(held, path, len(differences), max(differences), threshold)


def labels(detector: str) -> tuple[str, str]:
    """Return the lines of labelmap.txt: what the first and the second number of an answer are for.

    Raises:
        InvalidMessage: The detector is called as Frigate calls what it does not report.
    """
    if detector == _NONE:
        raise InvalidMessage(
            f"Frigate does not report what is called {_NONE!r}.",
            todo="Call the detector otherwise.",
        )
    return detector, _NONE


def _require_faithful(form: str, detector: str, differences: Sequence[float]) -> None:
    if not all_finite(np.array(differences)):  # asked first: no comparison with NaN holds
        how = "answers what is no number"
    elif max(differences) > TOLERANCES[form]:
        how = f"answers otherwise than the doorbell, by up to {max(differences):.3f}; {TOLERANCES[form]} is allowed"
    else:
        return
    raise NotFaithful(
        f"The {form} file of {detector} {how}.",
        kept="It was not kept; a file from before is still there.",
        todo="Please report this, with the versions that pip lists.",
    )


def _differences(device: Device, form: str, held: Held, seer: Seer, work: Path) -> list[float]:
    """Write a file and run it; return how far each of its answers is from that of a ring."""
    path, model = work / _NAMES[form], device.blobs.path(held.version)
    kind = architecture(parse_model(model.read_bytes()).architecture)
    side = FRIGATE_PX if form == "frigate" else kind.input_px
    pictures = list(_pictures(device, held.detector))
    pixels = np.stack([decode(picture, side) for picture in pictures])
    if form == "frigate":  # what Frigate hands over is what both have to answer
        pictures = [bytes(cv2.imencode(".png", one[..., ::-1])[1]) for one in pixels]
    shown = work / "pixels.npy" if form == "keras" else None
    if shown is not None:
        np.save(shown, pixels.astype(np.float32))
    device.trainer.run(
        PrepareRings(detector=held.detector, folders=device.folders, architecture=kind.name)
    )
    result = device.trainer.run(
        Export(
            detector=held.detector,
            folders=device.folders,
            form=form,
            model=model,
            to=path,
            pixels=shown,
        )
    )
    scores = _RUN[form](path, pixels, result)
    rung = [seer.answer(picture) for picture in pictures]
    if any(held.detector not in answers for answers in rung):
        raise NotFound(
            f"The model of {held.detector!r} does not answer rings here.",
            todo="Train and share once more, then export.",
        )
    return [
        abs(float(score) - answers[held.detector].score)
        for score, answers in zip(scores, rung, strict=True)
    ]


def _run_frigate(path: Path, pixels: NDArray[np.uint8], _: Written) -> Iterator[float]:
    network = Network(path)
    if network.takes != ((1, FRIGATE_PX, FRIGATE_PX, 3), np.dtype(np.uint8)):
        raise NotFaithful(
            f"The frigate file takes {network.takes}, which is not what Frigate hands over."
        )
    for one in pixels:
        row = network.run(one[np.newaxis])
        yield float((row / row.sum(axis=0))[0])


def _run_onnx(path: Path, pixels: NDArray[np.uint8], _: Written) -> NDArray[np.float32]:
    import onnxruntime  # noqa: PLC0415 - for this form alone

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores: NDArray[np.float32] = session.run(None, {"pixels": pixels.astype(np.float32)})[0][:, 0]
    return scores


def _told_by_keras(_: Path, __: NDArray[np.uint8], written: Written) -> Sequence[float]:
    return written.scores


_RUN: Final[Mapping[str, Callable[[Path, NDArray[np.uint8], Written], Any]]] = MappingProxyType(
    {"frigate": _run_frigate, "onnx": _run_onnx, "keras": _told_by_keras}
)


def _pictures(device: Device, detector: str) -> Iterator[bytes]:
    """Yield this device's own pictures of the detector, some of each split and class, and drawn
    ones of every kind.
    """
    for split, positive in product(layout.SPLITS, (True, False)):
        with suppress(DatasetError):
            names = folders.names(
                device.settings.data, detector, device.settings.client, split, positive
            )
            for name in names[:_OWN]:
                with suppress(UnusablePicture, OSError):
                    picture = (device.settings.data / name).read_bytes()
                    decode(picture, 1)
                    yield picture
    for kind, positive, index in product(porch.DETECTORS, (True, False), range(_DRAWN)):
        drawn = porch.draw(kind, positive, 1, "test", index, size_px=_DRAWN_PX)
        yield bytes(cv2.imencode(".png", drawn[..., ::-1])[1])
