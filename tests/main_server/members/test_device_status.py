"""Who is there, who is late, who is failing: every state with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from main_server.members.device_status import ONLINE_S, DeviceStatus, device_statuses, is_online
from main_server.runs import advance, runs
from main_server.store.devices import note_device
from main_server.store.publication import note_status
from main_server.store.records import Device, Status
from main_server.store.rounds import abandon_round, make_due, newest_round
from tests.main_store import read, write

NOON = 1_900_000_000.0


@dataclass
class Porch:
    """A main server whose clock is the test's."""

    federation: Any
    now: float = NOON

    def __post_init__(self) -> None:
        self.main = replace(self.federation.main, clock=lambda: self.now)

    def call(self, device: str, waiting: bool = True, **said: Any) -> None:
        """Let a device say something of itself."""
        status = replace(Status(None, None, None, None, None), **said)
        write(
            self.main.store,
            note_status,
            Device(device, f"http://{device}", self.now, waiting),
            {"package": status},
        )

    def ask(self) -> None:
        """Start a run, and let it ask the devices for round 1."""
        runs.start(self.main, "package", 3)
        advance.advance(self.main)

    def of(self, device: str) -> tuple[str, str]:
        """Return a device's state, and why."""
        (found,) = [each for each in device_statuses(self.main) if each.device == device]
        return found.state, found.why


@pytest.fixture
def porch(federation: Any) -> Porch:
    return Porch(federation)


def test_device_that_waits_for_work_is_online(porch: Porch) -> None:
    porch.call("a")
    assert device_statuses(porch.main) == (
        DeviceStatus("a", "online", "It waits for work.", NOON, "http://a"),
    )


def test_device_that_announces_itself_alone_is_by_hand(porch: Porch) -> None:
    write(porch.main.store, note_device, Device("a", "http://a", porch.now), {"package": None})
    porch.now += 300
    assert porch.of("a") == ("by hand", "It does not wait for work; last seen 5 minutes ago.")


@pytest.mark.parametrize(
    ("seconds", "ago"),
    [
        (76, "76 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
    ],
)
def test_device_that_has_not_called_for_a_while_is_offline(
    porch: Porch, seconds: float, ago: str
) -> None:
    porch.call("a")
    porch.now += seconds
    assert porch.of("a") == ("offline", f"Last seen {ago} ago.")


def test_two_calls_may_be_lost(porch: Porch) -> None:
    porch.call("a")
    porch.now += ONLINE_S
    assert porch.of("a")[0] == "online"
    porch.now += 0.1
    assert porch.of("a")[0] == "offline"


def test_device_that_is_asked_and_has_not_sent_trains(porch: Porch) -> None:
    porch.call("a")
    porch.call("b")
    porch.ask()
    assert porch.of("a") == ("training", "package, round 1.")


def test_device_that_has_sent_says_so(porch: Porch) -> None:
    porch.call("a")
    porch.ask()
    porch.call("a", sent_round=1)
    assert porch.of("a") == ("sent", "Its updates are sent.")


def test_device_that_others_could_do_without_is_late(porch: Porch) -> None:
    for device in ("a", "b", "c"):
        porch.call(device)
    porch.ask()
    porch.call("a", sent_round=1)
    assert porch.of("c")[0] == "training"
    porch.call("b", sent_round=1)
    assert porch.of("c") == ("late", "package: round 1 has 2 updates, and none of this device.")
    porch.now += 100
    assert porch.of("c") == (
        "late",
        "package: round 1 has 2 updates, and none of this device; last seen 100 seconds ago.",
    )


def test_device_that_missed_the_deadline_is_late(porch: Porch) -> None:
    porch.call("a")
    porch.ask()
    write(
        porch.main.store,
        make_due,
        read(porch.main.store, newest_round, "package").plan,
        NOON,
        "The deadline is over.",
    )
    assert porch.of("a") == ("late", "package: round 1 has 0 updates, and none of this device.")


def test_device_with_a_setback_in_this_round_is_failing(porch: Porch) -> None:
    porch.call("a")
    porch.ask()
    porch.call("a", setback=(1, "The disk is full."))
    assert porch.of("a") == ("failing", "package, round 1: The disk is full.")


def test_setback_of_an_earlier_round_is_over(porch: Porch) -> None:
    porch.call("a")
    porch.ask()
    write(
        porch.main.store,
        abandon_round,
        read(porch.main.store, newest_round, "package").plan,
        NOON,
        "why",
    )
    for _ in range(2):
        advance.advance(porch.main)
    porch.call("a", setback=(1, "The disk is full."))
    assert porch.of("a") == ("training", "package, round 2.")


def test_device_that_vanished_from_a_round_that_still_waits_is_offline(porch: Porch) -> None:
    porch.call("a")
    porch.ask()
    porch.now += 3600 * 5
    assert porch.of("a") == ("offline", "Last seen 5 hours ago.")


def test_nobody_trains_for_a_run_that_is_stopped(porch: Porch) -> None:
    porch.call("a")
    porch.ask()
    runs.stop(porch.main, "package")
    assert porch.of("a") == ("online", "It waits for work.")


def test_devices_are_told_by_name(porch: Porch) -> None:
    for device in ("b", "c", "a"):
        porch.call(device)
    assert [each.device for each in device_statuses(porch.main)] == ["a", "b", "c"]


@pytest.mark.parametrize("back", [100.0, 3600.0, 1e8])
def test_clock_that_is_set_back_does_not_show_an_absent_device_as_online_for_long(
    porch: Porch, back: float
) -> None:
    porch.call("a")
    absent = Device("a", "http://a", NOON, True)
    times = [NOON - back + second for second in range(0, int(min(back, 7200)) + 200, 10)]
    shown = [time for time in times if is_online(absent, time)]
    assert len(shown) * 10 <= 2 * ONLINE_S + 10
    porch.now = NOON - back
    assert porch.of("a")[0] == "offline"
    porch.call("a")
    assert porch.of("a")[0] == "online", "and one that is there calls again"
