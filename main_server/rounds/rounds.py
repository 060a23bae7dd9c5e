"""The main server's half of a round, in the order of docs/reference/protocol.md.

    open_round        decide what the next round asks of everybody, and write it down
    check_seeds       say which of the sealed seeds open, before the cohort is frozen   (step 6)
    accept_aggregate  unmask the one sum of the round, step the global model, publish   (step 7)

and, in the direct topology, without an aggregator:

    accept_plain      keep a device's plain update                                      (step 3)
    aggregate_plain   average the updates, step the global model, publish               (step 4)

In the secure topology nothing here ever sees a single device's update: what arrives is a sum over
at least `min_cohort` devices, and only the first sum of a round is taken.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from learning.architectures import architecture
from learning.model import Model
from learning.round import mean_of_sum, server_update
from main_server.context import MainServer
from main_server.models.registry import initial_version, keep_model, load_state
from main_server.store.records import Round, Version
from main_server.store.runs import RUNNING, Run
from main_server.store.states import OPEN, PUBLISHED
from shared.errors import DoorbellError, InvalidMessage, NotFound, OutOfOrder
from shared.names import AGGREGATOR, MAIN_SERVER, checked_name
from shared.round.fixed_point import Mean
from shared.round.payloads import Aggregate, parse_aggregate, parse_plain_update
from shared.round.plan import MAX_VALUE_RANGE, RoundPlan
from shared.security.authenticator import Caller
from shared.telemetry.metrics import count_upload
from shared.web.openapi import NAME_TEXT, STRING, as_json, record, record_of, table
from shared.web.steps import Done

_log = logging.getLogger(__name__)
_NAMES = {"type": "array", "items": NAME_TEXT}
_NUMBER = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_SEALED = {"contentEncoding": "base64", "description": "What is none is named in the answer."}
ROUND = as_json(record(round=record_of(RoundPlan), devices=_NAMES))
SEEDS = as_json(record(detector=NAME_TEXT, round=_NUMBER, sealed_seeds=table(_SEALED)))
REFUSED = as_json(record(refused=table(STRING)))
FINISHED = as_json(record(said=STRING, round=_NUMBER, devices=_NAMES, clamped={"type": "integer"}))


def open_round(server: MainServer, detector: str) -> RoundPlan:
    """Return the open round of a detector; opens the next one if none is open.

    An open round made under other settings (architecture, topology, ...) is abandoned: its number
    is never used again.
    """
    newest = server.store.newest_round(detector)
    base = server.store.newest_version(detector)
    if newest is not None and newest.state == OPEN and base is not None:
        same = _settings(server, newest.settings.round, base, newest.settings.value_range)
        if newest.settings == same:
            return same
    if base is None or base.architecture != server.settings.architecture:
        number = 0 if base is None else max(base.round + 1, newest.settings.round if newest else 0)
        base = initial_version(server, detector, number, None if base is None else base.version)
    number = max(base.round, newest.settings.round if newest else 0) + 1
    return server.store.open_round(
        _settings(server, number, base, _value_range(server, newest)), server.clock()
    ).settings


def current_round(
    server: MainServer, detector: str, untouched: bool = False
) -> tuple[RoundPlan, tuple[str, ...]]:
    """Return the open round of a detector and the devices that take part.

    Args:
        server: The main server.
        detector: Whose round.
        untouched: Give up the open round if seeds were vouched for in it: whoever asks lost what it
            knew, and might otherwise add it up a second time, over another cohort.

    Raises:
        NotFound: No device takes part in that detector.
    """
    devices = tuple(p.device for p in server.store.participations(detector))
    if not devices:
        raise NotFound(
            f"No device takes part in {detector}.",
            todo="Open /sendstatus on a device that has pictures for it.",
        )
    settings = open_round(server, detector)
    if untouched and server.store.vouched(detector, settings.round):
        said = f"Round {settings.round} is given up: the aggregator lost what it knew of it."
        server.store.give_up(settings, server.clock(), said)
        settings = open_round(server, detector)
    return settings, devices


def asked_rounds(
    runs: Iterable[Run], newest_round: Callable[[str], Round | None]
) -> dict[str, Round]:
    """Return detector to open round of those that a run has asked the devices for.

    Args:
        runs: The newest of each detector.
        newest_round: Returns a detector's newest round, or None.
    """
    newest = {run.detector: newest_round(run.detector) for run in runs if run.state == RUNNING}
    return {
        name: each
        for name, each in newest.items()
        if each and each.state == OPEN and each.asked_at is not None
    }


def check_not_pinned(server: MainServer, detector: str) -> None:
    """Refuse to change the model of a detector that is pinned.

    Raises:
        OutOfOrder: It is.
    """
    if detector in server.store.pins():
        raise OutOfOrder(
            f"{detector} is pinned to a version, so no round changes its model.",
            kept="What was sent is kept.",
            todo=f"On the main server: python -m federation unpin {detector}; then try again.",
        )


def check_seeds(server: MainServer, message: object) -> dict[str, str]:
    """Return which devices' sealed seeds do not open, with the reason.

    Args:
        server: The main server.
        message: Decoded JSON: `detector`, `round`, and `sealed_seeds`: device to base64.

    Raises:
        InvalidMessage: The message is anything else.
        OutOfOrder: That round is not open.
    """
    if not isinstance(message, Mapping) or not isinstance(
        seeds := message.get("sealed_seeds"), Mapping
    ):
        raise InvalidMessage("This is not a list of sealed seeds.")
    detector = checked_name(message.get("detector"), "detector")
    current = _round(server, detector, message.get("round"))
    if current.state != OPEN:
        raise _not_open(current)
    known = {p.device for p in server.store.participations(detector)}
    refused = {}
    for name, sealed in seeds.items():
        device = checked_name(name, "device")
        try:
            _open_seed(
                server, current.settings, known, device, base64.b64decode(sealed, validate=True)
            )
        except (DoorbellError, ValueError, TypeError) as error:
            refused[device] = (
                error.happened if isinstance(error, DoorbellError) else "It sent no sealed seed."
            )
    opened = [device for device in seeds if device not in refused]
    if len(opened) >= current.settings.min_cohort:  # or else the aggregator freezes nothing
        server.store.vouch(current.settings, opened)
    return refused


def accept_aggregate(server: MainServer, body: bytes) -> Done:
    """Unmask the sum of a cohort, step the global model and publish the next version.

    Args:
        server: The main server.
        body: A `doorbell-aggregate/1` container.

    Raises:
        InvalidMessage: It is none, its cohort is too small or not the round's, or it does not
            unmask.
        OutOfOrder: The round has its one sum already, and this is another.
    """
    aggregate = parse_aggregate(body)
    current = _round(server, aggregate.detector, aggregate.round)
    if current.state == OPEN:
        check_not_pinned(server, aggregate.detector)
    settings, digest = current.settings, hashlib.sha256(body).hexdigest()
    if settings.receiver != AGGREGATOR:
        raise OutOfOrder("This federation runs in the direct topology: sums are not taken.")
    if current.state != OPEN:
        if current.aggregate == digest and current.state == PUBLISHED:
            return _published(server, current)
        raise _not_open(current)
    _check_aggregate(settings, aggregate)
    known = {p.device for p in server.store.participations(aggregate.detector)}
    seeds = {
        device: _open_seed(server, settings, known, device, sealed)
        for device, sealed in aggregate.sealed_seeds.items()
    }
    try:
        mean = mean_of_sum(aggregate.sum, seeds, settings)
    except InvalidMessage:
        server.store.fail(settings, digest, server.clock())
        raise
    return _step_and_publish(server, settings, tuple(seeds), digest, [mean], len(body))


def accept_plain(server: MainServer, caller: Caller) -> Done:
    """Keep the plain update that a device sent for the open round (direct topology).

    Raises:
        InvalidMessage: It is none, or not of the round's length.
        Forbidden: It is another device's.
        OutOfOrder: It is for another round, or the federation runs in the secure topology.
    """
    body = caller.verified.body
    update = parse_plain_update(body)
    caller.must_be(update.device)
    current = _round(server, update.detector, update.round)
    settings = current.settings
    if settings.receiver != MAIN_SERVER:
        raise OutOfOrder(
            "This federation runs in the secure topology: plain updates are not taken.",
            todo="Send the masked update to the secure aggregator.",
        )
    if update.base_version != settings.base_version or update.delta.size != settings.size:
        raise InvalidMessage("This update was not made for this round's model.")
    if update.device not in {p.device for p in server.store.participations(update.detector)}:
        raise InvalidMessage(
            f"{update.device} has not announced itself.", todo="Open /sendstatus on it first."
        )
    if current.state != OPEN:  # before the disk is touched
        raise _not_open(current)
    kept = server.blobs.put(body)
    if not server.store.keep_plain_update(settings, update.device, kept, server.clock(), len(body)):
        raise _not_open(current)
    count_upload(update.detector, len(body))
    return Done(f"The update for round {settings.round} is kept.")


def aggregate_plain(server: MainServer, detector: str) -> Done:
    """Average the plain updates of the newest round and publish the next version (direct topology).

    Raises:
        OutOfOrder: Fewer than `min_cohort` updates are there; says who is missing.
    """
    settings, devices = current_round(server, detector)
    if settings.receiver != MAIN_SERVER:
        raise OutOfOrder(
            "This federation runs in the secure topology: the aggregator adds up.",
            todo="Open /aggregate_models on the secure aggregator (port 8003).",
        )
    check_not_pinned(server, detector)
    digests = server.store.plain_updates(settings)
    if (
        not digests
        and (before := server.store.round(detector, settings.round - 1))
        and before.state == PUBLISHED
    ):
        return _published(server, before)
    if len(digests) < settings.min_cohort:
        missing = ", ".join(device for device in devices if device not in digests)
        raise OutOfOrder(
            f"Round {settings.round} has {len(digests)} of the {settings.min_cohort} updates it needs."
            + (f" Still missing: {missing}." if missing else ""),
            kept="What was sent is kept.",
            todo="Train and send on the missing devices, then try again.",
        )
    updates = [parse_plain_update(server.blobs.get(digest)) for digest in digests.values()]
    means = [Mean(each.delta, min(each.weight, settings.weight_cap), 0) for each in updates]
    digest = hashlib.sha256("".join(digests.values()).encode()).hexdigest()
    return _step_and_publish(server, settings, tuple(digests), digest, means)


def _settings(server: MainServer, number: int, base: Version, value_range: float) -> RoundPlan:
    mine, spec = server.settings, architecture(base.architecture)
    secure = mine.topology == "secure"
    return RoundPlan(
        federation=mine.federation,
        detector=base.detector,
        round=number,
        base_version=base.version,
        architecture=server.settings.architecture,
        size=spec.size,
        topology=mine.topology,
        epochs=mine.epochs or spec.work.epochs,
        batch_size=mine.batch_size or spec.work.batch_size,
        learning_rate=mine.learning_rate or spec.work.learning_rate,
        clipping_norm=mine.clipping_norm,
        value_range=value_range,
        weight_cap=mine.weight_cap,
        cohort_cap=mine.cohort_cap,
        min_cohort=mine.min_cohort,
        sealing_key=base64.b64encode(server.key.public).decode() if secure else "",
        strategy=mine.strategy,
        server_learning_rate=mine.server_learning_rate,
    )


def _value_range(server: MainServer, last: Round | None) -> float:
    """Return the next round's value range: twice the last one where a coordinate did not fit into
    it, up to a limit.
    """
    if last is None:
        return server.settings.value_range
    return min(last.settings.value_range * (2 if last.clamped else 1), MAX_VALUE_RANGE)


def _round(server: MainServer, detector: str, number: object) -> Round:
    current = (
        server.store.round(detector, number) if type(number) is int and 0 < number < 2**31 else None
    )
    if current is None:
        raise InvalidMessage(
            f"There is no such round of {detector}.", todo="Ask for the open round, and use that."
        )
    return current


def _check_aggregate(settings: RoundPlan, aggregate: Aggregate) -> None:
    count = len(aggregate.sealed_seeds)
    if not settings.min_cohort <= count <= settings.cohort_cap:
        raise InvalidMessage(
            f"A sum over {count} devices is not taken: at least {settings.min_cohort} must be in it."
        )
    if (
        aggregate.sum.size != settings.vector_size
        or aggregate.base_version != settings.base_version
    ):
        raise InvalidMessage("This sum was not made for this round's model.")


def _open_seed(
    server: MainServer, settings: RoundPlan, known: set[str], device: str, sealed: bytes
) -> bytes:
    if device not in known:
        raise InvalidMessage(f"{device} has not announced itself for {settings.detector}.")
    return server.key.open_sealed(sealed, settings.context(device))


def _step_and_publish(
    server: MainServer,
    settings: RoundPlan,
    cohort: tuple[str, ...],
    digest: str,
    means: Sequence[Mean],
    received: int = 0,
) -> Done:
    spec = architecture(settings.architecture)
    state = server_update(load_state(server, settings.base_version), means, settings)
    params = spec.unflatten(state.params)
    model = Model(settings.detector, settings.round, settings.base_version, spec.name, params)
    version = keep_model(server, model, state)
    clamped = sum(mean.clamped for mean in means)
    current = server.store.publish(settings, cohort, digest, clamped, version, received)
    if current.aggregate != digest:
        raise _not_open(current)
    done = _published(server, current)
    _log.info("%s: %s", settings.detector, done.said)
    return done


def _published(server: MainServer, current: Round) -> Done:
    settings, devices = current.settings, len(current.cohort)
    said = f"Round {settings.round} is finished: the global model took a step from {devices} devices' updates."
    if current.clamped:
        widened = _value_range(server, current)
        said += f" {current.clamped} values were clamped; the next round allows up to {widened:g}."
    return Done(
        said, {"round": settings.round, "devices": list(current.cohort), "clamped": current.clamped}
    )


def _not_open(current: Round) -> OutOfOrder:
    return OutOfOrder(
        f"Round {current.settings.round} is {current.state}: it has had its one sum, or was given up.",
        kept="The global model is as it is.",
        todo="Train again from the newest model; that is the next round.",
    )
