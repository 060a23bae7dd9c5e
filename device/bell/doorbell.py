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
from device.notifications.home_assistant import Entities
from device.notifications.mqtt import Mqtt, parse_broker
from device.notifications.notification import Happening
from device.notifications.notifier import Teller, Telling
from device.notifications.webhook import Webhook
from device.store.events import EventStore
from device.store.notifications import ToldStore
from device.training.jobs import PrepareRings
from device.training.worker_client import Busy
from device.vision.litert import answering_file
from device.vision.predictor import open_seer
from learning.architectures import architecture
from learning.model import parse_model
from shared.errors import CannotTrain, DoorbellError
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
        SettingsError: A webhook or a broker cannot be reached by what the settings say.
        StorageFailed: The folder of the events cannot be made.
    """
    settings = device.settings.bell
    events = EventStore(device.store.database, device.settings.folder / "events")
    for detector in settings.detectors:
        (device.settings.data / detector / device.settings.client).mkdir(
            parents=True, exist_ok=True
        )
    tellings = [_telling(device, events, teller) for teller in _tellers(device)]

    def tell() -> None:
        for telling in tellings:
            telling.look()

    bell = Bell(
        device=device,
        events=events,
        seer=open_seer(device),
        snapshot=None if camera is None else lambda: camera.snapshot().jpeg,
        tell=tell,
        keep_days=settings.keep_days,
        keep_mb=settings.keep_mb,
    )
    for telling in tellings:
        add_background(app, f"telling by {telling.teller.name}", telling.run)
    if camera is not None:
        add_background(app, "camera", partial(_keep, camera))
        if settings.watch:
            watch = Watch(camera, lambda frame: _moved(bell, frame.jpeg), settings.cool_down_s)
            add_background(app, "watch", watch.run)
    add_background(app, "old events", partial(_tidy, bell))
    add_background(app, "what rings need", partial(_prepare, device))
    add_bell_routes(app, bell, camera)
    return bell


def _tellers(device: Device) -> list[Teller]:
    settings, tellers = device.settings.bell, list[Teller]()
    if settings.webhook is not None and settings.webhook_secret is not None:
        tellers.append(Webhook(settings.webhook, settings.webhook_secret))
    if settings.mqtt is not None:
        entities = Entities(
            device.settings.name, device.name, settings.tell_pictures, device.settings.url
        )
        tellers.append(Mqtt(parse_broker(settings.mqtt), entities, partial(_rounds, device)))
    return tellers


def _telling(device: Device, events: EventStore, teller: Teller) -> Telling:
    def following(number: int) -> Happening | None:
        event = events.following(number)
        if event is None:
            return None
        return Happening(event.id, event.at, device.name, event.source, event.answers)

    def picture(happening: Happening) -> bytes | None:
        event = events.event(happening.id)
        return None if event is None else events.picture(event)

    allowed = picture if device.settings.bell.tell_pictures else None
    return Telling(teller, ToldStore(device.store.database), following, allowed)


def _rounds(device: Device) -> dict[str, int]:
    return {held.detector: held.round for held in device.store.in_force()}


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
        for held in device.store.in_force():
            if held.version in ready:
                continue
            try:
                kind = architecture(parse_model(device.blobs.get(held.version)).architecture)
                if not answering_file(device.settings.cache, kind).exists():
                    job = PrepareRings(
                        detector=held.detector, folders=device.folders, architecture=kind.name
                    )
                    device.trainer.run(job)
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
