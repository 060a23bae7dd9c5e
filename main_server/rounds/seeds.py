"""Saying which of a round's sealed seeds open, before the aggregator freezes its cohort."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping

from main_server.context import MainServer
from main_server.rounds.lookup import named_round, not_open, taking_part
from main_server.store.rounds import vouch
from main_server.store.states import OPEN
from shared.errors import DoorbellError, InvalidMessage
from shared.names import checked_name
from shared.round.plan import RoundPlan
from shared.web.openapi import NAME_TEXT, STRING, as_json, record, table

_NUMBER = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_SEALED = {"contentEncoding": "base64", "description": "An invalid one is named in the answer."}
SEEDS = as_json(record(detector=NAME_TEXT, round=_NUMBER, sealed_seeds=table(_SEALED)))
REFUSED = as_json(record(refused=table(STRING)))


def check_seeds(server: MainServer, message: object) -> dict[str, str]:
    """Return which devices' sealed seeds do not open, with the reason.

    Args:
        server: The main server.
        message: Decoded JSON: `detector`, `round`, and `sealed_seeds`: device to base64.

    Raises:
        InvalidMessage: The message is anything else.
        OutOfOrder: That round is not open.
    """
    seeds = message.get("sealed_seeds") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(seeds, Mapping):
        raise InvalidMessage("This is not a list of sealed seeds.")
    detector = checked_name(message.get("detector"), "detector")
    current = named_round(server, detector, message.get("round"))
    if current.state != OPEN:
        raise not_open(current)
    plan = current.plan
    # A seed is opened and thrown away: nothing of it is kept before the sum comes.
    known = taking_part(server, detector)
    refused = {}
    for name, sealed in seeds.items():
        device = checked_name(name, "device")
        reason = _refusal(server, plan, known, device, sealed)
        if reason is not None:
            refused[device] = reason
    opened = [device for device in seeds if device not in refused]
    # With fewer the aggregator freezes nothing: no sum exists that a second one could be compared
    # with, so the round need not be abandoned if the aggregator loses its state.
    if len(opened) >= plan.min_cohort:
        with server.store.write() as connection:
            vouch(connection, plan, opened)
    return refused


def open_seed(
    server: MainServer, plan: RoundPlan, known: Collection[str], device: str, sealed: bytes
) -> bytes:
    """Return the seed of a device's mask.

    Args:
        server: The main server; its key opens what devices sealed.
        plan: The round.
        known: The devices that take part.
        device: Whose seed.
        sealed: The sealed seed (HPKE, RFC 9180), bound to the device and the round.

    Raises:
        InvalidMessage: It does not open, or the device does not take part.
    """
    if device not in known:
        raise InvalidMessage(f"{device} has not announced itself for {plan.detector}.")
    return server.key.open_sealed(sealed, plan.context(device))


def _refusal(
    server: MainServer, plan: RoundPlan, known: Collection[str], device: str, sealed: object
) -> str | None:
    """Return why a sealed seed is refused, or None if it opens."""
    try:
        decoded = base64.b64decode(sealed, validate=True)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return "It sent no sealed seed."
    try:
        open_seed(server, plan, known, device, decoded)
    except DoorbellError as error:
        return error.happened
    return None
