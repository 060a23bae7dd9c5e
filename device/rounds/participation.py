"""The device's half of a round, top to bottom, in the order of docs/reference/protocol.md.

    announce     tell the main server what this device takes part in;
                 hear which rounds are open                                        (step 2)
    train        fetch the newest global model, train on local pictures,
                 keep the result                                                   (step 1)
    send         delta, clip, encode, mask, seal; to the aggregator, once          (step 3)
    install      take a new global model that was pushed
                 (model_trial.py puts it on trial)                                 (step 6)
    performance  local model and global model side by side on the local test split (step 7)

No picture, and in the secure topology no readable parameter, leaves the device by any of them.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import numpy as np

from device.context import Device
from device.evaluation import evaluations
from device.metrics import counted_training
from device.rounds import model_trial
from device.rounds.cleanup import tidy
from device.store.records import Evaluation, GlobalModel, Training
from device.training.jobs import Compare, Train
from device.training.results import Metrics, Trained
from learning.model import parse_model
from learning.round import local_result, share
from shared.errors import InvalidMessage, NotFound, OutOfOrder, PeerUnreachable
from shared.names import AGGREGATOR
from shared.protocol.announcement import Announcement
from shared.protocol.rounds import OpenRounds
from shared.round.plan import RoundPlan
from shared.security.joining import checked_member_name
from shared.web.steps import Done

_NAMED_REPEATS: Final = 3


def announce(device: Device) -> dict[str, RoundPlan]:
    """Tell the main server that this device is there, and return the open round of each of its
    detectors.

    Raises:
        PeerUnreachable: The main server does not answer.
        InvalidMessage: It answers something else than rounds.
    """
    trained = device.store.trainings.newest_rounds()
    detectors = {name: trained.get(name) for name in device.detectors()}
    message = Announcement(device.settings.url, detectors)
    main = device.enrolment.main()
    answer = device.http.post_json(f"{main.url}/clientstatus", message, main).read(OpenRounds)
    if set(answer.rounds) != set(detectors):
        raise InvalidMessage("The main server did not name the open rounds.")
    device.enrolment.rename(checked_member_name(answer.name, "device"))
    device.store.rounds.remember(answer.rounds.values())
    return answer.rounds


def send_status(device: Device, detector: str, rounds: dict[str, RoundPlan]) -> Done:
    """Say how far this device is in the open round of one detector (after `announce`)."""
    current, training = _round_of(rounds, detector), device.store.trainings.newest(detector)
    if training is None or training.round != current.round:
        return Done(
            f"registered for round {current.round}; not trained for it yet.",
            {"round": current.round},
        )
    return Done(f"registered, trained, ready for round {current.round}.", {"round": current.round})


def train(device: Device, detector: str) -> Done:
    """Train one detector from the newest global model, and keep params, history and plot.

    Raises:
        NotFound: This device has no pictures for that detector.
        DatasetError: It has, but they cannot be learned from.
        Busy: It is training already.
        PeerUnreachable: The main server does not answer and no global model is here yet.
        NoAnswer: The newest global model does not answer the validation pictures here.
        TrainingFailed: The training process gave up or was killed.
    """
    device.require_pictures(detector)
    current, base, bytes_down, note = _newest_model(device, detector)
    pictures = sum(device.pictures(detector, "train").values())
    with TemporaryDirectory(prefix="training-", dir=device.settings.folder) as folder:
        local_model = Path(folder) / "model.safetensors"
        job = Train(
            detector=detector,
            folders=device.folders,
            client=device.settings.client,
            model=device.blobs.path(base.version),
            round=current.round,
            base_version=base.version,
            work=current.work,
            seed=_seed(device, current),
            local_model=local_model,
        )
        with counted_training(detector):
            result = device.trainer.run(job)
        training = {
            "detector": detector,
            "round": current.round,
            "base_version": base.version,
            "local_model": device.blobs.put(local_model.read_bytes()),
            "plot": "",  # it is drawn when somebody looks at it
            "weight": result.weight,
            "history": msgspec.to_builtins(result.history),
            "finished_at": device.clock(),
            "pictures": pictures,
        }
    device.store.trainings.add(training)
    model_trial.settle_all(device)  # what was pushed meanwhile
    tidy(device)
    return _trained(current, result, bytes_down, note)


def send(device: Device, detector: str, rounds: dict[str, RoundPlan]) -> Done:
    """Send the update of the newest training; repeated, it sends the same bytes again.

    Args:
        device: The device.
        detector: Whose update.
        rounds: The open rounds, from `announce`.

    Raises:
        OutOfOrder: Nothing is trained, or for another round; or the cohort is frozen already.
        PeerUnreachable: The aggregator does not answer; the update is kept and will be the same
            next time.
    """
    current, training = _round_of(rounds, detector), device.store.trainings.newest(detector)
    if training is None:
        raise OutOfOrder(
            f"No trained {detector} model is here to send.",
            todo="Open /modeltrain on this device first.",
        )
    if (training.round, training.base_version) != (current.round, current.base_version):
        raise OutOfOrder(
            f"This device is trained for round {training.round}, and round {current.round} is open"
            " now.",
            kept="The trained model is kept.",
            todo="Open /modeltrain again: it starts from the newest model.",
        )
    update = device.blobs.get(_update_of(device, training, current))
    secure = current.receiver == AGGREGATOR
    receiver = device.receiver_of(current)
    reply = device.http.post(f"{receiver.url}/cmodel", update, receiver)
    device.store.trainings.record_sent(training)
    what = "The masked update" if secure else "The plain update"
    whom = "secure aggregator" if secure else "main server"
    said = f"{what} for round {current.round} is sent to the {whom} ({reply.bytes_up:,} bytes)."
    return Done(said, {"round": current.round, "bytes_up": reply.bytes_up})


def install(device: Device, body: bytes, manifest: str | None) -> Done:
    """Take a global model, if it is one, of a detector that is here, and not older than the one
    that is held.

    It is in force once it has answered the validation pictures here. If this device is training,
    that is later.

    Args:
        device: The device.
        body: A `doorbell-model/1` container.
        manifest: The main server's signed word for it, as it came in the header.

    Raises:
        InvalidMessage: It is no model, or it does not answer; the one from before stays in force.
        Forbidden: The main server does not vouch for it.
        NotFound: This device has no pictures for its detector.
        OutOfOrder: It is older than what the device has.
    """
    return model_trial.install(device, body, manifest)


def performance(device: Device, detector: str) -> Done:
    """Measure the local and the global model on the test split, keep what was found, and tell the
    main server.

    Raises:
        OutOfOrder: Neither a training nor a global model is here; or a training is running.
        DatasetError: The test split cannot be used.
    """
    device.require_pictures(detector)
    training, held = device.store.trainings.newest(detector), device.store.models.active(detector)
    if training is None or held is None:
        raise OutOfOrder(
            "There is nothing to compare yet.", todo="Open /modeltrain on this device first."
        )
    job = Compare(
        detector=detector,
        folders=device.folders,
        client=device.settings.client,
        split="test",
        models={
            "local": device.blobs.path(training.local_model),
            "global": device.blobs.path(held.version),
        },
    )
    result = device.trainer.run(job)
    measurement = Evaluation(
        detector,
        local_model=training.local_model,
        trained_round=training.round,
        version=held.version,
        global_round=held.round,
        report=device.blobs.put(json.dumps(result.report).encode()),
        plot="",  # it is drawn when somebody looks at it
        measured_at=device.clock(),
    )
    device.store.evaluations.keep(measurement)
    measured = result.models
    said = "; ".join(_in_words(name, measured[name]) for name in ("local", "global"))
    said = f"On {measured['local'].pictures} test pictures: {said}. "
    said += f"(Local: trained for round {training.round}; global: the model of round {held.round}.)"
    said += evaluations.tell(device, detector)
    rounds = {"local_round": training.round, "global_round": held.round}
    figures = msgspec.to_builtins(measured) | rounds | {"intervals": result.report["figures"]}
    return Done(said, figures)


def _round_of(rounds: dict[str, RoundPlan], detector: str) -> RoundPlan:
    if detector not in rounds:
        raise NotFound(
            f"This device does not take part in {detector}.", todo="Pick another detector."
        )
    return rounds[detector]


def _newest_model(device: Device, detector: str) -> tuple[RoundPlan, GlobalModel, int, str]:
    """Return the open round, its base model, the bytes that came down, and a note if main could not
    be asked.
    """
    turned_down = None
    try:
        model_trial.settle(device, detector)
    except model_trial.NoAnswer as error:
        turned_down = error
    try:
        current = _round_of(announce(device), detector)
    except PeerUnreachable as error:
        known, held = device.store.rounds.newest(detector), device.store.models.active(detector)
        if known is None or held is None or known.base_version != held.version:
            lacks = (
                "no model to start from yet"
                if held is None
                else "not heard of a round for the model it holds"
            )
            raise PeerUnreachable(
                f"The main server does not answer, and this device has {lacks}.",
                todo="Start the main server (port 8000), then train again.",
            ) from error
        return (
            known,
            held,
            0,
            " The main server did not answer, so this starts from the newest model held here.",
        )
    held = device.store.models.active(detector)
    if held is not None and held.version == current.base_version:
        return current, held, 0, ""
    if turned_down is not None and turned_down.version == current.base_version:
        raise turned_down
    bytes_down = model_trial.fetch(device, detector, current.base_version)
    held = device.store.models.active(detector)
    if held is None or held.version != current.base_version:
        raise OutOfOrder("A newer model arrived meanwhile.", todo="Train again.")
    return current, held, bytes_down, ""


def _update_of(device: Device, training: Training, current: RoundPlan) -> str:
    """Return the digest of the one update of a training; made, masked and kept on first use."""
    if training.update is not None:
        return training.update
    base = parse_model(device.blobs.get(training.base_version)).params
    trained = parse_model(device.blobs.get(training.local_model)).params
    result = local_result(base, trained, training.weight, current)
    rounding = np.random.default_rng(_seed(device, current))
    update = share(result, current, device.name, rounding)
    return device.store.trainings.keep_update(training, device.blobs.put(update.to_bytes()))


def _seed(device: Device, current: RoundPlan) -> int:
    """Return the seed of a training and of its rounding: the same device, round and base give the
    same update.
    """
    return int.from_bytes(hashlib.sha256(current.context(device.name)).digest()[:4], "little")


def _trained(current: RoundPlan, result: Trained, bytes_down: int, note: str) -> Done:
    last = result.history[-1]
    seconds = sum(epoch.seconds for epoch in result.history)
    said = (
        f"Trained for round {current.round} on {result.weight} pictures in {seconds:.1f} s: "
        f"accuracy {last.accuracy:.1%}, on validation pictures {last.val_accuracy:.1%}."
    )
    if result.left_out:
        reasons = ", ".join(
            f"{count} x {reason}" for reason, count in sorted(result.left_out.items())
        )
        said += f" Left out: {reasons}."
    if result.repeated:
        said += f" Learned from and tested on as well ({len(result.repeated)}), so measurements"
        said += " flatter: " + ", ".join(result.repeated[:_NAMED_REPEATS])
        said += ", ..." if len(result.repeated) > _NAMED_REPEATS else "."
    figures = {
        "round": current.round,
        "weight": result.weight,
        "history": msgspec.to_builtins(result.history),
        "left_out": result.left_out,
        "repeated": list(result.repeated),
        "seconds": seconds,
        "bytes_down": bytes_down,
    }
    return Done(said + note, figures)


def _in_words(name: str, measured: Metrics) -> str:
    auc = "no AUC" if measured.roc_auc is None else f"AUC {measured.roc_auc:.3f}"
    return (
        f"{name} model accuracy {measured.accuracy:.1%}, precision {measured.precision:.1%}, "
        f"recall {measured.recall:.1%}, F1 {measured.f1:.3f}, {auc}"
    )
