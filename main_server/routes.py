"""The main server's addresses: messages of devices and the aggregator, and the operator's steps."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, g, request

from main_server.context import MainServer
from main_server.dashboard.routes import add_dashboard
from main_server.members.devices import detectors
from main_server.members.members import admit, change_key, member_of, roster
from main_server.models.evaluations import keep_evaluation
from main_server.models.registry import deliver, published_model
from main_server.rounds.aggregation import accept_aggregate
from main_server.rounds.announcement import announce
from main_server.rounds.direct import accept_plain, aggregate_plain
from main_server.rounds.opening import current_round
from main_server.rounds.seeds import check_seeds
from main_server.runs.change_notifier import ChangeNotifier
from main_server.runs.routes import add_controls
from main_server.runs.tasks import for_aggregator, for_device
from shared.errors import DoorbellError
from shared.messages import convert
from shared.names import MAIN_SERVER, checked_name, checked_version
from shared.protocol.announcement import Announcement
from shared.protocol.answers import Said
from shared.protocol.evaluations import Performance
from shared.protocol.joining import Admission, JoinRequest, Members, NewKey
from shared.protocol.rounds import (
    Finished,
    OpenRounds,
    RefusedSeeds,
    RoundDescription,
    SealedSeeds,
)
from shared.protocol.work import AggregatorWaits, DeviceWaits, DeviceWork, Work
from shared.security.authenticator import AnyRole, Authenticator, Caller
from shared.security.manifest import HEADER
from shared.storage.nonces import open_nonces
from shared.transport.http_client import CONTAINER_TYPE
from shared.web.app import add_message, add_step
from shared.web.json_messages import answer_with, read_body
from shared.web.openapi import CONTAINER, Operation, json_of
from shared.web.operators import Attempts
from shared.web.signed_routes import add_signed_message
from shared.web.steps import each

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
    authenticator = Authenticator(
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
            return answer_with(admit(server, read_body(JoinRequest)))
        except DoorbellError:
            attempts.check(count=True)
            raise

    def clientstatus(caller: Caller) -> Response:
        rounds = announce(server, caller, read_body(Announcement))
        return answer_with(OpenRounds(caller.name, rounds))

    def work(caller: Caller) -> Response:
        answer: Work
        if caller.member.role == "device":
            answer = for_device(server, notifier, caller, read_body(DeviceWaits))
        else:
            answer = for_aggregator(server, notifier, read_body(AggregatorWaits))
        # Devices poll every half minute: an empty answer is not worth a line of the log.
        g.quiet = not answer.tasks
        return answer_with(answer)

    def performance(caller: Caller) -> Response:
        keep_evaluation(server, caller, read_body(Performance))
        return answer_with(Said("The figures are kept."))

    def new_key(caller: Caller) -> Response:
        change_key(server, caller, read_body(NewKey))
        return answer_with(Said("The new key is active."))

    def show_roster(_: Caller) -> Response:
        return answer_with(roster(server))

    def show_round(_: Caller, detector: str) -> Response:
        # An aggregator that knows of no round may have lost what it knew.
        is_first = request.args.get("first") == "1"
        name = checked_name(detector, "detector")
        plan, devices = current_round(server, name, untouched=is_first)
        return answer_with(RoundDescription(plan, devices))

    def show_model(_: Caller, version: str) -> Response:
        model, manifest = published_model(server, checked_version(version))
        return Response(model, mimetype=CONTAINER_TYPE, headers={HEADER: manifest})

    def seeds(_: Caller) -> Response:
        return answer_with(check_seeds(server, read_body(SealedSeeds)))

    def secagg_model(caller: Caller) -> Response:
        done = accept_aggregate(server, caller.verified.body)
        return answer_with(convert(Finished, {"said": done.said, **done.figures}))

    def cmodel(caller: Caller) -> Response:
        return answer_with(Said(accept_plain(server, caller).said))

    device: tuple[AnyRole, ...] = ("device",)
    aggregator: tuple[AnyRole, ...] = ("secure-aggregator",)
    model = Operation(
        "Fetch a version of a model.", answer=CONTAINER, fails=(404,), headers=(HEADER,)
    )
    message = partial(add_signed_message, app, authenticator)
    add_message(
        app,
        "/join",
        join,
        operation=Operation(
            "Join the federation.", json_of(JoinRequest), json_of(Admission), (403, 429)
        ),
    )
    message(
        "/clientstatus",
        clientstatus,
        device,
        Operation("Announce a device.", json_of(Announcement), json_of(OpenRounds)),
    )
    waiting = Operation(
        "Wait for work.", json_of(DeviceWaits, AggregatorWaits), json_of(DeviceWork, Work)
    )
    message("/work", work, device + aggregator, waiting)
    measured = Operation("Keep what a device measured.", json_of(Performance), fails=(404,))
    message("/performance", performance, device, measured)
    message(
        "/new_key",
        new_key,
        device + aggregator,
        Operation("Change one's key.", json_of(NewKey), fails=(409,)),
    )
    message(
        "/roster",
        show_roster,
        aggregator,
        Operation("List the members.", answer=json_of(Members)),
        ["GET"],
    )
    message(
        "/round/<detector>",
        show_round,
        aggregator,
        Operation("Show the open round.", {}, json_of(RoundDescription), (404,)),
        ["GET"],
    )
    message("/model/<version>", show_model, device, model, ["GET"])
    message(
        "/check_seeds",
        seeds,
        aggregator,
        Operation(
            "Say which seeds do not open.", json_of(SealedSeeds), json_of(RefusedSeeds), (409,)
        ),
    )
    message(
        "/secagg_model",
        secagg_model,
        aggregator,
        Operation("Take a round's sum.", CONTAINER, json_of(Finished), (409,)),
    )
    message(
        "/cmodel",
        cmodel,
        device,
        Operation("Keep a plain update (direct topology).", CONTAINER, fails=(409,)),
    )
