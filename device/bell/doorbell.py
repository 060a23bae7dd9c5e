"""The doorbell that a device is: events, models that answer, camera, and who is told; put together
and started.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

from flask import Flask

from device.bell.ring import Bell, forget_old, ring
from device.bell.routes import add_bell_routes
from device.camera.camera import Camera
from device.camera.motion import Watch
from device.context import Device
from device.notifications.channel import Channel, Sender
from device.notifications.notification import Notification
from device.notifications.notifier import Notifier
from device.notifications.registry import open_channels
from device.store.events import EventStore
from device.store.notifications import DeliveryStore
from device.training.worker_client import Busy
from device.vision.litert import answering_file
from device.vision.predictor import open_seer
from learning.architectures import architecture
from shared.errors import CannotTrain, DoorbellError
from shared.round.payloads import parse_model
from shared.web.background import add_background

_TIDY_EVERY_S = 3600.0
_CUT_SHORT_S = 3600.0
_LOOK_EVERY_S = 5.0
_log = logging.getLogger(__name__)


def camera_of(device: Device) -> Camera | None:
    """Return a device's camera, not yet in use, or None where the settings name none.

    Raises:
        SettingsError: They name something that is none.
    """
    source = device.settings.bell.camera
    return None if source is None else Camera(source)


def add_doorbell(app: Flask, device: Device, camera: Camera | None) -> Bell:
    """Make a device's doorbell, and add its addresses and what it does by itself to the device's
    app.

    Raises:
        SettingsError: A notification channel's URL is not valid.
        StorageFailed: The folder of the events cannot be made.
    """
    settings = device.settings.bell
    events = EventStore(device.store.database, device.settings.folder / "events")
    for detector in settings.detectors:
        (device.settings.data / detector / device.settings.client).mkdir(
            parents=True, exist_ok=True
        )
    notifiers = _notifiers(device, events)

    def notify() -> None:
        for notifier in notifiers:
            notifier.wake()

    bell = Bell(
        device=device,
        events=events,
        seer=open_seer(device),
        snapshot=None if camera is None else lambda: camera.snapshot().jpeg,
        notify=notify,
        keep_days=settings.keep_days,
        keep_mb=settings.keep_mb,
    )
    for notifier in notifiers:
        add_background(app, f"notifier {notifier.channel.name}", notifier.run)
    if camera is not None:
        add_background(app, "camera", partial(_keep, camera))
        if settings.watch:
            watch = Watch(camera, lambda frame: _moved(bell, frame.jpeg), settings.cool_down_s)
            add_background(app, "watch", watch.run)
    add_background(app, "old events", partial(_tidy, bell))
    add_background(app, "what rings need", partial(_prepare, device))
    add_bell_routes(app, bell, camera)
    return bell


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
        event = events.following(number)
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
    return {held.detector: held.round for held in device.store.models.all_active()}


def _moved(bell: Bell, picture: bytes) -> None:
    ring(bell, "motion", picture)


def _keep(camera: Camera, stop: threading.Event) -> None:
    """Read the camera from the start, so that the first ring need not wait and the page knows how
    it is.
    """
    camera.start()
    stop.wait()
    camera.stop()


def _tidy(bell: Bell, stop: threading.Event) -> None:
    while not stop.is_set():
        forget_old(bell)
        bell.events.sweep(time.time() - _CUT_SHORT_S)
        stop.wait(_TIDY_EVERY_S)


def _prepare(device: Device, stop: threading.Event) -> None:
    """Have made what models in force need to answer rings: on a device that never trains, nobody
    else does it.
    """
    ready, pause = set[str](), _LOOK_EVERY_S
    while not stop.wait(pause):
        pause = _LOOK_EVERY_S
        for held in device.store.models.all_active():
            if held.version in ready:
                continue
            try:
                kind = architecture(parse_model(device.blobs.get(held.version)).architecture)
                if not answering_file(device.settings.cache, kind).exists():
                    device.trainer.run(
                        device.job("answer", held.detector) | {"architecture": kind.name}
                    )
                ready.add(held.version)
            except (
                Busy,
                FileNotFoundError,
            ):  # the child trains; or the model was replaced just now
                continue
            except CannotTrain as error:
                _log.warning("%s cannot answer rings. %s", held.detector, error)
                stop.wait()
                return
            except DoorbellError as error:
                _log.warning("%s cannot answer rings yet. %s", held.detector, error)
                pause = _TIDY_EVERY_S
