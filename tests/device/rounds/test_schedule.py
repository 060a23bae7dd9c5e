"""A device that trains and sends by itself: daily, or on so many new pictures; through restarts and
wrong clocks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import cv2
import numpy as np
import pytest

from device.context import Device
from device.rounds import participation
from device.rounds.schedule import LOOK_EVERY_S, Schedule
from device.training.jobs import Train
from device.training.worker_client import Busy
from shared.errors import DatasetError


class Days:
    """A device, the local time, and its schedule, which looks every minute; waiting costs no time."""

    def __init__(self, make: Callable[..., Device], at: str) -> None:
        self._make, self.now, self.monotonic = make, 0.0, 0.0
        self.set_clock(at)
        self.trainings: list[str] = []
        self.start()

    def start(self) -> None:
        """(Re)start the device over what its folder holds."""
        self.device = replace(self._make(), clock=lambda: self.now)
        self.schedule = Schedule(self.device, lambda: self.monotonic, random.Random(5))

    def set_clock(self, at: str) -> None:
        self.now = datetime.fromisoformat(f"{at}:10").timestamp()

    def be_off(self, hours: float) -> None:
        self.now += hours * 3600
        self.start()

    def look(self) -> float:
        """Look once, and note when a training was begun."""
        begun = len(self.device.trainer.jobs)
        pause = self.schedule.once()
        jobs = [job for job in self.device.trainer.jobs[begun:] if isinstance(job, Train)]
        self.trainings += [datetime.fromtimestamp(self.now).strftime("%d %H:%M") for _ in jobs]
        return pause

    def pass_time(self, hours: float) -> None:
        for _ in range(int(hours * 60)):
            self.now += 60
            self.monotonic += 60
            self.look()


@pytest.fixture
def days(federation: Any, make_device: Any) -> Callable[..., Days]:
    def make(at: str, **variables: str) -> Days:
        return Days(lambda: make_device(federation, **variables), at)

    return make


# --- at a set time


def test_set_time_is_kept_once_a_day_and_the_update_is_sent(federation: Any, days: Any) -> None:
    life = days("2026-05-09 22:00", DOORBELL_TRAIN_AT="03:30")
    life.pass_time(50)
    assert life.trainings == ["10 03:30", "11 03:30"]
    assert life.device.store.trainings.sent_round("package") == 1
    assert len(set(federation.network.sent("aggregator/cmodel"))) == 2


def test_time_that_passed_while_the_device_was_off_is_not_made_up_for(days: Any) -> None:
    life = days("2026-05-09 22:00", DOORBELL_TRAIN_AT="03:30")
    life.be_off(6)
    life.pass_time(20)
    assert life.trainings == []
    life.pass_time(5)
    assert life.trainings == ["11 03:30"]


def test_clock_that_jumps_over_the_time_or_a_machine_that_slept_over_it_makes_up_for_nothing(
    days: Any,
) -> None:
    life = days("2026-05-09 22:00", DOORBELL_TRAIN_AT="03:30")
    life.pass_time(0.1)
    life.set_clock("2026-05-10 09:00")
    life.pass_time(2)
    assert life.trainings == []


def test_restarts_do_not_repeat_a_day(days: Any) -> None:
    life = days("2026-05-10 03:29", DOORBELL_TRAIN_AT="03:30")
    life.pass_time(0.05)
    for _ in range(3):
        life.be_off(0.001)
        life.pass_time(0.05)
    assert life.trainings == ["10 03:30"]


@pytest.mark.parametrize("to", ["2026-05-10 03:00", "2026-05-09 23:00", "2026-05-08 03:00"])
def test_clock_set_back_does_not_repeat_a_day(days: Any, to: str) -> None:
    life = days("2026-05-10 03:29", DOORBELL_TRAIN_AT="03:30")
    life.pass_time(0.1)
    life.set_clock(to)
    life.be_off(0)
    life.pass_time(5)
    assert life.trainings == ["10 03:30"]


def test_clock_that_was_years_ahead_once_does_not_stop_it_for_years(days: Any) -> None:
    life = days("2038-01-01 03:29", DOORBELL_TRAIN_AT="03:30")
    life.pass_time(0.1)
    life.set_clock("2026-05-10 03:00")
    life.pass_time(1)
    assert life.trainings == ["01 03:30", "10 03:30"]


# --- killed, busy, offline


def test_killed_in_the_middle_it_goes_on_and_trains_once(days: Any) -> None:
    life = days("2026-05-10 03:29", DOORBELL_TRAIN_AT="03:30")
    life.device.trainer.errors["train"] = [KeyboardInterrupt()]
    life.now, life.monotonic = life.now + 60, life.monotonic + 60
    with pytest.raises(KeyboardInterrupt):
        life.look()
    life.be_off(2)
    life.look()
    life.pass_time(0.2)
    assert life.trainings == ["10 05:30"]
    assert life.device.store.trainings.sent_round("package") == 1


def test_killed_between_training_and_sending_it_only_sends(federation: Any, days: Any) -> None:
    life = days("2026-05-10 03:29", DOORBELL_TRAIN_AT="03:30")
    federation.network.down = {"aggregator"}
    life.pass_time(0.05)
    federation.network.down = set()
    life.be_off(0.1)
    life.pass_time(0.1)
    assert life.trainings == ["10 03:30"]
    assert life.device.store.trainings.sent_round("package") == 1
    assert len(federation.network.sent("aggregator/cmodel")) == 1


def test_busy_child_is_waited_for(days: Any) -> None:
    life = days("2026-05-10 03:29", DOORBELL_TRAIN_AT="03:30")
    life.device.trainer.errors["train"] = [Busy("busy"), Busy("busy")]
    life.now, life.monotonic = life.now + 60, life.monotonic + 60
    assert life.look() < LOOK_EVERY_S
    assert life.look() < LOOK_EVERY_S
    assert life.look() == LOOK_EVERY_S
    assert life.device.store.trainings.sent_round("package") == 1
    assert life.device.store.failures.latest("package") is None


def test_training_that_fails_is_a_setback_and_the_next_day_another_try(days: Any) -> None:
    life = days("2026-05-10 03:29", DOORBELL_TRAIN_AT="03:30")
    life.device.trainer.errors["train"] = [DatasetError("No pictures.")]
    life.pass_time(1)
    assert life.device.store.failures.latest("package").round == 1
    assert len(life.device.trainer.jobs) == 1
    life.pass_time(24)
    assert life.device.store.trainings.sent_round("package") == 1


# --- on new pictures


def test_enough_new_pictures_make_it_train_and_fewer_do_not(days: Any, add_pictures: Any) -> None:
    life = days("2026-05-10 12:00", DOORBELL_TRAIN_AFTER_NEW="10")
    add_pictures(life.device, "train", 4)
    life.pass_time(0.1)
    assert life.trainings == []
    add_pictures(life.device, "train", 1, first=4)
    life.pass_time(0.2)
    assert life.trainings == ["10 12:07"]
    assert life.device.store.trainings.newest("package").pictures == 10
    add_pictures(life.device, "train", 4, first=5)
    life.be_off(1)
    life.pass_time(0.1)
    assert len(life.trainings) == 1
    add_pictures(life.device, "train", 1, first=9)
    life.pass_time(0.1)
    assert len(life.trainings) == 2
    assert life.device.store.trainings.sent_round("package") == 1


def test_pictures_that_its_owner_trained_on_are_not_new(days: Any, add_pictures: Any) -> None:
    life = days("2026-05-10 12:00", DOORBELL_TRAIN_AFTER_NEW="10")
    add_pictures(life.device, "train", 6)
    participation.train(life.device, "package")
    life.pass_time(0.1)
    add_pictures(life.device, "train", 4, first=6)
    life.pass_time(0.1)
    assert life.trainings == []
    add_pictures(life.device, "train", 1, first=10)
    life.pass_time(0.1)
    assert len(life.trainings) == 1
    add_pictures(life.device, "train", 3, first=11)
    participation.train(life.device, "package")
    add_pictures(life.device, "train", 4, first=14)
    life.pass_time(0.1)
    assert len(life.trainings) == 1


def test_pictures_that_cannot_be_learned_from_are_tried_once(days: Any, add_pictures: Any) -> None:
    life = days("2026-05-10 12:00", DOORBELL_TRAIN_AFTER_NEW="10")
    life.device.trainer.errors["train"] = [DatasetError("No pictures.")] * 5
    add_pictures(life.device, "train", 5)
    life.pass_time(2)
    assert len(life.device.trainer.jobs) == 1
    add_pictures(life.device, "train", 5, first=5)
    life.pass_time(0.1)
    assert len(life.device.trainer.jobs) == 2


def test_folder_that_cannot_be_listed_is_said_once_and_tried_again(
    days: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = days("2026-05-10 03:28", DOORBELL_TRAIN_AT="03:30")

    def unlisted(*_: object) -> None:
        raise DatasetError("It cannot be listed.")

    with monkeypatch.context() as broken:
        broken.setattr(Device, "detectors", unlisted)
        life.pass_time(0.1)
    assert len(caplog.messages) == 1
    life.look()
    assert life.trainings == ["10 03:34"], "the time passed while it was looking"


def test_events_that_the_owner_labels_make_it_train(federation: Any, days: Any) -> None:
    life = days("2026-05-10 12:00", DOORBELL_TRAIN_AFTER_NEW="6")
    client = federation.network.apps[life.device.settings.name].test_client()

    def ask(path: str, **more: Any) -> Any:
        answer = client.post(
            path, headers={"Host": "localhost", "Accept": "application/json"}, **more
        )
        assert answer.status_code == 200, answer.text
        return answer.json

    def to_learn_from() -> int:
        return sum(life.device.pictures("package", "train").values())

    labelled = 0
    while to_learn_from() < 6:
        life.pass_time(0.1)
        assert labelled < 40 and life.trainings == []
        picture = cv2.imencode(".jpg", np.full((72, 128, 3), 5 * labelled, np.uint8))[1].tobytes()
        number = ask("/ring", data=picture, content_type="image/jpeg")["event"]
        shows = "&shows=package" if labelled % 2 else ""
        ask(f"/label?event={number}{shows}")
        labelled += 1
    ask(f"/unlabel?event={number}")
    life.pass_time(0.1)
    assert life.trainings == [], "what is taken back does not count"
    ask(f"/label?event={number}{shows}")
    life.pass_time(0.1)
    assert labelled > 6, "some of them validate or test"
    assert all(life.device.pictures("package", "train").values())
    assert len(life.trainings) == 1
    assert life.device.store.trainings.newest("package").pictures == 6
    assert life.device.store.trainings.sent_round("package") == 1
    assert [type(job) for job in life.device.trainer.jobs] == [Train]


def test_training_goes_by_one_id_at_every_service(
    days: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    life = days("2026-05-10 03:28", DOORBELL_TRAIN_AT="03:30")
    life.pass_time(0.1)
    lines = [
        line
        for line in capsys.readouterr().err.splitlines()
        if "Trained for" in line or "/cmodel 200" in line
    ]
    names = {line.partition("[")[2].partition("]")[0] for line in lines}
    assert len(lines) == 2 and len(names) == 1 and "-" not in names
