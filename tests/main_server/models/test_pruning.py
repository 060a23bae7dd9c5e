"""What is let go of, and what never is."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from main_server.models import gate, rollback
from main_server.models.pruning import prune
from main_server.store.contributions import keep_plain_update, sent_updates
from main_server.store.evaluations import scores
from main_server.store.events import newest_event_id, newest_events
from main_server.store.pins import find_pins, remove_pin, set_pin
from main_server.store.publication import note_status
from main_server.store.records import Device, Status
from main_server.store.rounds import add_round
from main_server.store.versions import (
    add_version,
    find_version,
    newest_version,
    newest_versions,
    release,
)
from shared.errors import NotFound, OutOfOrder
from tests.main_store import read, write

Make = Callable[..., Any]


@pytest.fixture
def small(make_federation: Make, tmp_path: Path) -> Any:
    """A federation that keeps two versions."""
    return make_federation(tmp_path, keep_versions=2)


def finish_a_round(federation: Any) -> str:
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    return str(read(federation.main.store, newest_version, "package").version)


def kept(federation: Any) -> list[int]:
    """Return the rounds of the versions whose parameters are on the disk, newest first."""
    blobs, versions = (
        federation.main.blobs,
        read(federation.main.store, newest_versions, "package", 99),
    )
    there = [each for each in versions if blobs.path(each.version).exists()]
    assert all(each.forgotten is (each not in there) for each in versions)
    return [each.round for each in there]


def test_newest_versions_and_the_parent_of_the_newest_are_kept(small: Any) -> None:
    for _ in range(5):
        finish_a_round(small)
    assert kept(small) == [5, 4, 3, 2, 1, 0]
    freed = prune(small.main, 0)
    assert kept(small) == [5, 4]
    assert freed == pytest.approx(4 * 328_500, rel=0.02)
    assert prune(small.main, 0) == 0


def test_which_versions_there_were_stays_known(small: Any) -> None:
    versions = [finish_a_round(small) for _ in range(4)]
    prune(small.main, 0)
    assert [each.round for each in read(small.main.store, newest_versions, "package", 99)] == [
        4,
        3,
        2,
        1,
        0,
    ]
    assert read(small.main.store, find_version, versions[0]).forgotten


def test_version_that_is_not_kept_any_more_is_not_found(small: Any) -> None:
    versions = [finish_a_round(small) for _ in range(4)]
    prune(small.main, 0)
    with pytest.raises(NotFound, match="no such version, or not any more"):
        small.device("a").get(f"http://main/model/{versions[0]}")
    assert small.device("a").get(f"http://main/model/{versions[3]}").body
    with pytest.raises(NotFound, match="not kept any more"):
        rollback.roll_back(small.main, versions[0])


def test_pinned_version_is_kept(small: Any) -> None:
    finish_a_round(small)
    version = finish_a_round(small)
    for _ in range(3):
        finish_a_round(small)
    write(small.main.store, set_pin, "package", version, 1.0)
    prune(small.main, 0)
    assert kept(small) == [5, 4, 2]
    write(small.main.store, remove_pin, "package", 1.0)
    prune(small.main, 0)
    assert kept(small) == [5, 4]


def test_parent_that_a_version_at_the_gate_may_go_back_to_is_kept(small: Any) -> None:
    first = finish_a_round(small)
    for _ in range(4):
        finish_a_round(small)
    rollback.roll_back(small.main, first)
    prune(small.main, 0)
    assert kept(small) == [6, 5, 4, 1], "4 is what the newest round started from"


def test_base_of_the_open_round_is_kept(small: Any) -> None:
    base = finish_a_round(small)
    opened = small.announce("a")
    assert opened.base_version == base
    version = read(small.main.store, find_version, base)
    for number in (2, 3, 4):
        write(
            small.main.store,
            add_version,
            replace(version, version=str(number) * 64, round=number, parent=None),
        )
    prune(small.main, 0)
    assert not read(small.main.store, find_version, base).forgotten
    assert small.device("a").get(f"http://main/model/{base}").body


def test_young_blobs_stay_because_what_they_are_for_may_not_be_written_down_yet(small: Any) -> None:
    digest = small.main.blobs.put(b"a model that is published in a moment")
    prune(small.main)
    assert small.main.blobs.get(digest)
    assert prune(small.main, 0) == 37


def test_every_detector_is_pruned(small: Any) -> None:
    for _ in range(4):
        finish_a_round(small)
    small.announce("a", "cat")
    prune(small.main, 0)
    assert kept(small) == [4, 3]
    assert read(small.main.store, newest_version, "cat").forgotten is False


def test_scores_go_with_the_version_and_stay_for_those_that_are_kept(small: Any) -> None:
    versions = [finish_a_round(small) for _ in range(4)]
    for version in versions:
        status = Status(None, None, version, (version, 0.9, 10), None)
        write(
            small.main.store, note_status, Device("a", "http://a", 1.0, True), {"package": status}
        )
    prune(small.main, 0)
    assert [len(read(small.main.store, scores, version)) for version in versions] == [0, 0, 1, 1]


def test_contributions_of_old_rounds_go(
    make_federation: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("main_server.models.pruning.KEPT_ROUNDS", 5)
    federation = make_federation(tmp_path, topology="direct")
    settings, store = federation.announce("a"), federation.main.store
    digests = {}
    for number in range(1, 9):
        current = structs.replace(settings, round=number)
        write(store, add_round, current, 1.0)
        digests[number] = federation.main.blobs.put(b"update %d" % number)
        assert write(store, keep_plain_update, current, "a", digests[number], 1.0)
    prune(federation.main, 0)
    left = [
        number
        for number in digests
        if read(store, sent_updates, structs.replace(settings, round=number))
    ]
    assert left == [4, 5, 6, 7, 8]
    assert [
        number for number in digests if federation.main.blobs.path(digests[number]).exists()
    ] == left


def test_events_are_bounded(federation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("main_server.store.events.MAX_EVENTS", 5)
    federation.announce("a")
    for number in range(20):
        write(federation.main.store, remove_pin, "package", float(number))
    newest = read(federation.main.store, newest_event_id)
    prune(federation.main)
    events = read(federation.main.store, newest_events, 99)
    assert [event.at for event in events] == [19.0, 18.0, 17.0, 16.0, 15.0]
    assert read(federation.main.store, newest_event_id) == newest, (
        "whoever waits for news sees none in that"
    )


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happened_nothing_that_is_needed_is_let_go_of(small: Any, seed: int) -> None:
    dice, store = random.Random(seed), small.main.store
    small.announce("a")

    def some_version() -> str:
        return str(dice.choice(read(store, newest_versions, "package", 99)).version)

    def judge() -> None:
        version = read(store, newest_version, "package")
        write(store, release, version.version, small.main.clock())
        for each, accuracy in ((version.parent, 0.9), (version.version, dice.choice([0.1, 0.9]))):
            if each is not None:
                status = Status(None, None, each, (each, accuracy, 10), None)
                device = Device("a", "http://a", small.main.clock(), True)
                write(store, note_status, device, {"package": status})
        late = replace(small.main, clock=lambda: version.made_at + 1e6)
        gate.judge(late, read(store, newest_version, "package"))

    steps = [
        lambda: finish_a_round(small),
        judge,
        lambda: rollback.roll_back(small.main, some_version()),
        lambda: rollback.pin(small.main, some_version()),
        lambda: rollback.unpin(small.main, "package"),
    ]
    for _ in range(14):
        with suppress(OutOfOrder, NotFound):  # pinned, in force already, or not kept any more
            dice.choice(steps)()
        prune(small.main, 0)
        newest, opened = read(store, newest_version, "package"), small.announce("a")
        needed = {newest.version, opened.base_version, *read(store, find_pins).values()}
        needed |= {newest.parent} if newest.parent else set()
        needed |= {each.version for each in read(store, newest_versions, "package", 2)}
        for version in needed:
            assert small.main.blobs.get(version)
            assert not read(store, find_version, version).forgotten
        assert [each.round for each in read(store, newest_versions, "package", 99)] == sorted(
            {each.round for each in read(store, newest_versions, "package", 99)}, reverse=True
        ), "numbers only grow, and each is one version's"
