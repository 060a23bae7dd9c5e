"""A device's steps with a trainer that only pretends, against a real main server and aggregator."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from device.context import Device
from device.rounds import participation
from device.training.jobs import Compare
from learning.architectures import architecture
from learning.model import parse_model
from main_server.members.members import rename
from main_server.store.devices import all_devices, participations
from main_server.store.rounds import find_round
from main_server.store.versions import newest_version
from shared.errors import (
    Forbidden,
    InvalidMessage,
    NotFound,
    OutOfOrder,
    PeerUnreachable,
    TrainingFailed,
)
from shared.round.payloads import parse_masked_update, parse_plain_update
from shared.security.manifest import HEADER, manifest_of, signed_manifest
from tests.main_store import read

STEP = np.float32(0.25)


def fetched(federation: Any) -> int:
    return sum(where.startswith("main/model/") for where, _ in federation.network.log)


def uploads(federation: Any) -> list[bytes]:
    return list(federation.network.sent("aggregator/cmodel"))


def send(doorbell: Device) -> Any:
    return participation.send(doorbell, "package", participation.announce(doorbell))


# --- training


def test_training_fetches_version_0_and_keeps_it(federation: Any, doorbell: Device) -> None:
    done = participation.train(doorbell, "package")
    settings = federation.announce("device-1")
    held = doorbell.store.models.active("package")
    assert (held.version, held.round) == (settings.base_version, 0)
    assert doorbell.blobs.get(held.version) == federation.main.blobs.get(held.version)
    assert done.figures["bytes_down"] == len(doorbell.blobs.get(held.version))
    assert (
        "Trained for round 1 on 12 pictures in 1.5 s: accuracy 90.0%, on validation pictures 80.0%."
        in done.said
    )
    assert "Left out: 2 x not a picture." in done.said
    assert (
        "Learned from and tested on as well (1), so measurements flatter: train/face/1.jpg = test"
        in done.said
    )
    assert read(federation.main.store, all_devices)[0].address == "http://device-1"


def test_training_is_kept_with_params_and_history_and_draws_nothing(
    federation: Any, doorbell: Device
) -> None:
    participation.train(doorbell, "package")
    training = doorbell.store.trainings.newest("package")
    local, base = (
        parse_model(doorbell.blobs.get(d)) for d in (training.local_model, training.base_version)
    )
    assert all((local.params[name] == base.params[name] + STEP).all() for name in base.params)
    assert training.plot == ""
    assert (training.weight, training.finished_at, training.round) == (12, 99.0, 1)
    assert training.history[0]["val_accuracy"] == 0.8
    assert (training.update, training.sent) == (None, 0)
    assert not [
        path for path in doorbell.settings.folder.iterdir() if path.name.startswith("training-")
    ]


def test_training_again_does_not_fetch_again(federation: Any, doorbell: Device) -> None:
    participation.train(doorbell, "package")
    done = participation.train(doorbell, "package")
    assert fetched(federation) == 1
    assert done.figures["bytes_down"] == 0


def test_same_round_and_base_train_with_the_same_seed_and_devices_with_others(
    federation: Any, doorbell: Device, make_device: Any
) -> None:
    other = make_device(federation, 2)
    for one in (doorbell, doorbell, other):
        participation.train(one, "package")
    assert (
        doorbell.trainer.jobs[0].seed == doorbell.trainer.jobs[1].seed != other.trainer.jobs[0].seed
    )


def test_training_without_main_server_starts_from_the_model_held_and_says_so(
    federation: Any, doorbell: Device
) -> None:
    participation.train(doorbell, "package")
    federation.network.down = {"main"}
    done = participation.train(doorbell, "package")
    assert (
        "The main server did not answer, so this starts from the newest model held here."
        in done.said
    )
    assert done.figures["round"] == 1


def test_first_training_without_main_server_says_what_to_start(
    federation: Any, doorbell: Device
) -> None:
    federation.network.down = {"main"}
    with pytest.raises(
        PeerUnreachable, match=r"no model to start from yet.*Start the main server"
    ) as caught:
        participation.train(doorbell, "package")
    assert caught.value.status == 503
    assert not doorbell.trainer.jobs


def test_pushed_model_without_a_round_to_train_for_waits_for_the_main_server(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    finish_a_round(federation, doorbell, make_device(federation, 2))
    federation.step("main", "send_model_clients")
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable, match="not heard of a round for the model it holds"):
        participation.train(doorbell, "package")


def test_training_that_failed_keeps_nothing_new(federation: Any, doorbell: Device) -> None:
    doorbell.trainer.error = TrainingFailed("The training process was killed by SIGKILL.")
    with pytest.raises(TrainingFailed):
        participation.train(doorbell, "package")
    assert doorbell.store.trainings.newest("package") is None
    assert not list(doorbell.settings.folder.glob("training-*"))


def test_training_without_pictures_is_not_found(doorbell: Device) -> None:
    with pytest.raises(NotFound, match="no pictures for raccoon"):
        participation.train(doorbell, "raccoon")


def test_served_model_with_another_hash_is_refused(federation: Any, doorbell: Device) -> None:
    version = federation.announce("device-1").base_version
    genuine = federation.main.blobs.path(version)
    model = parse_model(genuine.read_bytes())
    params = {name: value + np.float32(1) for name, value in model.params.items()}
    genuine.write_bytes(replace(model, params=params).to_bytes())
    with pytest.raises(InvalidMessage, match="not the one it named"):
        participation.train(doorbell, "package")
    assert doorbell.store.models.active("package") is None
    assert not doorbell.trainer.jobs


# --- sending


def test_sending_before_training_is_refused(federation: Any, doorbell: Device) -> None:
    with pytest.raises(OutOfOrder, match="Open /modeltrain on this device first"):
        send(doorbell)
    assert uploads(federation) == []


def test_sending_twice_sends_identical_bytes(federation: Any, doorbell: Device) -> None:
    participation.train(doorbell, "package")
    first, second = send(doorbell), send(doorbell)
    assert len(uploads(federation)) == 2
    assert len(set(uploads(federation))) == 1
    assert first.said == second.said
    assert doorbell.store.trainings.newest("package").sent == 1


def test_sending_again_after_a_restart_sends_identical_bytes(
    federation: Any, doorbell: Device, make_device: Any
) -> None:
    participation.train(doorbell, "package")
    send(doorbell)
    send(make_device(federation))
    assert len(set(uploads(federation))) == 1


def test_update_is_kept_while_the_aggregator_does_not_answer(
    federation: Any, doorbell: Device
) -> None:
    participation.train(doorbell, "package")
    federation.network.down = {"aggregator"}
    with pytest.raises(PeerUnreachable):
        send(doorbell)
    training = doorbell.store.trainings.newest("package")
    assert training.sent == 0
    federation.network.down = set()
    send(doorbell)
    assert uploads(federation) == [doorbell.blobs.get(training.update)]


def test_training_newer_than_the_update_makes_a_new_one(federation: Any, doorbell: Device) -> None:
    for _ in range(2):
        participation.train(doorbell, "package")
        send(doorbell)
    assert len(set(uploads(federation))) == 2
    kept = federation.aggregator.store.updates("package", 1)
    assert [update.digest for update in kept] == [doorbell.store.trainings.newest("package").update]


def test_upload_is_masked_and_names_round_and_device(federation: Any, doorbell: Device) -> None:
    participation.train(doorbell, "package")
    done = send(doorbell)
    update = parse_masked_update(uploads(federation)[0])
    assert (update.device, update.round, update.detector) == ("device-1", 1, "package")
    assert done.figures == {"round": 1, "bytes_up": len(uploads(federation)[0])}
    assert "sent to the secure aggregator" in done.said


def test_round_of_two_devices_moves_the_model_by_the_trained_step(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    federation.announce("device-1")
    base = federation.params()
    finish_a_round(federation, doorbell, make_device(federation, 2))
    np.testing.assert_allclose(federation.params() - base, STEP, atol=2e-4)


def test_training_for_a_finished_round_is_not_sent(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    finish_a_round(federation, doorbell, make_device(federation, 2))
    before = uploads(federation)
    with pytest.raises(OutOfOrder, match="trained for round 1, and round 2 is open now"):
        send(doorbell)
    assert uploads(federation) == before


def test_local_model_that_is_not_finite_is_never_sent(federation: Any, doorbell: Device) -> None:
    doorbell.trainer.step = np.float32(np.nan)
    participation.train(doorbell, "package")
    with pytest.raises(InvalidMessage, match="not finite"):
        send(doorbell)
    assert uploads(federation) == []


def test_direct_topology_sends_the_plain_delta_to_the_main_server(
    federation: Any, doorbell: Device
) -> None:
    federation.start(topology="direct")
    participation.train(doorbell, "package")
    assert "sent to the main server" in send(doorbell).said
    (body,) = federation.network.sent("main/cmodel")
    update = parse_plain_update(body)
    np.testing.assert_allclose(update.delta, STEP, rtol=1e-5)
    assert update.weight == 12
    assert uploads(federation) == []


def test_status_says_how_far_the_device_is(federation: Any, doorbell: Device) -> None:
    def status() -> str:
        return participation.send_status(doorbell, "package", participation.announce(doorbell)).said

    assert status() == "registered for round 1; not trained for it yet."
    participation.train(doorbell, "package")
    assert status() == "registered, trained, ready for round 1."
    assert read(federation.main.store, participations)[0].trained_round == 1


# --- installing


def test_pushed_model_is_installed_and_training_starts_from_it(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    other = make_device(federation, 2)
    finish_a_round(federation, doorbell, other)
    assert federation.step("main", "send_model_clients")["delivered"] == ["device-1", "device-2"]
    newest = read(federation.main.store, newest_version, "package")
    assert doorbell.store.models.active("package").version == newest.version
    participation.train(doorbell, "package")
    assert doorbell.trainer.jobs[-1].base_version == newest.version
    assert fetched(federation) == 2


def test_device_that_missed_the_delivery_fetches_the_model_when_it_trains(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    finish_a_round(federation, doorbell, make_device(federation, 2))
    participation.train(doorbell, "package")
    assert doorbell.store.models.active("package").round == 1
    assert fetched(federation) == 3


def test_older_model_is_refused_and_the_newer_kept(
    federation: Any, doorbell: Device, pushed: Any, vouched: Any, push: Any
) -> None:
    new, old = pushed(federation, round=5), pushed(federation, round=4)
    participation.install(doorbell, new.to_bytes(), vouched(federation, new))
    with pytest.raises(OutOfOrder, match="round 4 is older than the one of round 5") as caught:
        push(federation, old)
    assert caught.value.status == 409
    assert doorbell.store.models.active("package").round == 5
    assert "installed" in push(federation, new)


def test_model_for_a_detector_without_pictures_is_not_found(
    federation: Any, doorbell: Device, pushed: Any, push: Any
) -> None:
    with pytest.raises(NotFound, match="no pictures for raccoon"):
        push(federation, pushed(federation, detector="raccoon"))
    assert doorbell.store.models.active("raccoon") is None


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_model_with_a_value_that_is_not_finite_is_refused(
    federation: Any, doorbell: Device, bad: float, pushed: Any, push: Any
) -> None:
    params = architecture("efficientnet-lite0-head").initial(np.random.default_rng(0))
    params["logit/bias"][0] = bad
    with pytest.raises(InvalidMessage, match="not finite"):
        push(federation, pushed(federation, params=params))
    assert doorbell.store.models.active("package") is None


def test_model_whose_shapes_are_not_its_architectures_is_refused(
    federation: Any, doorbell: Device, pushed: Any, push: Any
) -> None:
    with pytest.raises(InvalidMessage, match="does not have the parameters of porch-cnn"):
        push(federation, pushed(federation, architecture="porch-cnn"))
    with pytest.raises(NotFound, match="no architecture called"):
        push(federation, pushed(federation, architecture="resnet"))
    with pytest.raises(InvalidMessage):
        federation.as_main.post("http://device-1/aggmodel", b"no model")
    assert doorbell.store.models.active("package") is None


def test_model_that_the_main_server_does_not_vouch_for_is_refused(
    federation: Any, doorbell: Device, pushed: Any, vouched: Any, push: Any
) -> None:
    model, other = pushed(federation), pushed(federation, round=9)
    forged = signed_manifest(
        manifest_of("doorbell", model, model.to_bytes(), 1e9), doorbell.enrolment.identity
    )
    for manifest in ("", "x", forged, vouched(federation, other)):
        with pytest.raises(Forbidden, match="manifest is not the main server's word for it"):
            push(federation, model, manifest)
        with pytest.raises(Forbidden):
            participation.install(doorbell, model.to_bytes(), manifest or None)
    with pytest.raises(Forbidden):
        federation.as_main.post("http://device-1/aggmodel", model.to_bytes())
    assert doorbell.store.models.active("package") is None
    assert "installed" in push(federation, model)


def test_model_that_another_device_pushes_is_refused(
    federation: Any, doorbell: Device, pushed: Any, vouched: Any
) -> None:
    model = pushed(federation)
    headers = {HEADER: vouched(federation, model)}
    for sender in (federation.device("device-2"), federation.as_aggregator):
        with pytest.raises(Forbidden, match="signed with an unknown key id"):
            sender.post("http://device-1/aggmodel", model.to_bytes(), headers)
    with pytest.raises(Forbidden, match="not signed"):
        federation.http.post("http://device-1/aggmodel", model.to_bytes(), headers=headers)
    assert doorbell.store.models.active("package") is None


def test_served_model_without_the_main_servers_word_is_not_trained_from(
    federation: Any, doorbell: Device
) -> None:
    federation.announce("device-1")
    with contextlib.closing(
        sqlite3.connect(federation.folder / "main-server" / "state.sqlite3")
    ) as database:
        database.execute("UPDATE versions SET manifest = 'eyJ9.AAAA'")
        database.commit()
    with pytest.raises(Forbidden, match="manifest"):
        participation.train(doorbell, "package")
    assert doorbell.store.models.active("package") is None
    assert not doorbell.trainer.jobs


# --- measuring


def test_performance_before_training_is_refused(doorbell: Device) -> None:
    with pytest.raises(OutOfOrder, match="nothing to compare yet"):
        participation.performance(doorbell, "package")


def test_performance_measures_local_and_global_model_on_the_test_split(
    federation: Any, doorbell: Device
) -> None:
    participation.train(doorbell, "package")
    done = participation.performance(doorbell, "package")
    job, training = doorbell.trainer.jobs[-1], doorbell.store.trainings.newest("package")
    assert isinstance(job, Compare)
    assert (job.split, job.client) == ("test", "client_1")
    assert job.models["local"].name == training.local_model
    assert job.models["global"].name == training.base_version
    assert "On 4 test pictures: local model accuracy 75.0%" in done.said
    assert "no AUC" in done.said
    assert (done.figures["local_round"], done.figures["global_round"]) == (1, 0)


# --- being renamed


def test_renamed_device_trains_sends_and_is_delivered_to_under_its_new_name(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    other = make_device(federation, 2)
    participation.announce(doorbell)
    rename(federation.main, "device-1", "porch")
    assert doorbell.name == "device-1"
    finish_a_round(federation, doorbell, other)
    assert doorbell.name == "porch"
    assert parse_masked_update(uploads(federation)[0]).device == "porch"
    assert read(federation.main.store, find_round, "package", 1).cohort == ("device-2", "porch")
    assert federation.step("main", "send_model_clients")["delivered"] == ["device-2", "porch"]
    assert doorbell.store.models.active("package").round == 1


def test_update_made_under_the_old_name_is_not_taken_until_it_is_trained_for_again(
    federation: Any, doorbell: Device
) -> None:
    participation.train(doorbell, "package")
    federation.network.down = {"aggregator"}
    with pytest.raises(PeerUnreachable):
        send(doorbell)
    federation.network.down = set()
    rename(federation.main, "device-1", "porch")
    with pytest.raises(Forbidden, match="porch cannot speak for device-1"):
        send(doorbell)
    participation.train(doorbell, "package")
    send(doorbell)
    assert [update.device for update in federation.aggregator.store.updates("package", 1)] == [
        "porch"
    ]


# --- over HTTP


def test_app_without_pictures_says_where_to_put_them(federation: Any, make_device: Any) -> None:
    doorbell = make_device(federation)
    (doorbell.settings.data / "package" / "client_1").rmdir()
    with pytest.raises(OutOfOrder, match="This device has no pictures"):
        federation.http.post("http://device-1/modeltrain", b"")


def test_app_shows_the_plot_of_the_newest_training(federation: Any, doorbell: Device) -> None:
    with pytest.raises(NotFound, match="No package training"):
        federation.http.get("http://device-1/plot/package.png")
    participation.train(doorbell, "package")
    plot = federation.http.get("http://device-1/plot/package.png").body
    assert plot.startswith(b"\x89PNG")
    kept = doorbell.store.trainings.newest("package")
    assert doorbell.blobs.get(kept.plot) == plot
    assert federation.http.get("http://device-1/plot/package.png").body == plot
