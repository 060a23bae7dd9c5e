"""The doorbell that a device is: events, models, camera and notification channels, put together.

Nothing starts here: `Doorbell.background` is what the app runs beside its requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from device.bell.preparation import prepare_networks
from device.bell.ring import Bell, forget_old, ring
from device.camera.camera import Camera, Frame
from device.camera.motion import Watch
from device.context import Device
from device.notifications.channel import Channel, Sender
from device.notifications.notification import Notification
from device.notifications.notifier import Notifier
from device.notifications.registry import open_channels
from device.store.events import EventStore
from device.store.notifications import DeliveryStore
from device.vision.predictor import open_predictor
from shared.web.background import Work

_TIDY_EVERY_S = 3600.0
_CUT_SHORT_S = 3600.0  # a ring that has not written its row after an hour never will


@dataclass(frozen=True)
class Doorbell:
    """A doorbell, not running yet.

    Attributes:
        bell: What a ring needs.
        background: Name of each thread that runs beside the requests, and its work.
    """

    bell: Bell
    background: Mapping[str, Work]


def camera_of(device: Device) -> Camera | None:
    """Return a device's camera, not in use yet, or None where the settings name none.

    Raises:
        SettingsError: DOORBELL_CAMERA is not a camera source.
    """
    source = device.settings.bell.camera
    return None if source is None else Camera(source)


def open_doorbell(device: Device, camera: Camera | None) -> Doorbell:
    """Put a device's doorbell together.

    Args:
        device: The device.
        camera: Its camera, or None.

    Raises:
        SettingsError: A notification channel's URL is not valid.
        StorageFailed: The folder of the events cannot be made.
    """
    settings = device.settings.bell
    events = EventStore(device.store.database, device.settings.folder / "events")
    _make_picture_folders(device)
    notifiers = _notifiers(device, events)

    def notify() -> None:
        for notifier in notifiers:
            notifier.wake()

    bell = Bell(
        device=device,
        events=events,
        predictor=open_predictor(device),
        snapshot=None if camera is None else lambda: camera.snapshot().jpeg,
        notify=notify,
        keep_days=settings.keep_days,
        keep_mb=settings.keep_mb,
    )
    background = {f"notifier {each.channel.name}": each.run for each in notifiers}
    background |= _camera_work(bell, camera)
    background["old events"] = partial(_tidy, bell)
    background["networks of rings"] = partial(prepare_networks, device)
    return Doorbell(bell, background)


def _make_picture_folders(device: Device) -> None:
    """Make the folders of the detectors in the settings, so that pictures can be labelled."""
    for detector in device.settings.bell.detectors:
        folder = device.settings.data / detector / device.settings.client
        folder.mkdir(parents=True, exist_ok=True)


def _camera_work(bell: Bell, camera: Camera | None) -> dict[str, Work]:
    if camera is None:
        return {}
    work: dict[str, Work] = {"camera": partial(_keep_reading, camera)}
    settings = bell.device.settings.bell
    if settings.watch:

        def on_motion(frame: Frame) -> None:
            ring(bell, "motion", frame.jpeg)

        work["watch"] = Watch(camera, on_motion, settings.cool_down_s).run
    return work


def _notifiers(device: Device, events: EventStore) -> list[Notifier]:
    """Return a notifier for each channel that the owner declares."""
    settings = device.settings
    sender = Sender(
        identity=settings.name,
        device=device.name,
        pictures=settings.bell.tell_pictures,
        page=settings.url,
        rounds=partial(_rounds, device),
    )
    channels = open_channels(settings.bell, sender)
    return [_notifier(device, events, channel) for channel in channels]


def _notifier(device: Device, events: EventStore, channel: Channel) -> Notifier:
    def next_after(number: int) -> Notification | None:
        event = events.next_after(number)
        if event is None:
            return None
        return Notification(event.id, event.at, device.name, event.source, event.answers)

    def picture(notification: Notification) -> bytes | None:
        event = events.event(notification.id)
        return None if event is None else events.picture(event)

    return Notifier(
        channel=channel,
        deliveries=DeliveryStore(device.store.database),
        next_after=next_after,
        picture=picture if device.settings.bell.tell_pictures else None,
    )


def _rounds(device: Device) -> dict[str, int]:
    return {model.detector: model.round for model in device.store.models.all_active()}


def _keep_reading(camera: Camera, stop: threading.Event) -> None:
    """Read the camera from the start: the first ring does not wait, the page shows its state."""
    camera.start()
    stop.wait()
    camera.stop()


def _tidy(bell: Bell, stop: threading.Event) -> None:
    while not stop.is_set():
        forget_old(bell)
        bell.events.sweep(time.time() - _CUT_SHORT_S)
        stop.wait(_TIDY_EVERY_S)
