"""The aggregator's addresses: `/cmodel` for devices, the ancestors' two steps for its operator."""

from __future__ import annotations

from flask import Flask, Response, jsonify, request

from sec_agg.aggregation import Aggregator, accept, aggregate, hand_over
from shared.steps import Answer, do_each
from shared.web import add_step

_NOTHING = "No masked update has arrived yet. Open /modeltrain and /sendmodel on the devices, then try again."


def add_routes(app: Flask, aggregator: Aggregator) -> None:
    """Add the aggregator's addresses to its app."""

    @app.post("/cmodel")
    def cmodel() -> Response:
        done = accept(aggregator, request.get_data())
        return jsonify({"said": done.said})

    def detectors(picked: str | None) -> tuple[str, ...]:
        return (picked,) if picked else aggregator.store.detectors()

    def aggregate_models(picked: str | None) -> Answer:
        return do_each(detectors(picked), lambda detector: aggregate(aggregator, detector), _NOTHING)

    def send_model_secagg(picked: str | None) -> Answer:
        return do_each(detectors(picked), lambda detector: hand_over(aggregator, detector), _NOTHING)

    add_step(app, "/aggregate_models", aggregate_models)
    add_step(app, "/send_model_secagg", send_model_secagg)
