"""A device's addresses: the ancestors' steps for its owner, `/aggmodel` for the main server."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from device import participation
from device.context import Device
from shared.errors import NotFound
from shared.names import checked_name
from shared.steps import Answer, do_each
from shared.web import add_step


def add_routes(app: Flask, device: Device) -> None:
    """Add a device's addresses to its app."""
    nothing = (
        f"This device has no pictures: there is no <detector>/{device.settings.client} folder in "
        f"{device.settings.data}. Put pictures there, or draw the default ones with python -m dataset draw."
    )

    def detectors(picked: str | None) -> tuple[str, ...]:
        return (picked,) if picked else participation.detectors(device)

    def modeltrain(picked: str | None) -> Answer:
        return do_each(detectors(picked), lambda detector: participation.train(device, detector), nothing)

    def sendstatus(picked: str | None) -> Answer:
        rounds = participation.announce(device)
        return do_each(detectors(picked), lambda name: participation.send_status(device, name, rounds), nothing)

    def sendmodel(picked: str | None) -> Answer:
        rounds = participation.announce(device)
        return do_each(detectors(picked), lambda name: participation.send(device, name, rounds), nothing)

    def performance(picked: str | None) -> Answer:
        return do_each(detectors(picked), lambda detector: participation.performance(device, detector), nothing)

    for path, verb in (
        ("/modeltrain", modeltrain),
        ("/sendstatus", sendstatus),
        ("/sendmodel", sendmodel),
        ("/performance", performance),
    ):
        add_step(app, path, verb)

    @app.post("/aggmodel")
    def aggmodel() -> Response:
        return jsonify({"said": participation.install(device, request.get_data()).said})

    @app.get("/plot/<detector>.png")
    def plot(detector: str) -> Response:
        training = device.store.newest_training(checked_name(detector, "detector"))
        if training is None:
            raise NotFound(f"No {detector} training has been done here yet.", todo="Open /modeltrain first.")
        return Response(device.blobs.get(training.plot), mimetype="image/png")
