"""The gate: a version that devices tell fewer pictures apart with is taken back; and the way back
by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learning.architectures import architecture
from main_server.context import MainServer
from main_server.models import gate, rollback
from main_server.models.gate import Comparison
from main_server.models.registry import load_model
from main_server.runs import advance, runs
from main_server.runs.change_notifier import ChangeNotifier
from main_server.runs.tasks import for_device
from main_server.store.evaluations import Score
from main_server.store.events import newest_events
from main_server.store.pins import find_pins
from main_server.store.publication import note_status
from main_server.store.records import Device, Status
from main_server.store.retention import forget_old
from main_server.store.rounds import find_round, newest_round, newest_rounds
from main_server.store.states import ABANDONED, OPEN, PUBLISHED
from main_server.store.versions import (
    add_version,
    find_version,
    newest_version,
    newest_versions,
    release,
)
from shared.errors import InvalidMessage, NotFound, OutOfOrder
from shared.protocol.work import DetectorStatus, DeviceWaits, Install
from tests.main_store import read, write

NOON = 1_900_000_000.0


@dataclass
class Porch:
    """A federation of which the test knows what every device says, at a time of its own."""

    federation: Any
    now: float = NOON

    def __post_init__(self) -> None:
        self.main = self.other()

    def other(self) -> Any:
        """Return one more main server over the same database."""
        main = MainServer.open(self.federation.settings, self.federation.http)
        return replace(main, clock=lambda: self.now)

    def say(
        self, device: str, version: str | None = None, accuracy: float = 0.0, pictures: int = 100
    ) -> None:
        """Let a device wait for work, and say how often it was right with a version."""
        score = None if version is None else (version, accuracy, pictures)
        status = Status(None, None, version, score, None)
        write(
            self.main.store,
            note_status,
            Device(device, f"http://{device}", self.now, True),
            {"package": status},
        )

    def publish(self, *devices: str, released: bool = True) -> Any:
        """Finish a round of these devices, and return its version."""
        for device in devices or ("a", "b"):
            self.federation.upload(device, self.federation.delta())
        self.federation.step("aggregator", "aggregate_models")
        self.federation.step("aggregator", "send_model_secagg")
        if released:
            write(self.main.store, release, self.newest.version, self.now)
        return self.newest

    def judged(self, before: float, after: float, *, main: Any = None) -> Any:
        """Publish a version over another, let both devices report so much for them, and judge it."""
        version = self.publish()
        for device in ("a", "b"):
            self.say(device, version.parent, before)
            self.say(device, version.version, after)
        assert gate.judge(main or self.main, version)
        return read(self.main.store, find_version, version.version)

    @property
    def newest(self) -> Any:
        return read(self.main.store, newest_version, "package")

    def params(self, version: str) -> Any:
        model = load_model(self.main, version)
        return architecture(model.architecture).flatten(model.params)


@pytest.fixture
def porch(federation: Any) -> Porch:
    return Porch(federation)


# --- what is compared


def test_accuracies_are_weighted_by_pictures() -> None:
    parent = (Score("a", 0.9, 1), Score("b", 0.5, 1))
    found = Comparison.of(parent, (Score("a", 0.8, 300), Score("b", 0.7, 100)))
    assert found is not None
    assert found.before == pytest.approx((0.9 * 300 + 0.5 * 100) / 400)
    assert found.after == pytest.approx((0.8 * 300 + 0.7 * 100) / 400)
    assert (found.devices, found.pictures) == (2, 400)
    assert str(found) == "80.0% before, 77.5% after, on 400 validation pictures of 2 devices"


def test_only_devices_that_reported_both_count() -> None:
    parent = (Score("a", 0.9, 10), Score("b", 0.1, 10))
    found = Comparison.of(parent, (Score("a", 0.8, 10), Score("c", 0.0, 1000)))
    assert found == Comparison(0.9, 0.8, 1, 10)
    assert str(found).endswith("of 1 device")


@pytest.mark.parametrize(
    ("parent", "version"),
    [((), ()), ((Score("a", 1, 1),), (Score("b", 1, 1),)), ((), (Score("a", 1, 1),))],
)
def test_without_a_device_that_reported_both_there_is_nothing_to_compare(
    parent: Any, version: Any
) -> None:
    assert Comparison.of(parent, version) is None


def test_devices_without_validation_pictures_weigh_nothing() -> None:
    assert Comparison.of((Score("a", 0.9, 10),), (Score("a", 0.0, 0),)) is None
    assert Comparison.of((Score("a", 0.0, 0),), (Score("a", 0.9, 10),)) is None
    both = Comparison.of(
        (Score("a", 0.9, 10), Score("b", 0.0, 0)), (Score("a", 0.8, 10), Score("b", 0.7, 99))
    )
    assert both == Comparison(0.9, 0.8, 1, 10)


def test_device_that_has_nothing_to_ask_a_version_is_not_waited_for(porch: Porch) -> None:
    version = porch.publish()
    porch.say("a", version.parent, 0.8)
    porch.say("a", version.version, 0.9)
    porch.say("b")
    assert not gate.judge(porch.main, version)
    silent = Status(None, None, version.version, None, None)
    write(
        porch.main.store, note_status, Device("b", "http://b", porch.now, True), {"package": silent}
    )
    assert gate.judge(porch.main, read(porch.main.store, find_version, version.version))
    assert read(porch.main.store, find_version, version.version).gate == "passed"


# --- the verdict


def test_version_that_is_better_passes(porch: Porch) -> None:
    version = porch.judged(0.8, 0.9)
    assert (version.gate, version.said) == (
        "passed",
        "80.0% before, 90.0% after, on 200 validation pictures of 2 devices.",
    )
    assert porch.newest.version == version.version


@pytest.mark.parametrize(("before", "after"), [(0.4, 0.3), (0.8, 0.7), (1.0, 0.9)])
def test_fall_by_just_as_much_as_is_allowed_passes(
    porch: Porch, before: float, after: float
) -> None:
    version = porch.publish()
    for device, pictures in (("a", 7), ("b", 13)):
        porch.say(device, version.parent, before, pictures)
        porch.say(device, version.version, after, pictures)
    assert gate.judge(porch.main, version)
    assert read(porch.main.store, find_version, version.version).gate == "passed"


def test_fall_by_more_than_is_allowed_puts_the_parents_params_back_in_force(porch: Porch) -> None:
    first = porch.judged(0.8, 0.9)
    opened = porch.federation.announce("a")
    assert opened.round == 2
    rejected = porch.judged(0.9, 0.79)
    assert rejected.gate == "rejected"
    assert "90.0% before, 79.0% after" in rejected.said
    again = porch.newest
    assert (again.parent, again.gate, again.architecture) == (
        first.version,
        "passed",
        first.architecture,
    )
    assert again.round > rejected.round
    np.testing.assert_array_equal(
        porch.params(again.version).view(np.uint32),
        porch.params(first.version).view(np.uint32),
        "bit for bit",
    )
    assert not np.array_equal(porch.params(rejected.version), porch.params(first.version))


def test_rejection_gives_up_the_open_round_and_offers_the_devices_the_version_in_force(
    porch: Porch,
) -> None:
    porch.judged(0.8, 0.9)
    version = porch.publish()
    opened = porch.federation.announce("a")
    for device in ("a", "b"):
        porch.say(device, version.parent, 0.9)
        porch.say(device, version.version, 0.1)
    assert gate.judge(porch.main, version)
    assert [each.state for each in read(porch.main.store, newest_rounds, "package", 9)] == [
        ABANDONED,
        PUBLISHED,
        PUBLISHED,
    ]
    status = DetectorStatus(None, None, version.version, None, None, None)
    said = DeviceWaits("http://a", 0, {"package": status})
    work = for_device(porch.main, ChangeNotifier(porch.main), porch.federation.caller("a"), said)
    assert work.tasks == (Install("package", porch.newest.version),)
    following = porch.federation.announce("a")
    assert following.base_version == porch.newest.version
    assert following.round > max(opened.round, porch.newest.round)


def test_run_goes_on_from_the_version_that_a_rejection_put_in_force(porch: Porch) -> None:
    porch.judged(0.8, 0.9)
    runs.start(porch.main, "package", 2)
    version = porch.publish()
    assert version.released_at is not None, "a run gives what it makes to the devices at once"
    for device in ("a", "b"):
        porch.say(device, version.parent, 0.9)
        porch.say(device, version.version, 0.1)
    for _ in range(3):
        advance.advance(porch.main)
    current = read(porch.main.store, newest_round, "package")
    assert (current.state, current.plan.base_version) == (OPEN, porch.newest.version)
    assert current.asked_at == porch.now
    assert porch.newest.parent == version.parent


def test_limit_is_the_operators(make_federation: Callable[..., Any], tmp_path: Path) -> None:
    porch = Porch(make_federation(tmp_path, max_regression=0.5))
    assert porch.judged(0.9, 0.4).gate == "passed"
    assert porch.judged(0.9, 0.39).gate == "rejected"


def test_gate_waits_until_everybody_who_is_there_has_reported(porch: Porch) -> None:
    version = porch.publish()
    for device in ("a", "b", "c"):
        porch.say(device)
    for device in ("a", "b"):
        porch.say(device, version.parent, 0.9)
        porch.say(device, version.version, 0.9)
        assert not gate.judge(porch.main, version)
    porch.now += 76  # c is not there any more, a and b are
    porch.say("a")
    porch.say("b")
    assert gate.judge(porch.main, version)
    assert read(porch.main.store, find_version, version.version).gate == "passed"


def test_gate_with_nobody_there_waits_until_the_deadline_and_stays_unchecked(porch: Porch) -> None:
    version = porch.publish()
    porch.now += 119
    assert not gate.judge(porch.main, version)
    porch.now += 1
    assert gate.judge(porch.main, version)
    judged = read(porch.main.store, find_version, version.version)
    assert judged.gate == "unchecked"
    assert judged.said == "No device reported an accuracy both for it and for the version before."
    assert porch.newest == judged


def test_what_some_reported_decides_at_the_deadline(porch: Porch) -> None:
    version = porch.publish()
    porch.now += 120
    for device in ("a", "b"):
        porch.say(device)
    porch.say("a", version.parent, 0.9)
    porch.say("a", version.version, 0.2)
    assert gate.judge(porch.main, version)
    assert read(porch.main.store, find_version, version.version).gate == "rejected"


def test_version_that_is_not_given_to_devices_is_not_judged(porch: Porch) -> None:
    version = porch.publish(released=False)
    porch.now += 1000
    assert not gate.judge(porch.main, version)
    assert read(porch.main.store, find_version, version.version).gate == "pending"


@pytest.mark.parametrize("released", [True, False])
def test_version_that_a_newer_one_follows_stays_unchecked(porch: Porch, released: bool) -> None:
    version = porch.publish(released=released)
    porch.say("a", version.parent, 0.9)
    porch.say("a", version.version, 0.1)
    newer = porch.publish(released=released)
    advance.advance(porch.main)
    judged = read(porch.main.store, find_version, version.version)
    assert (judged.gate, judged.said) == (
        "unchecked",
        "The version of round 2 came before the devices had answered.",
    )
    assert porch.newest.version == newer.version


def test_version_0_needs_no_gate(porch: Porch) -> None:
    porch.federation.announce("a")
    assert gate.judge(porch.main, porch.newest)
    assert porch.newest.gate == "unchecked"


def test_many_that_judge_at_once_judge_once(porch: Porch) -> None:
    version = porch.publish()
    for device in ("a", "b"):
        porch.say(device, version.parent, 0.9)
        porch.say(device, version.version, 0.1)
    servers, start, closed = [porch.other() for _ in range(3)], threading.Barrier(6), []

    def work(server: Any) -> None:
        start.wait(60)
        closed.append(gate.judge(server, version))

    threads = [threading.Thread(target=work, args=(servers[each % 3],)) for each in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(closed) == [False] * 5 + [True]
    assert [each.round for each in read(porch.main.store, newest_versions, "package", 9)] == [
        2,
        1,
        0,
    ]
    assert [each.kind for each in read(porch.main.store, newest_events, 99)].count("rejected") == 1


# --- the way back by hand


def test_roll_back_puts_old_params_in_force_under_a_higher_number(porch: Porch) -> None:
    first = porch.judged(0.8, 0.9)
    porch.judged(0.9, 0.9)
    opened = porch.federation.announce("a")
    done = rollback.roll_back(porch.main, first.version[:6])
    assert done.said == "The package model of round 1 is active again, as that of round 3."
    assert done.figures == {"version": porch.newest.version, "round": 3}
    assert (porch.newest.parent, porch.newest.gate, porch.newest.released_at) == (
        first.version,
        "passed",
        porch.now,
    )
    np.testing.assert_array_equal(
        porch.params(porch.newest.version).view(np.uint32),
        porch.params(first.version).view(np.uint32),
    )
    assert read(porch.main.store, find_round, "package", opened.round).state == ABANDONED
    assert porch.federation.announce("a").base_version == porch.newest.version


def test_what_was_rolled_back_to_is_not_rolled_back_to_again(porch: Porch) -> None:
    first = porch.judged(0.8, 0.9)
    with pytest.raises(OutOfOrder, match="active already"):
        rollback.roll_back(porch.main, first.version)
    assert [each.round for each in read(porch.main.store, newest_versions, "package", 9)] == [1, 0]


def test_unknown_version_is_not_found(porch: Porch) -> None:
    porch.publish()
    with pytest.raises(NotFound, match="No version begins with 000000"):
        rollback.roll_back(porch.main, "000000")
    with pytest.raises(NotFound, match="No version begins with 000000"):
        rollback.pin(porch.main, "000000")


def test_beginning_that_two_versions_share_is_not_found(porch: Porch) -> None:
    version = porch.publish()
    for number in (7, 8):
        write(
            porch.main.store,
            add_version,
            replace(version, version=f"abcdef{number}" + "0" * 57, round=number),
        )
    with pytest.raises(NotFound, match="More than one version begins with abcdef"):
        rollback.roll_back(porch.main, "abcdef")
    assert porch.newest.round == 8


def test_text_that_is_no_beginning_of_a_version_is_refused(porch: Porch) -> None:
    porch.publish()
    for text in (
        "",
        "abcde",
        "ABCDEF",
        "%%%%%%",
        "______",
        "abcdef\0",
        "abcdef\n",
        "g" * 8,
        "0" * 65,
        "é" * 6,
    ):
        for verb in (rollback.roll_back, rollback.pin):
            with pytest.raises(InvalidMessage, match="Not a version prefix"):
                verb(porch.main, text)


def test_version_whose_parameters_are_gone_is_not_rolled_back_to(porch: Porch) -> None:
    porch.federation.announce("a")
    first = porch.newest
    for _ in range(3):
        porch.publish()
    write(porch.main.store, forget_old, "package", 2, 100)
    assert read(porch.main.store, find_version, first.version).forgotten
    before = porch.newest
    for verb in (rollback.roll_back, rollback.pin):
        with pytest.raises(
            NotFound, match=f"The parameters of {first.version[:12]} are not kept any more"
        ):
            verb(porch.main, first.version)
    assert porch.newest == before
    assert read(porch.main.store, find_pins) == {}


# --- pins


def test_pinned_detector_takes_no_sum_and_keeps_what_was_sent(porch: Porch) -> None:
    porch.federation.announce("a")
    version = porch.newest
    for device in ("a", "b"):
        porch.federation.upload(device, porch.federation.delta())
    said = rollback.pin(porch.main, version.version[:8]).said
    assert (
        said
        == "package is pinned to the model of round 0: no round changes it until it is unpinned."
    )
    porch.federation.step("aggregator", "aggregate_models")
    with pytest.raises(OutOfOrder, match="package is pinned to a version"):
        porch.federation.step("aggregator", "send_model_secagg")
    assert porch.newest.version == version.version
    assert (
        rollback.unpin(porch.main, "package").said
        == "package is not pinned any more: rounds change its model again."
    )
    porch.federation.step("aggregator", "send_model_secagg")
    assert porch.newest.round == 1


def test_pin_to_an_earlier_version_goes_back_to_it_and_a_second_pin_moves_it(porch: Porch) -> None:
    first, second = porch.judged(0.8, 0.9), porch.judged(0.9, 0.9)
    done = rollback.pin(porch.main, first.version)
    assert (
        read(porch.main.store, find_pins)
        == {"package": porch.newest.version}
        == {"package": done.figures["version"]}
    )
    assert porch.newest.parent == first.version
    rollback.pin(porch.main, second.version)
    assert porch.newest.parent == second.version
    assert read(porch.main.store, find_pins) == {"package": porch.newest.version}


def test_pinned_detector_is_not_rolled_back(porch: Porch) -> None:
    first, second = porch.judged(0.8, 0.9), porch.judged(0.9, 0.9)
    rollback.pin(porch.main, second.version)
    with pytest.raises(OutOfOrder, match="package is pinned to a version"):
        rollback.roll_back(porch.main, first.version)
    assert porch.newest.version == second.version


def test_pinned_version_is_given_to_devices_and_no_gate_takes_it_back(porch: Porch) -> None:
    version = porch.publish(released=False)
    rollback.pin(porch.main, version.version)
    assert porch.newest.released_at == porch.now
    for device in ("a", "b"):
        porch.say(device, version.parent, 0.9)
        porch.say(device, version.version, 0.1)
    advance.advance(porch.main)
    assert (porch.newest.version, porch.newest.gate) == (version.version, "unchecked")
    assert porch.newest.said == "package was pinned to it."


def test_detector_that_is_not_pinned_is_not_unpinned(porch: Porch) -> None:
    with pytest.raises(OutOfOrder, match="raccoon is not pinned"):
        rollback.unpin(porch.main, "raccoon")
    with pytest.raises(InvalidMessage):
        rollback.unpin(porch.main, "No Name")
