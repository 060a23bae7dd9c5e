"""A device's addresses: the ancestors' steps for its owner, `/aggmodel` for the main server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Flask, Response, request

from device.context import Device
from device.evaluation.plots import training_plot
from device.evaluation.routes import add_report
from device.page import thumbnail
from device.rounds import participation
from shared.errors import NotFound
from shared.names import checked_name
from shared.protocol.answers import Said
from shared.security.authenticator import Authenticator, Caller
from shared.security.manifest import HEADER
from shared.storage.nonces import Nonces
from shared.web.app import add_step
from shared.web.json_messages import answer_with
from shared.web.openapi import CONTAINER, JPEG, MANIFEST, PNG, SENTENCE, Operation, declare
from shared.web.signed_routes import add_signed_message
from shared.web.steps import Answer, Done, each


def add_routes(app: Flask, device: Device) -> None:
    """Add a device's addresses to its app."""
    nothing = (
        f"This device has no pictures: there is no <detector>/{device.settings.client} folder in"
        f" {device.settings.data}. Put pictures there, or draw the default ones with python -m"
        " dataset draw."
    )

    def step(verb: Callable[[str], Done]) -> Callable[[str | None], Answer]:
        return each(device.detectors, verb, nothing)

    def sendstatus(picked: str | None) -> Answer:
        rounds = participation.announce(device)
        return step(lambda name: participation.send_status(device, name, rounds))(picked)

    def sendmodel(picked: str | None) -> Answer:
        rounds = participation.announce(device)
        return step(lambda name: participation.send(device, name, rounds))(picked)

    modeltrain, performance = (
        step(partial(verb, device)) for verb in (participation.train, participation.performance)
    )
    add_step(app, "/modeltrain", modeltrain, "Train on the pictures here.", (404, 422, 503))
    add_step(app, "/sendstatus", sendstatus, "Announce this device to the main server.", (404, 503))
    add_step(app, "/sendmodel", sendmodel, "Send the update of the last training.", (404, 503))
    add_step(
        app, "/performance", performance, "Measure the local and the global model.", (404, 422)
    )
    add_report(app, device)
    add_step(
        app,
        "/cancel",
        lambda _: cancel(device),
        "End the training that is going on.",
        (),
        (),
        SENTENCE,
    )

    def aggmodel(caller: Caller) -> Response:
        done = participation.install(device, caller.verified.body, request.headers.get(HEADER))
        return answer_with(Said(done.said))

    authenticator = Authenticator(
        device.enrolment.identity,
        lambda: device.name,
        device.enrolment.main_member,
        Nonces(device.settings.folder),
    )
    install = Operation(
        "Install a global model.", CONTAINER, fails=(404, 409), parameters=(MANIFEST,)
    )
    add_signed_message(app, authenticator, "/aggmodel", aggmodel, ("main-server",), install)

    @app.get("/plot/<detector>.png")
    def plot(detector: str) -> Response:
        training = device.store.trainings.newest(checked_name(detector, "detector"))
        if training is None:
            raise NotFound(
                f"No {detector} training has been done here yet.", todo="Open /modeltrain first."
            )
        return Response(training_plot(device, training), mimetype="image/png")

    @app.get("/picture/<detector>/<split>/<kind>/<int:number>.jpg")
    def picture(detector: str, split: str, kind: str, number: int) -> Response:
        return Response(thumbnail(device, detector, split, kind, number), mimetype="image/jpeg")

    shown = Operation("Show one of the pictures here.", {}, JPEG, (400, 404, 422), "operator")
    declare(app.extensions, "picture", GET=shown)
    declare(
        app.extensions,
        "plot",
        GET=Operation("Show the last training.", {}, PNG, (400, 404), "operator"),
    )


def cancel(device: Device) -> Answer:
    """End what the training child is doing."""
    return Answer(
        200, f"Cancelled: {device.trainer.cancel()}. The models and earlier trainings are kept."
    )
