"""A device that calls: what it says, when it calls again, and that it survives hours without
anybody answering.
"""

from __future__ import annotations

import itertools
import json
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from device.context import Device
from device.rounds import participation
from device.rounds.poll_loop import LEAST_S, Attendant, attend, call
from device.rounds.schedule import Schedule, keep_to_schedule
from device.store.records import Failure
from device.training.jobs import Activity, Measure, PrepareRings, Train
from device.training.worker_client import Busy, ChildDied
from main_server.store.devices import participations
from shared.errors import Forbidden, InvalidMessage, NotFound, PeerUnreachable, TrainingFailed
from shared.protocol.work import DeviceWaits
from shared.transport.backoff import LONGEST_PAUSE_S
from shared.transport.http_client import Reply
from shared.web.background import start_background
from tests.main_store import read

Answer = dict[str, Any] | Exception | Callable[[], dict[str, Any]]


class World:
    """A main server that answers what it is told to, and a clock that only moves when somebody
    waits.
    """

    def __init__(self, doorbell: Device, *answers: Answer) -> None:
        self.now, self.answers = 0.0, list(answers)
        self.calls: list[tuple[float, dict[str, Any]]] = []
        self.pauses: list[float] = []
        self.waits_s: float | None = None
        self.is_ending = False
        self.device = replace(doorbell, poll=self)  # type: ignore[arg-type]
        self.attendant = Attendant(
            self.device, self.pause, lambda: self.is_ending, lambda: self.now, random.Random(3)
        )

    def post_json(self, url: str, message: DeviceWaits, to: Any) -> Reply:
        assert (url, to.name) == ("http://main/work", "main-server")
        self.calls.append((self.now, message.to_json()))
        answer = self.answers.pop(0) if self.answers else {"tasks": [], "again_s": 0}
        if isinstance(answer, Exception):
            raise answer
        answer = answer() if callable(answer) else answer
        if not answer["tasks"]:
            self.now += message.wait_s if self.waits_s is None else self.waits_s
        body = json.dumps({"name": "device-1", "again_s": 0} | answer).encode()
        return Reply(body, {"Content-Type": "application/json"}, 0, 0)

    def pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        self.now += seconds
        return False

    def go(self, times: int = 1) -> None:
        for _ in range(times):
            self.pause(self.attendant.once())


def task(do: str, **more: Any) -> dict[str, Any]:
    return {"tasks": [{"do": do, "detector": "package"} | more]}


def gone() -> PeerUnreachable:
    return PeerUnreachable("No answer from http://main.", todo="Start it.")


# --- calling


@pytest.mark.parametrize(
    "waits_s", [None, 0.0, 3.0], ids=["waits as asked", "answers at once", "is impatient"]
)
def test_idle_device_calls_at_most_once_in_25_seconds(
    doorbell: Device, waits_s: float | None
) -> None:
    world = World(doorbell)
    world.waits_s = waits_s
    world.go(50)
    times = [when for when, _ in world.calls]
    assert all(after - before >= LEAST_S for before, after in itertools.pairwise(times))
    assert times[-1] <= 50 * 31
    waits = [message["wait_s"] for _, message in world.calls]
    assert all(27 <= wait <= 30 for wait in waits)
    assert len(set(waits)) > 5


def test_without_room_to_wait_it_comes_back_a_little_later_than_told(doorbell: Device) -> None:
    world = World(doorbell, *({"tasks": [], "again_s": 20} for _ in range(20)))
    world.waits_s = 0.0
    world.go(20)
    assert all(20 <= pause <= 30 for pause in world.pauses)
    assert len(set(world.pauses)) > 5


def test_hours_without_connection_are_survived_with_pauses_of_a_minute_at_most(
    doorbell: Device, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(doorbell, *(gone() for _ in range(500)))
    while world.now < 5 * 3600 and world.answers:
        world.go()
    assert world.now > 3 * 3600
    assert max(world.pauses) <= LONGEST_PAUSE_S
    assert sum(world.pauses[20:]) / len(world.pauses[20:]) == pytest.approx(30, abs=4)
    assert len([record for record in caplog.records if "in vain" in record.message]) == 1
    world.answers.clear()
    world.go()
    assert "The main server answers: device-1 waits for work." in caplog.messages
    world.answers = [gone()]
    world.go()
    assert world.pauses[-1] <= 1.0, "the first success resets"


def test_reason_is_logged_once_until_it_changes(
    doorbell: Device, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    revoked, unsigned = Forbidden("device-1 was revoked: stolen."), InvalidMessage("No.")
    world = World(doorbell, gone(), gone(), revoked, revoked, revoked, unsigned, NotFound("x"))
    world.go(7)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 4
    assert (
        "waits for work in vain" in caplog.messages[1] and "revoked: stolen" in caplog.messages[1]
    )


def test_device_that_cannot_join_says_so_once_and_goes_on_trying(
    federation: Any, make_device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lonely = make_device(federation, 2)
    for path in (federation.folder / "main-server").glob("*join*"):
        path.unlink()
    enrolment = replace(lonely.enrolment, local_codes=federation.folder / "nowhere", join_code=None)
    world = World(replace(lonely, enrolment=enrolment))
    world.go(30)
    assert world.calls == []
    (said,) = caplog.messages
    assert "device-2 has not joined the federation, and there is no join code" in said
    assert 8 < max(world.pauses) <= LONGEST_PAUSE_S


def test_round_that_is_asked_for_goes_by_its_id_at_every_service(
    federation: Any, doorbell: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    federation.announce("device-1")
    World(doorbell, task("train", round=1)).go()
    lines = [line for line in capsys.readouterr().err.splitlines() if "[round-package-1]" in line]
    for said in ("package: Trained for round 1", "POST /clientstatus 200", "POST /cmodel 200"):
        assert len([line for line in lines if said in line]) >= 1, said


@pytest.mark.parametrize(
    "answer",
    [
        {"tasks": None},
        {"tasks": ["train"]},
        {"tasks": [], "again_s": -1},
        {"tasks": [], "again_s": None},
        task("train", round=0),
        task("train", round="1"),
        task("train"),
        task("install", version="x"),
        task("install"),
        {"tasks": [{"do": "train", "detector": "No Name", "round": 1}]},
        {"tasks": [], "name": "No Name"},
    ],
    ids=str,
)
def test_answer_that_is_none_is_refused(doorbell: Device, answer: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        call(
            World(doorbell, {"tasks": []} | answer if answer["tasks"] is None else answer).device,
            1.0,
        )


def test_task_of_a_newer_main_server_is_left_alone(doorbell: Device) -> None:
    world = World(doorbell, task("dance"))
    world.go()
    assert doorbell.trainer.jobs == []


def test_what_it_says_is_what_it_has(federation: Any, doorbell: Device, add_pictures: Any) -> None:
    world = World(doorbell)
    world.go()
    nothing = {
        "trained_round": None,
        "sent_round": None,
        "held": None,
        "score": None,
        "setback": None,
        "refused": None,
    }
    assert world.calls[0][1]["address"] == "http://device-1"
    assert world.calls[0][1]["detectors"] == {"package": nothing}
    add_pictures(doorbell, "valid")
    participation.train(doorbell, "package")
    doorbell.store.failures.record(Failure("package", 1, "x" * 1000))
    world.go()
    version = federation.announce("device-1").base_version
    said = world.calls[1][1]["detectors"]["package"]
    assert (said["trained_round"], said["sent_round"], said["held"]) == (1, None, version)
    assert said["score"] == {"version": version, "accuracy": 0.75, "pictures": 4}
    assert said["setback"] == {"round": 1, "said": "x" * 300}
    participation.send(doorbell, "package", participation.announce(doorbell))
    world.go()
    said = world.calls[2][1]["detectors"]["package"]
    assert (said["sent_round"], said["setback"]) == (1, None)


def test_real_main_server_takes_what_it_says(
    federation: Any, doorbell: Device, add_pictures: Any
) -> None:
    add_pictures(doorbell, "valid")
    assert call(doorbell, 0.0).tasks == ()
    participation.train(doorbell, "package")
    doorbell.store.failures.record(Failure("package", 1, "It went wrong."))
    assert call(doorbell, 0.0).tasks == ()
    (part,) = read(federation.main.store, participations, "package")
    assert (part.device, part.trained_round, part.setback_round) == ("device-1", 1, 1)


# --- tasks


def test_asked_to_train_it_trains_and_sends_and_asks_again_at_once(
    federation: Any, doorbell: Device
) -> None:
    world = World(doorbell, task("train", round=1))
    world.go(2)
    assert world.pauses[0] == 0.0
    assert world.calls[1][1]["detectors"]["package"]["sent_round"] == 1
    assert len(federation.network.sent("aggregator/cmodel")) == 1


def test_restart_in_the_middle_sends_what_is_trained_and_does_not_train_again(
    federation: Any, doorbell: Device, make_device: Any
) -> None:
    federation.network.down = {"aggregator"}
    world = World(doorbell, task("train", round=1), task("train", round=1))
    world.go(2)
    assert [type(job) for job in doorbell.trainer.jobs] == [Train]
    assert doorbell.store.failures.latest("package") is None
    federation.network.down = set()
    again = make_device(federation)
    World(again, task("train", round=1)).go()
    assert again.trainer.jobs == []
    assert len(federation.network.sent("aggregator/cmodel")) == 1
    assert again.store.trainings.sent_round("package") == 1


def test_killed_after_the_training_it_sends_just_that(
    federation: Any, doorbell: Device, make_device: Any
) -> None:
    participation.train(doorbell, "package")
    again = make_device(federation)
    world = World(again, task("train", round=1), task("train", round=1))
    world.go(2)
    assert again.trainer.jobs == []
    assert len(federation.network.sent("aggregator/cmodel")) == 1, "what is sent is left alone"
    assert world.pauses[0] == 0.0
    assert world.pauses[1] > 0.0, "asked for what is done, it does not call in a circle"


def test_aggregator_that_is_away_is_tried_with_growing_pauses_and_no_setback(
    federation: Any, doorbell: Device, caplog: pytest.LogCaptureFixture
) -> None:
    federation.network.down = {"aggregator"}
    world = World(doorbell, *(task("train", round=1) for _ in range(40)))
    world.go(40)
    assert 30 < max(world.pauses) <= LONGEST_PAUSE_S
    assert doorbell.store.failures.latest("package") is None
    assert len([record for record in caplog.records if "tried again" in record.message]) == 1
    federation.network.down = set()
    world.answers = [task("train", round=1)]
    world.go()
    assert doorbell.store.trainings.sent_round("package") == 1


def test_straggler_notes_why_and_takes_part_in_the_next_round(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    participation.train(doorbell, "package")
    finish_a_round(federation, make_device(federation, 2), make_device(federation, 3))
    world = World(doorbell, task("train", round=1), task("train", round=2))
    world.go()
    setback = doorbell.store.failures.latest("package")
    assert setback.round == 1
    assert "trained for round 1, and round 2 is open now" in setback.said
    world.go()
    assert world.calls[1][1]["detectors"]["package"]["setback"]["round"] == 1
    assert doorbell.store.trainings.sent_round("package") == 2
    assert doorbell.store.failures.latest("package") is None


def test_update_after_the_freeze_is_a_setback_for_its_round(
    federation: Any, doorbell: Device, make_device: Any
) -> None:
    others = [make_device(federation, number) for number in (2, 3)]
    participation.announce(doorbell)
    for other in others:
        participation.train(other, "package")
        participation.send(other, "package", participation.announce(other))
    federation.step("aggregator", "aggregate_models")
    World(doorbell, task("train", round=1)).go()
    setback = doorbell.store.failures.latest("package")
    assert (setback.round, doorbell.store.trainings.sent_round("package")) == (1, None)
    assert "too late" in setback.said


@pytest.mark.parametrize(
    "error",
    [participation.OutOfOrder("x"), NotFound("y"), InvalidMessage("z"), RuntimeError("a mistake")],
    ids=repr,
)
def test_training_that_fails_is_a_setback_and_the_next_round_is_another_try(
    doorbell: Device, error: Exception
) -> None:
    doorbell.trainer.errors["train"] = [error]  # type: ignore[attr-defined]
    world = World(doorbell, task("train", round=1), task("train", round=1))
    world.go()
    assert doorbell.store.failures.latest("package").round == 1
    assert 0 < world.pauses[-1] <= 1.0
    world.go()
    assert doorbell.store.trainings.sent_round("package") == 1
    assert doorbell.store.failures.latest("package") is None


def test_child_that_is_killed_once_costs_no_round_and_twice_is_a_setback(doorbell: Device) -> None:
    doorbell.trainer.errors["train"] = [ChildDied("Killed by SIGTERM.")] * 3  # type: ignore[attr-defined]
    world = World(doorbell, *(task("train", round=1) for _ in range(4)))
    world.go()
    assert doorbell.store.failures.latest("package") is None
    world.go()
    assert doorbell.store.failures.latest("package").said.startswith("Killed by SIGTERM.")
    world.go(2)
    assert doorbell.store.trainings.sent_round("package") == 1


def test_what_goes_wrong_while_the_device_is_stopped_is_no_setback(doorbell: Device) -> None:
    doorbell.trainer.errors["train"] = [TrainingFailed("Its folder is gone.")]  # type: ignore[attr-defined]
    world = World(doorbell, task("train", round=1))
    world.is_ending = True
    world.go()
    assert doorbell.store.failures.latest("package") is None
    assert doorbell.trainer.errors["train"] == []  # type: ignore[attr-defined]


def test_while_the_owner_trains_it_waits_and_tries_again_without_a_setback(
    doorbell: Device,
) -> None:
    doorbell.trainer.errors["train"] = [Busy("This device is busy.")] * 2  # type: ignore[attr-defined]
    world = World(doorbell, *(task("train", round=1) for _ in range(3)))
    rings = PrepareRings(detector="package", folders=doorbell.folders, architecture="porch-cnn")
    doorbell.trainer.progress = Activity(rings)  # type: ignore[misc]
    world.go()
    assert 60 <= world.now <= 62, "not for ever"
    doorbell.trainer.progress = None  # type: ignore[misc]
    before = world.now
    world.go(2)
    assert world.now - before == 1.0
    assert doorbell.store.failures.latest("package") is None
    assert doorbell.store.trainings.sent_round("package") == 1


def test_asked_to_install_it_fetches_and_asks_the_model(
    federation: Any, doorbell: Device, add_pictures: Any
) -> None:
    add_pictures(doorbell, "valid")
    version = federation.announce("device-1").base_version
    world = World(doorbell, task("install", version=version), task("install", version=version))
    world.go(3)
    assert doorbell.store.models.active("package").version == version
    assert [type(job) for job in doorbell.trainer.jobs] == [Measure]
    assert world.calls[1][1]["detectors"]["package"]["score"]["version"] == version
    assert (
        len([where for where, _ in federation.network.log if where.startswith("main/model/")]) == 1
    )


def test_version_that_did_not_answer_is_reported_and_not_asked_again(
    federation: Any, doorbell: Device, add_pictures: Any
) -> None:
    add_pictures(doorbell, "valid")
    version = federation.announce("device-1").base_version
    doorbell.trainer.accuracy = float("inf")  # type: ignore[attr-defined]
    world = World(doorbell, *(task("install", version=version) for _ in range(3)))
    world.go(4)
    assert len(doorbell.trainer.jobs) == 1
    said = world.calls[1][1]["detectors"]["package"]
    assert (said["refused"], said["held"], said["setback"]["round"]) == (version, None, 0)
    assert all(pause > 0 for pause in world.pauses[:3])


def test_waiting_candidate_is_settled_before_the_next_call(
    federation: Any, doorbell: Device, add_pictures: Any
) -> None:
    add_pictures(doorbell, "valid")
    version = federation.announce("device-1").base_version
    doorbell.trainer.errors["measure"] = [Busy("busy")]  # type: ignore[attr-defined]
    world = World(doorbell, task("install", version=version))
    world.go(2)
    assert world.calls[1][1]["detectors"]["package"]["held"] == version


# --- the thread


def test_thread_ends_when_it_is_told_to(doorbell: Device) -> None:
    stop, called = threading.Event(), threading.Event()

    class Main:
        def post_json(self, *_: object) -> Reply:
            called.set()
            raise gone()

    thread = threading.Thread(target=attend, args=(replace(doorbell, poll=Main()), stop))  # type: ignore[arg-type]
    thread.start()
    assert called.wait(10)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("variables", "works"),
    [
        ({}, ["waiting for work"]),
        ({"DOORBELL_WAIT_FOR_WORK": "no"}, []),
        ({"DOORBELL_TRAIN_AT": "03:30"}, ["schedule", "waiting for work"]),
        ({"DOORBELL_WAIT_FOR_WORK": "no", "DOORBELL_TRAIN_AFTER_NEW": "5"}, ["schedule"]),
    ],
    ids=str,
)
def test_settings_say_what_a_device_does_by_itself(
    federation: Any, make_device: Any, variables: dict[str, str], works: list[str]
) -> None:
    make_device(federation, **variables)
    app = federation.network.apps["device-1"]
    assert (
        sorted(
            set(app.extensions["doorbell-background"])
            - {"open pages", "old events", "networks of rings"}
        )
        == works
    )


def test_app_alone_calls_nobody_and_a_served_one_does(federation: Any, make_device: Any) -> None:
    make_device(federation)
    threading.Event().wait(0.2)
    assert federation.network.sent("main/work") == []
    stop = start_background(federation.network.apps["device-1"], 1)
    end = threading.Event()
    for _ in range(100):
        if federation.network.sent("main/work"):
            break
        end.wait(0.1)
    stop.set()
    assert federation.network.sent("main/work")


@pytest.mark.parametrize(
    ("kind", "work"), [(Attendant, attend), (Schedule, keep_to_schedule)], ids=["work", "schedule"]
)
def test_threads_know_when_the_process_is_about_to_end(
    doorbell: Device, monkeypatch: pytest.MonkeyPatch, kind: Any, work: Any
) -> None:
    stop, seen = threading.Event(), []

    def once(self: Any) -> float:
        seen.append(self.ending())
        stop.set()
        seen.append(self.ending())
        return 60.0

    monkeypatch.setattr(kind, "once", once)
    work(doorbell, stop)
    assert seen == [False, True]
