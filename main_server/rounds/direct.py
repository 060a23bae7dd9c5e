"""The direct topology, without an aggregator: keep plain updates; average them, step, publish."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from main_server.context import MainServer
from main_server.models.rollback import check_not_pinned
from main_server.rounds.lookup import named_round, not_open, taking_part
from main_server.rounds.opening import current_round
from main_server.rounds.publishing import published, step_and_publish
from main_server.store.contributions import keep_plain_update, plain_updates
from main_server.store.rounds import find_round
from main_server.store.states import OPEN, PUBLISHED
from shared.errors import InvalidMessage, OutOfOrder
from shared.names import MAIN_SERVER
from shared.round.fixed_point import Mean
from shared.round.payloads import PlainUpdate, parse_plain_update
from shared.round.plan import RoundPlan
from shared.security.authenticator import Caller
from shared.telemetry.metrics import count_upload
from shared.web.steps import Done


def accept_plain(server: MainServer, caller: Caller) -> Done:
    """Keep the plain update that a device sent for the open round.

    Raises:
        InvalidMessage: It is not one, or not of the round's length.
        Forbidden: It is another device's.
        OutOfOrder: It is for another round, or the federation runs in the secure topology.
    """
    body = caller.verified.body
    update = parse_plain_update(body)
    caller.must_be(update.device)
    current = named_round(server, update.detector, update.round)
    plan = current.plan
    _check_update(server, plan, update)
    if current.state != OPEN:  # before the disk is touched
        raise not_open(current)
    # On disk before the row that names it, and before the answer goes out.
    kept = server.blobs.put(body)
    now = server.clock()
    with server.store.write() as connection:
        is_kept = keep_plain_update(connection, plan, update.device, kept, now, len(body))
    if not is_kept:
        raise not_open(current)
    count_upload(update.detector, len(body))
    return Done(f"The update for round {plan.round} is kept.")


def aggregate_plain(server: MainServer, detector: str) -> Done:
    """Average the plain updates of the newest round and publish the next version.

    Raises:
        OutOfOrder: Fewer than `min_cohort` updates are there; says who is missing.
    """
    plan, devices = current_round(server, detector)
    if plan.receiver != MAIN_SERVER:
        raise OutOfOrder(
            "This federation runs in the secure topology: the aggregator adds up.",
            todo="Open /aggregate_models on the secure aggregator (port 8003).",
        )
    check_not_pinned(server, detector)
    with server.store.read() as connection:
        digests = plain_updates(connection, plan)
        before = find_round(connection, detector, plan.round - 1)
    # Asked again right after a round was published: the answer may have been lost.
    if not digests and before is not None and before.state == PUBLISHED:
        return published(server, before)
    _check_cohort(plan, digests, devices)
    updates = [parse_plain_update(server.blobs.get(digest)) for digest in digests.values()]
    # The cap holds here too: one device cannot outweigh the others by claiming many pictures.
    means = [Mean(each.delta, min(each.weight, plan.weight_cap), 0) for each in updates]
    # In the order of the devices' names: the same updates always have the same digest.
    digest = hashlib.sha256("".join(digests.values()).encode()).hexdigest()
    return step_and_publish(server, plan, tuple(digests), digest, means)


def _check_update(server: MainServer, plan: RoundPlan, update: PlainUpdate) -> None:
    if plan.receiver != MAIN_SERVER:
        raise OutOfOrder(
            "This federation runs in the secure topology: plain updates are not taken.",
            todo="Send the masked update to the secure aggregator.",
        )
    if update.base_version != plan.base_version or update.delta.size != plan.size:
        raise InvalidMessage("This update was not made for this round's model.")
    if update.device not in taking_part(server, update.detector):
        raise InvalidMessage(
            f"{update.device} has not announced itself.", todo="Open /sendstatus on it first."
        )


def _check_cohort(plan: RoundPlan, digests: Mapping[str, str], devices: Sequence[str]) -> None:
    if len(digests) >= plan.min_cohort:
        return
    happened = f"Round {plan.round} has {len(digests)} of the {plan.min_cohort} updates it needs."
    missing = ", ".join(device for device in devices if device not in digests)
    if missing:
        happened += f" Still missing: {missing}."
    raise OutOfOrder(
        happened,
        kept="What was sent is kept.",
        todo="Train and send on the missing devices, then try again.",
    )
