"""The owner's label on an event makes its picture one to learn from; removing the label, or the
event, unmakes it.

The picture is copied into the local data set, under the name of its content, once for each detector
that the label names. Which split it joins is decided by its bytes. Events with the very same
picture share its copies: one stays while one of their labels needs it, and of two labels that
contradict each other the last one counts. Everything here may be cut short and repeated: files are
put in order first, and then the event's row says that they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataset import layout
from device.context import Device
from device.store.events import EventStore, RingEvent
from shared.errors import InvalidMessage, NotFound
from shared.names import checked_name
from shared.storage.blobs import storage_errors, write_durably

_MAX_DIGITS = 15  # a larger number is none of SQLite's, and its text may be as long as a request


def label(device: Device, events: EventStore, event: RingEvent, labels: Mapping[str, bool]) -> None:
    """Learn from an event.

    Args:
        device: The device.
        events: Its events.
        event: The event.
        labels: Detector to whether it applies to the picture; others are left open.

    Raises:
        InvalidMessage: No detector is named, or its name is not valid.
        StorageFailed: The data set cannot be written.
    """
    if not labels:
        raise InvalidMessage(
            "No detector is named.",
            todo="Say of at least one detector whether it applies.",
        )
    for name in labels:
        checked_name(name, "detector")
    picture = events.picture(event)
    # Copies first, the row last: whatever is cut short in between is repeated with the label.
    for path in _places(device, event, labels):
        with storage_errors(f"The folder {path.parent}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, picture)
    _remove_copies(device, events, event, labels)
    events.label(event.id, labels)


def remove_label(device: Device, events: EventStore, event: RingEvent) -> None:
    """Stop learning from an event."""
    _remove_copies(device, events, event, {})
    events.label(event.id, None)


def delete(device: Device, events: EventStore, event: RingEvent) -> None:
    """Delete an event and everything made of its picture: file, row, training picture, caches.

    A training picture that the label of another event needs stays.
    """
    _remove_copies(device, events, event, {})
    events.delete(event)
    events.leave_no_trace()


def wanted_event(events: EventStore, text: str) -> RingEvent:
    """Return the event that a request names by its number.

    Raises:
        NotFound: There is no such event.
    """
    number = parse_number(text)
    event = None if number is None else events.event(number)
    if event is None:
        raise NotFound(
            "There is no such event here; it may have been deleted.",
            todo="Open /events again.",
        )
    return event


def parse_number(text: str) -> int | None:
    """Return the number of an event, or None where the text is not one."""
    if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS:
        return int(text)
    return None


def _place(device: Device, event: RingEvent, detector: str, applies: bool) -> Path:
    """Return where the data set has the copy of an event's picture."""
    settings = device.settings
    split = layout.split_folder(settings.data, detector, settings.client, event.split)
    kind = layout.class_names(detector, applies)[0]
    return split / kind / f"event-{event.sha256[:16]}.jpg"


def _places(device: Device, event: RingEvent, labels: Mapping[str, bool]) -> set[Path]:
    return {_place(device, event, name, applies) for name, applies in labels.items()}


def _remove_copies(
    device: Device, events: EventStore, event: RingEvent, labels: Mapping[str, bool]
) -> None:
    """Remove the copies of an event's picture that no label needs, and what was made of them.

    Args:
        device: The device.
        events: Its events.
        event: The event.
        labels: The event's new labels; they win over those of events with the same picture.
    """
    needed = _places(device, event, labels)
    for other in events.labelled_alike(event):
        others = other.labels or {}
        open_ones = {name: applies for name, applies in others.items() if name not in labels}
        needed |= _places(device, event, open_ones)
    for detector in device.detectors():
        places = [_place(device, event, detector, applies) for applies in (True, False)]
        gone = [path for path in places if path not in needed and path.exists()]
        for path in places:  # files that a killed writer left half-written
            gone += path.parent.glob(f".{path.name}.*")
        with storage_errors("A labelled picture", "removed"):
            for path in gone:
                path.unlink(missing_ok=True)
            if gone:
                _remove_caches(device, detector, event.split)


def _remove_caches(device: Device, detector: str, split: str) -> None:
    """Remove the decoded pictures of a split; the next training makes them anew."""
    caches = device.settings.folder / "pictures-cache"
    for cache in caches.glob(f"*{detector}-{device.settings.client}-{split}*.npz"):
        cache.unlink(missing_ok=True)
