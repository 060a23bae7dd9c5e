"""What the doorbell saw: kept, found, pruned, and gone when it is to be gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from device.store.events import EventStore, RingEvent
from device.store.store import DeviceStore
from device.vision.prediction import Prediction
from shared.errors import NotFound

NOW = 1_000_000.0
ANSWERS = {
    "face": Prediction(0.9, True, 0.5, "a" * 64),
    "animal": Prediction(0.25, False, 0.5, "b" * 64),
}


@pytest.fixture
def events(tmp_path: Path) -> EventStore:
    return EventStore(DeviceStore(tmp_path).database, tmp_path / "events")


@pytest.fixture
def add(events: EventStore) -> Callable[..., RingEvent]:
    def one(
        at: float = NOW, picture: bytes = b"a picture", answers: dict[str, Prediction] = ANSWERS
    ) -> RingEvent:
        return events.add(at, "button", picture, answers)

    return one


def test_event_is_there_again_after_a_restart(
    events: EventStore, add: Callable[..., RingEvent], tmp_path: Path
) -> None:
    event = add()
    again = EventStore(DeviceStore(tmp_path).database, tmp_path / "events")
    assert again.event(event.id) == event and again.picture(event) == b"a picture"
    assert (event.answers, event.labels, event.bytes) == (ANSWERS, None, 9)


def test_picture_is_for_its_owners_eyes(add: Callable[..., RingEvent], tmp_path: Path) -> None:
    assert (tmp_path / "events" / add().picture).stat().st_mode & 0o777 == 0o600


def test_numbers_grow_and_none_is_used_twice(
    events: EventStore, add: Callable[..., RingEvent]
) -> None:
    first, second = add(), add()
    events.delete(second)
    assert first.id < second.id < add().id


def test_events_come_newest_first_and_a_page_at_a_time(
    events: EventStore, add: Callable[..., RingEvent]
) -> None:
    numbers = [add().id for _ in range(5)]
    assert [event.id for event in events.events(2)] == numbers[:2:-1]
    assert [event.id for event in events.events(9, before=numbers[2])] == numbers[1::-1]


def test_filter_goes_by_the_owners_word_and_else_by_the_verdict(
    events: EventStore, add: Callable[..., RingEvent]
) -> None:
    seen, other = add(), add(answers={})
    assert events.events(9, "face") == (seen,) and events.events(9, "animal") == ()
    events.label(other.id, {"animal": True, "face": False})
    events.label(seen.id, {"face": False})
    assert events.events(9, "face") == ()
    assert [event.id for event in events.events(9, "animal")] == [other.id]
    assert [event.id for event in events.events(9, labelled=True)] == [other.id, seen.id]
    assert events.events(9, labelled=False) == ()
    events.label(seen.id, None)
    assert [event.id for event in events.events(9, "face", labelled=False)] == [seen.id]


def test_deleted_event_leaves_nothing(
    events: EventStore, add: Callable[..., RingEvent], tmp_path: Path
) -> None:
    event, another = add(), add()
    events.delete(event)
    events.delete(event, another)
    assert (
        events.event(event.id) is None
        and events.size() == (0, 0)
        and list((tmp_path / "events").iterdir()) == []
    )
    with pytest.raises(NotFound):
        events.picture(event)


def test_old_events_and_those_beyond_the_limit_are_outdated(
    events: EventStore, add: Callable[..., RingEvent]
) -> None:
    old = add(NOW - 100)
    kept = [add(NOW - age, b"x" * 10) for age in (50, 40, 30)]
    assert events.outdated(NOW, 99.0, 10**9) == (old,)
    assert events.outdated(NOW, 99.0, 29) == (old, kept[0])
    assert events.outdated(NOW, 1000.0, 10**9) == ()
    assert events.outdated(NOW, 1000.0, 0) == (old, *kept)


def test_no_more_go_than_have_to_where_the_clock_was_put_back(
    events: EventStore, add: Callable[..., RingEvent]
) -> None:
    kept = [add(NOW - age, b"x" * 10) for age in (50, 40, 30)]
    old = add(NOW - 100, b"x" * 10)
    assert events.outdated(NOW, 99.0, 30) == (old,)
    assert events.outdated(NOW, 99.0, 29) == (kept[0], old)


@pytest.mark.parametrize("name", ["stray.jpg", ".stray.jpg.0123abcd"], ids=["whole", "half"])
def test_file_without_an_event_is_swept_once_it_is_old(
    events: EventStore, add: Callable[..., RingEvent], tmp_path: Path, name: str
) -> None:
    event, stray = add(), tmp_path / "events" / name
    stray.write_bytes(b"of a ring that was cut short")
    events.sweep(stray.stat().st_mtime - 1)
    assert stray.exists()
    events.sweep(stray.stat().st_mtime + 1)
    assert not stray.exists() and events.picture(event) == b"a picture"


def test_copy_that_was_left_of_a_deleted_row_is_swept(
    events: EventStore, add: Callable[..., RingEvent], tmp_path: Path
) -> None:
    def told() -> bool:
        return any(
            event.picture.encode() in path.read_bytes() for path in tmp_path.glob("state.sqlite3*")
        )

    for after_a_restart in (True, False):
        event = add()
        with closing(sqlite3.connect(tmp_path / "state.sqlite3")) as other, other:
            other.execute("PRAGMA secure_delete = OFF")
            other.execute("DELETE FROM rings")
        if not after_a_restart:
            events.leave_no_trace()
        assert told()
        events.sweep(0.0)
        assert not told()


def test_picture_stays_in_its_split_and_the_shares_are_as_stated(
    add: Callable[..., RingEvent],
) -> None:
    event = add(picture=b"one")
    assert event.split == add(picture=b"one").split
    splits = [
        RingEvent(1, 0, "button", "", sha256(bytes([a, b])).hexdigest(), 1, {}, None).split
        for a in range(50)
        for b in range(40)
    ]
    shares = [splits.count(split) / len(splits) for split in ("train", "valid", "test")]
    assert all(
        abs(share - wanted) < 0.03 for share, wanted in zip(shares, (0.7, 0.15, 0.15), strict=True)
    )


def test_fingerprint_changes_with_what_the_page_shows(
    events: EventStore, add: Callable[..., RingEvent]
) -> None:
    seen = {events.fingerprint()}
    event = add()
    seen.add(events.fingerprint())
    events.label(event.id, {"face": True})
    seen.add(events.fingerprint())
    events.label(event.id, {"face": False})
    seen.add(events.fingerprint())
    events.delete(event)
    assert len(seen) == 4 and events.size() == (0, 0)
