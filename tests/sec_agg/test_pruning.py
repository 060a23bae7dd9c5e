"""The aggregator lets go of what a finished round leaves behind, and of nothing that anybody may
still need.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from main_server.store.rounds import find_round
from main_server.store.versions import newest_version
from sec_agg import aggregation, pruning
from sec_agg.aggregation import aggregate, hand_over
from sec_agg.pruning import (
    AFTER_HAND_OVER_S,
    GRACE_S,
    IDLE_S,
    LISTED_ROUNDS,
    RECENT_ROUNDS,
    Pruner,
    prune,
)
from sec_agg.store.store import Store, Stored
from shared.errors import InvalidMessage, OutOfOrder, StorageFailed
from shared.round.payloads import parse_aggregate, parse_masked_update
from shared.storage.blobs import BlobStore
from tests.main_store import read


def kinds(federation: Any) -> dict[int, tuple[int, int]]:
    """Return how many updates and sums lie on the aggregator's disk, by round."""
    found: dict[int, tuple[int, int]] = {}
    for path in (federation.folder / "aggregator" / "blobs").iterdir():
        try:
            number, what = parse_masked_update(path.read_bytes()).round, (1, 0)
        except InvalidMessage:
            number, what = parse_aggregate(path.read_bytes()).round, (0, 1)
        updates, sums = found.get(number, (0, 0))
        found[number] = (updates + what[0], sums + what[1])
    return found


def play(federation: Any, *devices: str, deliver: bool = True) -> None:
    """Play a round up to its sum, or to its end."""
    for device in devices or ("a", "b"):
        federation.upload(device, federation.delta())
    aggregate(federation.aggregator, "package")
    if deliver:
        hand_over(federation.aggregator, "package")


def finish(federation: Any) -> None:
    """Play a round that has its updates to its end, and begin the next."""
    aggregate(federation.aggregator, "package")
    hand_over(federation.aggregator, "package")
    federation.upload("a", federation.delta())
    prune_now(federation)


def prune_now(federation: Any, grace_s: float = GRACE_S) -> None:
    prune(federation.aggregator.store, federation.aggregator.blobs, grace_s)


def make_old(federation: Any) -> None:
    """Let every blob be a day old."""
    for path in (federation.folder / "aggregator" / "blobs").iterdir():
        os.utime(path, (time.time() - 86_400,) * 2)


def test_updates_go_when_their_sum_is_handed_over_and_a_newer_round_is_known(
    federation: Any,
) -> None:
    play(federation, deliver=False)
    prune_now(federation)
    assert kinds(federation) == {1: (2, 1)}
    hand_over(federation.aggregator, "package")
    prune_now(federation)
    assert kinds(federation) == {1: (2, 1)}, "no newer round is known"
    federation.upload("a", federation.delta())
    prune_now(federation)
    assert kinds(federation) == {1: (0, 1), 2: (1, 0)}
    assert [kept.device for kept in federation.aggregator.store.updates("package", 1)] == ["a", "b"]
    assert [kept.device for kept in federation.aggregator.store.cohort("package", 1)] == ["a", "b"]
    assert all(
        kept.sealed_seed == b"" for kept in federation.aggregator.store.updates("package", 1)
    )


def test_round_goes_on_after_pruning_at_any_point(federation: Any) -> None:
    for number in (1, 2, 3):
        for device in ("a", "b"):
            federation.upload(device, federation.delta())
            make_old(federation)
            prune_now(federation, 0)
        for step in (aggregate, aggregate, hand_over, hand_over):
            said = step(federation.aggregator, "package").said
            make_old(federation)
            prune_now(federation, 0)
            federation.start()
        assert f"Round {number} is finished" in said
    assert read(federation.main.store, newest_version, "package").round == 3


def test_update_that_is_kept_is_still_the_same_once_more_after_pruning(federation: Any) -> None:
    body = federation.upload("a", federation.delta())
    make_old(federation)
    prune_now(federation, 0)
    assert (
        "same once more"
        in federation.device("a").post("http://aggregator/cmodel", body).json["said"]
    )


def test_replaced_update_goes_after_an_hour_and_not_before(federation: Any) -> None:
    first, second = (federation.upload("a", federation.delta()) for _ in range(2))
    prune_now(federation)
    assert kinds(federation) == {1: (2, 0)}
    make_old(federation)
    prune_now(federation)
    assert kinds(federation) == {1: (1, 0)}
    kept = federation.aggregator.store.updates("package", 1)[0]
    assert federation.aggregator.blobs.get(kept.digest) == second != first


def test_upload_on_its_way_is_not_overtaken(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blob is on disk, and its row is not: somebody prunes."""
    federation.upload("a", federation.delta())
    make_old(federation)
    keep_update, blobs = Store.keep_update, federation.aggregator.blobs

    def slow(self: Store, *what: Any) -> bool:
        prune(self, blobs)
        return keep_update(self, *what)

    monkeypatch.setattr(Store, "keep_update", slow)
    federation.upload("b", federation.delta())
    monkeypatch.undo()
    assert aggregate(federation.aggregator, "package").figures["devices"] == ["a", "b"]


def test_undelivered_rounds_are_kept_for_three_newer_ones(federation: Any) -> None:
    store = federation.aggregator.store
    play(federation, deliver=False)
    for number in range(2, RECENT_ROUNDS + 1):
        open_here(federation, number)
        prune_now(federation)
        assert kinds(federation)[1] == (2, 1)
    open_here(federation, RECENT_ROUNDS + 1)
    make_old(federation)
    prune_now(federation)
    assert kinds(federation) == {}
    assert store.round("package", 1).aggregate is not None
    assert RECENT_ROUNDS == 3


def test_sums_of_the_last_three_rounds_and_the_names_of_the_last_twenty_are_kept(
    federation: Any,
) -> None:
    for _ in range(5):
        play(federation)
    make_old(federation)
    prune_now(federation)
    assert kinds(federation) == {3: (0, 1), 4: (0, 1), 5: (2, 1)}
    store = federation.aggregator.store
    open_here(federation, LISTED_ROUNDS + 1)
    prune_now(federation)
    assert [len(store.updates("package", number)) for number in (1, 2)] == [0, 2]
    assert [store.round("package", number).state for number in range(1, 6)] == ["summed"] * 5
    assert LISTED_ROUNDS == 20


def test_detectors_are_let_go_of_apart(federation: Any) -> None:
    play(federation)
    for device in ("a", "b"):
        federation.upload(device, federation.delta(), detector="raccoon")
    for _ in range(4):
        play(federation)
    make_old(federation)
    prune_now(federation)
    assert aggregate(federation.aggregator, "raccoon").figures["devices"] == ["a", "b"]


def test_old_round_cannot_be_summed_a_second_time(federation: Any) -> None:
    bodies = [federation.upload(device, federation.delta()) for device in ("a", "b")]
    aggregate(federation.aggregator, "package")
    hand_over(federation.aggregator, "package")
    for number in range(2, LISTED_ROUNDS + 3):
        open_here(federation, number)
    prune_now(federation)
    assert federation.aggregator.store.updates("package", 1) == ()
    with pytest.raises(OutOfOrder):
        federation.device("a").post("http://aggregator/cmodel", bodies[0])
    late = Stored("c", "0" * 64, b"", "0" * 32)
    assert not federation.aggregator.store.keep_update("package", 1, late, 0.0)
    with pytest.raises(OutOfOrder):
        aggregate(federation.aggregator, "package", 1)


def test_who_adds_up_while_the_updates_go_finds_the_sum_there(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow process has read the cohort; meanwhile another adds up, hands over, learns of a round,
    and prunes.
    """
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    other = replace(federation.aggregator)
    read_vectors = aggregation.read_vectors

    def slow(files: Any, size: int) -> Any:
        monkeypatch.setattr(aggregation, "read_vectors", read_vectors)
        finish(federation)
        return read_vectors(files, size)

    monkeypatch.setattr(aggregation, "read_vectors", slow)
    assert aggregate(other, "package", 1).figures == {
        "round": 1,
        "devices": ["a", "b"],
        "left_out": [],
    }
    assert kinds(federation) == {1: (0, 1), 2: (1, 0)}


def test_cohort_whose_updates_went_before_it_was_read_finds_the_sum_there(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    cohort = Store.cohort

    def slow(self: Store, detector: str, number: int) -> tuple[Stored, ...]:
        monkeypatch.setattr(Store, "cohort", cohort)
        finish(federation)
        return cohort(self, detector, number)

    monkeypatch.setattr(Store, "cohort", slow)
    assert aggregate(federation.aggregator, "package", 1).figures["devices"] == ["a", "b"]
    assert kinds(federation) == {1: (0, 1), 2: (1, 0)}


def test_lost_update_of_a_frozen_cohort_is_said_and_no_other_sum_made(federation: Any) -> None:
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    store = federation.aggregator.store
    seen = store.updates("package", 1)
    store.freeze("package", 1, seen, {kept.device: kept.digest for kept in seen})
    lost = federation.aggregator.blobs.get(seen[0].digest)
    federation.aggregator.blobs.delete(seen[0].digest)
    with pytest.raises(
        StorageFailed, match=r"Masked updates of round 1 of package are lost.*no other sum is made"
    ):
        aggregate(federation.aggregator, "package")
    federation.aggregator.blobs.put(lost)
    assert aggregate(federation.aggregator, "package").figures["devices"] == ["a", "b"]


def test_what_a_killed_pruning_left_is_pruned_later(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(federation)
    federation.upload("a", federation.delta())

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BlobStore, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        prune_now(federation)
    monkeypatch.undo()
    assert kinds(federation) == {1: (2, 1), 2: (1, 0)}
    make_old(federation)
    prune_now(federation)
    assert kinds(federation) == {1: (0, 1), 2: (1, 0)}


def test_operators_hand_over_prunes_at_most_once_a_minute(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned: list[object] = []
    monkeypatch.setattr(pruning, "prune", lambda *what: pruned.append(what))
    play(federation)
    for _ in range(3):
        federation.step("aggregator", "send_model_secagg")
    assert len(pruned) == 1


def test_pauses_between_prunings(monkeypatch: pytest.MonkeyPatch, federation: Any) -> None:
    pruned: list[float] = []
    now = [0.0]
    one = Pruner(federation.aggregator.store, federation.aggregator.blobs, lambda: now[0])
    monkeypatch.setattr(pruning, "prune", lambda *_: pruned.append(now[0]))
    for now[0] in (0.0, AFTER_HAND_OVER_S - 1, AFTER_HAND_OVER_S):
        one.after_hand_over()
        one.idle()
    now[0] += IDLE_S
    one.idle()
    assert pruned == [0.0, AFTER_HAND_OVER_S, AFTER_HAND_OVER_S + IDLE_S]


def test_failed_pruning_fails_no_hand_over(
    federation: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> int:
        raise StorageFailed("The disk reports an error.")

    monkeypatch.setattr(BlobStore, "prune", full)
    play(federation, deliver=False)
    assert "Round 1 is finished" in federation.step("aggregator", "send_model_secagg")["said"]
    assert "pruning: The disk reports an error." in caplog.text


def test_processes_that_prune_while_a_round_is_played_take_nothing_away(federation: Any) -> None:
    folder = federation.aggregator.enrolment.folder
    context = multiprocessing.get_context("spawn")
    over = context.Event()
    processes = [
        context.Process(target=_prune_on, args=(folder, over), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    try:
        for number in range(1, 7):
            play(federation)
            assert read(federation.main.store, find_round, "package", number).state == "published"
    finally:
        over.set()
        for process in processes:
            process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    prune_now(federation)
    assert {number: updates for number, (updates, _) in kinds(federation).items() if updates} == {
        6: 2
    }


def _prune_on(folder: Path, over: Any) -> None:
    store, blobs = Store(folder), BlobStore(folder / "blobs")
    while not over.is_set():
        prune(store, blobs)


def open_here(federation: Any, number: int) -> None:
    """Let the aggregator know of a round."""
    settings = federation.announce("a")
    federation.aggregator.store.remember_round(structs.replace(settings, round=number))
