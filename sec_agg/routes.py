"""The aggregator's addresses: `/cmodel` for devices, the ancestors' two steps for its operator."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response

from sec_agg.aggregation import Aggregator, accept, aggregate, hand_over
from sec_agg.pruning import Pruner
from shared.protocol.answers import Said
from shared.security.authenticator import Authenticator, Caller
from shared.web.app import add_step
from shared.web.json_messages import answer_with
from shared.web.openapi import CONTAINER, Operation
from shared.web.signed_routes import add_signed_message
from shared.web.steps import Answer, each

_NOTHING = (
    "No masked update has arrived yet. Open /modeltrain and /sendmodel on the devices, then try"
    " again."
)


def add_routes(
    app: Flask, aggregator: Aggregator, authenticator: Authenticator, pruner: Pruner
) -> None:
    """Add the aggregator's addresses to its app."""

    def cmodel(caller: Caller) -> Response:
        return answer_with(Said(accept(aggregator, caller).said))

    keep = Operation("Keep a masked update.", CONTAINER, fails=(404, 409, 503))
    add_signed_message(app, authenticator, "/cmodel", cmodel, ("device",), keep)

    aggregate_models = each(aggregator.store.detectors, partial(aggregate, aggregator), _NOTHING)
    hand_over_sums = each(aggregator.store.detectors, partial(hand_over, aggregator), _NOTHING)

    def send_model_secagg(picked: str | None) -> Answer:
        answer = hand_over_sums(picked)
        pruner.after_hand_over()
        return answer

    add_step(app, "/aggregate_models", aggregate_models, "Add up the masked updates.", (404, 503))
    add_step(
        app, "/send_model_secagg", send_model_secagg, "Send the sum to the main server.", (404, 503)
    )
