"""The main server's addresses: messages of devices and the aggregator, and the operator's steps."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from main_server.context import MainServer
from main_server.devices import announce
from main_server.model_registry import deliver, model_bytes
from main_server.rounds import accept_aggregate, accept_plain, aggregate_plain, check_seeds, current_round
from shared.http_client import CONTAINER_TYPE
from shared.names import checked_name, checked_version
from shared.steps import Answer, Done, do_each
from shared.web import add_step, json_body

_NOTHING = "No device has announced itself yet. Open /sendstatus on the devices, then try again."


def add_routes(app: Flask, server: MainServer) -> None:
    """Add the main server's addresses to its app."""
    _add_messages(app, server)

    def detectors(picked: str | None) -> tuple[str, ...]:
        return (picked,) if picked else server.store.detectors()

    def aggregate_models(picked: str | None) -> Answer:
        return do_each(detectors(picked), lambda detector: aggregate_plain(server, detector), _NOTHING)

    def send_model_clients(picked: str | None) -> Answer:
        return do_each(detectors(picked), lambda detector: deliver(server, detector), _NOTHING)

    add_step(app, "/aggregate_models", aggregate_models)
    add_step(app, "/send_model_clients", send_model_clients)


def _add_messages(app: Flask, server: MainServer) -> None:
    @app.post("/clientstatus")
    def clientstatus() -> Response:
        rounds = announce(server, json_body())
        return jsonify({"rounds": {detector: settings.to_json() for detector, settings in rounds.items()}})

    @app.get("/round/<detector>")
    def show_round(detector: str) -> Response:
        settings, devices = current_round(server, checked_name(detector, "detector"))
        return jsonify({"round": settings.to_json(), "devices": devices})

    @app.get("/model/<version>")
    def show_model(version: str) -> Response:
        return Response(model_bytes(server, checked_version(version)), mimetype=CONTAINER_TYPE)

    @app.post("/check_seeds")
    def seeds() -> Response:
        return jsonify({"refused": check_seeds(server, json_body())})

    @app.post("/secagg_model")
    def secagg_model() -> Response:
        return _said(accept_aggregate(server, request.get_data()))

    @app.post("/cmodel")
    def cmodel() -> Response:
        return _said(accept_plain(server, request.get_data()))


def _said(done: Done) -> Response:
    return jsonify({"said": done.said} | dict(done.figures))
