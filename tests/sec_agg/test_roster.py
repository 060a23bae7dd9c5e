"""The aggregator's roster: fresh for ten seconds, asked for again for a newcomer, and not by
strangers without end.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask

from main_server.members.members import rename, revoke
from sec_agg.roster import FRESH_S, MAX_STRANGERS, Roster
from shared.errors import Forbidden, PeerUnreachable
from shared.security.authenticator import Member
from shared.security.identity import Identity
from shared.security.signing import sign_request


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def roster(federation: Any, clock: Clock) -> Roster:
    return Roster(federation.aggregator.enrolment, federation.aggregator.http, clock)


def asked(federation: Any) -> int:
    return len(federation.network.sent("main/roster"))


def key_id(federation: Any, device: str) -> str:
    return str(federation.device(device).identity.key_id)


def some_key() -> str:
    return secrets.token_hex(16)


def test_roster_has_everybody_by_key(federation: Any, roster: Roster) -> None:
    a, b = federation.device("a").identity, federation.device("b").identity
    revoke(federation.main, "b", "It was stolen.")
    assert roster.member(a.key_id) == Member("a", "device", a.public)
    assert roster.member(b.key_id) == Member("b", "device", b.public, "It was stolen.")
    own = federation.as_aggregator.identity
    assert roster.member(own.key_id) == Member("secure-aggregator", "secure-aggregator", own.public)
    assert roster.member(some_key()) is None


def test_roster_is_fresh_for_ten_seconds(federation: Any, roster: Roster, clock: Clock) -> None:
    a = key_id(federation, "a")
    for later, times in ((0.0, 1), (0.0, 1), (FRESH_S, 1), (0.01, 2), (FRESH_S, 2), (60.0, 3)):
        clock.now += later
        assert roster.member(a) is not None
        assert asked(federation) == times
    assert FRESH_S == 10


def test_newcomer_is_known_at_once(federation: Any, roster: Roster) -> None:
    assert roster.member(key_id(federation, "a"))
    newcomer = key_id(federation, "b")
    member = roster.member(newcomer)
    assert member is not None
    assert member.name == "b"
    assert asked(federation) == 2
    assert roster.member(newcomer) == member
    assert asked(federation) == 2


def test_what_changed_at_the_main_server_holds_here_within_ten_seconds(
    federation: Any, roster: Roster, clock: Clock
) -> None:
    a, b = key_id(federation, "a"), key_id(federation, "b")
    for device in (a, b):
        member = roster.member(device)
        assert member is not None
        assert member.revoked is None
    revoke(federation.main, "a", "It was stolen.")
    rename(federation.main, "b", "c")
    clock.now += FRESH_S + 0.01
    gone, renamed = roster.member(a), roster.member(b)
    assert gone is not None
    assert gone.revoked == "It was stolen."
    assert renamed is not None
    assert renamed.name == "c"


def test_strangers_cost_a_bounded_number_of_requests_and_shut_nobody_out(
    federation: Any, roster: Roster, clock: Clock
) -> None:
    a = key_id(federation, "a")
    assert roster.member(a)
    for _ in range(1000):
        clock.now += 0.001
        assert roster.member(some_key()) is None
    assert 2 <= asked(federation) <= MAX_STRANGERS + 2
    assert MAX_STRANGERS == 100
    before = asked(federation)
    assert roster.member(a) is not None
    assert asked(federation) == before
    newcomer = key_id(federation, "b")
    clock.now += FRESH_S + 0.01
    assert roster.member(newcomer) is not None
    assert asked(federation) == before + 1


def test_strangers_of_the_past_do_not_delay_newcomers_for_ever(
    federation: Any, roster: Roster, clock: Clock
) -> None:
    a = key_id(federation, "a")
    for _ in range(MAX_STRANGERS + 50):
        roster.member(some_key())
    newcomer = key_id(federation, "b")
    assert roster.member(newcomer) is None, "strangers have used up what may be asked for them"
    clock.now += FRESH_S + 0.01
    assert roster.member(a) is not None
    assert roster.member(key_id(federation, "c")) is not None
    assert roster.member(newcomer) is not None


def test_one_stranger_costs_one_request_until_the_roster_is_old(
    federation: Any, roster: Roster, clock: Clock
) -> None:
    stranger = some_key()
    assert roster.member(key_id(federation, "a"))
    for _ in range(50):
        assert roster.member(stranger) is None
    assert asked(federation) == 2
    clock.now += FRESH_S + 0.01
    for _ in range(50):
        assert roster.member(stranger) is None
    assert asked(federation) == 3


def test_strangers_do_not_keep_an_old_roster_in_force(
    federation: Any, roster: Roster, clock: Clock
) -> None:
    a = key_id(federation, "a")
    assert roster.member(a)
    revoke(federation.main, "a", "It was stolen.")
    for _ in range(300):
        clock.now += 0.1
        roster.member(some_key())
    member = roster.member(a)
    assert member is not None
    assert member.revoked == "It was stolen."
    assert asked(federation) <= 3 * (MAX_STRANGERS + 1) + 1


def test_main_server_out_of_reach_matters_when_the_roster_is_old(
    federation: Any, roster: Roster, clock: Clock
) -> None:
    a = key_id(federation, "a")
    first = roster.member(a)
    federation.network.down = {"main"}
    clock.now += FRESH_S
    assert roster.member(a) == first
    clock.now += 0.01
    for _ in range(2):
        with pytest.raises(PeerUnreachable):
            roster.member(a)
    federation.network.down = set()
    assert roster.member(a) == first


def test_device_hears_that_the_main_server_is_out_of_reach(federation: Any) -> None:
    a = federation.device("a")
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable, match="No answer from http://main"):
        a.post("http://aggregator/cmodel", b"update")


def test_many_threads_ask_once(federation: Any, roster: Roster) -> None:
    a, start, found = key_id(federation, "a"), threading.Barrier(8), []

    def work() -> None:
        start.wait(30)
        found.append(roster.member(a))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert None not in found
    assert asked(federation) == 1


FALSE_ROSTERS: list[tuple[str, Callable[[Identity], object]]] = [
    ("null", lambda _: None),
    ("list", lambda _: []),
    ("nothing", lambda _: {}),
    ("no list", lambda _: {"members": 1}),
    ("words", lambda _: {"members": ["porch"]}),
    ("no key", lambda _: {"members": [{"name": "a", "role": "device", "revoked": None}]}),
    (
        "bad key",
        lambda _: {
            "members": [{"name": "a", "role": "device", "revoked": None, "public_key": "*"}]
        },
    ),
]


@pytest.mark.parametrize(("name", "make"), FALSE_ROSTERS, ids=[name for name, _ in FALSE_ROSTERS])
def test_answer_that_is_no_roster_changes_nothing(
    federation: Any,
    roster: Roster,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Any,
) -> None:
    a = key_id(federation, "a")
    first = roster.member(a)
    with monkeypatch.context() as patched:
        patched.setattr(
            "main_server.routes.answer_with",
            lambda _: federation.network.apps["main"].json.response(make(a)),
        )
        clock.now += FRESH_S + 0.01
        with pytest.raises(PeerUnreachable, match="did not send a roster"):
            roster.member(a)
    assert roster.member(a) == first


def test_roster_that_the_main_server_did_not_sign_is_not_taken(
    federation: Any, roster: Roster, clock: Clock
) -> None:
    a, impostor = key_id(federation, "a"), Flask("impostor")
    assert roster.member(a) is not None
    genuine = federation.network.apps["main"]
    impostor.add_url_rule("/roster", "roster", lambda: {"members": []})
    federation.network.apps["main"] = impostor
    clock.now += FRESH_S + 0.01
    with pytest.raises(PeerUnreachable, match="is not the main-server of this federation"):
        roster.member(a)
    federation.network.apps["main"] = genuine
    assert roster.member(a) is not None


def test_strangers_message_is_refused_without_its_body(federation: Any) -> None:
    stranger = Identity.from_private(bytes([9]) * 32)
    sender = federation.network.client(stranger)
    with pytest.raises(Forbidden, match="unknown key id"):
        sender.post(
            "http://aggregator/cmodel",
            bytes(10_000),
            federation.device("a").to("http://aggregator"),
        )


def test_message_that_names_a_members_key_and_is_not_its_own_is_refused(federation: Any) -> None:
    """Whoever knows a member's key can name it, and costs the main server no request by that."""
    a, forger = federation.device("a"), Identity.from_private(bytes([9]) * 32)
    federation.upload("a", federation.delta())
    before = asked(federation)
    forged = Identity(a.identity.public, forger._private)
    with pytest.raises(Forbidden, match="not by the key that it names"):
        federation.network.client(forged).post(
            "http://aggregator/cmodel", b"x", a.to("http://aggregator")
        )
    assert asked(federation) == before
    assert (
        sign_request("GET", "http://x/", {}, b"", forged, "x", 0)["Signature-Input"].count(
            a.identity.key_id
        )
        == 1
    )
