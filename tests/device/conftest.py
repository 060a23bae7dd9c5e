"""Devices whose trainer only pretends, against a real main server and aggregator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
import pytest

import device.app
from device.context import Device, identity_path
from device.rounds import participation
from device.settings import DeviceSettings
from device.training.jobs import Activity, Compare, Job, Measure, Train
from device.training.results import Comparison, Epoch, Metrics, Score, Scores, Trained
from learning.model import Model, parse_model
from shared.security.identity import Identity
from shared.security.manifest import HEADER, manifest_of, signed_manifest

R = TypeVar("R")
STEP = np.float32(0.25)
MEASURED = Metrics(
    pictures=4,
    accuracy=0.75,
    precision=0.5,
    recall=1.0,
    f1=0.625,
    roc_auc=None,
    confusion=[[1, 1], [0, 2]],
)
EPOCH = Epoch(loss=0.1, accuracy=0.9, val_loss=0.2, val_accuracy=0.8, seconds=1.5)
_ALIKE = {"value": 0.75, "low": 0.25, "high": 1.0}
_METRICS = {"accuracy": _ALIKE, "precision": _ALIKE, "recall": _ALIKE, "f1": _ALIKE}
_UNKNOWN = dict.fromkeys(_ALIKE)
_NONE_BETWEEN = dict.fromkeys(_METRICS, dict.fromkeys(_ALIKE, 0.0)) | {"roc_auc": _UNKNOWN}
_FOUND = {
    "confusion": [[1, 1], [0, 2]],
    "roc": [],
    "reliability": [],
    "calibration_error": 0.125,
    "mistakes": [],
}
REPORT: dict[str, Any] = {
    "pictures": 4,
    "figures": dict.fromkeys(("local", "global"), _METRICS | {"roc_auc": _UNKNOWN})
    | {"difference": _NONE_BETWEEN},
    "models": {"local": _FOUND, "global": _FOUND},
}


class PretendTrainer:
    """Adds STEP to every parameter, and writes what the training child writes."""

    def __init__(self) -> None:
        self.jobs: list[Job[Any]] = []
        self.step = STEP
        self.error: Exception | None = None
        self.errors: dict[str, list[Exception]] = {}
        self.accuracy = 0.75
        self.threshold: float | None = None
        self.progress: Activity | None = None
        self.pid = None
        self.repeated = ["train/face/1.jpg = test/face/7.jpg"]
        self.report = REPORT

    def run(self, job: Job[R]) -> R:
        self.jobs.append(job)
        if errors := self.errors.get(str(job.__struct_config__.tag)):
            raise errors.pop(0)
        if self.error:
            raise self.error
        result: Any = self._result(job)
        return cast(R, result)

    def _result(self, job: Job[Any]) -> object:
        match job:
            case Measure():
                score = Score(MEASURED.pictures, self.accuracy, self.threshold)
                return Scores(dict.fromkeys(job.models, score))
            case Compare():
                return Comparison(dict.fromkeys(job.models, MEASURED), self.report)
            case Train():
                return self._trained(job)
        raise NotImplementedError(job)

    def _trained(self, job: Train) -> Trained:
        base = parse_model(job.model.read_bytes())
        params = {name: value + self.step for name, value in base.params.items()}
        local = Model(base.detector, job.round, job.base_version, base.architecture, params)
        job.local_model.write_bytes(local.to_bytes())
        return Trained(
            weight=12,
            history=(EPOCH,),
            left_out={"not a picture": 2},
            repeated=tuple(self.repeated),
        )

    def close(self) -> None:
        """Nothing was started."""


def _make_device(federation: Any, number: int = 1, **variables: str) -> Device:
    """Return a device with a picture folder for "package", whose app is on the network."""
    environ = {
        "DOORBELL_HOME": str(federation.folder),
        "DOORBELL_DATA": str(federation.folder / "pictures"),
        "DOORBELL_MAIN_URL": "http://main",
        "DOORBELL_AGGREGATOR_URL": "http://aggregator",
        "DOORBELL_DEVICE_URL": f"http://device-{number}",
    } | variables
    settings = DeviceSettings.read(number, environ)
    federation.lay_tables("device", settings.folder)
    (settings.data / "package" / settings.client).mkdir(parents=True, exist_ok=True)
    http = federation.network.client(Identity.open(identity_path(settings)))
    federation.network.apps[settings.name] = device.app.create_app(number, settings, http)
    trainer: Any = PretendTrainer()
    return replace(Device.open(settings, http), trainer=trainer, clock=lambda: 99.0)


@pytest.fixture
def make_device() -> Callable[..., Device]:
    """Return a maker of devices with a picture folder for "package"; see `_make_device`."""
    return _make_device


@pytest.fixture
def doorbell(federation: Any) -> Device:
    return _make_device(federation)


@pytest.fixture
def finish_a_round() -> Callable[..., None]:
    """Return a function that does a round of "package" with these devices."""

    def finish(federation: Any, *doorbells: Device) -> None:
        for doorbell in doorbells:
            participation.train(doorbell, "package")
            participation.send(doorbell, "package", participation.announce(doorbell))
        federation.step("aggregator", "aggregate_models")
        federation.step("aggregator", "send_model_secagg")

    return finish


@pytest.fixture
def pushed() -> Callable[..., Model]:
    """Return a maker of models like version 0 of the main server, but for what is changed."""

    def make(federation: Any, **changed: Any) -> Model:
        version = federation.announce("device-1").base_version
        return replace(parse_model(federation.main.blobs.get(version)), **changed)

    return make


@pytest.fixture
def vouched() -> Callable[..., str]:
    """Return what gives the main server's signed word for a model."""

    def vouch(federation: Any, model: Model) -> str:
        return signed_manifest(
            manifest_of("doorbell", model, model.to_bytes(), 1e9), federation.as_main.identity
        )

    return vouch


@pytest.fixture
def push(vouched: Callable[..., str]) -> Callable[..., str]:
    """Return a function that pushes a model to device 1 as the main server does, and returns what
    the device says.
    """

    def do(federation: Any, model: Model, manifest: str | None = None) -> str:
        headers = {HEADER: vouched(federation, model) if manifest is None else manifest}
        return str(
            federation.as_main.post("http://device-1/aggmodel", model.to_bytes(), headers).json[
                "said"
            ]
        )

    return do


@pytest.fixture
def add_pictures() -> Callable[..., None]:
    """Return a function that puts files into a split of a device; nobody opens them."""

    def add(doorbell: Device, split: str, count: int = 2, first: int = 0) -> None:
        for name in ("package", "not_package"):
            folder = doorbell.settings.data / "package" / doorbell.settings.client / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(first, first + count):
                (folder / f"{index}.jpg").write_bytes(b"")

    return add
