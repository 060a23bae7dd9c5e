"""The owner's word makes a picture one to learn from; taking it back unmakes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from device.bell.labelling import delete, label, remove_label, wanted_event
from device.context import Device
from device.store.events import EventStore, RingEvent
from device.vision.prediction import Prediction
from shared.errors import InvalidMessage, NotFound


@pytest.fixture
def events(doorbell: Device) -> EventStore:
    return EventStore(doorbell.store.database, doorbell.settings.folder / "events")


@pytest.fixture
def event(events: EventStore) -> RingEvent:
    return events.add(1e6, "button", b"what the camera saw", {})


def learned(doorbell: Device) -> list[str]:
    root = doorbell.settings.data
    return sorted(str(path.relative_to(root)) for path in root.rglob("event-*"))


def held_in(folders: list[Path], what: str) -> list[str]:
    """Return the files whose name or content has this in it."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if what in path.name or what.encode() in path.read_bytes()]


def place(event: RingEvent, detector: str, folder: str) -> str:
    return f"{detector}/client_1/{event.split}/{folder}/event-{event.sha256[:16]}.jpg"


def test_labelled_picture_joins_the_data_set(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    label(doorbell, events, event, {"package": True, "animal": False})
    assert learned(doorbell) == [
        place(event, "animal", "not_animal"),
        place(event, "package", "package"),
    ]
    assert (
        doorbell.settings.data / place(event, "package", "package")
    ).read_bytes() == b"what the camera saw"
    kept = events.event(event.id)
    assert kept is not None and kept.labels == {"package": True, "animal": False}


def test_device_without_pictures_can_start_this_way(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    assert "face" not in doorbell.detectors()
    label(doorbell, events, event, {"face": True})
    assert "face" in doorbell.detectors()


def test_another_word_takes_the_place_of_the_first(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    label(doorbell, events, event, {"package": True, "animal": False})
    label(doorbell, events, event, {"package": False})
    label(doorbell, events, event, {"package": False})
    assert learned(doorbell) == [place(event, "package", "not_package")]


def test_word_that_is_taken_back_leaves_nothing_to_learn_from(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    label(doorbell, events, event, {"package": True})
    remove_label(doorbell, events, event)
    remove_label(doorbell, events, event)
    kept = events.event(event.id)
    assert learned(doorbell) == [] and kept is not None and kept.labels is None
    assert events.picture(kept) == b"what the camera saw"


def test_picture_of_two_events_is_learned_from_while_one_of_them_says_so(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    twin, unlabelled = (
        events.add(1e6 + after, "upload", b"what the camera saw", {}) for after in (1, 2)
    )
    label(doorbell, events, event, {"package": True, "animal": False})
    label(doorbell, events, twin, {"package": True})
    delete(doorbell, events, unlabelled)
    remove_label(doorbell, events, event)
    assert learned(doorbell) == [place(event, "package", "package")]
    label(doorbell, events, event, {"animal": True})
    assert learned(doorbell) == [
        place(event, "animal", "animal"),
        place(event, "package", "package"),
    ]
    delete(doorbell, events, twin)
    assert learned(doorbell) == [place(event, "animal", "animal")]
    delete(doorbell, events, event)
    assert learned(doorbell) == []


def test_picture_of_two_events_is_never_learned_both_ways(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    twin = events.add(1e6 + 1, "upload", b"what the camera saw", {})
    label(doorbell, events, event, {"package": True})
    label(doorbell, events, twin, {"package": False})
    assert learned(doorbell) == [place(event, "package", "not_package")]


def test_another_picture_keeps_no_copy_alive(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    label(doorbell, events, events.add(1e6 + 1, "upload", b"something else", {}), {"package": True})
    label(doorbell, events, event, {"package": True})
    assert len(learned(doorbell)) == 2
    delete(doorbell, events, event)
    assert (
        place(event, "package", "package") not in learned(doorbell) and len(learned(doorbell)) == 1
    )


def test_deleted_event_is_gone_from_the_data_set_and_from_the_caches(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    label(doorbell, events, event, {"package": True})
    cache = doorbell.settings.folder / "pictures-cache"
    cache.mkdir()
    made = [
        f"package-client_1-{event.split}-128px.npz",
        f"features-package-client_1-{event.split}.npz",
    ]
    for name in (*made, f"package-client_2-{event.split}-128px.npz"):
        (cache / name).write_bytes(b"made of pictures")
    copy = next(doorbell.settings.data.rglob("event-*.jpg"))
    half = copy.with_name(f".{copy.name}.0123abcd")
    half.write_bytes(b"of a writer that was killed")
    delete(doorbell, events, event)
    assert learned(doorbell) == [] and events.event(event.id) is None and not half.exists()
    assert [path.name for path in cache.iterdir()] == [f"package-client_2-{event.split}-128px.npz"]


def test_nothing_tells_of_a_deleted_event_any_more(doorbell: Device, events: EventStore) -> None:
    answers = {"package": Prediction(0.123456789, True, 0.5, "a" * 64)}
    others = [
        events.add(1e6 + number, "button", b"picture %d" % number, answers) for number in range(9)
    ]
    event = events.add(
        1e6,
        "button",
        b"what the camera saw",
        {"package": Prediction(0.987654321, True, 0.5, "a" * 64)},
    )
    label(doorbell, events, event, {"package": True})
    told = (event.sha256, event.sha256[:16], event.picture, "0.987654321", "what the camera saw")
    folders = [doorbell.settings.folder, doorbell.settings.data]
    assert all(held_in(folders, one) for one in told)
    delete(doorbell, events, event)
    assert [held_in(folders, one) for one in told] == [[]] * len(told)
    assert [events.event(other.id) for other in others] == others


def test_event_that_is_deleted_while_somebody_reads_is_gone_at_once_and_its_traces_later(
    doorbell: Device, events: EventStore, event: RingEvent
) -> None:
    folders = [doorbell.settings.folder]
    with doorbell.store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM rings").scalar() == 1
        begun = time.monotonic()
        delete(doorbell, events, event)
        assert time.monotonic() - begun < 2 and events.event(event.id) is None
    assert held_in(folders, event.sha256) != []
    events.sweep(0.0)
    assert held_in(folders, event.sha256) == []


def test_pictures_that_were_there_before_are_left_alone(
    doorbell: Device, events: EventStore, event: RingEvent, add_pictures: Any
) -> None:
    for split in ("train", "valid", "test"):
        add_pictures(doorbell, split)
    before = sorted(doorbell.settings.data.rglob("*.jpg"))
    label(doorbell, events, event, {"package": True})
    delete(doorbell, events, event)
    assert sorted(doorbell.settings.data.rglob("*.jpg")) == before


@pytest.mark.parametrize("labels", [{}, {"../../etc": True}, {"": True}, {"Face": True}], ids=str)
def test_what_names_no_detector_is_refused(
    doorbell: Device, events: EventStore, event: RingEvent, labels: dict[str, bool], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*.jpg"))
    with pytest.raises(InvalidMessage):
        label(doorbell, events, event, labels)
    assert sorted(tmp_path.rglob("*.jpg")) == before


@pytest.mark.parametrize("number", ["", "0", "-1", "2", "1.0", "１", "9" * 30, "x"])
def test_event_that_is_none_is_not_found(events: EventStore, event: RingEvent, number: str) -> None:
    assert wanted_event(events, str(event.id)) == event
    with pytest.raises(NotFound):
        wanted_event(events, number)
