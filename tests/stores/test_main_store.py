"""The main server's store does what its docstrings promise, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from main_server.store.evaluations import Told
from main_server.store.members import Invitation, Joined
from main_server.store.records import (
    PASSED,
    PENDING,
    REJECTED,
    UNCHECKED,
    Device,
    Participation,
    Status,
    Version,
)
from main_server.store.runs import FINISHED, STOPPED, Score
from main_server.store.states import ABANDONED, FAILED, OPEN, PUBLISHED
from main_server.store.store import Store
from shared.protocol.evaluations import METRICS, ROWS, Estimate, performance_of
from shared.round.plan import RoundPlan

NOW = 1_800_000_000.125
ANNA = Joined("k" * 32, "anna", "device", bytes(range(32)), NOW, None)
CODE = Invitation("i" * 32, b"\x00secret\xff", "device", 2, NOW + 60)
Rounds = Callable[..., RoundPlan]


def version(number: int, name: str = "", **values: Any) -> Version:
    return Version(
        name or f"{number:064}", "person", number, "porch-cnn", '{"signed": 1}', None, NOW, **values
    )


def kinds(store: Store) -> list[str]:
    return [event.kind for event in store.events(100)]


def device(name: str, **values: Any) -> Device:
    return Device(name, f"http://{name}", NOW, **values)


def test_code_is_kept_as_it_was_first_noted(main_store: Store) -> None:
    for_ever = replace(CODE, invitation="l" * 32, uses_left=2**31, expires_at=math.inf)
    for invitation in (CODE, replace(CODE, uses_left=9), for_ever):
        main_store.invite(invitation)
    assert main_store.invitation("i" * 32) == CODE
    assert main_store.invitation("l" * 32) == for_ever
    assert main_store.invitation("none") is None


def test_joining_costs_one_use_and_the_same_again_none(main_store: Store) -> None:
    main_store.invite(CODE)
    assert [main_store.admit(CODE.invitation, ANNA, NOW) for _ in range(2)] == [None, None]
    assert main_store.invitation(CODE.invitation) == replace(CODE, uses_left=1)
    assert main_store.member(ANNA.key_id) == ANNA and main_store.members() == (ANNA,)
    assert main_store.member("none") is None and kinds(main_store) == ["joined"]


def test_joining_is_refused_with_a_reason(main_store: Store) -> None:
    main_store.invite(CODE)
    main_store.admit(CODE.invitation, ANNA, NOW)
    other = replace(ANNA, key_id="o" * 32)
    assert "there is a anna already" in str(main_store.admit(CODE.invitation, other, NOW))
    assert "joined before" in str(
        main_store.admit(CODE.invitation, replace(ANNA, name="otto"), NOW)
    )
    otto = replace(other, name="otto")
    assert "expired" in str(main_store.admit(CODE.invitation, otto, NOW + 60))
    assert "used up or" in str(main_store.admit("none", otto, NOW))
    assert main_store.admit(CODE.invitation, otto, NOW + 59) is None
    assert "used up" in str(
        main_store.admit(CODE.invitation, replace(ANNA, key_id="z" * 32, name="zoe"), NOW)
    )


def test_revoking_ends_every_part_and_the_round_that_it_may_be_in(
    main_store: Store, round_of: Rounds
) -> None:
    main_store.invite(CODE)
    main_store.admit(CODE.invitation, ANNA, NOW)
    main_store.note_device(device("anna"), {"person": None})
    main_store.open_round(round_of(), NOW)
    main_store.keep_plain_update(round_of(), "anna", "d" * 64, NOW)
    main_store.vouch(round_of(), ["anna", "otto"])
    assert main_store.vouched("person", 1) and not main_store.vouched("person", 2)
    assert [main_store.revoke("anna", "stolen", NOW + 1) for _ in range(2)] == [True, False]
    current = main_store.newest_round("person")
    assert current and (current.state, current.closed_at) == (ABANDONED, NOW + 1)
    assert main_store.participations() == () and main_store.plain_updates(round_of()) == {}
    assert main_store.members() == (replace(ANNA, revoked="stolen"),)
    assert not main_store.revoke("nobody", "", NOW)


def test_renaming_takes_a_free_name_only(main_store: Store) -> None:
    main_store.invite(CODE)
    main_store.admit(CODE.invitation, ANNA, NOW)
    main_store.admit(CODE.invitation, replace(ANNA, key_id="o" * 32, name="otto"), NOW)
    main_store.note_device(device("anna"), {"person": 3})
    assert not main_store.rename("anna", "otto", NOW) and not main_store.rename("nobody", "x", NOW)
    assert [main_store.rename("anna", "eve", NOW) for _ in range(2)] == [True, False]
    assert main_store.member(ANNA.key_id) == replace(ANNA, name="eve")
    assert main_store.devices() == () and main_store.detectors() == ()


def test_key_is_changed_once(main_store: Store) -> None:
    main_store.invite(CODE)
    main_store.admit(CODE.invitation, ANNA, NOW)
    assert [main_store.change_key(ANNA.key_id, "n" * 32, b"n" * 32) for _ in range(2)] == [
        True,
        False,
    ]
    assert main_store.members() == (replace(ANNA, key_id="n" * 32, public_key=b"n" * 32),)


def test_device_is_noted_again_and_again(main_store: Store) -> None:
    for seen in (NOW, NOW + 1):
        main_store.note_device(replace(device("anna"), last_seen=seen), {"person": 1, "car": None})
    assert main_store.devices() == (replace(device("anna"), last_seen=NOW + 1),)
    assert main_store.detectors() == ("car", "person")
    main_store.note_delivery("anna", "person", "v" * 64)
    assert main_store.participations("person") == (Participation("anna", "person", 1, "v" * 64),)


def test_status_is_noted_once_per_piece_of_news(main_store: Store, round_of: Rounds) -> None:
    main_store.open_round(round_of(), NOW)
    main_store.add_version(version(0))
    status = Status(1, 1, "h" * 64, (version(0).version, 0.875, 40), (1, "No pictures."))
    for _ in range(2):
        main_store.note_status(device("anna", waiting=True), {"person": status})
    assert main_store.devices() == (device("anna", waiting=True),)
    assert main_store.participations() == (
        Participation("anna", "person", 1, "h" * 64, 1, "No pictures."),
    )
    assert main_store.sent(round_of()) == {"anna": NOW}
    assert main_store.scores(version(0).version) == (Score("anna", 0.875, 40),)
    assert kinds(main_store) == ["scored", "sent", "opened"]
    main_store.note_status(device("anna"), {"person": Status(None, None, None, None, None)})
    assert main_store.devices() == (device("anna", waiting=True),)


def test_rounds_follow_one_another(main_store: Store, round_of: Rounds) -> None:
    assert main_store.newest_round("person") is None and main_store.round("person", 1) is None
    first = main_store.open_round(round_of(), NOW)
    assert (
        main_store.open_round(round_of(epochs=9), NOW + 9)
        == first
        == main_store.newest_round("person")
    )
    main_store.open_round(round_of(2), NOW + 1)
    assert [(one.settings.round, one.state) for one in main_store.rounds("person", 9)] == [
        (2, OPEN),
        (1, ABANDONED),
    ]
    assert main_store.open_round(round_of(1), NOW) == main_store.newest_round("person")
    main_store.publish(round_of(2), ("a", "b"), "sum", 3, version(2))
    assert (
        main_store.published_since("person", 1) == 1
        and main_store.published_since("person", 3) == 0
    )
    assert main_store.rounds("person", 1, since=2) == main_store.rounds("person", 1)


def test_asking_and_due(main_store: Store, round_of: Rounds) -> None:
    main_store.open_round(round_of(), NOW)
    main_store.ask(round_of(), NOW + 1)
    for later in (2, 3):
        main_store.make_due(round_of(), NOW + later, "All are there.")
    current = main_store.newest_round("person")
    assert current and (current.opened_at, current.asked_at, current.due_at) == (
        NOW,
        NOW + 1,
        NOW + 2,
    )
    main_store.give_up(round_of(), NOW + 4, "The operator gave it up.")
    main_store.ask(round_of(), NOW + 5)
    assert kinds(main_store) == [ABANDONED, "due", "asked", "opened"]


@pytest.mark.parametrize("close", ["publish", "fail", "give_up"])
def test_closed_round_stays_as_it_is(main_store: Store, round_of: Rounds, close: str) -> None:
    main_store.open_round(round_of(), NOW)
    assert main_store.keep_plain_update(round_of(), "anna", "d" * 64, NOW)
    steps = {
        "publish": lambda: main_store.publish(round_of(), ("a",), "sum", 0, version(1)),
        "fail": lambda: main_store.fail(round_of(), "sum", NOW),
        "give_up": lambda: main_store.give_up(round_of(), NOW, "why"),
    }
    steps[close]()
    closed, said = main_store.newest_round("person"), main_store.newest_event()
    assert (
        closed
        and closed.state == {"publish": PUBLISHED, "fail": FAILED, "give_up": ABANDONED}[close]
    )
    for step in steps.values():
        step()
    main_store.vouch(round_of(), ["x"])
    assert not main_store.keep_plain_update(round_of(), "otto", "e" * 64, NOW)
    assert main_store.newest_round("person") == closed and main_store.newest_event() == said


def test_gate_is_closed_once_and_the_version_instead_is_in_force(
    main_store: Store, round_of: Rounds
) -> None:
    main_store.open_round(round_of(), NOW)
    main_store.publish(round_of(), ("a", "b"), "sum", 0, version(1, "a" * 64))
    main_store.open_round(round_of(2), NOW)
    pending = main_store.newest_version("person")
    assert pending and pending.gate == PENDING and pending.released_at is None
    instead = version(3, "b" * 64)
    assert [
        main_store.judge(pending, REJECTED, "It fell.", NOW + 1, instead) for _ in range(2)
    ] == [True, False]
    assert not main_store.judge(pending, PASSED, "too late", NOW)
    assert main_store.newest_version("person", released=True) == replace(
        instead, released_at=NOW + 1
    )
    assert main_store.version("a" * 64) == replace(pending, gate=REJECTED, said="It fell.")
    assert [one.state for one in main_store.rounds("person", 2)] == [ABANDONED, PUBLISHED]


def test_versions_are_added_released_and_put_in_force_once(
    main_store: Store, round_of: Rounds
) -> None:
    main_store.open_round(round_of(), NOW)
    for _ in range(2):
        main_store.add_version(version(0))
        main_store.put_in_force(version(5), NOW + 1, "The operator went back.")
        main_store.release(version(0).version, NOW + 2)
    assert [(one.round, one.released_at, one.gate) for one in main_store.versions("person", 9)] == [
        (5, NOW + 1, UNCHECKED),
        (0, NOW + 2, UNCHECKED),
    ]
    assert {one.round for one in main_store.find_versions("0000")} == {0, 5}
    assert main_store.find_versions("%") == () and main_store.version("none") is None
    assert kinds(main_store).count("released") == 2


def test_what_a_run_makes_is_released_at_once(main_store: Store, round_of: Rounds) -> None:
    run = main_store.start_run("person", 3, 1, NOW)
    assert main_store.start_run("person", 9, 5, NOW) == run
    main_store.open_round(round_of(), NOW)
    main_store.publish(round_of(), ("a", "b"), "sum", 0, version(1))
    assert main_store.newest_version("person", released=True) is not None
    assert [main_store.move_run(run, STOPPED, "stop", NOW) for _ in range(2)] == [True, False]
    again = main_store.start_run("person", 1, 2, NOW)
    assert again.id > run.id and main_store.runs() == (again,)
    assert main_store.move_run(again, FINISHED, "done", NOW)


def test_pins_and_events(main_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main_store.newest_event() == 0 and main_store.events(5) == ()
    main_store.pin("person", "a" * 64, NOW)
    main_store.pin("person", "b" * 64, NOW)
    assert main_store.pins() == {"person": "b" * 64}
    main_store.pin("person", None, NOW)
    assert main_store.pins() == {} and main_store.newest_event() == 3
    monkeypatch.setattr("main_server.store.runs._MAX_EVENTS", 2)
    main_store.forget_old_events()
    assert kinds(main_store) == ["unpinned", "pinned"]


def test_forgetting_keeps_what_is_needed(main_store: Store, round_of: Rounds) -> None:
    for number in range(6):
        main_store.add_version(version(number))
    main_store.pin("person", version(1).version, NOW)
    main_store.open_round(round_of(6, base_version=version(2).version), NOW)
    main_store.keep_plain_update(round_of(6), "anna", "d" * 64, NOW)
    main_store.keep_plain_update(round_of(6), "anna", "e" * 64, NOW)
    main_store.forget("person", 2, 3)
    forgotten = [one.round for one in main_store.versions("person", 9) if one.forgotten]
    assert forgotten == [3, 0]
    assert main_store.kept_blobs() == {
        "e" * 64,
        *(version(number).version for number in (1, 2, 4, 5)),
    }
    assert main_store.plain_updates(round_of(6)) == {"anna": "e" * 64}


def test_performance_is_kept_of_who_takes_part_and_moves_and_goes_with_its_device(
    main_store: Store,
) -> None:
    figures = {row: dict.fromkeys(METRICS, Estimate(0.25, -0.0, 1 / 3)) for row in ROWS}
    measured = performance_of("person", 2**31 - 1, version(3).version, 2**31 - 1, figures)
    assert not main_store.note_performance("anna", measured, NOW)
    main_store.invite(CODE)
    main_store.admit(CODE.invitation, ANNA, NOW)
    main_store.note_device(device("anna"), {"person": None})
    assert main_store.performances() == ()
    main_store.add_version(version(3))
    for pictures in (5, 5, 2**31 - 1):
        assert main_store.note_performance(
            "anna", structs.replace(measured, pictures=pictures), NOW
        )
    assert main_store.performances() == (Told("anna", measured, 3, NOW),)
    assert kinds(main_store).count("measured") == 2
    main_store.rename("anna", "otto", NOW)
    assert [told.device for told in main_store.performances()] == ["otto"]
    main_store.revoke("otto", "sold", NOW)
    assert main_store.performances() == ()
