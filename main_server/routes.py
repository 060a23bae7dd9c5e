"""The main server's addresses: messages of devices and the aggregator, and the operator's steps."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, g, jsonify, request

from main_server.context import MainServer
from main_server.dashboard.routes import add_dashboard
from main_server.members.devices import detectors
from main_server.members.members import (
    ADMISSION,
    JOINING,
    NEW_KEY,
    ROSTER,
    admit,
    change_key,
    member_of,
    roster,
)
from main_server.models.evaluations import keep_evaluation
from main_server.models.registry import deliver, published_model
from main_server.rounds.aggregation import FINISHED, accept_aggregate
from main_server.rounds.announcement import ROUNDS, STATUS, announce
from main_server.rounds.direct import accept_plain, aggregate_plain
from main_server.rounds.opening import ROUND, current_round
from main_server.rounds.seeds import REFUSED, SEEDS, check_seeds
from main_server.rounds.work_messages import ASKING, WORK
from main_server.runs.change_notifier import ChangeNotifier
from main_server.runs.routes import add_controls
from main_server.runs.tasks import for_aggregator, for_device
from shared.errors import DoorbellError
from shared.names import MAIN_SERVER, checked_name, checked_version
from shared.protocol.evaluations import PERFORMANCE
from shared.security.authenticator import AnyRole, Caller, Gate
from shared.security.manifest import HEADER
from shared.security.nonces import open_nonces
from shared.transport.http_client import CONTAINER_TYPE
from shared.web.app import add_message, add_step, json_body
from shared.web.openapi import CONTAINER, Operation
from shared.web.operators import Attempts
from shared.web.signed_routes import add_signed_message
from shared.web.steps import Done, each

_NOTHING = "No device has announced itself yet. Open /sendstatus on the devices, then try again."


def add_routes(app: Flask, server: MainServer, notifier: ChangeNotifier) -> None:
    """Add the main server's addresses to its app."""
    _add_messages(app, server, notifier)
    add_controls(app, server)
    add_dashboard(app, server)

    names = partial(detectors, server)
    aggregate_models = each(names, partial(aggregate_plain, server), _NOTHING)
    send_model_clients = each(names, partial(deliver, server), _NOTHING)
    add_step(
        app,
        "/aggregate_models",
        aggregate_models,
        "Average the plain updates (direct topology).",
        (404,),
    )
    add_step(
        app, "/send_model_clients", send_model_clients, "Send the newest model to the devices."
    )


def _add_messages(app: Flask, server: MainServer, notifier: ChangeNotifier) -> None:
    gate = Gate(
        server.identity,
        lambda: MAIN_SERVER,
        partial(member_of, server),
        open_nonces(server.store.database),
        server.clock,
    )

    attempts = Attempts()

    def join() -> Response:
        # Guessing join codes is slowed down; whoever joins rightly is not counted.
        attempts.check(count=False)
        try:
            return jsonify(admit(server, json_body()))
        except DoorbellError:
            attempts.check(count=True)
            raise

    def clientstatus(caller: Caller) -> Response:
        rounds = announce(server, caller, json_body())
        described = {detector: settings.to_json() for detector, settings in rounds.items()}
        return jsonify({"name": caller.name, "rounds": described})

    def work(caller: Caller) -> Response:
        is_device = caller.member.role == "device"
        said = json_body()
        answer = (
            for_device(server, notifier, caller, said)
            if is_device
            else for_aggregator(server, notifier, said)
        )
        # Devices poll every half minute: an empty answer is not worth a line of the log.
        g.quiet = not answer["tasks"]
        return jsonify(answer)

    def performance(caller: Caller) -> Response:
        keep_evaluation(server, caller, json_body())
        return jsonify({"said": "The figures are kept."})

    def new_key(caller: Caller) -> Response:
        change_key(server, caller, json_body())
        return jsonify({"said": "The new key is active."})

    def show_roster(_: Caller) -> Response:
        return jsonify({"members": roster(server)})

    def show_round(_: Caller, detector: str) -> Response:
        # An aggregator that knows of no round says so: it may have lost its state.
        first = request.args.get("first") == "1"
        settings, devices = current_round(
            server, checked_name(detector, "detector"), untouched=first
        )
        return jsonify({"round": settings.to_json(), "devices": devices})

    def show_model(_: Caller, version: str) -> Response:
        model, manifest = published_model(server, checked_version(version))
        return Response(model, mimetype=CONTAINER_TYPE, headers={HEADER: manifest})

    def seeds(_: Caller) -> Response:
        return jsonify({"refused": check_seeds(server, json_body())})

    def secagg_model(caller: Caller) -> Response:
        return _said(accept_aggregate(server, caller.verified.body))

    def cmodel(caller: Caller) -> Response:
        return _said(accept_plain(server, caller))

    device: tuple[AnyRole, ...] = ("device",)
    aggregator: tuple[AnyRole, ...] = ("secure-aggregator",)
    model = Operation(
        "Fetch a version of a model.", answer=CONTAINER, fails=(404,), headers=(HEADER,)
    )
    message = partial(add_signed_message, app, gate)
    add_message(
        app,
        "/join",
        join,
        operation=Operation("Join the federation.", JOINING, ADMISSION, (403, 429)),
    )
    message("/clientstatus", clientstatus, device, Operation("Announce a device.", STATUS, ROUNDS))
    message("/work", work, device + aggregator, Operation("Wait for work.", ASKING, WORK))
    measured = Operation("Keep what a device measured.", PERFORMANCE, fails=(404,))
    message("/performance", performance, device, measured)
    message(
        "/new_key",
        new_key,
        device + aggregator,
        Operation("Change one's key.", NEW_KEY, fails=(409,)),
    )
    message(
        "/roster", show_roster, aggregator, Operation("List the members.", answer=ROSTER), ["GET"]
    )
    message(
        "/round/<detector>",
        show_round,
        aggregator,
        Operation("Show the open round.", {}, ROUND, (404,)),
        ["GET"],
    )
    message("/model/<version>", show_model, device, model, ["GET"])
    message(
        "/check_seeds",
        seeds,
        aggregator,
        Operation("Say which seeds do not open.", SEEDS, REFUSED, (409,)),
    )
    message(
        "/secagg_model",
        secagg_model,
        aggregator,
        Operation("Take a round's sum.", CONTAINER, FINISHED, (409,)),
    )
    message(
        "/cmodel",
        cmodel,
        device,
        Operation("Keep a plain update (direct topology).", CONTAINER, fails=(409,)),
    )


def _said(done: Done) -> Response:
    return jsonify({"said": done.said} | dict(done.figures))
