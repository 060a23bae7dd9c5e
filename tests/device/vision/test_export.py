"""Models as files for others: written by a real training child, run, and held against what a ring
gets.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

import device.vision.export
from dataset.porch import drawing as porch
from device.bell.preparation import prepare_networks
from device.context import Device
from device.rounds.model_trial import settle
from device.settings import DeviceSettings
from device.store.records import GlobalModel
from device.training.jobs import Export, Job, PrepareRings
from device.training.models import set_params
from device.training.worker_client import Busy, Trainer
from device.vision.export import TOLERANCES, NotFaithful, export, labels
from device.vision.litert import Network, answering_file
from device.vision.predictor import open_predictor
from learning.architectures import (
    ARCHITECTURES,
    EFFICIENTNET_LITE0_HEAD,
    PORCH_CNN,
    Architecture,
)
from learning.model import Model
from shared.errors import CannotTrain, InvalidMessage, NotFound
from shared.web.background import _keep_going
from tests.warm.services import Trainers

pytestmark = pytest.mark.heavy  # imports TensorFlow

ROOT = Path(__file__).resolve().parents[3]
SURE = 4.0
"""Kernels are so much larger than those of version 0, so that answers are far from one another."""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory, machine_cache: Path) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    return {
        "DOORBELL_HOME": str(home),
        "DOORBELL_DATA": str(home / "pictures"),
        "DOORBELL_CACHE": str(machine_cache),
    }


@pytest.fixture(scope="module")
def doorbell(environ: dict[str, str], trainers: Trainers) -> Iterator[Device]:
    """A device with a model of each architecture in force, one picture of its own, and a training
    child.
    """
    made = replace(
        Device.open(DeviceSettings.read(1, environ)), trainer=Trainer(command=trainers.command)
    )
    for number, (detector, kind) in enumerate(
        (("face", EFFICIENTNET_LITE0_HEAD), ("animal", PORCH_CNN))
    ):
        made.store.models.propose(
            GlobalModel(detector, made.blobs.put(a_model(detector, kind, number).to_bytes()), 1)
        )
        settle(made, detector)
        made.trainer.run(
            PrepareRings(detector=detector, folders=made.folders, architecture=kind.name)
        )
    own = made.settings.data / "face" / made.settings.client / "test" / "face"
    own.mkdir(parents=True)
    (own / "1.png").write_bytes(a_picture(7))
    (own / "2.png").write_bytes(b"no picture")
    yield made
    made.trainer.close()


def a_model(detector: str, kind: Architecture, seed: int) -> Model:
    params = kind.initial(np.random.default_rng(seed))
    sure = {
        name: value * SURE if name == "logit/kernel" else value for name, value in params.items()
    }
    return Model(detector, 1, "0" * 64, kind.name, sure)


def a_picture(index: int, size_px: int = 300) -> bytes:
    drawn = porch.draw("face", True, 2, "test", index, size_px=size_px)
    return cv2.imencode(".png", drawn[..., ::-1])[1].tobytes()


def rung(doorbell: Device, picture: bytes) -> dict[str, float]:
    predictor = open_predictor(doorbell)
    return {detector: answer.score for detector, answer in predictor.predict(picture).items()}


@pytest.mark.parametrize("detector", ["face", "animal"])
@pytest.mark.parametrize("form", sorted(TOLERANCES))
def test_file_answers_as_the_doorbell_does(
    doorbell: Device, form: str, detector: str, tmp_path: Path
) -> None:
    done = export(doorbell, form, detector, tmp_path)
    drawn = 2 * 2 * len(porch.DETECTORS)
    assert done.pictures == drawn + (detector == "face") and done.difference <= TOLERANCES[form]
    files = {
        path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()
    }
    names = {"frigate": {"labelmap.txt", "model.tflite"}}.get(form, {f"model.{form}"})
    assert files == {f"{detector}/{name}" for name in names} and done.path in tmp_path.rglob("*")


def test_frigate_gets_the_labels_in_the_order_of_the_answers(
    doorbell: Device, tmp_path: Path
) -> None:
    done = export(doorbell, "frigate", "face", tmp_path)
    lines = done.path.with_name("labelmap.txt").read_text().splitlines()
    network = Network(done.path)
    assert network.takes == ((1, 224, 224, 3), np.dtype(np.uint8)) and lines == list(labels("face"))
    for index in range(4):
        picture = cv2.imdecode(np.frombuffer(a_picture(index, 224), np.uint8), cv2.IMREAD_COLOR)
        answer = network.run(np.ascontiguousarray(picture[np.newaxis, ..., ::-1]))
        score = rung(doorbell, a_picture(index, 224))["face"]
        assert answer.sum() == pytest.approx(1) and answer[lines.index("face")] == pytest.approx(
            score, abs=0.05
        )


def test_model_without_a_body_answers_rings_as_keras_does(doorbell: Device) -> None:
    kind, picture = PORCH_CNN, porch.draw("animal", True, 1, "test", 0, size_px=64)
    model = kind.build()
    set_params(model, kind, a_model("animal", kind, 1).params)
    logit = float(model(picture[np.newaxis].astype(np.float32), training=False)[0, 0])
    png = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
    assert rung(doorbell, png)["animal"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)


@pytest.mark.parametrize(
    "form",
    [
        "keras",
        pytest.param("frigate", marks=pytest.mark.long),
        pytest.param("onnx", marks=pytest.mark.long),
    ],
)
def test_file_that_answers_otherwise_is_not_kept(
    doorbell: Device, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = export(doorbell, form, "animal", tmp_path).path.read_bytes()
    another = replace(doorbell, trainer=Swapping(doorbell, a_model("animal", PORCH_CNN, 9)))
    with pytest.raises(NotFaithful, match="differs from the doorbell's scores") as refused:
        export(another, form, "animal", tmp_path)
    assert "a file from before is still there" in refused.value.kept
    assert (tmp_path / "animal" / device.vision.export._NAMES[form]).read_bytes() == before


def test_file_that_answers_no_number_is_not_kept(
    doorbell: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.vision.export, "_differences", lambda *_: [0.001, float("nan")])
    with pytest.raises(
        NotFaithful, match="The keras file of animal gives scores that are not finite"
    ):
        export(doorbell, "keras", "animal", tmp_path)


def test_detector_called_as_what_frigate_passes_over_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="Rename the detector"):
        labels("none")


class Swapping:
    """A training child that exports another model than it was asked for."""

    def __init__(self, doorbell: Device, model: Model) -> None:
        self._trainer, self._path = (
            doorbell.trainer,
            doorbell.blobs.path(doorbell.blobs.put(model.to_bytes())),
        )

    def run(self, job: Job[Any]) -> Any:
        if isinstance(job, Export):
            job = msgspec.structs.replace(job, model=self._path)
        return self._trainer.run(job)


def test_detector_without_a_model_is_refused(doorbell: Device, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No model of 'vehicle' is active"):
        export(doorbell, "keras", "vehicle", tmp_path)
    assert not list(tmp_path.iterdir())


class Preparing:
    """A training child that makes empty files, or fails as it is told to."""

    def __init__(self, *errors: Exception) -> None:
        self.asked: list[str] = []
        self._errors = list(errors)

    def run(self, job: PrepareRings) -> None:
        self.asked.append(job.architecture)
        if self._errors:
            raise self._errors.pop(0)
        answering_file(job.folders.machine_cache, ARCHITECTURES[job.architecture]).touch()


@pytest.mark.parametrize(
    ("error", "asked"),
    [(None, 2), (Busy("It trains."), 3), (CannotTrain(), 1)],
    ids=["can", "busy", "cannot"],
)
def test_device_that_never_trained_prepares_what_its_models_need(
    doorbell: Device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception | None,
    asked: int,
) -> None:
    monkeypatch.setattr("device.bell.preparation._LOOK_EVERY_S", 0.01)
    trainer, stop = Preparing(*([error] if error else [])), threading.Event()
    other = replace(doorbell, trainer=trainer, settings=replace(doorbell.settings, cache=tmp_path))
    thread = threading.Thread(
        target=_keep_going, args=("preparing", partial(prepare_networks, other), stop)
    )
    thread.start()
    end = time.monotonic() + 10
    while len(trainer.asked) < asked and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    stop.set()
    thread.join()
    assert len(trainer.asked) == asked and len(list(tmp_path.iterdir())) == (0 if asked == 1 else 2)


def run(environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "device", "export", *words]
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )


def test_command_writes_every_detector_and_says_where(
    doorbell: Device, environ: dict[str, str]
) -> None:
    done = run(environ, "frigate", "--detector", "animal")
    folder = doorbell.settings.folder / "exports" / "frigate"
    assert done.returncode == 0, done.stderr
    assert (
        f"animal: {folder / 'animal' / 'model.tflite'}" in done.stdout
        and "of round 1" in done.stdout
    )
    assert "The doorbell says yes from 0.50 on." in done.stdout
    assert sorted(path.name for path in (folder / "animal").iterdir()) == [
        "labelmap.txt",
        "model.tflite",
    ]


def test_command_says_what_is_missing(environ: dict[str, str], tmp_path: Path) -> None:
    nobody = run(environ | {"DOORBELL_HOME": str(tmp_path)}, "keras")
    assert (
        nobody.returncode == 1
        and "There is no device in" in nobody.stderr
        and not list(tmp_path.iterdir())
    )
    unknown = run(environ, "keras", "--detector", "toaster")
    assert unknown.returncode == 1 and "No model of 'toaster' is active" in unknown.stderr
