"""What a device's page shows, as data: an overview of its detectors, and one of them in detail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from dataset import folders
from device.context import Device
from device.store.records import GlobalModel, Training
from device.training.jobs import Activity
from device.training.results import Epoch
from device.training.worker_client import progress_of
from shared.errors import NotFound
from shared.names import checked_name

THUMBNAILS: Final = 3
THUMBNAIL_PX: Final = 96
_HISTORY = 20


def page(device: Device, wanted: Sequence[str]) -> dict[str, object]:
    """Return what `page.html` is to show now; `wanted` may name the detector that is shown in
    detail.
    """
    names = device.detectors()
    picked = [name for name in wanted if name in names]
    overview = [_overview(device, name) for name in names]
    trained = max(
        overview,
        key=lambda each: each["training"].finished_at if each["training"] else 0.0,
        default=None,
    )
    shown = picked[0] if picked else trained["name"] if trained else None
    progress = device.trainer.progress
    return {
        "settings": device.settings,
        "progress": progress_of(progress),
        "epochs": _epochs(progress),
        "overview": overview,
        "shown": next((_detail(device, each) for each in overview if each["name"] == shown), None),
        "here": f"/?detector={picked[0]}" if picked else "/",
    }


def fingerprint(device: Device) -> str:
    """Return text that is another one when the page should show something else; batches go another
    way.
    """
    progress = device.trainer.progress
    doing = None
    if progress is not None:
        doing = (progress.job.title, len(_epochs(progress)))
    return f"{device.name} {doing} {device.store.fingerprint()}"


def thumbnail(device: Device, detector: str, split: str, kind: str, number: int) -> bytes:
    """Return one of this device's own pictures, small, as a JPEG; `kind` is "object" or
    "not_object".

    Raises:
        NotFound: There is no such picture.
        UnusablePicture: It is none.
    """
    device.require_pictures(checked_name(detector, "detector"))
    if split in folders.SPLITS and kind in ("object", "not_object"):
        listed = folders.names(
            device.settings.data, detector, device.settings.client, split, kind == "object"
        )
        if number < len(listed):
            return folders.thumbnail(device.settings.data, Path(listed[number]), THUMBNAIL_PX)
    raise NotFound("There is no such picture here.", todo="Open this device's page again.")


def _epochs(activity: Activity | None) -> tuple[Epoch, ...]:
    """Return the epochs that are done of the training that is going on."""
    if activity is None or activity.progress is None:
        return ()
    return activity.progress.history


def _overview(device: Device, name: str) -> dict[str, Any]:
    held, training = device.store.models.active(name), device.store.trainings.newest(name)
    candidate, known = device.store.models.candidate(name), device.store.rounds.newest(name)
    state, what_next = _next_of(training, candidate, known.round if known else None)
    return {
        "name": name,
        "state": state,
        "next": what_next,
        "census": folders.census(device.settings.data, name, device.settings.client),
        "held": held,
        "since": device.arrived(held.version) if held else None,
        "score": device.store.models.score(held.version) if held else None,
        "candidate": candidate,
        "setback": device.store.failures.latest(name),
        "training": training,
    }


def _detail(device: Device, overview: dict[str, Any]) -> dict[str, Any]:
    name, census = overview["name"], overview["census"]["train"]
    return overview | {
        "pictures": {kind: _spread(census[kind == "object"]) for kind in ("object", "not_object")},
        "trainings": device.store.trainings.recent(name, _HISTORY),
        "scores": {score.round: score for score in device.store.models.scores(name, _HISTORY)},
    }


def _spread(count: int) -> list[int]:
    """Return the numbers of a few pictures out of so many, far apart."""
    shown = min(count, THUMBNAILS)
    return [each * count // shown for each in range(shown)]


def _next_of(
    training: Training | None, candidate: GlobalModel | None, known: int | None
) -> tuple[str, str]:
    """Return where a device is in a round, in a few words, and what happens next, in a sentence."""
    if candidate is not None:
        said = (
            f"The model of round {candidate.round} has still to answer the validation pictures"
            " here."
        )
        return "a model on trial", said
    if training is None or (known is not None and training.round < known):
        press = (
            "Press “Model Training (Locally)”"
            if training is None
            else "Press “Re Model Training (Locally)”"
        )
        number = "the open round" if known is None else f"round {known}"
        said = (
            f"{press} to take part in {number}. In a run of rounds this device is asked to, and"
            " does it by itself."
        )
        return ("not trained yet" if training is None else f"not trained for {number}"), said
    if not training.sent:
        said = (
            f"The update of round {training.round} waits: press “Send Model to Federated Server”."
        )
        return f"trained for round {training.round}, not sent", said
    said = (
        f"The update of round {training.round} is sent; the next model comes when the servers have"
        " added them up."
    )
    return f"sent for round {training.round}", said
