"""A ring: the camera takes a picture, the models predict, the event is kept, the owner is notified.

Top to bottom.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from dataset.decoding import MAX_FILE_BYTES, as_jpeg
from device.context import Device
from device.store.events import EventStore, RingEvent
from device.vision.prediction import Prediction
from device.vision.predictor import Predictor
from shared.errors import OutOfOrder, StorageFailed
from shared.web.steps import Done

MAX_PICTURE_BYTES: Final = min(MAX_FILE_BYTES, 16 << 20)
"""Largest picture that is accepted with a ring."""

_DAY_S = 86400.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bell:
    """What a ring needs.

    Attributes:
        device: The device.
        events: Its events.
        predictor: Its models.
        snapshot: Takes a picture, a JPEG's bytes, or raises an error that says why there is none;
            None where there is no camera.
        notify: Says that there is something to notify the owner of; returns at once.
        keep_days: How long events are kept, in days.
        keep_mb: How many megabytes of pictures are kept.
    """

    device: Device
    events: EventStore
    predictor: Predictor
    snapshot: Callable[[], bytes] | None
    notify: Callable[[], None]
    keep_days: float
    keep_mb: float


def ring(bell: Bell, source: str, picture: bytes | None = None) -> tuple[RingEvent, Done]:
    """Predict what a picture shows, keep the event, and notify the owner.

    Args:
        bell: The doorbell.
        source: "button", "motion" or "upload".
        picture: A picture file; without one the camera takes one.

    Returns:
        The event, and what to say of it.

    Raises:
        OutOfOrder: There is no picture, and no camera is set.
        UnusablePicture: It is not a picture.
        StorageFailed: The event cannot be kept.
        DoorbellError: The camera gives no picture, and says why.
    """
    if picture is None:
        picture = _snapshot(bell)
    failure = ""
    predictions: dict[str, Prediction] = {}
    try:
        predictions = bell.predictor.predict(picture)
    except OutOfOrder as error:  # the event is kept, and the owner notified, all the same
        failure = str(error)
    event = bell.events.add(bell.device.clock(), source, as_jpeg(picture), predictions)
    bell.notify()
    try:
        forget_old(bell)
    except StorageFailed as error:  # this event is kept; old ones go with a later ring
        _log.warning("Old events stay for now. %s", error)
    sentence = failure or describe(predictions, bell.predictor.detectors)
    return event, Done(sentence, {"event": event.id, "answers": predictions})


def _snapshot(bell: Bell) -> bytes:
    if bell.snapshot is None:
        raise OutOfOrder(
            "There is no picture, and this device has no camera.",
            todo="Send a picture with the request, or set DOORBELL_CAMERA.",
        )
    return bell.snapshot()


def forget_old(bell: Bell) -> int:
    """Remove the events that are kept no longer, and return how many."""
    keep_s = bell.keep_days * _DAY_S
    keep_bytes = round(bell.keep_mb * 1e6)
    old = bell.events.outdated(bell.device.clock(), keep_s, keep_bytes)
    bell.events.delete(*old)
    return len(old)


def describe(predictions: Mapping[str, Prediction], detectors: Set[str] = frozenset()) -> str:
    """Return what a picture shows, in sentences.

    Args:
        predictions: Detector to prediction.
        detectors: The detectors with an active model.
    """
    if not predictions:
        return (
            "The picture is kept. No model is active here yet, so nothing is predicted: "
            "label it below."
        )
    detected = _listed(predictions, True)
    below = _listed(predictions, False)
    unable = ", ".join(sorted(detectors - predictions.keys()))
    sentences = [f"Detected: {detected or 'nothing'}."]
    if below:
        sentences.append(f"Below threshold: {below}.")
    if unable:
        sentences.append(f"Not able to answer on this machine yet: {unable}.")
    return " ".join(sentences)


def _listed(predictions: Mapping[str, Prediction], verdict: bool) -> str:
    """Return the detectors of one verdict, "animal (97 %), face (88 %)"."""
    return ", ".join(
        f"{detector} ({100 * prediction.score:.0f} %)"
        for detector, prediction in predictions.items()
        if prediction.verdict == verdict
    )
