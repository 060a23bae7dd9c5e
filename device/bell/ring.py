"""Someone rings: the camera looks, the models answer, the event is kept, the owner is told.

Top to bottom.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dataset.decoding import MAX_FILE_BYTES, as_jpeg
from device.context import Device
from device.store.events import Event, EventStore
from device.vision.prediction import Prediction
from device.vision.predictor import Seer, in_force
from shared.errors import OutOfOrder, StorageFailed
from shared.web.steps import Done

MAX_PICTURE_BYTES = min(MAX_FILE_BYTES, 16 << 20)
_DAY_S = 86400.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bell:
    """What rings a device.

    Attributes:
        device: The device.
        events: What it saw.
        seer: Answers pictures.
        snapshot: Takes a picture, a JPEG's bytes, or raises what says why there is none; None where
            no camera is set.
        notify: Says that there is something to notify the owner of; returns at once.
        keep_days: How long events are kept, in days.
        keep_mb: How many megabytes of pictures are kept.
    """

    device: Device
    events: EventStore
    seer: Seer
    snapshot: Callable[[], bytes] | None
    notify: Callable[[], None]
    keep_days: float
    keep_mb: float


def ring(bell: Bell, source: str, picture: bytes | None = None) -> tuple[Event, Done]:
    """Prediction a picture, keep the event, and tell the owner.

    Args:
        bell: The doorbell.
        source: "button", "motion" or "upload".
        picture: A picture file; without one the camera takes one.

    Raises:
        OutOfOrder: There is no picture, and no camera is set.
        UnusablePicture: It is none.
        StorageFailed: The event cannot be kept.
        DoorbellError: The camera gives none, and says why.
    """
    if picture is None:
        if bell.snapshot is None:
            raise OutOfOrder(
                "There is no picture, and this device has no camera.",
                todo="Send a picture with the request, or set DOORBELL_CAMERA.",
            )
        picture = bell.snapshot()
    follow(bell)
    try:
        answers, said = bell.seer.answer(picture), ""
    except OutOfOrder as error:  # who rang is kept and told of all the same
        answers, said = {}, str(error)
    event = bell.events.add(bell.device.clock(), source, as_jpeg(picture), answers)
    bell.notify()
    try:
        forget_old(bell)
    except StorageFailed as error:  # this one is kept and told; old ones go later
        _log.warning("Old events stay for now. %s", error)
    silent = sorted(bell.seer.detectors - answers.keys())
    if answers and silent:
        said = f"{in_words(answers)} Not able to answer on this machine yet: {', '.join(silent)}."
    return event, Done(said or in_words(answers), {"event": event.id, "answers": answers})


def follow(bell: Bell) -> None:
    """Prediction with the models that are in force now."""
    bell.seer.follow(partial(in_force, bell.device))


def forget_old(bell: Bell) -> int:
    """Remove the events that are kept no longer, and return how many."""
    old = bell.events.outdated(
        bell.device.clock(), bell.keep_days * _DAY_S, round(bell.keep_mb * 1e6)
    )
    bell.events.delete(*old)
    return len(old)


def in_words(answers: dict[str, Prediction]) -> str:
    """Return what was seen, as people say it."""
    if not answers:
        return "The picture is kept. No model is in force here yet, so nobody can say what it shows: label it below."
    seen = [
        f"{detector} ({answer.score:.0%})" for detector, answer in answers.items() if answer.verdict
    ]
    other = [
        f"{detector} ({answer.score:.0%})"
        for detector, answer in answers.items()
        if not answer.verdict
    ]
    return f"Seen: {', '.join(seen) or 'nothing'}." + (
        f" Not seen: {', '.join(other)}." if other else ""
    )
