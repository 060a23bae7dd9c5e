"""A device's web app.

Importing it imports no machine-learning framework: training runs in a child process.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

from flask import Flask, request

from device.bell.doorbell import camera_of
from device.bell.routes import add_doorbell
from device.context import Device
from device.metrics import gauges
from device.page import fingerprint, page
from device.rounds.poll_loop import attend
from device.rounds.schedule import keep_to_schedule
from device.routes import add_routes
from device.settings import DeviceSettings
from device.single_instance import claim_folder
from device.training.worker_client import describe, progress_of
from learning.architectures import ARCHITECTURES
from shared.round.container import MAX_HEADER_BYTES
from shared.transport.http_client import HttpClient
from shared.web.app import make_app
from shared.web.background import add_background
from shared.web.live import Live, add_live

_MAX_BODY_BYTES = MAX_HEADER_BYTES + 4 * max(
    known.size for known in ARCHITECTURES.values()
)  # the largest model


def create_app(
    number: int, settings: DeviceSettings | None = None, http: HttpClient | None = None
) -> Flask:
    """Make the app of device `number`, from 1.

    Args:
        number: Of the device.
        settings: None for those of the environment: then this process is the device, alone with its
            folder. Whoever gives settings, as tests do, only has the app.
        http: How to reach the other services; tests may replace it.

    Raises:
        SettingsError: Another process is this device; or the settings or the folder's contents
            cannot be used.
        StorageFailed: The folder cannot.
    """
    if settings is not None:
        return _make_app(settings, http)
    settings = DeviceSettings.read(number)
    give_back = claim_folder(settings.name, settings.folder)
    app = _make_app(settings, http)

    def one_copy(stop: threading.Event) -> None:
        stop.wait()
        # a worker that is told to end may take its time; the next one is the device now
        give_back()

    add_background(app, "one copy", one_copy)
    return app


def _make_app(settings: DeviceSettings, http: HttpClient | None) -> Flask:
    device = Device.open(settings, http)
    camera = camera_of(device)

    def show() -> dict[str, object]:
        return page(device, request.values.getlist("detector"))

    def health() -> dict[str, object]:
        return {
            "device": device.name,
            "doing": describe(device.trainer.progress),
            "trainer_pid": device.trainer.pid,
        }

    app = make_app(
        f"Doorbell {settings.name}",
        Path(__file__).parent / "templates",
        show,
        health,
        _MAX_BODY_BYTES,
        gauges=partial(gauges, device, camera),
    )
    add_routes(app, device)
    bell = add_doorbell(app, device, camera)

    def seen() -> str:
        return f"{fingerprint(device)} {bell.events.fingerprint()} {camera and camera.state()}"

    add_live(app, Live(seen, lambda: progress_of(device.trainer.progress)))
    if settings.wait_for_work:
        add_background(app, "waiting for work", partial(attend, device))
    if settings.train_at is not None or settings.train_after_new is not None:
        add_background(app, "schedule", partial(keep_to_schedule, device))
    return app
