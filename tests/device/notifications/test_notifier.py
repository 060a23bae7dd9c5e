"""Telling the owner: in order, once, without holding up the ring; what is too old is given up, and
says so.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import device.store.store
from device.notifications.notification import Answer, Happening
from device.notifications.notifier import (
    LOOK_S,
    MAX_PICTURE_BYTES,
    WORTH_TELLING_S,
    NotTold,
    Telling,
    Unwanted,
)
from device.store.notifications import ToldStore
from shared.errors import InvalidMessage, StorageFailed

NOW = 1_700_000_000.0
YES = Answer(0.93, True, 0.8, "a" * 64)


class Owner:
    """Is told, and fails as often as it is asked to."""

    name = "post"

    def __init__(self) -> None:
        self.told: list[Happening] = []
        self.errors: list[Exception] = []
        self.closed, self.absent = 0, False
        self.let_go = threading.Event()
        self.let_go.set()

    def ready(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        if self.absent:
            raise NotTold("Nobody is there.")

    def tell(self, happening: Happening) -> None:
        self.let_go.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        self.told.append(happening)

    def close(self) -> None:
        self.closed += 1


class House:
    """A device's events, its database, and the time."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Happening] = []
        self.now = NOW
        self.owner = Owner()
        self.told = ToldStore(device.store.store.Store(folder).database)

    def ring(self, number: int, **changed: Any) -> None:
        self.events.append(
            replace(Happening(number, self.now, "device-1", "button", {"cat": YES}), **changed)
        )

    def following(self, after: int) -> Happening | None:
        return next((event for event in self.events if event.id > after), None)

    def telling(self, **changed: Any) -> Telling:
        return Telling(self.owner, self.told, self.following, clock=lambda: self.now, **changed)

    def numbers(self) -> list[int]:
        return [happening.id for happening in self.owner.told]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_all_is_told_once_and_in_order_whoever_starts_again(house: House) -> None:
    for number in (1, 2, 5):
        house.ring(number)
    assert house.telling().once() == LOOK_S
    house.ring(6)
    house.telling().once()
    assert house.numbers() == [1, 2, 5, 6]


def test_what_did_not_arrive_is_told_again_and_nothing_overtakes_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    house.ring(2)
    house.owner.errors = [NotTold("Nobody is there."), NotTold("Nobody is there.")]
    telling = house.telling()
    with caplog.at_level(logging.INFO, "device.notifications.notifier"):
        for _ in range(2):
            with pytest.raises(NotTold):
                telling.once()
        assert house.numbers() == []
        telling.once()
    assert house.numbers() == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "Nobody is told by post at the moment. Nobody is there. Events wait for it until they are ten minutes old.",
        "Telling by post works again.",
    ]


def test_what_is_older_than_ten_minutes_is_given_up_and_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    telling = house.telling()
    telling.once()
    house.ring(2)
    house.ring(3)
    house.owner.errors = [NotTold("Nobody is there.")]
    with pytest.raises(NotTold):
        telling.once()
    house.now += WORTH_TELLING_S + 1
    house.ring(4)
    house.owner.absent = True
    with pytest.raises(NotTold):
        telling.once()
    assert (
        "2 events, the last of them 3, were not told by post: they are older than ten minutes."
        in caplog.text
    )
    house.owner.absent = False
    telling.once()
    assert house.numbers() == [1, 4]


def test_events_from_before_a_teller_was_set_are_no_loss(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    house.now += WORTH_TELLING_S + 1
    house.telling().once()
    assert house.numbers() == []
    assert caplog.text == ""
    assert house.told.last("post") == 1


@pytest.mark.parametrize("allowed", [True, False])
def test_picture_is_told_only_where_the_owner_allows_it(house: House, allowed: bool) -> None:
    house.ring(1)
    house.telling(picture=(lambda _: b"jpeg") if allowed else None).once()
    assert [happening.picture for happening in house.owner.told] == [b"jpeg" if allowed else None]


def test_large_vanished_or_unreadable_picture_does_not_keep_the_event_back(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        house.ring(number)

    def picture(happening: Happening) -> bytes | None:
        if happening.id == 3:
            raise StorageFailed("The disk is gone.")
        return bytes(MAX_PICTURE_BYTES + 1) if happening.id == 1 else None

    house.telling(picture=picture).once()
    assert [(happening.id, happening.picture) for happening in house.owner.told] == [
        (1, None),
        (2, None),
        (3, None),
    ]
    assert "Event 1 is told by post without its picture. It has more than 700 kB." in caplog.text
    assert "Event 3 is told by post without its picture. The disk is gone." in caplog.text


def test_event_that_cannot_be_told_holds_up_no_other(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    house.ring(2)
    house.owner.errors = [InvalidMessage("That is not the name of a detector.")]
    house.telling().once()
    assert house.numbers() == [2]
    assert "Event 1 cannot be told by post. That is not the name of a detector." in caplog.text


def test_full_disk_does_not_make_the_owner_hear_it_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.ring(1)
    telling = house.telling()
    with monkeypatch.context() as full:
        full.setattr(
            house.told, "note", lambda *_: (_ for _ in ()).throw(StorageFailed("The disk is full."))
        )
        with pytest.raises(StorageFailed):
            telling.once()
    house.ring(2)
    telling.once()
    assert house.numbers() == [1, 2]


def test_who_wants_to_hear_no_more_is_left_alone(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    house.ring(2)
    house.owner.errors = [Unwanted("It answered 410.")]
    stop, telling = threading.Event(), house.telling()
    thread = threading.Thread(target=telling.run, args=(stop,))
    thread.start()
    telling.look()
    thread.join(0.3)
    assert thread.is_alive()
    stop.set()
    thread.join(5)
    assert (house.numbers(), house.owner.closed) == ([], 1)
    assert "Nobody is told by post until this device starts again. It answered 410." in caplog.text


def test_ring_waits_for_nobody(house: House) -> None:
    stop, telling = threading.Event(), house.telling()
    house.owner.let_go.clear()
    house.ring(1)
    thread = threading.Thread(target=telling.run, args=(stop,))
    thread.start()
    took = []
    for number in range(2, 202):
        begun = time.perf_counter()
        telling.look()
        took.append(time.perf_counter() - begun)
        house.ring(number)
    assert sorted(took)[100] < 0.001
    assert house.numbers() == []
    house.owner.let_go.set()
    deadline = time.monotonic() + 10
    while len(house.owner.told) < 201 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(5)
    assert house.numbers() == list(range(1, 202))


def test_news_ends_a_pause_but_not_one_that_was_asked_for(house: House) -> None:
    class Long(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return 30.0

    stop, telling = threading.Event(), house.telling(rng=Long())
    waits: list[float] = []
    wait, stop.wait = stop.wait, lambda seconds=None: waits.append(seconds) or wait(0)  # type: ignore[method-assign,assignment,func-returns-value]
    house.ring(1)
    house.owner.errors = [NotTold("Too many.", least_s=7.0), NotTold("Nobody is there.")]
    thread = threading.Thread(target=telling.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 10
    while not house.owner.told and time.monotonic() < deadline:
        telling.look()
        time.sleep(0.01)
    stop.set()
    thread.join(5)
    assert house.numbers() == [1]
    assert waits[:2] == [7.0, 0.0]


@pytest.mark.parametrize(
    "changed",
    [
        {"device": "../device"},
        {"source": "postman"},
        {"answers": {"a/b": YES}},
        {"answers": {"cat": replace(YES, score=math.nan)}},
        {"answers": {"cat": replace(YES, score=1.5)}},
        {"answers": {"cat": replace(YES, threshold=-math.inf)}},
        {"answers": {"cat": replace(YES, version="<script>")}},
    ],
    ids=["device", "source", "detector", "nan", "large", "threshold", "version"],
)
def test_names_and_numbers_are_checked_before_they_are_passed_on(
    house: House, changed: dict[str, Any]
) -> None:
    house.ring(1)
    assert house.events[0].facts()["answers"]["cat"]["score"] == 0.93
    with pytest.raises(InvalidMessage):
        replace(house.events[0], **changed).facts()
