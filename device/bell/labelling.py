"""The owner's word on an event makes its picture one to learn from; taking it back, or deleting the
event, unmakes it.

The picture is copied into the local data set, under the name of its content, once for each detector
that the owner spoke of. Which split it joins is decided by its bytes. Events with the very same
picture share its copies: one stays while one of them says so, and of two words that contradict each
other the last is learned from. All of it may be cut short and repeated: files are put in order
first, and the event's row says afterwards that they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataset import layout
from device.context import Device
from device.store.events import Event, EventStore
from shared.errors import InvalidMessage, NotFound
from shared.names import checked_name
from shared.storage.blobs import storage_errors, write_durably


def label(device: Device, events: EventStore, event: Event, labels: Mapping[str, bool]) -> None:
    """Learn from an event.

    Args:
        device: The device.
        events: Its events.
        event: Which.
        labels: Detector to whether it applies to the picture; what is not named is not spoken of.

    Raises:
        InvalidMessage: It names no detector.
        StorageFailed: The data set cannot be written.
    """
    if not labels:
        raise InvalidMessage(
            "No detector is named.", todo="Say of one detector at least whether it applies."
        )
    wanted = _places(
        device, event, {checked_name(name, "detector"): applies for name, applies in labels.items()}
    )
    picture = events.picture(event)
    for path in wanted:
        with storage_errors(f"The folder {path.parent}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, picture)
    _remove(device, events, event, labels)
    events.label(event.id, labels)


def take_back(device: Device, events: EventStore, event: Event) -> None:
    """Learn from an event no longer."""
    _remove(device, events, event, {})
    events.label(event.id, None)


def delete(device: Device, events: EventStore, event: Event) -> None:
    """Remove an event with everything that was made of its picture: file, row, training picture,
    caches.

    A training picture that another event has as well, and says the same of, stays.
    """
    _remove(device, events, event, {})
    events.delete(event)
    events.leave_no_trace()


def wanted_event(events: EventStore, number: str) -> Event:
    """Return the event that a request names.

    Raises:
        NotFound: There is none of that number.
    """
    event = (
        events.event(int(number))
        if number.isascii() and number.isdecimal() and len(number) < 16
        else None
    )
    if event is None:
        raise NotFound(
            "There is no such event here; it may have been deleted.", todo="Open /events again."
        )
    return event


def _place(device: Device, event: Event, detector: str, applies: bool) -> Path:
    folder = layout.split_folder(
        device.settings.data, detector, device.settings.client, event.split
    )
    return folder / layout.class_names(detector, applies)[0] / _name(event)


def _name(event: Event) -> str:
    return f"event-{event.sha256[:16]}.jpg"


def _places(device: Device, event: Event, labels: Mapping[str, bool]) -> set[Path]:
    return {_place(device, event, name, applies) for name, applies in labels.items()}


def _remove(device: Device, events: EventStore, event: Event, labels: Mapping[str, bool]) -> None:
    """Remove the copies of an event's picture that neither `labels` nor another event wants, and
    what came of them.
    """
    client, but = device.settings.client, _places(device, event, labels)
    for other in events.labelled_alike(event):
        said = {
            name: applies for name, applies in (other.labels or {}).items() if name not in labels
        }
        but |= _places(device, event, said)
    for detector in device.detectors():
        places = [_place(device, event, detector, applies) for applies in (True, False)]
        gone = [path for path in places if path not in but and path.exists()]
        gone += [
            half for path in places for half in path.parent.glob(f".{path.name}.*")
        ]  # its writer was killed
        with storage_errors("A labelled picture", "removed"):
            for path in gone:
                path.unlink(missing_ok=True)
            if gone:
                for kept in (device.settings.folder / "pictures-cache").glob(
                    f"*{detector}-{client}-{event.split}*.npz"
                ):
                    kept.unlink(missing_ok=True)
