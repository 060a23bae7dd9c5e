"""Deciding what the next round asks of everybody, and writing it down."""

from __future__ import annotations

import base64

from learning.architectures import architecture
from main_server.context import MainServer
from main_server.models.registry import initial_version
from main_server.rounds.lookup import taking_part
from main_server.store.records import Round, Version
from main_server.store.rounds import abandon_round, add_round, is_vouched, newest_round
from main_server.store.states import OPEN
from main_server.store.versions import newest_version
from shared.errors import NotFound
from shared.round.plan import MAX_VALUE_RANGE, RoundPlan


def open_round(server: MainServer, detector: str) -> RoundPlan:
    """Return the plan of the open round of a detector; opens the next one if none is open.

    An open round made under other settings (architecture, topology, ...) is abandoned: its number
    is never used again.
    """
    with server.store.read() as connection:
        newest = newest_round(connection, detector)
        base = newest_version(connection, detector)
    # Every setting that the plan holds may have changed since it was opened.
    if newest is not None and newest.state == OPEN and base is not None:
        same = _plan(server, newest.plan.round, base, newest.plan.value_range)
        if newest.plan == same:
            return same
    last_number = 0 if newest is None else newest.plan.round
    if base is None:
        base = initial_version(server, detector, 0, None)
    elif base.architecture != server.settings.architecture:
        # Another architecture begins anew, but numbers only grow: devices take no lower one.
        number = max(base.round + 1, last_number)
        base = initial_version(server, detector, number, base.version)
    number = max(base.round, last_number) + 1
    plan = _plan(server, number, base, next_value_range(server, newest))
    # Of two that open a round at once, the first does; the other returns that one.
    with server.store.write() as connection:
        return add_round(connection, plan, server.clock()).plan


def current_round(
    server: MainServer, detector: str, untouched: bool = False
) -> tuple[RoundPlan, tuple[str, ...]]:
    """Return the plan of the open round of a detector, and the devices that take part.

    Args:
        server: The main server.
        detector: Whose round.
        untouched: Abandon the open round if seeds were vouched for in it. The aggregator asks so
            when it has lost its state: it might otherwise add the round up a second time, over
            another cohort, and the difference of two sums tells single updates.

    Raises:
        NotFound: No device takes part in that detector.
    """
    devices = taking_part(server, detector)
    if not devices:
        raise NotFound(
            f"No device takes part in {detector}.",
            todo="Open /sendstatus on a device that has pictures for it.",
        )
    plan = open_round(server, detector)
    if untouched and _abandon_vouched(server, plan):
        plan = open_round(server, detector)
    return plan, devices


def next_value_range(server: MainServer, last: Round | None) -> float:
    """Return the value range of the round after `last`.

    It is twice the last one where a coordinate did not fit into that, up to a limit.
    """
    if last is None:
        return server.settings.value_range
    # Clamping loses a part of the update; a wider range costs precision, so it widens by steps.
    factor = 2 if last.clamped else 1
    return min(last.plan.value_range * factor, MAX_VALUE_RANGE)


def _abandon_vouched(server: MainServer, plan: RoundPlan) -> bool:
    """Abandon a round in which a cohort may have been frozen; return whether there was one."""
    with server.store.write() as connection:
        vouched = is_vouched(connection, plan.detector, plan.round)
        if vouched:
            said = f"Round {plan.round} is abandoned: the aggregator lost its state."
            abandon_round(connection, plan, server.clock(), said)
    return vouched


def _plan(server: MainServer, number: int, base: Version, value_range: float) -> RoundPlan:
    """Return the plan of a round under this server's settings.

    Args:
        server: The main server.
        number: The round's number.
        base: The version that it starts from.
        value_range: Largest magnitude of one coordinate of a delta.
    """
    settings = server.settings
    spec = architecture(base.architecture)
    is_secure = settings.topology == "secure"
    # Only in the secure topology does a device seal a seed for this server.
    sealing_key = base64.b64encode(server.key.public).decode() if is_secure else ""
    return RoundPlan(
        federation=settings.federation,
        detector=base.detector,
        round=number,
        base_version=base.version,
        architecture=settings.architecture,
        size=spec.size,
        topology=settings.topology,
        epochs=settings.epochs or spec.work.epochs,
        batch_size=settings.batch_size or spec.work.batch_size,
        learning_rate=settings.learning_rate or spec.work.learning_rate,
        clipping_norm=settings.clipping_norm,
        value_range=value_range,
        weight_cap=settings.weight_cap,
        cohort_cap=settings.cohort_cap,
        min_cohort=settings.min_cohort,
        sealing_key=sealing_key,
        strategy=settings.strategy,
        server_learning_rate=settings.server_learning_rate,
    )
