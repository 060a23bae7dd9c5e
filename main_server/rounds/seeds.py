"""Saying which of a round's sealed seeds open, before the aggregator freezes its cohort."""

from __future__ import annotations

import base64
from collections.abc import Collection

from main_server.context import MainServer
from main_server.rounds.lookup import named_round, not_open, taking_part
from main_server.store.rounds import vouch
from main_server.store.states import OPEN
from shared.errors import DoorbellError, InvalidMessage
from shared.protocol.rounds import RefusedSeeds, SealedSeeds
from shared.round.plan import RoundPlan


def check_seeds(server: MainServer, message: SealedSeeds) -> RefusedSeeds:
    """Return which devices' sealed seeds do not open, with the reason.

    Args:
        server: The main server.
        message: The sealed seeds of one round.

    Raises:
        InvalidMessage: There is no such round.
        OutOfOrder: That round is not open.
    """
    detector, seeds = message.detector, message.sealed_seeds
    current = named_round(server, detector, message.round)
    if current.state != OPEN:
        raise not_open(current)
    plan = current.plan
    # A seed is opened and thrown away: nothing of it is kept before the sum comes.
    known = taking_part(server, detector)
    refused = {}
    for device, sealed in seeds.items():
        reason = _refusal(server, plan, known, device, sealed)
        if reason is not None:
            refused[device] = reason
    opened = [device for device in seeds if device not in refused]
    # With fewer the aggregator freezes nothing: no sum exists that a second one could be compared
    # with, so the round need not be abandoned if the aggregator loses its state.
    if len(opened) >= plan.min_cohort:
        with server.store.write() as connection:
            vouch(connection, plan, opened)
    return RefusedSeeds(refused)


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
