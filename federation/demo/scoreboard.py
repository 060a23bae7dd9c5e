"""Every device's own model and the global model, on the union of the test splits of all devices.

No device could make this comparison, since none has the others' pictures; it is made here because a
demonstration has them all on one machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device.settings import DeviceSettings
from device.store.store import DeviceStore
from device.training.jobs import Folders, Measure
from device.training.worker_client import Trainer
from shared.storage.blobs import BlobStore


@dataclass(frozen=True)
class Row:
    """Accuracies after one round of one detector, 0 to 1: each device's own model, then the global
    one.
    """

    detector: str
    round: int
    own: tuple[float, ...]
    global_model: float


class Scoreboard:
    """Measures after each round, in a training process of its own.

    Args:
        environ: The environment that the devices run with.
        numbers: The devices' numbers.
        folder: For what it derives from the pictures.
    """

    def __init__(self, environ: Mapping[str, str], numbers: tuple[int, ...], folder: Path) -> None:
        self._devices = [DeviceSettings.read(number, environ) for number in numbers]
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = (folder / "training.log").open("ab")
        self._trainer = Trainer(log=self._log)

    def rows(self, detectors: tuple[str, ...]) -> list[Row]:
        """Measure the newest models of these detectors."""
        return [self._row(detector) for detector in detectors]

    def close(self) -> None:
        """End the training process."""
        self._trainer.close()
        self._log.close()

    def _row(self, detector: str) -> Row:
        models: dict[str, Path] = {}
        number = 0
        for device in self._devices:
            store, blobs = DeviceStore(device.folder), BlobStore(device.folder / "blobs")
            training, held = store.trainings.newest(detector), store.models.active(detector)
            if training is None or held is None:
                continue
            models[device.name] = blobs.path(training.local_model)
            models["global"] = blobs.path(held.version)
            number = held.round
        measured = self._trainer.run(self._job(detector, models)).models
        own = tuple(measured[device.name].accuracy for device in self._devices)
        return Row(detector, number, own, measured["global"].accuracy)

    def _job(self, detector: str, models: dict[str, Path]) -> Measure:
        first = self._devices[0]
        return Measure(
            detector=detector,
            folders=Folders(data=first.data, cache=self._folder, machine_cache=first.cache),
            clients=tuple(device.client for device in self._devices),
            split="test",
            models=models,
        )
