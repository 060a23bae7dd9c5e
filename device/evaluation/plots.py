"""The plots of a training and of a measurement: drawn when somebody first looks, and then kept."""

from __future__ import annotations

import json
from contextlib import suppress

from device.context import Device
from device.store.records import Evaluation, Training
from shared.errors import StorageFailed


def training_plot(device: Device, training: Training) -> bytes:
    """Return the plot of a training, PNG.

    Raises:
        PlotFailed: It cannot be drawn.
    """
    if training.plot:
        return device.blobs.get(training.plot)
    plot = device.drawing.draw(
        {"kind": "training", "detector": training.detector, "history": training.history}
    )
    with suppress(StorageFailed):  # a full disk does not hide the plot
        device.store.trainings.keep_plot(training, device.blobs.put(plot))
    return plot


def comparison_plot(device: Device, measurement: Evaluation) -> bytes:
    """Return the plot of a measurement, PNG.

    Raises:
        PlotFailed: It cannot be drawn.
    """
    if measurement.plot:
        return device.blobs.get(measurement.plot)
    report = json.loads(device.blobs.get(measurement.report))
    plot = device.drawing.draw(
        {"kind": "comparison", "detector": measurement.detector, "report": report}
    )
    with suppress(StorageFailed):
        device.store.evaluations.keep_plot(measurement, device.blobs.put(plot))
    return plot
