"""Makes the networks that active models need to answer rings, as soon as a model is active.

On a device that never trains, nobody else does it. The training child makes them, so TensorFlow
stays out of the web process.
"""

from __future__ import annotations

import logging
import threading

from device.context import Device
from device.store.records import GlobalModel
from device.training.jobs import PrepareRings
from device.training.worker_client import Busy
from device.vision.litert import answering_file
from learning.architectures import architecture
from learning.model import parse_model
from shared.errors import CannotTrain, DoorbellError

_LOOK_EVERY_S = 5.0
_AFTER_A_FAILURE_S = 3600.0
_log = logging.getLogger(__name__)


def prepare_networks(device: Device, stop: threading.Event) -> None:
    """Make what is missing, until `stop` is set; end early where TensorFlow is not installed."""
    ready = set[str]()
    pause_s = _LOOK_EVERY_S
    while not stop.wait(pause_s):
        pause_s = _LOOK_EVERY_S
        for model in device.store.models.all_active():
            if model.version in ready:
                continue
            try:
                _prepare(device, model)
                ready.add(model.version)
            except (Busy, FileNotFoundError):
                continue  # the child trains; or the model has just been replaced
            except CannotTrain as error:
                _log.warning("%s cannot answer rings. %s", model.detector, error)
                stop.wait()
                return
            except DoorbellError as error:
                _log.warning("%s cannot answer rings yet. %s", model.detector, error)
                pause_s = _AFTER_A_FAILURE_S


def _prepare(device: Device, model: GlobalModel) -> None:
    container = parse_model(device.blobs.get(model.version))
    kind = architecture(container.architecture)
    if not answering_file(device.settings.cache, kind).exists():
        job = PrepareRings(
            detector=model.detector,
            folders=device.folders,
            architecture=kind.name,
        )
        device.trainer.run(job)
