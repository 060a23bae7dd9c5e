"""Steps 6 and 7 of a round: unmask the sum of a cohort, step the global model, publish."""

from __future__ import annotations

import hashlib

from learning.round import mean_of_sum
from main_server.context import MainServer
from main_server.models.rollback import check_not_pinned
from main_server.rounds.lookup import named_round, not_open, taking_part
from main_server.rounds.publishing import published, step_and_publish
from main_server.rounds.seeds import open_seed
from main_server.store.rounds import fail_round
from main_server.store.states import OPEN, PUBLISHED
from shared.errors import InvalidMessage, OutOfOrder
from shared.names import AGGREGATOR
from shared.round.fixed_point import Mean
from shared.round.payloads import Aggregate, parse_aggregate
from shared.round.plan import RoundPlan
from shared.web.steps import Done


def accept_aggregate(server: MainServer, body: bytes) -> Done:
    """Unmask the sum of a cohort, step the global model and publish the next version.

    Args:
        server: The main server.
        body: A `doorbell-aggregate/1` container.

    Raises:
        InvalidMessage: It is not one, its cohort is too small, too large or not the round's, or it
            does not unmask.
        OutOfOrder: The round has its one sum already, and this is another.
    """
    aggregate = parse_aggregate(body)
    current = named_round(server, aggregate.detector, aggregate.round)
    plan = current.plan
    if current.state == OPEN:
        check_not_pinned(server, aggregate.detector)
    if plan.receiver != AGGREGATOR:
        raise OutOfOrder("This federation runs in the direct topology: sums are not taken.")
    digest = hashlib.sha256(body).hexdigest()
    if current.state != OPEN:
        # The answer may have been lost: the same sum again is answered as it was at first.
        if current.aggregate == digest and current.state == PUBLISHED:
            return published(server, current)
        raise not_open(current)
    _check_aggregate(plan, aggregate)
    mean = _unmasked_mean(server, plan, aggregate, digest)
    cohort = tuple(aggregate.sealed_seeds)
    return step_and_publish(server, plan, cohort, digest, [mean], len(body))


def _unmasked_mean(server: MainServer, plan: RoundPlan, aggregate: Aggregate, digest: str) -> Mean:
    """Take every device's mask off the sum; a sum that makes no mean fails the round.

    Only the masks of the whole cohort together come off: one that is missing or one too many
    leaves uniformly random numbers.
    """
    known = taking_part(server, aggregate.detector)
    seeds = {
        device: open_seed(server, plan, known, device, sealed)
        for device, sealed in aggregate.sealed_seeds.items()
    }
    try:
        return mean_of_sum(aggregate.sum, seeds, plan)
    except InvalidMessage:
        with server.store.write() as connection:
            fail_round(connection, plan, digest, server.clock())
        raise


def _check_aggregate(plan: RoundPlan, aggregate: Aggregate) -> None:
    """Refuse a sum whose cohort or form is not the round's.

    Raises:
        InvalidMessage: It is.
    """
    count = len(aggregate.sealed_seeds)
    # A sum over one device is its update; over more than the cap, it could wrap around.
    if count < plan.min_cohort:
        raise InvalidMessage(
            f"Aggregate rejected: a cohort of {count} is below min_cohort ({plan.min_cohort})."
        )
    if count > plan.cohort_cap:
        raise InvalidMessage(
            f"Aggregate rejected: a cohort of {count} is above cohort_cap ({plan.cohort_cap})."
        )
    is_of_base = aggregate.base_version == plan.base_version
    if aggregate.sum.size != plan.vector_size or not is_of_base:
        raise InvalidMessage("This sum was not made for this round's model.")
