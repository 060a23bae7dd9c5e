"""The owner's word makes a picture one to learn from; taking it back unmakes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from device.bell.event_store import Event, EventStore
from device.bell.labelling import delete, label, take_back, wanted_event
from device.context import Device
from shared.errors import InvalidMessage, NotFound


@pytest.fixture
def events(doorbell: Device) -> EventStore:
    return EventStore(doorbell.store.database, doorbell.settings.folder / "events")


@pytest.fixture
def event(events: EventStore) -> Event:
    return events.add(1e6, "button", b"what the camera saw", {})


def learned(doorbell: Device) -> list[str]:
    root = doorbell.settings.data
    return sorted(str(path.relative_to(root)) for path in root.rglob("event-*"))


def place(event: Event, detector: str, folder: str) -> str:
    return f"{detector}/client_1/{event.split}/{folder}/event-{event.sha256[:16]}.jpg"


def test_labelled_picture_joins_the_data_set(doorbell: Device, events: EventStore, event: Event) -> None:
    label(doorbell, events, event, {"package": True, "animal": False})
    assert learned(doorbell) == [place(event, "animal", "not_animal"), place(event, "package", "package")]
    assert (doorbell.settings.data / place(event, "package", "package")).read_bytes() == b"what the camera saw"
    kept = events.event(event.id)
    assert kept is not None and kept.labels == {"package": True, "animal": False}


def test_device_without_pictures_can_start_this_way(doorbell: Device, events: EventStore, event: Event) -> None:
    assert "face" not in doorbell.detectors()
    label(doorbell, events, event, {"face": True})
    assert "face" in doorbell.detectors()


def test_another_word_takes_the_place_of_the_first(doorbell: Device, events: EventStore, event: Event) -> None:
    label(doorbell, events, event, {"package": True, "animal": False})
    label(doorbell, events, event, {"package": False})
    label(doorbell, events, event, {"package": False})
    assert learned(doorbell) == [place(event, "package", "not_package")]


def test_word_that_is_taken_back_leaves_nothing_to_learn_from(
    doorbell: Device, events: EventStore, event: Event
) -> None:
    label(doorbell, events, event, {"package": True})
    take_back(doorbell, events, event)
    take_back(doorbell, events, event)
    kept = events.event(event.id)
    assert learned(doorbell) == [] and kept is not None and kept.labels is None
    assert events.picture(kept) == b"what the camera saw"


def test_deleted_event_is_gone_from_the_data_set_and_from_the_caches(
    doorbell: Device, events: EventStore, event: Event
) -> None:
    label(doorbell, events, event, {"package": True})
    cache = doorbell.settings.folder / "pictures-cache"
    cache.mkdir()
    made = [f"package-client_1-{event.split}-128px.npz", f"features-package-client_1-{event.split}.npz"]
    for name in (*made, f"package-client_2-{event.split}-128px.npz"):
        (cache / name).write_bytes(b"made of pictures")
    delete(doorbell, events, event)
    assert learned(doorbell) == [] and events.event(event.id) is None
    assert [path.name for path in cache.iterdir()] == [f"package-client_2-{event.split}-128px.npz"]


def test_pictures_that_were_there_before_are_left_alone(
    doorbell: Device, events: EventStore, event: Event, add_pictures: Any
) -> None:
    for split in ("train", "valid", "test"):
        add_pictures(doorbell, split)
    before = sorted(doorbell.settings.data.rglob("*.jpg"))
    label(doorbell, events, event, {"package": True})
    delete(doorbell, events, event)
    assert sorted(doorbell.settings.data.rglob("*.jpg")) == before


@pytest.mark.parametrize("labels", [{}, {"../../etc": True}, {"": True}, {"Face": True}], ids=str)
def test_what_names_no_detector_is_refused(
    doorbell: Device, events: EventStore, event: Event, labels: dict[str, bool], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*.jpg"))
    with pytest.raises(InvalidMessage):
        label(doorbell, events, event, labels)
    assert sorted(tmp_path.rglob("*.jpg")) == before


@pytest.mark.parametrize("number", ["", "0", "-1", "2", "1.0", "１", "9" * 30, "x"])
def test_event_that_is_none_is_not_found(events: EventStore, event: Event, number: str) -> None:
    assert wanted_event(events, str(event.id)) == event
    with pytest.raises(NotFound):
        wanted_event(events, number)
