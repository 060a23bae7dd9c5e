"""The secure aggregator's half of a round: accept, freeze, sum, hand over. Integers only; it knows
no model.

The steps of docs/reference/protocol.md that happen here, in their order:

    5  accept         check a masked update and keep it durably
    6  aggregate      ask main which seeds open, freeze the cohort, add it up once
       hand_over      send the sum, still masked, to the main server

One sum per round and detector, ever: two sums over cohorts that differ by one device would give
that device away.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sec_agg.answers import read_answer
from sec_agg.roster import Roster
from sec_agg.store.store import Round, Store, Stored
from sec_agg.summing import sum_buckets
from shared.errors import InvalidMessage, OutOfOrder, StorageFailed
from shared.names import AGGREGATOR
from shared.protocol.answers import Said
from shared.protocol.rounds import RefusedSeeds, RoundDescription, SealedSeeds
from shared.round.payloads import Aggregate, MaskedUpdate, parse_masked_update
from shared.round.plan import RoundPlan
from shared.security.authenticator import Caller
from shared.storage.blobs import BlobStore
from shared.telemetry.metrics import count_upload
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient
from shared.web.steps import Done

_NOT_IN_FORCE = "the key that it signed with is not in force any more."


@dataclass(frozen=True)
class Aggregator:
    """What the aggregator works with: its memory, its place in the federation, and the way to the
    main server.

    `clock` gives seconds since the epoch.
    """

    store: Store
    blobs: BlobStore
    http: HttpClient
    enrolment: Enrolment
    roster: Roster
    clock: Callable[[], float] = time.time


def accept(aggregator: Aggregator, caller: Caller) -> Done:
    """Keep one device's masked update for the open round.

    Args:
        aggregator: The aggregator.
        caller: The device, and its body: a `doorbell-update/1` container with a masked vector.

    Raises:
        InvalidMessage: It is none, or its length is not the round's.
        Forbidden: It is another device's.
        OutOfOrder: It is for another round than the open one, or the cohort is frozen.
    """
    body = caller.verified.body
    update = parse_masked_update(body)
    caller.must_be(update.device)
    current, before = _round_for(aggregator, update)
    if update.masked.size != current.vector_size:
        raise InvalidMessage("This update has another length than the round's model.")
    kept = Stored(
        update.device, caller.verified.body_sha256.hex(), update.sealed_seed, caller.verified.key_id
    )
    if kept == before:
        return Done(f"The update for round {update.round} is kept; this was the same once more.")
    if current.state != "open":  # before the disk is touched: whoever comes too late cannot fill it
        raise _closed(update.round)
    aggregator.blobs.put(body)
    if not aggregator.store.keep_update(update.detector, update.round, kept, aggregator.clock()):
        raise _closed(update.round)
    count_upload(update.detector, len(body))
    return Done(f"The masked update for round {update.round} is kept; nobody here can read it.")


def aggregate(aggregator: Aggregator, detector: str, number: int | None = None) -> Done:
    """Freeze the cohort of a round and add it up; repeated, by whomever, it answers with the same
    sum.

    Args:
        aggregator: The aggregator.
        detector: Whose round.
        number: Which round; None for the newest that is known here.

    Raises:
        OutOfOrder: Fewer than `min_cohort` usable updates are there; says who is missing. Or the
            round is not the newest one.
        StorageFailed: The bytes of an update are lost.
    """
    current = _round_to_add_up(aggregator, detector, number)
    again = current.aggregate is not None
    while current.state == "open":
        _freeze(aggregator, current)
        current = aggregator.store.round(detector, current.round) or current
    cohort = aggregator.store.cohort(detector, current.round)
    if current.aggregate is None:
        _keep_sum(aggregator, current, cohort)
    devices = [stored.device for stored in cohort]
    when = "were added up before; the sum is the same" if again else "are added up"
    said = (
        f"The masked updates of {len(cohort)} devices ({', '.join(devices)}) for round"
        f" {current.round} {when}."
    )
    kept = aggregator.store.updates(detector, current.round)
    left_out = [stored.device for stored in kept if stored.device not in devices]
    if left_out:
        said += (
            f" Left out, because their sealed seeds or keys are not taken: {', '.join(left_out)}."
        )
    return Done(said, {"round": current.round, "devices": devices, "left_out": left_out})


def hand_over(aggregator: Aggregator, detector: str) -> Done:
    """Send the newest sum to the main server; repeated, it sends the same sum again.

    Raises:
        OutOfOrder: Nothing is added up yet, or the main server refuses it.
    """
    current = aggregator.store.newest_round(detector)
    if current is None or current.aggregate is None:
        raise OutOfOrder(
            (
                "No sum is here to send."
                if current is None
                else f"Round {current.round} is not added up yet."
            ),
            todo="Open /aggregate_models on this aggregator first.",
        )
    main = aggregator.enrolment.main()
    reply = aggregator.http.post(
        f"{main.url}/secagg_model", aggregator.blobs.get(current.aggregate), main
    )
    aggregator.store.note_delivery(detector, current.round)
    said = read_answer(reply, Said).said
    return Done(f"The sum of round {current.round} is sent. {said}", {"bytes_up": reply.bytes_up})


def read_vectors(updates: Iterable[Path], size: int) -> Iterator[NDArray[np.uint32]]:
    """Yield the masked vectors of updates, each into the same buffer, whatever their number.

    Args:
        updates: Files that end in a vector of `size` little-endian uint32.
        size: Length of the vectors.

    Raises:
        OSError: A file is shorter than its vector.
    """
    buffer = np.empty(size, "<u4")
    for path in updates:
        with path.open("rb", buffering=0) as file:
            file.seek(-buffer.nbytes, 2)
            if file.readinto(buffer.data.cast("B")) != buffer.nbytes:
                raise OSError(f"{path} ended early")
        yield buffer


def _round_for(aggregator: Aggregator, update: MaskedUpdate) -> tuple[Round, Stored | None]:
    """Return the round that an update is for, if it is the newest, and what is kept of its device
    for it.

    The main server is asked about a round that is newer than what is known here.
    """
    current, before = aggregator.store.newest_round_with(update.detector, update.device)
    if current is None or update.round > current.round:
        current = _learn_round(aggregator, update.detector)
        _, before = aggregator.store.newest_round_with(update.detector, update.device)
    if (current.round, current.base_version) != (update.round, update.base_version):
        raise OutOfOrder(
            f"This update is for round {update.round} of another model; round {current.round} is"
            " open.",
            todo="Train again from the newest model and send that.",
        )
    return current, before


def _round_to_add_up(aggregator: Aggregator, detector: str, number: int | None) -> Round:
    current = aggregator.store.newest_round(detector)
    if current is None or (number is not None and number > current.round):
        current = _learn_round(aggregator, detector)
    if number is not None and number != current.round:
        raise OutOfOrder(
            f"Round {number} of {detector} is not the newest one here: that is round"
            f" {current.round}.",
            todo="Wait for the updates of the newest round.",
        )
    return current


def _learn_round(aggregator: Aggregator, detector: str) -> Round:
    return aggregator.store.remember_round(_ask_for_round(aggregator, detector)[0])


def _ask_for_round(aggregator: Aggregator, detector: str) -> tuple[RoundPlan, tuple[str, ...]]:
    """Return the main server's open round of a detector, and the devices that take part in it.

    Whoever knows of no round may have lost what it knew, and have added up the open one in an
    earlier life. It asks for a round in which no seed was ever vouched for, so that no second sum
    comes of it.
    """
    main = aggregator.enrolment.main()
    first = "" if aggregator.store.newest_round(detector) else "?first=1"
    reply = aggregator.http.get(f"{main.url}/round/{detector}{first}", main)
    described = read_answer(reply, RoundDescription)
    if described.round.receiver != AGGREGATOR:
        raise OutOfOrder(
            "This federation runs in the direct topology, without an aggregator.",
            todo="Open /aggregate_models on the main server.",
        )
    return described.round, described.devices


def _freeze(aggregator: Aggregator, current: Round) -> None:
    """Fix the cohort to the updates of members whose seeds open; leaves the round open if one came
    meanwhile.
    """
    seen = aggregator.store.updates(current.detector, current.round)
    aggregator.roster.refresh()
    strangers = {
        stored.device: _NOT_IN_FORCE
        for stored in seen
        if not aggregator.roster.owns(stored.device, stored.key_id)
    }
    usable = [stored for stored in seen if stored.device not in strangers]
    if len(usable) < current.min_cohort:
        raise _too_few(aggregator, current, {stored.device for stored in usable}, strangers)
    seeds = {stored.device: base64.b64encode(stored.sealed_seed).decode() for stored in usable}
    message = SealedSeeds(current.detector, current.round, seeds)
    main = aggregator.enrolment.main()
    reply = aggregator.http.post_json(f"{main.url}/check_seeds", message, main)
    refused = read_answer(reply, RefusedSeeds).refused
    cohort = {stored.device: stored.digest for stored in usable if stored.device not in refused}
    if len(cohort) < current.min_cohort:
        raise _too_few(aggregator, current, set(cohort), refused | strangers)
    aggregator.store.freeze(current.detector, current.round, seen, cohort)


def _keep_sum(aggregator: Aggregator, current: Round, cohort: tuple[Stored, ...]) -> None:
    """Add a frozen cohort up, and keep the sum; leaves it at that where somebody else has done so
    meanwhile.
    """
    if all(stored.digest for stored in cohort):
        with suppress(FileNotFoundError):
            files = [aggregator.blobs.path(stored.digest) for stored in cohort]
            (total,) = sum_buckets(read_vectors(files, current.vector_size), [0] * len(files))
            seeds = {stored.device: stored.sealed_seed for stored in cohort}
            container = Aggregate(
                current.detector, current.round, current.base_version, seeds, total
            ).to_bytes()
            aggregator.store.keep_sum(
                current.detector, current.round, aggregator.blobs.put(container)
            )
            return
    latest = aggregator.store.round(current.detector, current.round)
    if latest is None or latest.aggregate is None:
        raise StorageFailed(
            f"Masked updates of round {current.round} of {current.detector} are lost: their files"
            " are gone.",
            kept="The cohort stays as it was fixed, and no other sum is made.",
            todo=(
                "Put the aggregator's files back from a backup, or wait until the main server opens"
                " the next round."
            ),
        )


def _closed(number: int) -> OutOfOrder:
    return OutOfOrder(
        f"The cohort of round {number} is frozen or full, so this update came too late.",
        kept="The update that was sent before, if there was one, is in the sum.",
        todo="Train for the next round.",
    )


def _too_few(
    aggregator: Aggregator, current: Round, there: set[str], refused: dict[str, str]
) -> OutOfOrder:
    _, devices = _ask_for_round(aggregator, current.detector)
    missing = [device for device in devices if device not in there]
    names = f" Still missing: {', '.join(missing)}." if missing else ""
    left_out = "".join(
        f" {device} is left out: {reason}" for device, reason in sorted(refused.items())
    )
    return OutOfOrder(
        f"Round {current.round} has {len(there)} of the {current.min_cohort} updates it"
        f" needs.{names}{left_out}",
        kept="What was sent is kept.",
        todo="Train and send on the missing devices, then try again.",
    )
