"""Stepping the global model with a round's means, and publishing the version that comes of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from learning.architectures import architecture
from learning.model import Model
from learning.round import server_update
from main_server.context import MainServer
from main_server.models.registry import keep_model, load_state
from main_server.models.rollback import check_not_pinned
from main_server.rounds.lookup import not_open
from main_server.rounds.opening import next_value_range
from main_server.store.publication import publish
from main_server.store.records import Round
from main_server.store.states import OPEN
from shared.round.fixed_point import Mean
from shared.round.plan import RoundPlan
from shared.web.steps import Done

_log = logging.getLogger(__name__)


def step_and_publish(
    server: MainServer,
    plan: RoundPlan,
    cohort: tuple[str, ...],
    digest: str,
    means: Sequence[Mean],
    received: int = 0,
) -> Done:
    """Step the global model, and close the round with the new version, once.

    Args:
        server: The main server.
        plan: The round.
        cohort: Who is in the means.
        digest: What the means were made from, SHA-256 in hexadecimal: it tells a repetition of
            the same sum from another sum.
        means: As `learning.round.server_update` takes them.
        received: Bytes received in one message for it.

    Raises:
        InvalidMessage: The step does not lead to finite params.
        OutOfOrder: Another sum was first.
    """
    spec = architecture(plan.architecture)
    state = server_update(load_state(server, plan.base_version), means, plan)
    params = spec.unflatten(state.params)
    model = Model(plan.detector, plan.round, plan.base_version, spec.name, params)
    # The blob is on disk before the row that names it: a version never lacks its params.
    version = keep_model(server, model, state)
    clamped = sum(mean.clamped for mean in means)
    with server.store.write() as connection:
        current = publish(connection, plan, cohort, digest, clamped, version, received)
    if current.state == OPEN:  # nothing was published: the detector was pinned meanwhile
        check_not_pinned(server, plan.detector)
    if current.aggregate != digest:
        raise not_open(current)
    done = published(server, current)
    _log.info("%s: %s", plan.detector, done.said)
    return done


def published(server: MainServer, current: Round) -> Done:
    """Return what to answer about a round that is published, the first time and again."""
    number = current.plan.round
    devices = len(current.cohort)
    said = f"Round {number} is finished: the global model took a step from {devices} devices'"
    said += " updates."
    if current.clamped:
        widened = next_value_range(server, current)
        said += f" {current.clamped} values were clamped; the next round allows up to {widened:g}."
    figures = {"round": number, "devices": list(current.cohort), "clamped": current.clamped}
    return Done(said, figures)
