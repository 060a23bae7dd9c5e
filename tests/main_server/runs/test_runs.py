"""Rounds that run by themselves: two devices and an aggregator ask for work, and whoever likes to
advances the run.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from main_server.context import MainServer
from main_server.models import rollback
from main_server.rounds.aggregation import accept_aggregate
from main_server.runs import advance, runs
from main_server.runs.change_notifier import ChangeNotifier
from main_server.runs.tasks import for_aggregator, for_device
from main_server.store.events import newest_events
from main_server.store.pins import set_pin
from main_server.store.rounds import (
    ask_for_updates,
    fail_round,
    find_round,
    make_due,
    newest_round,
    newest_rounds,
)
from main_server.store.runs import FINISHED, RUNNING, STOPPED, newest_runs
from main_server.store.states import ABANDONED, FAILED, OPEN, PUBLISHED
from main_server.store.versions import find_version, newest_version, newest_versions
from shared.errors import InvalidMessage, NotFound, OutOfOrder
from shared.messages import convert
from shared.protocol.work import AggregatorWaits, DeviceWaits
from shared.round.payloads import Aggregate
from shared.storage.database import Database
from tests.main_store import read, write
from tests.updates import masked_update, plain_update

NOON, DEADLINE = 1_900_000_000.0, 600.0
SAID = {
    "trained_round": None,
    "sent_round": None,
    "held": None,
    "score": None,
    "setback": None,
    "refused": None,
}


@dataclass
class House:
    """A device: what it says of each detector, and how well it tells its own pictures apart."""

    name: str
    said: dict[str, dict[str, Any]]
    accuracy: float = 0.9


@dataclass
class Street:
    """Devices and an aggregator that ask for work and do it, at a time of the test's own."""

    federation: Any
    houses: dict[str, House] = field(default_factory=dict)
    uploads: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    now: float = NOON
    detectors: tuple[str, ...] = ("package",)
    main: Any = None

    def __post_init__(self) -> None:
        self.open(self.federation.main)

    def open(self, main: Any = None) -> None:
        """Let the main server begin anew over what it wrote down."""
        main = main or MainServer.open(self.federation.settings, self.federation.http)
        self.main = replace(main, clock=lambda: self.now)

    def ask(self, name: str) -> list[dict[str, Any]]:
        """Let a device say what it has, and return what it is to do."""
        if name not in self.houses:
            self.houses[name] = House(name, {detector: dict(SAID) for detector in self.detectors})
        said = {"address": f"http://{name}", "wait_s": 0, "detectors": self.houses[name].said}
        message = convert(DeviceWaits, said)
        work = for_device(
            self.main, ChangeNotifier(self.main), self.federation.caller(name), message
        )
        return list(work.to_json()["tasks"])

    def ask_for_sums(self) -> list[dict[str, Any]]:
        """Return what the aggregator is to do."""
        work = for_aggregator(self.main, ChangeNotifier(self.main), AggregatorWaits(0))
        return list(work.to_json()["tasks"])

    def send(self, name: str, detector: str = "package", scale: float = 0.01) -> int:
        """Send a device's update for the open round; return its number."""
        settings = read(self.main.store, newest_round, detector).plan
        if settings.topology == "direct":
            body = plain_update(self.federation.delta(scale), 10, settings, name).to_bytes()
            self.federation.device(name).post("http://main/cmodel", body)
        else:
            update = masked_update(
                self.federation.delta(scale), 10, settings, name, self.federation.rng
            )
            self.uploads.setdefault((detector, settings.round), {})[name] = update
        return int(settings.round)

    def do(self, name: str, task: dict[str, Any]) -> None:
        """Install, or train and send, as a device does."""
        house, detector = self.houses[name], task["detector"]
        if task["do"] == "install":
            score = {"version": task["version"], "accuracy": house.accuracy, "pictures": 80}
            house.said[detector] |= {"held": task["version"], "score": score}
        else:
            assert task["do"] == "train" and self.send(name, detector) == task["round"]
            house.said[detector] |= {"trained_round": task["round"], "sent_round": task["round"]}

    def visit(self, *names: str) -> None:
        """Let devices ask, do what they are told, and say so."""
        for name in names:
            for task in self.ask(name):
                self.do(name, task)
            self.ask(name)

    def sum_of(self, detector: str, number: int, **changed: Any) -> bytes:
        """Add up what was sent for a round."""
        updates = self.uploads[detector, number]
        settings = read(self.main.store, find_round, detector, number).plan
        total = np.zeros(settings.size + 2, np.uint32)
        for update in updates.values():
            total += update.masked
        seeds = {device: update.sealed_seed for device, update in updates.items()}
        members = {"detector": detector, "round": number, "base_version": settings.base_version}
        return Aggregate(**(members | {"sealed_seeds": seeds, "sum": total} | changed)).to_bytes()

    def add_up(self) -> None:
        """Add up what is to be added up, where enough updates are there."""
        for task in self.ask_for_sums():
            if len(self.uploads.get((task["detector"], task["round"]), ())) >= 2:
                accept_aggregate(self.main, self.sum_of(task["detector"], task["round"]))

    def advance(self, steps: int = 1) -> None:
        for _ in range(steps):
            advance.advance(self.main)

    def turn(self, *names: str) -> None:
        """Let everybody do what is next."""
        self.visit(*names)
        self.advance()
        self.add_up()

    def begin(self, rounds: int = 3, *names: str) -> None:
        """Let devices appear, start a run, and let it ask for its first round."""
        self.visit(*(names or ("a", "b")))
        runs.start(self.main, "package", rounds)
        self.advance()
        assert self.round.asked_at == self.now

    @property
    def round(self) -> Any:
        return read(self.main.store, newest_round, "package")

    @property
    def run(self) -> Any:
        return read(self.main.store, newest_runs)[0]

    def states(self, detector: str = "package") -> list[str]:
        """Return the states of all rounds, oldest first."""
        return [each.state for each in reversed(read(self.main.store, newest_rounds, detector, 99))]

    def kinds(self, *kinds: str) -> list[tuple[str, int | None]]:
        """Return what happened, of these kinds, oldest first, each with its round."""
        return [
            (each.kind, each.round)
            for each in reversed(read(self.main.store, newest_events, 999))
            if each.kind in kinds
        ]


class Signed(Street):
    """The same with signed messages over the wire, and the real aggregator."""

    def ask(self, name: str) -> list[dict[str, Any]]:
        if name not in self.houses:
            self.houses[name] = House(name, {detector: dict(SAID) for detector in self.detectors})
        said = {"address": f"http://{name}", "wait_s": 0, "detectors": self.houses[name].said}
        answer = self.federation.device(name).post_json("http://main/work", said).json
        assert answer["name"] == name
        return list(answer["tasks"])

    def send(self, name: str, detector: str = "package", scale: float = 0.01) -> int:
        self.federation.upload(name, self.federation.delta(scale), detector=detector)
        return int(read(self.main.store, newest_round, detector).plan.round)

    def add_up(self) -> None:
        for task in self.federation.as_aggregator.post_json("http://main/work", {"wait_s": 0}).json[
            "tasks"
        ]:
            assert (
                self.federation.step("aggregator", "aggregate_models", task["detector"])["round"]
                == task["round"]
            )
            self.federation.step("aggregator", "send_model_secagg", task["detector"])


@pytest.fixture
def street(federation: Any) -> Street:
    return Street(federation)


@pytest.fixture
def direct(make_federation: Callable[..., Any], tmp_path: Path) -> Street:
    return Street(make_federation(tmp_path, topology="direct"))


def until_finished(street: Street, *names: str) -> None:
    for _ in range(30):
        street.turn(*(names or ("a", "b")))
        if all(run.state == FINISHED for run in read(street.main.store, newest_runs)):
            return
    raise AssertionError(f"{street.run} after 30 turns: {street.states()}")


# --- a run from its beginning to its end


def test_run_of_three_rounds_ends_finished_with_three_published_rounds(federation: Any) -> None:
    street = Signed(federation)
    street.main = federation.main
    street.visit("a", "b")
    said = federation.http.post("http://main/run?detector=package&rounds=3", b"").json["said"]
    assert "A run of 3 rounds has begun with round 1." in said
    until_finished(street)
    assert street.states() == [PUBLISHED] * 3
    assert [each.cohort for each in read(street.main.store, newest_rounds, "package", 9)] == [
        ("a", "b")
    ] * 3
    versions = read(street.main.store, newest_versions, "package", 9)
    assert [(each.round, each.gate) for each in versions] == [
        (3, "passed"),
        (2, "passed"),
        (1, "passed"),
        (0, "unchecked"),
    ]
    assert [each.parent for each in versions] == [*(each.version for each in versions[1:]), None]
    assert (street.run.state, street.run.said) == (FINISHED, "All 3 rounds are done.")
    assert {house.said["package"]["held"] for house in street.houses.values()} == {
        versions[0].version
    }
    street.turn("a", "b")
    assert street.states() == [PUBLISHED] * 3, "nothing goes on after a run"


def test_every_step_of_a_run_is_written_down_once(street: Street) -> None:
    street.begin(2)
    until_finished(street)
    for kind in ("opened", "asked", "due", "published", "passed"):
        assert street.kinds(kind) == [(kind, 1), (kind, 2)]
    assert [kind for kind, _ in street.kinds("run-started", "run-finished")] == [
        "run-started",
        "run-finished",
    ]


def test_run_opens_no_round_before_the_devices_said_what_they_make_of_the_last(
    street: Street,
) -> None:
    street.begin()
    street.turn("a", "b")
    street.advance(3)
    assert street.states() == [PUBLISHED]
    street.visit("a")
    street.advance(3)
    assert street.states() == [PUBLISHED], "b is there as well, and has not reported"
    street.visit("b")
    street.advance(3)
    assert street.states() == [PUBLISHED, OPEN]


def test_run_in_the_direct_topology_needs_no_aggregator(direct: Street) -> None:
    direct.begin(2)
    for _ in range(12):
        direct.visit("a", "b")
        direct.advance()
        assert direct.ask_for_sums() == []
    assert (direct.run.state, direct.states()) == (FINISHED, [PUBLISHED] * 2)


def test_direct_run_with_one_update_waits_without_adding_up_and_takes_the_second_when_it_comes(
    direct: Street, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    direct.begin(1)
    direct.visit("a")
    direct.now += DEADLINE
    direct.ask("a")
    direct.advance(3)
    assert direct.round.due_at is not None
    assert not caplog.messages, "it is not tried over and over"
    direct.visit("b")
    direct.advance()
    assert direct.states() == [PUBLISHED]


def test_all_detectors_run_beside_one_another_and_one_that_is_not_ready_holds_nothing_up(
    federation: Any,
) -> None:
    street = Street(federation, detectors=("package", "raccoon", "van"))
    street.visit("a", "b")
    for detector in street.detectors:
        runs.start(street.main, detector, 2)
    street.advance()
    write(
        street.main.store,
        set_pin,
        "raccoon",
        read(street.main.store, newest_version, "raccoon").version,
        street.now,
    )
    for _ in range(12):
        street.visit("a", "b")
        street.advance()
        for task in street.ask_for_sums():
            with suppress(OutOfOrder):
                accept_aggregate(street.main, street.sum_of(task["detector"], task["round"]))
    assert {run.detector: run.state for run in read(street.main.store, newest_runs)} == {
        "package": FINISHED,
        "raccoon": RUNNING,
        "van": FINISHED,
    }
    assert street.states("package") == street.states("van") == [PUBLISHED] * 2
    assert street.states("raccoon") == [OPEN]


def test_detector_whose_gate_fails_holds_up_no_other(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.detectors = ("cat", "package")
    street.begin(2)
    judged = advance.judge

    def fails(server: Any, version: Any) -> bool:
        if version.detector == "cat":
            raise NotFound("Its parent is gone.")
        return judged(server, version)

    monkeypatch.setattr(advance, "judge", fails)
    runs.start(street.main, "cat", 2)
    for _ in range(10):
        street.turn("a", "b")
    assert {run.detector: run.state for run in read(street.main.store, newest_runs)} == {
        "cat": RUNNING,
        "package": FINISHED,
    }


# --- whoever advances it, and however often


def test_many_that_advance_a_run_at_once_do_nothing_twice(street: Street) -> None:
    street.begin(2)
    servers = [
        MainServer.open(street.federation.settings, street.federation.http) for _ in range(3)
    ]
    servers = [replace(server, clock=lambda: street.now) for server in servers]
    failures: list[BaseException] = []

    def work(server: MainServer, start: threading.Barrier) -> None:
        try:
            start.wait(60)
            advance.advance(server)
        except BaseException as error:  # whatever it is, the test must see it
            failures.append(error)

    for _ in range(14):
        street.visit("a", "b")
        start = threading.Barrier(6)
        threads = [
            threading.Thread(target=work, args=(servers[each % 3], start)) for each in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        street.add_up()
    assert not failures
    assert street.run.state == FINISHED
    assert [kind for kind, _ in street.kinds("run-finished")] == ["run-finished"]
    published = street.kinds("published")
    assert published == [("published", 1), ("published", 2)]
    for kind in ("opened", "asked", "due", "passed"):
        assert street.kinds(kind)[:2] == [(kind, 1), (kind, 2)]
        assert len(set(street.kinds(kind))) == len(street.kinds(kind))


def test_server_that_decides_late_does_not_undo_what_another_decided(street: Street) -> None:
    street.begin()
    asked = street.round
    street.visit("a", "b")
    street.now += 1
    street.advance()
    due = street.round
    assert due.due_at == street.now
    write(
        street.main.store, ask_for_updates, asked.plan, street.now + 5, None
    )  # of one that read the round before it was asked for
    assert street.round == due


def test_restart_between_any_two_steps_goes_on(street: Street) -> None:
    street.begin(2)
    for _ in range(8):
        for step in (
            lambda: street.visit("a"),
            lambda: street.visit("b"),
            street.advance,
            street.add_up,
        ):
            street.open()
            step()
    assert (street.run.state, street.states()) == (FINISHED, [PUBLISHED] * 2)


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_before_or_after_any_transaction_loses_and_doubles_nothing(
    street: Street, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    street.begin(2)
    dice, really = random.Random(seed), Database.write
    for name in ("a", "b"):
        street.federation.caller(name)

    @contextmanager
    def write(self: Database, alone: bool = True) -> Iterator[Any]:
        fate = dice.random() if self.folder == street.federation.settings.folder else 1.0
        if fate < 0.15:
            raise Killed
        with really(self, alone) as connection:
            yield connection
        if fate < 0.3:
            raise Killed

    monkeypatch.setattr(Database, "write", write)
    killed = 0
    for _ in range(60):
        for step in (
            lambda: street.visit("a"),
            lambda: street.visit("b"),
            street.advance,
            street.add_up,
        ):
            try:
                step()
            except Killed:
                killed += 1
                street.open()
            except OutOfOrder as error:
                assert "has had its one sum" in str(error), "the answer to the sum was lost"
        if street.run.state == FINISHED:
            break
    assert killed > 5
    assert street.run.state == FINISHED
    assert street.kinds("published") == [("published", 1), ("published", 2)]
    assert street.states()[:2] == [PUBLISHED] * 2


# --- who is waited for, and how long


def test_round_with_fewer_updates_than_needed_waits_and_still_asks_whoever_comes(
    street: Street,
) -> None:
    street.begin()
    street.visit("a")
    street.now += DEADLINE - 1
    street.ask("a")
    street.advance()
    assert street.ask_for_sums() == []
    street.now += 1
    street.ask("a")
    street.advance(3)
    assert street.ask_for_sums() == [{"do": "aggregate", "detector": "package", "round": 1}]
    assert street.states() == [OPEN]
    street.visit("b")
    street.add_up()
    assert street.states() == [PUBLISHED]
    assert street.round.cohort == ("a", "b")


def test_deadline_with_enough_updates_sums_without_the_rest(street: Street) -> None:
    street.begin(3, "a", "b", "c")
    street.visit("a", "b")
    for _ in range(10):
        street.now += DEADLINE / 10
        assert street.round.due_at is None
        for name in "abc":
            street.ask(name)
        street.advance()
    assert [each["do"] for each in street.ask("c")] == ["install"], (
        "c is not asked to train any more"
    )
    street.add_up()
    assert street.round.cohort == ("a", "b")
    street.ask("c")
    street.visit("a", "b", "c")
    street.turn("a", "b", "c")
    street.visit("c")
    assert street.round.plan.round == 2
    assert street.houses["c"].said["package"]["sent_round"] == 2


def test_device_that_vanished_after_its_upload_and_before_it_said_so_is_in_the_sum(
    street: Street,
) -> None:
    street.begin()
    street.visit("a")
    street.send("b")
    street.now += DEADLINE
    street.ask("a")
    street.advance()
    street.add_up()
    assert (street.states(), street.round.cohort) == ([PUBLISHED], ("a", "b"))


def test_device_that_vanished_before_its_upload_is_not_waited_for(street: Street) -> None:
    street.begin(3, "a", "b", "c")
    for _ in range(4):
        street.visit("a", "b")
        street.advance()
        assert street.round.due_at is None, "c may still come"
        street.now += 25
    street.visit("a", "b")
    street.advance()
    assert street.round.due_at == street.now
    assert street.now - NOON < DEADLINE
    assert "All 2 devices that are online" in read(street.main.store, newest_events, 1)[0].said


def test_target_cohort_is_enough(make_federation: Callable[..., Any], tmp_path: Path) -> None:
    street = Street(make_federation(tmp_path, target_cohort=2))
    street.begin(3, "a", "b", "c")
    street.visit("a")
    street.advance()
    assert street.round.due_at is None
    street.visit("c")
    street.advance()
    assert [each["do"] for each in street.ask("b")] == ["install"]
    street.add_up()
    assert street.round.cohort == ("a", "c")


def test_target_cohort_that_does_not_come_is_waited_for_until_the_deadline(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    street = Street(make_federation(tmp_path, target_cohort=3))
    street.begin()
    street.visit("a", "b")
    street.advance()
    assert street.round.due_at is None
    street.now += DEADLINE
    street.advance()
    street.add_up()
    assert street.states() == [PUBLISHED]


def test_straggler_for_a_closed_round_is_refused_and_gets_the_next_ones_task(
    federation: Any,
) -> None:
    street = Signed(federation)
    street.main = federation.main
    street.visit("a", "b")
    runs.start(street.main, "package", 3)
    street.advance()
    (late,) = [task for task in street.ask("c") if task["do"] == "train"]
    body = masked_update(federation.delta(), 10, street.round.plan, "c", federation.rng).to_bytes()
    write(street.main.store, make_due, street.round.plan, 1.0, "The deadline is over.")
    for name in ("a", "b"):
        street.send(name)
    street.add_up()
    street.turn("a", "b", "c")
    with pytest.raises(OutOfOrder):
        federation.device("c").post("http://aggregator/cmodel", body)
    street.visit("a", "b", "c")
    street.advance(2)
    street.visit("a", "b", "c")
    assert (late["round"], street.houses["c"].said["package"]["sent_round"]) == (1, 2)


def test_clock_that_is_set_back_lets_the_deadline_begin_again(street: Street) -> None:
    street.begin()
    street.visit("a")
    street.now -= 10 * DEADLINE
    street.advance()
    assert street.round.asked_at == street.now
    street.now += DEADLINE
    street.advance()
    assert street.round.due_at == street.now


def test_gate_does_not_hang_when_the_clock_is_set_back(street: Street) -> None:
    street.begin()
    street.turn("a", "b")
    street.now -= 10 * DEADLINE
    street.advance()
    assert read(street.main.store, newest_version, "package").gate == "unchecked"


def test_time_in_which_a_run_stood_still_does_not_count(street: Street) -> None:
    street.begin()
    runs.stop(street.main, "package")
    street.now += 100 * DEADLINE
    runs.resume(street.main, "package")
    street.advance(2)
    assert (street.round.asked_at, street.round.due_at) == (street.now, None)
    runs.stop(street.main, "package")
    street.now += 100 * DEADLINE
    runs.start(street.main, "package", 1)
    street.advance(2)
    assert (street.round.asked_at, street.round.due_at) == (street.now, None)


# --- what goes wrong


def test_setback_is_not_asked_for_again_in_this_round_and_is_in_the_next(street: Street) -> None:
    street.begin(3, "a", "b", "c")
    street.ask("c")
    street.houses["c"].said["package"]["setback"] = {"round": 1, "said": "The pictures are gone."}
    assert [task["do"] for task in street.ask("c")] == ["install"]
    street.visit("a", "b", "c")
    street.advance()
    assert "All 2 devices" in read(street.main.store, newest_events, 1)[0].said, (
        "it is not waited for"
    )
    street.add_up()
    street.turn("a", "b", "c")
    street.advance(2)
    assert street.round.plan.round == 2
    assert {"do": "train", "detector": "package", "round": 2} in street.ask("c")


def test_round_that_lacks_devices_that_failed_is_given_up_so_that_they_are_asked_again(
    street: Street,
) -> None:
    street.begin(1)
    street.visit("a")
    street.ask("b")
    street.houses["b"].said["package"]["setback"] = {
        "round": 1,
        "said": "No answer from the aggregator.",
    }
    street.now += DEADLINE
    street.visit("a", "b")
    street.advance()
    assert street.round.due_at == street.now
    street.now += DEADLINE - 1
    street.visit("a", "b")
    street.advance()
    assert street.states() == [OPEN]
    street.now += 1
    street.visit("a", "b")
    street.advance(3)
    assert street.states() == [ABANDONED, OPEN]
    until_finished(street)
    assert street.states() == [ABANDONED, PUBLISHED]


def test_three_sums_in_a_row_that_make_no_sense_stop_the_run_and_it_can_be_resumed(
    street: Street,
) -> None:
    street.begin(3)
    for number in (1, 2, 3):
        street.visit("a", "b")
        street.advance()
        with pytest.raises(InvalidMessage, match="makes no sense"):
            bad = np.full(82_051, 2**31, np.uint32)
            accept_aggregate(street.main, street.sum_of("package", number, sum=bad))
        street.advance(2)
    assert (street.run.state, street.run.said) == (
        STOPPED,
        "3 consecutive rounds failed to unmask.",
    )
    assert street.states() == [FAILED] * 3
    runs.resume(street.main, "package")
    street.advance(2)
    assert (street.run.state, street.states()) == (RUNNING, [FAILED] * 3 + [OPEN])
    until_finished(street)
    assert street.states() == [FAILED] * 3 + [PUBLISHED] * 3


def test_two_sums_that_make_no_sense_stop_nothing(street: Street) -> None:
    street.begin(1)
    for _ in (1, 2):
        write(street.main.store, fail_round, street.round.plan, "", street.now)
        street.advance(2)
    until_finished(street)
    assert street.states() == [FAILED, FAILED, PUBLISHED]


def test_direct_sum_that_makes_no_sense_fails_the_round(direct: Street) -> None:
    overshooting = replace(direct.main.settings, server_learning_rate=10.0)
    direct.main = replace(direct.main, settings=overshooting)
    direct.begin(1)
    direct.visit("a", "b")
    base = direct.federation.params()
    settings = direct.round.plan
    for name in ("a", "b"):
        huge = np.full(settings.size, 3e38, np.float32)
        body = plain_update(huge, 4096, settings, name).to_bytes()
        direct.federation.device(name).post("http://main/cmodel", body)
    with np.errstate(over="ignore"):
        direct.advance(2)
    assert direct.states()[0] == FAILED
    np.testing.assert_array_equal(direct.federation.params(), base)


# --- the operator


def test_stopped_run_asks_for_nothing_and_goes_on_where_it_was(street: Street) -> None:
    street.begin(2)
    street.visit("a")
    street.ask("b")
    said = runs.stop(street.main, "package").said
    assert said.startswith("The run is stopped: 0 of 2 rounds are done.")
    assert street.ask_for_sums() == []
    street.now += 3600
    street.advance(3)
    assert [task["do"] for task in street.ask("b")] == ["install"]
    assert street.states() == [OPEN]
    assert runs.resume(street.main, "package").said == "The run goes on: 0 of 2 rounds are done."
    until_finished(street)
    assert street.states() == [PUBLISHED] * 2
    assert "a" in street.uploads["package", 1], "what it had sent before was in the first sum"


def test_sum_that_came_while_the_run_was_stopped_does_not_hang_it(street: Street) -> None:
    street.begin(2)
    street.visit("a", "b")
    runs.stop(street.main, "package")
    accept_aggregate(street.main, street.sum_of("package", 1))
    assert read(street.main.store, newest_version, "package").released_at is None
    runs.resume(street.main, "package")
    until_finished(street)
    assert street.states() == [PUBLISHED] * 2
    assert [each.gate for each in read(street.main.store, newest_versions, "package", 2)] == [
        "passed",
        "passed",
    ]


def test_run_after_rounds_by_hand_begins_with_what_they_made(street: Street) -> None:
    federation = street.federation
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    made = read(street.main.store, newest_version, "package")
    street.visit("a", "b")
    runs.start(street.main, "package", 1)
    until_finished(street)
    assert street.states() == [PUBLISHED, PUBLISHED]
    assert read(street.main.store, find_version, made.version).released_at is not None
    assert street.run.first_round == 2


def test_finished_run_is_not_resumed_and_another_can_be_started(street: Street) -> None:
    street.begin(1)
    until_finished(street)
    with pytest.raises(OutOfOrder, match="No run of package was stopped"):
        runs.resume(street.main, "package")
    with pytest.raises(OutOfOrder, match="No run of package is going on"):
        runs.stop(street.main, "package")
    runs.start(street.main, "package", 1)
    until_finished(street)
    assert street.states() == [PUBLISHED] * 2


def test_second_run_of_a_detector_is_refused_while_one_is_going_on(street: Street) -> None:
    street.begin(3)
    before = street.round
    for rounds in (3, 5):
        with pytest.raises(OutOfOrder, match="going on already: 0 of 3 rounds are done"):
            runs.start(street.main, "package", rounds)
    assert street.round == before
    assert len(street.kinds("run-started")) == 1


@pytest.mark.parametrize("rounds", [0, -1, runs.MAX_ROUNDS + 1])
def test_run_has_a_number_of_rounds_that_can_be_done(street: Street, rounds: int) -> None:
    street.visit("a")
    with pytest.raises(InvalidMessage, match="from 1 to 100000 rounds"):
        runs.start(street.main, "package", rounds)
    assert read(street.main.store, newest_runs) == ()


def test_run_of_a_detector_that_nobody_takes_part_in_is_refused(street: Street) -> None:
    street.visit("a")
    with pytest.raises(NotFound, match="No device takes part in pakcage"):
        runs.start(street.main, "pakcage", 1)
    assert read(street.main.store, newest_version, "pakcage") is None


def test_pinned_detector_is_not_run(street: Street) -> None:
    street.begin(2)
    version = read(street.main.store, newest_version, "package").version
    rollback.pin(street.main, version)
    assert (street.run.state, street.run.said) == (STOPPED, "package is pinned.")
    for verb in (
        lambda: runs.start(street.main, "package", 1),
        lambda: runs.resume(street.main, "package"),
    ):
        with pytest.raises(OutOfOrder, match="package is pinned to a version"):
            verb()
    assert street.run.state == STOPPED
    rollback.unpin(street.main, "package")
    runs.resume(street.main, "package")
    until_finished(street)
    assert street.states() == [PUBLISHED] * 2
