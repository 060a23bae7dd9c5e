"""A device's web app. Importing it imports no machine-learning framework: training runs in a child process."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from dataset import folders
from device import participation
from device.context import Device
from device.routes import add_routes
from device.trainer import describe
from shared.architectures import ARCHITECTURES
from shared.containers import MAX_HEADER_BYTES
from shared.http_client import HttpClient
from shared.settings import DeviceSettings
from shared.web import make_app

_MAX_BODY_BYTES = MAX_HEADER_BYTES + 4 * max(known.size for known in ARCHITECTURES.values())  # the largest model


def create_app(number: int, settings: DeviceSettings | None = None, http: HttpClient | None = None) -> Flask:
    """Make the app of device `number`, from 1, from its settings or the environment; tests may replace `http`."""
    settings = settings or DeviceSettings.read(number)
    device = Device.open(settings, http)

    def page() -> dict[str, object]:
        names = participation.detectors(device)
        return {
            "settings": settings,
            "doing": describe(device.trainer.progress),
            "detectors": [
                {
                    "name": name,
                    "census": folders.census(settings.data, name, settings.client),
                    "held": device.store.held(name),
                    "training": device.store.newest_training(name),
                }
                for name in names
            ],
        }

    def health() -> dict[str, object]:
        return {"device": device.name, "doing": describe(device.trainer.progress), "trainer_pid": device.trainer.pid}

    app = make_app(f"Doorbell {settings.name}", Path(__file__).parent / "templates", page, health, _MAX_BODY_BYTES)
    add_routes(app, device)
    return app
