"""The main server's store does what its docstrings promise, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from main_server.store.contributions import keep_plain_update, plain_updates, sent_updates
from main_server.store.devices import (
    all_detectors,
    all_devices,
    note_delivery,
    note_device,
    participations,
)
from main_server.store.evaluations import (
    DeviceEvaluation,
    Score,
    note_performance,
    performances,
    scores,
)
from main_server.store.events import forget_old_events, newest_event_id, newest_events
from main_server.store.members import (
    Invitation,
    MemberRecord,
    admit,
    all_members,
    change_key,
    find_invitation,
    find_member,
    invite,
)
from main_server.store.pins import find_pins, remove_pin, set_pin
from main_server.store.publication import activate, judge, note_status, publish, rename, revoke
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
from main_server.store.retention import forget_old, needed_blobs
from main_server.store.rounds import (
    abandon_round,
    add_round,
    ask_for_updates,
    count_published,
    fail_round,
    find_round,
    is_vouched,
    make_due,
    newest_round,
    newest_rounds,
    vouch,
)
from main_server.store.runs import FINISHED, STOPPED, move_run, newest_runs, start_run
from main_server.store.states import ABANDONED, FAILED, OPEN, PUBLISHED
from main_server.store.store import Store
from main_server.store.versions import (
    add_version,
    find_version,
    find_versions,
    newest_version,
    newest_versions,
    release,
)
from shared.protocol.evaluations import METRICS, ROWS, Estimate, performance_of
from shared.round.plan import RoundPlan
from tests.main_store import read, write

NOW = 1_800_000_000.125
ANNA = MemberRecord("k" * 32, "anna", "device", bytes(range(32)), NOW, None)
CODE = Invitation("i" * 32, b"\x00secret\xff", "device", 2, NOW + 60)
Rounds = Callable[..., RoundPlan]


def version(number: int, name: str = "", **values: Any) -> Version:
    return Version(
        name or f"{number:064}", "person", number, "porch-cnn", '{"signed": 1}', None, NOW, **values
    )


def kinds(store: Store) -> list[str]:
    return [event.kind for event in read(store, newest_events, 100)]


def device(name: str, **values: Any) -> Device:
    return Device(name, f"http://{name}", NOW, **values)


def test_code_is_kept_as_it_was_first_noted(main_store: Store) -> None:
    for_ever = replace(CODE, invitation="l" * 32, uses_left=2**31, expires_at=math.inf)
    for invitation in (CODE, replace(CODE, uses_left=9), for_ever):
        write(main_store, invite, invitation)
    assert read(main_store, find_invitation, "i" * 32) == CODE
    assert read(main_store, find_invitation, "l" * 32) == for_ever
    assert read(main_store, find_invitation, "none") is None


def test_joining_costs_one_use_and_the_same_again_none(main_store: Store) -> None:
    write(main_store, invite, CODE)
    assert [write(main_store, admit, CODE.invitation, ANNA, NOW) for _ in range(2)] == [None, None]
    assert read(main_store, find_invitation, CODE.invitation) == replace(CODE, uses_left=1)
    assert read(main_store, find_member, ANNA.key_id) == ANNA and read(main_store, all_members) == (
        ANNA,
    )
    assert read(main_store, find_member, "none") is None and kinds(main_store) == ["joined"]


def test_joining_is_refused_with_a_reason(main_store: Store) -> None:
    write(main_store, invite, CODE)
    write(main_store, admit, CODE.invitation, ANNA, NOW)
    other = replace(ANNA, key_id="o" * 32)
    assert "there is a anna already" in str(write(main_store, admit, CODE.invitation, other, NOW))
    assert "joined before" in str(
        write(main_store, admit, CODE.invitation, replace(ANNA, name="otto"), NOW)
    )
    otto = replace(other, name="otto")
    assert "expired" in str(write(main_store, admit, CODE.invitation, otto, NOW + 60))
    assert "used up or" in str(write(main_store, admit, "none", otto, NOW))
    assert write(main_store, admit, CODE.invitation, otto, NOW + 59) is None
    assert "used up" in str(
        write(main_store, admit, CODE.invitation, replace(ANNA, key_id="z" * 32, name="zoe"), NOW)
    )


def test_revoking_ends_every_part_and_the_round_that_it_may_be_in(
    main_store: Store, round_of: Rounds
) -> None:
    write(main_store, invite, CODE)
    write(main_store, admit, CODE.invitation, ANNA, NOW)
    write(main_store, note_device, device("anna"), {"person": None})
    write(main_store, add_round, round_of(), NOW)
    write(main_store, keep_plain_update, round_of(), "anna", "d" * 64, NOW)
    write(main_store, vouch, round_of(), ["anna", "otto"])
    assert read(main_store, is_vouched, "person", 1) and not read(
        main_store, is_vouched, "person", 2
    )
    assert [write(main_store, revoke, "anna", "stolen", NOW + 1) for _ in range(2)] == [True, False]
    current = read(main_store, newest_round, "person")
    assert current and (current.state, current.closed_at) == (ABANDONED, NOW + 1)
    assert (
        read(main_store, participations) == () and read(main_store, plain_updates, round_of()) == {}
    )
    assert read(main_store, all_members) == (replace(ANNA, revoked="stolen"),)
    assert not write(main_store, revoke, "nobody", "", NOW)


def test_renaming_takes_a_free_name_only(main_store: Store) -> None:
    write(main_store, invite, CODE)
    write(main_store, admit, CODE.invitation, ANNA, NOW)
    write(main_store, admit, CODE.invitation, replace(ANNA, key_id="o" * 32, name="otto"), NOW)
    write(main_store, note_device, device("anna"), {"person": 3})
    assert not write(main_store, rename, "anna", "otto", NOW) and not write(
        main_store, rename, "nobody", "x", NOW
    )
    assert [write(main_store, rename, "anna", "eve", NOW) for _ in range(2)] == [True, False]
    assert read(main_store, find_member, ANNA.key_id) == replace(ANNA, name="eve")
    assert read(main_store, all_devices) == () and read(main_store, all_detectors) == ()


def test_key_is_changed_once(main_store: Store) -> None:
    write(main_store, invite, CODE)
    write(main_store, admit, CODE.invitation, ANNA, NOW)
    assert [write(main_store, change_key, ANNA.key_id, "n" * 32, b"n" * 32) for _ in range(2)] == [
        True,
        False,
    ]
    assert read(main_store, all_members) == (replace(ANNA, key_id="n" * 32, public_key=b"n" * 32),)


def test_device_is_noted_again_and_again(main_store: Store) -> None:
    for seen in (NOW, NOW + 1):
        write(
            main_store,
            note_device,
            replace(device("anna"), last_seen=seen),
            {"person": 1, "car": None},
        )
    assert read(main_store, all_devices) == (replace(device("anna"), last_seen=NOW + 1),)
    assert read(main_store, all_detectors) == ("car", "person")
    write(main_store, note_delivery, "anna", "person", "v" * 64)
    assert read(main_store, participations, "person") == (
        Participation("anna", "person", 1, "v" * 64),
    )


def test_status_is_noted_once_per_piece_of_news(main_store: Store, round_of: Rounds) -> None:
    write(main_store, add_round, round_of(), NOW)
    write(main_store, add_version, version(0))
    status = Status(1, 1, "h" * 64, (version(0).version, 0.875, 40), (1, "No pictures."))
    for _ in range(2):
        write(main_store, note_status, device("anna", waiting=True), {"person": status})
    assert read(main_store, all_devices) == (device("anna", waiting=True),)
    assert read(main_store, participations) == (
        Participation("anna", "person", 1, "h" * 64, 1, "No pictures."),
    )
    assert read(main_store, sent_updates, round_of()) == {"anna": NOW}
    assert read(main_store, scores, version(0).version) == (Score("anna", 0.875, 40),)
    assert kinds(main_store) == ["scored", "sent", "opened"]
    write(main_store, note_status, device("anna"), {"person": Status(None, None, None, None, None)})
    assert read(main_store, all_devices) == (device("anna", waiting=True),)


def test_rounds_follow_one_another(main_store: Store, round_of: Rounds) -> None:
    assert (
        read(main_store, newest_round, "person") is None
        and read(main_store, find_round, "person", 1) is None
    )
    first = write(main_store, add_round, round_of(), NOW)
    assert (
        write(main_store, add_round, round_of(epochs=9), NOW + 9)
        == first
        == read(main_store, newest_round, "person")
    )
    write(main_store, add_round, round_of(2), NOW + 1)
    assert [
        (one.plan.round, one.state) for one in read(main_store, newest_rounds, "person", 9)
    ] == [
        (2, OPEN),
        (1, ABANDONED),
    ]
    assert write(main_store, add_round, round_of(1), NOW) == read(
        main_store, newest_round, "person"
    )
    write(main_store, publish, round_of(2), ("a", "b"), "sum", 3, version(2))
    assert (
        read(main_store, count_published, "person", 1) == 1
        and read(main_store, count_published, "person", 3) == 0
    )
    assert read(main_store, newest_rounds, "person", 1, since=2) == read(
        main_store, newest_rounds, "person", 1
    )


def test_asking_and_due(main_store: Store, round_of: Rounds) -> None:
    write(main_store, add_round, round_of(), NOW)
    write(main_store, ask_for_updates, round_of(), NOW + 1)
    for later in (2, 3):
        write(main_store, make_due, round_of(), NOW + later, "All are there.")
    current = read(main_store, newest_round, "person")
    assert current and (current.opened_at, current.asked_at, current.due_at) == (
        NOW,
        NOW + 1,
        NOW + 2,
    )
    write(main_store, abandon_round, round_of(), NOW + 4, "The operator gave it up.")
    write(main_store, ask_for_updates, round_of(), NOW + 5)
    assert kinds(main_store) == [ABANDONED, "due", "asked", "opened"]


@pytest.mark.parametrize("close", ["publish", "fail", "give_up"])
def test_closed_round_stays_as_it_is(main_store: Store, round_of: Rounds, close: str) -> None:
    write(main_store, add_round, round_of(), NOW)
    assert write(main_store, keep_plain_update, round_of(), "anna", "d" * 64, NOW)
    steps = {
        "publish": lambda: write(main_store, publish, round_of(), ("a",), "sum", 0, version(1)),
        "fail": lambda: write(main_store, fail_round, round_of(), "sum", NOW),
        "give_up": lambda: write(main_store, abandon_round, round_of(), NOW, "why"),
    }
    steps[close]()
    closed, said = read(main_store, newest_round, "person"), read(main_store, newest_event_id)
    assert (
        closed
        and closed.state == {"publish": PUBLISHED, "fail": FAILED, "give_up": ABANDONED}[close]
    )
    for step in steps.values():
        step()
    write(main_store, vouch, round_of(), ["x"])
    assert not write(main_store, keep_plain_update, round_of(), "otto", "e" * 64, NOW)
    assert (
        read(main_store, newest_round, "person") == closed
        and read(main_store, newest_event_id) == said
    )


def test_gate_is_closed_once_and_the_version_instead_is_in_force(
    main_store: Store, round_of: Rounds
) -> None:
    write(main_store, add_round, round_of(), NOW)
    write(main_store, publish, round_of(), ("a", "b"), "sum", 0, version(1, "a" * 64))
    write(main_store, add_round, round_of(2), NOW)
    pending = read(main_store, newest_version, "person")
    assert pending and pending.gate == PENDING and pending.released_at is None
    instead = version(3, "b" * 64)
    assert [
        write(main_store, judge, pending, REJECTED, "It fell.", NOW + 1, instead) for _ in range(2)
    ] == [True, False]
    assert not write(main_store, judge, pending, PASSED, "too late", NOW)
    assert read(main_store, newest_version, "person", released=True) == replace(
        instead, released_at=NOW + 1
    )
    assert read(main_store, find_version, "a" * 64) == replace(
        pending, gate=REJECTED, said="It fell."
    )
    assert [one.state for one in read(main_store, newest_rounds, "person", 2)] == [
        ABANDONED,
        PUBLISHED,
    ]


def test_versions_are_added_released_and_put_in_force_once(
    main_store: Store, round_of: Rounds
) -> None:
    write(main_store, add_round, round_of(), NOW)
    for _ in range(2):
        write(main_store, add_version, version(0))
        write(main_store, activate, version(5), NOW + 1, "The operator went back.")
        write(main_store, release, version(0).version, NOW + 2)
    assert [
        (one.round, one.released_at, one.gate)
        for one in read(main_store, newest_versions, "person", 9)
    ] == [
        (5, NOW + 1, UNCHECKED),
        (0, NOW + 2, UNCHECKED),
    ]
    assert {one.round for one in read(main_store, find_versions, "0000")} == {0, 5}
    assert (
        read(main_store, find_versions, "%") == ()
        and read(main_store, find_version, "none") is None
    )
    assert kinds(main_store).count("released") == 2


def test_what_a_run_makes_is_released_at_once(main_store: Store, round_of: Rounds) -> None:
    run = write(main_store, start_run, "person", 3, 1, NOW)
    assert write(main_store, start_run, "person", 9, 5, NOW) == run
    write(main_store, add_round, round_of(), NOW)
    write(main_store, publish, round_of(), ("a", "b"), "sum", 0, version(1))
    assert read(main_store, newest_version, "person", released=True) is not None
    assert [write(main_store, move_run, run, STOPPED, "stop", NOW) for _ in range(2)] == [
        True,
        False,
    ]
    again = write(main_store, start_run, "person", 1, 2, NOW)
    assert again.id > run.id and read(main_store, newest_runs) == (again,)
    assert write(main_store, move_run, again, FINISHED, "done", NOW)


def test_pins_and_events(main_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(main_store, newest_event_id) == 0 and read(main_store, newest_events, 5) == ()
    write(main_store, set_pin, "person", "a" * 64, NOW)
    write(main_store, set_pin, "person", "b" * 64, NOW)
    assert read(main_store, find_pins) == {"person": "b" * 64}
    write(main_store, remove_pin, "person", NOW)
    assert read(main_store, find_pins) == {} and read(main_store, newest_event_id) == 3
    monkeypatch.setattr("main_server.store.events.MAX_EVENTS", 2)
    write(main_store, forget_old_events)
    assert kinds(main_store) == ["unpinned", "pinned"]


def test_forgetting_keeps_what_is_needed(main_store: Store, round_of: Rounds) -> None:
    for number in range(6):
        write(main_store, add_version, version(number))
    write(main_store, set_pin, "person", version(1).version, NOW)
    write(main_store, add_round, round_of(6, base_version=version(2).version), NOW)
    write(main_store, keep_plain_update, round_of(6), "anna", "d" * 64, NOW)
    write(main_store, keep_plain_update, round_of(6), "anna", "e" * 64, NOW)
    write(main_store, forget_old, "person", 2, 3)
    forgotten = [
        one.round for one in read(main_store, newest_versions, "person", 9) if one.forgotten
    ]
    assert forgotten == [3, 0]
    assert read(main_store, needed_blobs) == {
        "e" * 64,
        *(version(number).version for number in (1, 2, 4, 5)),
    }
    assert read(main_store, plain_updates, round_of(6)) == {"anna": "e" * 64}


def test_performance_is_kept_of_who_takes_part_and_moves_and_goes_with_its_device(
    main_store: Store,
) -> None:
    figures = {row: dict.fromkeys(METRICS, Estimate(0.25, -0.0, 1 / 3)) for row in ROWS}
    measured = performance_of("person", 2**31 - 1, version(3).version, 2**31 - 1, figures)
    assert not write(main_store, note_performance, "anna", measured, NOW)
    write(main_store, invite, CODE)
    write(main_store, admit, CODE.invitation, ANNA, NOW)
    write(main_store, note_device, device("anna"), {"person": None})
    assert read(main_store, performances) == ()
    write(main_store, add_version, version(3))
    for pictures in (5, 5, 2**31 - 1):
        assert write(
            main_store, note_performance, "anna", structs.replace(measured, pictures=pictures), NOW
        )
    assert read(main_store, performances) == (DeviceEvaluation("anna", measured, 3, NOW),)
    assert kinds(main_store).count("measured") == 2
    write(main_store, rename, "anna", "otto", NOW)
    assert [told.device for told in read(main_store, performances)] == ["otto"]
    write(main_store, revoke, "otto", "sold", NOW)
    assert read(main_store, performances) == ()
