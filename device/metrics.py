"""What a device tells `/metrics`: its trainings as they end, how its camera is, and from its
database what it holds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from device.camera.camera import Camera
from device.context import Device
from device.training.worker_client import Busy
from shared.errors import DoorbellError
from shared.telemetry.metrics import REGISTRY

_trainings = Counter(
    "doorbell_trainings",
    "Trainings: done, or what they failed with.",
    ["detector", "outcome"],
    registry=REGISTRY,
)
_seconds = Histogram(
    "doorbell_training_seconds",
    "How long a training took that was done.",
    ["detector"],
    buckets=(1, 3, 10, 30, 100, 300, 1000, 3000),
    registry=REGISTRY,
)


@contextmanager
def counted_training(detector: str) -> Iterator[None]:
    """Count the training that is done in the block, and how long it takes; one that has to wait is
    none.
    """
    begun = time.monotonic()
    try:
        yield
    except Busy:
        raise
    except DoorbellError as error:
        _trainings.labels(detector, error.slug).inc()
        raise
    _trainings.labels(detector, "done").inc()
    _seconds.labels(detector).observe(time.monotonic() - begun)


def gauges(device: Device, camera: Camera | None = None) -> Iterator[Metric]:
    """Return whether the camera gives pictures, which models are held, since when, and which
    updates wait to be sent.

    Of the camera nothing is told where there is none, while it is not in use, and until it has
    answered.
    """
    up = GaugeMetricFamily("doorbell_camera_up", "Whether the camera gives pictures.", labels=[])
    if camera is not None and (gives := camera.gives_pictures()) is not None:
        up.add_metric([], int(gives))
    yield up  # first: it is told although the database does not answer
    held = GaugeMetricFamily(
        "doorbell_held_model_round", "Round of the model in force here.", labels=["detector"]
    )
    age = GaugeMetricFamily(
        "doorbell_held_model_age_seconds", "How long ago it came.", labels=["detector"]
    )
    unsent = GaugeMetricFamily(
        "doorbell_unsent_updates", "Trainings whose update is not sent yet.", labels=["detector"]
    )
    for detector in device.detectors():
        if model := device.store.models.active(detector):
            held.add_metric([detector], model.round)
            if (came := device.arrived(model.version)) is not None:
                age.add_metric([detector], max(0.0, device.clock() - came))
        newest = device.store.trainings.newest(detector)
        unsent.add_metric([detector], int(newest is not None and not newest.sent))
    yield from (held, age, unsent)
