"""Notifications are delivered in order, once, and without holding up the ring; old ones are dropped,
which is logged.
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
from device.notifications.channel import ChannelClosed, NotDelivered
from device.notifications.notification import Notification
from device.notifications.notifier import MAX_AGE_S, MAX_PICTURE_BYTES, POLL_S, Notifier
from device.store.notifications import DeliveryStore
from device.vision.prediction import Prediction
from shared.errors import InvalidMessage, StorageFailed

NOW = 1_700_000_000.0
YES = Prediction(0.93, True, 0.8, "a" * 64)


class Owner:
    """A channel that fails as often as it is asked to."""

    name = "post"
    address = "post://owner"

    def __init__(self) -> None:
        self.got: list[Notification] = []
        self.errors: list[Exception] = []
        self.closed, self.absent = 0, False
        self.let_go = threading.Event()
        self.let_go.set()

    def connect(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        if self.absent:
            raise NotDelivered("Nobody is there.")

    def deliver(self, notification: Notification) -> None:
        self.let_go.wait(10)
        if self.errors:
            raise self.errors.pop(0)
        self.got.append(notification)

    def close(self) -> None:
        self.closed += 1


class House:
    """A device's events, its database, and the time."""

    def __init__(self, folder: Path) -> None:
        self.events: list[Notification] = []
        self.now = NOW
        self.owner = Owner()
        self.deliveries = DeliveryStore(device.store.store.DeviceStore(folder).database)

    def ring(self, number: int, **changed: Any) -> None:
        self.events.append(
            replace(Notification(number, self.now, "device-1", "button", {"cat": YES}), **changed)
        )

    def next_after(self, after: int) -> Notification | None:
        return next((event for event in self.events if event.id > after), None)

    def notifier(self, **changed: Any) -> Notifier:
        return Notifier(
            self.owner, self.deliveries, self.next_after, clock=lambda: self.now, **changed
        )

    def numbers(self) -> list[int]:
        return [notification.id for notification in self.owner.got]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_every_event_is_delivered_once_and_in_order_across_restarts(house: House) -> None:
    for number in (1, 2, 5):
        house.ring(number)
    assert house.notifier().deliver_pending() == POLL_S
    house.ring(6)
    house.notifier().deliver_pending()
    assert house.numbers() == [1, 2, 5, 6]


def test_failed_delivery_is_repeated_and_nothing_overtakes_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    house.ring(2)
    house.owner.errors = [NotDelivered("Nobody is there."), NotDelivered("Nobody is there.")]
    notifier = house.notifier()
    with caplog.at_level(logging.INFO, "device.notifications.notifier"):
        for _ in range(2):
            with pytest.raises(NotDelivered):
                notifier.deliver_pending()
        assert house.numbers() == []
        notifier.deliver_pending()
    assert house.numbers() == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        "Channel post is failing. Nobody is there. Events wait for it until they are ten minutes old.",
        "Channel post works again.",
    ]


def test_events_older_than_ten_minutes_are_dropped_and_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    notifier = house.notifier()
    notifier.deliver_pending()
    house.ring(2)
    house.ring(3)
    house.owner.errors = [NotDelivered("Nobody is there.")]
    with pytest.raises(NotDelivered):
        notifier.deliver_pending()
    house.now += MAX_AGE_S + 1
    house.ring(4)
    house.owner.absent = True
    with pytest.raises(NotDelivered):
        notifier.deliver_pending()
    assert (
        "2 events, the last of them 3, were not delivered over post: they are older than ten minutes."
        in caplog.text
    )
    house.owner.absent = False
    notifier.deliver_pending()
    assert house.numbers() == [1, 4]


def test_events_from_before_a_channel_was_declared_are_dropped_silently(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    house.now += MAX_AGE_S + 1
    house.notifier().deliver_pending()
    assert house.numbers() == []
    assert caplog.text == ""
    assert house.deliveries.last("post") == 1


@pytest.mark.parametrize("allowed", [True, False])
def test_picture_is_delivered_only_where_the_owner_allows_it(house: House, allowed: bool) -> None:
    house.ring(1)
    house.notifier(picture=(lambda _: b"jpeg") if allowed else None).deliver_pending()
    assert [notification.picture for notification in house.owner.got] == [
        b"jpeg" if allowed else None
    ]


def test_large_missing_or_unreadable_picture_does_not_hold_the_event_back(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        house.ring(number)

    def picture(notification: Notification) -> bytes | None:
        if notification.id == 3:
            raise StorageFailed("The disk is gone.")
        return bytes(MAX_PICTURE_BYTES + 1) if notification.id == 1 else None

    house.notifier(picture=picture).deliver_pending()
    assert [(notification.id, notification.picture) for notification in house.owner.got] == [
        (1, None),
        (2, None),
        (3, None),
    ]
    assert (
        "Event 1 is delivered over post without its picture. It has more than 700 kB."
        in caplog.text
    )
    assert "Event 3 is delivered over post without its picture. The disk is gone." in caplog.text


def test_invalid_event_holds_up_no_other(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.ring(1)
    house.ring(2)
    house.owner.errors = [InvalidMessage("That is not the name of a detector.")]
    house.notifier().deliver_pending()
    assert house.numbers() == [2]
    assert (
        "Event 1 cannot be delivered over post. That is not the name of a detector." in caplog.text
    )


def test_full_disk_does_not_make_it_deliver_twice(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.ring(1)
    notifier = house.notifier()
    with monkeypatch.context() as full:
        full.setattr(
            house.deliveries,
            "record",
            lambda *_: (_ for _ in ()).throw(StorageFailed("The disk is full.")),
        )
        with pytest.raises(StorageFailed):
            notifier.deliver_pending()
    house.ring(2)
    notifier.deliver_pending()
    assert house.numbers() == [1, 2]


def test_closed_channel_gets_nothing_until_a_restart(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.ring(1)
    house.ring(2)
    house.owner.errors = [ChannelClosed("It answered 410.")]
    stop, notifier = threading.Event(), house.notifier()
    thread = threading.Thread(target=notifier.run, args=(stop,))
    thread.start()
    notifier.wake()
    thread.join(0.3)
    assert thread.is_alive()
    stop.set()
    thread.join(5)
    assert (house.numbers(), house.owner.closed) == ([], 1)
    assert "Channel post is closed until this device restarts. It answered 410." in caplog.text


def test_ring_waits_for_no_delivery(house: House) -> None:
    stop, notifier = threading.Event(), house.notifier()
    house.owner.let_go.clear()
    house.ring(1)
    thread = threading.Thread(target=notifier.run, args=(stop,))
    thread.start()
    took = []
    for number in range(2, 202):
        begun = time.perf_counter()
        notifier.wake()
        took.append(time.perf_counter() - begun)
        house.ring(number)
    assert sorted(took)[100] < 0.001
    assert house.numbers() == []
    house.owner.let_go.set()
    deadline = time.monotonic() + 10
    while len(house.owner.got) < 201 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join(5)
    assert house.numbers() == list(range(1, 202))


def test_new_event_ends_a_pause_but_not_one_that_the_receiver_asked_for(house: House) -> None:
    class Long(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return 30.0

    stop, notifier = threading.Event(), house.notifier(rng=Long())
    waits: list[float] = []
    wait, stop.wait = stop.wait, lambda seconds=None: waits.append(seconds) or wait(0)  # type: ignore[method-assign,assignment,func-returns-value]
    house.ring(1)
    house.owner.errors = [NotDelivered("Too many.", least_s=7.0), NotDelivered("Nobody is there.")]
    thread = threading.Thread(target=notifier.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 10
    while not house.owner.got and time.monotonic() < deadline:
        notifier.wake()
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
