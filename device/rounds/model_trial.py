"""A new global model on trial: it is in force once it has answered the validation pictures here.

    propose   keep a model that the main server vouches for; it waits
    settle    ask what waits; put it in force, or turn it down
    fetch     get a version from the main server, propose and settle it
    install   what a push ends in: propose and settle

Until it is settled, and if it does not answer, the model from before stays in force. All of it is
in the store, so a device that was killed in the middle goes on. A version is asked once.
"""

from __future__ import annotations

import logging
import math
from typing import Final

from device.context import Device
from device.store.records import GlobalModel, Score
from device.training import results
from device.training.jobs import Measure
from device.training.worker_client import Busy, ChildDied
from learning.model import parse_model, version_of
from shared.errors import (
    CannotTrain,
    DatasetError,
    DoorbellError,
    InvalidMessage,
    OutOfOrder,
    TrainingFailed,
)
from shared.security.manifest import HEADER, check_manifest
from shared.web.steps import Done

_PATIENCE_S: Final = 10.0
_log = logging.getLogger(__name__)


class NoAnswer(InvalidMessage):
    """A global model that does not answer the validation pictures; `version` names it."""

    def __init__(self, model: GlobalModel, why: str, kept: str) -> None:
        happened = (
            f"The {model.detector} model of round {model.round} does not answer the validation"
            " pictures here."
        )
        super().__init__(
            f"{happened} {why}",
            kept=kept,
            todo="Train the next round, or go back to an earlier version.",
        )
        self.version = model.version


def install(device: Device, body: bytes, manifest: str | None) -> Done:
    """Propose a model and settle it; where the training child has other work, it waits.

    Raises as both do.
    """
    model = propose(device, body, manifest)
    figures: dict[str, object] = {"version": model.version}
    try:
        if device.store.models.active(model.detector) != model:
            settle(device, model.detector)
    except Busy as busy:
        said = (
            f"The {model.detector} model of round {model.round} is kept. {busy.happened} Once it"
            " has answered the "
        )
        return Done(f"{said}validation pictures, it is in force.", figures)
    score = device.store.models.score(model.version)
    said = f"The {model.detector} model of round {model.round} is installed"
    if score is not None and score.accuracy is not None:
        figures |= {"accuracy": score.accuracy, "pictures": score.pictures}
        return Done(
            f"{said}: accuracy {score.accuracy:.1%} on {score.pictures} validation pictures.",
            figures,
        )
    return Done(
        f"{said} without a score: {score.said}" if score is not None and score.said else f"{said}.",
        figures,
    )


def propose(device: Device, body: bytes, manifest: str | None) -> GlobalModel:
    """Keep a global model, if it is one, of a detector that is here, and not older than what is
    here; it waits.

    Args:
        device: The device.
        body: A `doorbell-model/1` container.
        manifest: The main server's signed word for it, as it came in the header.

    Raises:
        InvalidMessage: It is no model.
        Forbidden: The main server does not vouch for it.
        NotFound: This device has no pictures for its detector.
        OutOfOrder: It is older than what the device has.
    """
    model = parse_model(body)
    check_manifest(manifest, device.enrolment.main().public_key or b"", model, body)
    device.require_pictures(model.detector)
    proposed, held = (
        GlobalModel(model.detector, version_of(body), model.round),
        device.store.models.active(model.detector),
    )
    if proposed == held:
        return held
    newer = (
        held if held is not None and held.round > model.round else None
    )  # and then the disk is not touched
    if newer is None:
        device.blobs.put(body)
        newer = device.store.models.propose(proposed)
    if newer is not None:
        raise OutOfOrder(
            f"The model of round {model.round} is older than the one of round {newer.round} held"
            " here.",
            kept="The newer model is kept.",
        )
    return proposed


def settle(device: Device, detector: str) -> None:
    """Ask the model of a detector that waits, if one does: put it in force, or turn it down.

    Raises:
        Busy: The training child has other work; the model still waits.
        NoAnswer: It does not answer; the model from before stays in force, and a setback is noted.
    """
    if not device.settling.acquire(timeout=_PATIENCE_S):
        raise Busy(
            "This device is busy: it asks another model.",
            todo="Wait until that is done, then try again.",
        )
    try:
        candidate = device.store.models.candidate(detector)
        if candidate is None:
            return
        try:
            score = _ask(device, candidate)
        except TrainingFailed as error:
            raise _turned_down(device, candidate, error.happened) from error
        device.store.models.activate(candidate, score)
    finally:
        device.settling.release()


def settle_all(device: Device) -> None:
    """Settle whatever waits and can be; what goes wrong is noted, and logged."""
    for detector in device.store.models.candidates():
        try:
            settle(device, detector)
        except Busy:
            return
        except DoorbellError as error:
            _log.warning("%s: %s", detector, error)


def fetch(device: Device, detector: str, version: str) -> int:
    """Get a version from the main server, and settle it.

    Returns:
        How many bytes came down.

    Raises:
        PeerUnreachable: The main server does not answer.
        InvalidMessage: It sends another model.
        Busy, NoAnswer, Forbidden, NotFound, OutOfOrder: As `propose` and `settle` do.
    """
    main = device.enrolment.main()
    reply = device.http.get(f"{main.url}/model/{version}", main)
    if version_of(reply.body) != version:
        raise InvalidMessage(
            "The model that the main server sent is not the one it named.", todo="Train again."
        )
    propose(device, reply.body, reply.headers.get(HEADER))
    settle(device, detector)
    return reply.bytes_down


def _ask(device: Device, candidate: GlobalModel) -> Score:
    """Return what a model answers on the validation pictures, or why there is nothing that it could
    be asked.
    """
    mine = (candidate.version, candidate.detector, candidate.round)
    try:
        if not all(device.pictures(candidate.detector, "valid").values()):
            return Score(*mine, None, 0, "There are no validation pictures of one class or both.")
        measured = _measured(device, candidate)
    except (DatasetError, CannotTrain) as error:
        _log.warning(
            "The model of round %d is in force without a score. %s", candidate.round, error
        )
        return Score(*mine, None, 0, str(error))
    if not math.isfinite(measured.accuracy):
        raise TrainingFailed("What the model answers is no number.")
    return Score(*mine, measured.accuracy, measured.pictures, threshold=measured.threshold)


def _measured(device: Device, candidate: GlobalModel) -> results.Score:
    """Have the training child score a model; a child that dies of it gets a second one."""
    job = Measure(
        detector=candidate.detector,
        folders=device.folders,
        clients=(device.settings.client,),
        split="valid",
        models={"candidate": device.blobs.path(candidate.version)},
        false_alarms=device.settings.bell.false_alarms,
    )
    try:
        result = device.trainer.run(job)
    except ChildDied as error:
        _log.warning(
            "%s The model of round %d is asked once more.", error.happened, candidate.round
        )
        result = device.trainer.run(job)
    return result.models["candidate"]


def _turned_down(device: Device, candidate: GlobalModel, why: str) -> NoAnswer:
    held = device.store.models.active(candidate.detector)
    kept = (
        "No model is in force yet."
        if held is None
        else f"The model of round {held.round} stays in force."
    )
    error = NoAnswer(candidate, why, kept)
    device.store.models.reject(candidate, str(error))
    return error
