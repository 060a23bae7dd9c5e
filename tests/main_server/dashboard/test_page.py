"""The main server's page: what it shows, what it escapes, and how little it asks however long the
past is.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Engine, event

from main_server.dashboard.page import page
from main_server.dashboard.status import status
from main_server.members.device_status import page_token
from main_server.runs import advance, runs
from main_server.runs.next_step import next_step
from main_server.store import publication
from main_server.store.contributions import keep_plain_update
from main_server.store.evaluations import scores
from main_server.store.pins import set_pin
from main_server.store.publication import judge, note_status
from main_server.store.records import PASSED, PENDING, Device, Status, Version
from main_server.store.retention import forget_old
from main_server.store.rounds import add_round, find_round, make_due, newest_round
from main_server.store.snapshot import accuracies, read_snapshot
from main_server.store.versions import newest_version, release
from tests.main_store import read, write
from tests.pages import BROWSER, buttons, page_of, section, text_of
from tests.updates import plain_update

NOON = 1_900_000_000.0
HOSTILE = "<script>alert('&')</script>\"{{ 191 * 7 }}"
MANY = 25


def shown(federation: Any) -> str:
    """Return the page as a browser gets it."""
    return page_of(federation.network.apps["main"])


def publish(federation: Any, delta: Any = None) -> Version:
    for device in ("a", "b"):
        federation.upload(device, federation.delta() if delta is None else delta)
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    newest: Version = read(federation.main.store, newest_version, "package")
    return newest


def call(
    main: Any, device: str, detector: str = "package", at: float | None = None, **said: Any
) -> None:
    """Let a device that waits for work say something of itself."""
    there = Device(device, f"http://{device}", main.clock() if at is None else at, True)
    write(
        main.store,
        note_status,
        there,
        {detector: replace(Status(None, None, None, None, None), **said)},
    )


def long_past(federation: Any, rounds: int, detectors: tuple[str, ...] = ("package",)) -> None:
    """Give a main server's database so many published rounds, each with a version and scores, and
    an open one.
    """
    store, settings = federation.main.store, federation.announce("a")
    for detector in detectors:
        call(federation.main, "a", detector)
        for number in range(1, rounds + 1):
            current = structs.replace(settings, detector=detector, round=number)
            write(store, add_round, current, NOON + number)
            name = f"{detectors.index(detector):032x}{number:032x}"
            version = Version(
                name,
                detector,
                number,
                "porch-cnn",
                "signed",
                None,
                NOON,
                NOON,
                PASSED,
                "Well done.",
            )
            write(
                store, publication.publish, current, ("a", "b"), "f" * 64, 0, version, 1000 + number
            )
            write(store, judge, version, PASSED, "Well done.", NOON)
            call(federation.main, "a", detector, score=(name, 0.5 + number / (4 * rounds), 40))
        write(
            store,
            add_round,
            structs.replace(settings, detector=detector, round=rounds + 1),
            NOON + rounds + 1,
        )


@contextmanager
def statements() -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_empty_federation_is_told_what_to_do(federation: Any) -> None:
    html = shown(federation)
    assert "No device has announced itself yet" in html and "None yet." in html
    assert buttons(html) == ["Send Aggregated Models to Federated Clients", "Run rounds"]
    for name in ("summary", "detectors", "accuracy", "rounds", "devices", "refused", "events"):
        section(html, name)


def test_models_are_aggregated_here_in_the_direct_topology_alone(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    direct = shown(make_federation(tmp_path / "direct", topology="direct"))
    assert "Aggregate Local Models" in buttons(direct) and "direct topology" in direct
    assert "Aggregate Local Models" not in shown(make_federation(tmp_path / "secure"))


def test_published_round_is_shown_with_its_figures(federation: Any) -> None:
    version = publish(federation)
    call(federation.main, "a", held=version.version, score=(version.version, 0.75, 80))
    call(federation.main, "b", held=version.version, score=(version.version, 0.5, 20))
    federation.device("a").get(f"http://main/model/{version.version}")
    html = shown(federation)
    card = text_of(section(html, "detectors"))
    assert "Model of round 1 pending 70.0%" in card, "the mean is weighted by pictures"
    assert "package, round 1: 70.0%" in section(html, "accuracy")
    assert ">70.0%</td>" in section(html, "accuracy"), "the table has the same number"
    (up,) = [len(body) for body in federation.network.sent("main/secagg_model")]
    down = len(federation.main.blobs.get(version.version))
    current = read(federation.main.store, find_round, "package", 1)
    assert (current.bytes_up, current.bytes_down) == (up, down)
    rounds = text_of(section(html, "rounds"))
    assert f"{up / 1000:.1f} kB {down / 1000:.1f} kB" in rounds
    assert f"{current.closed_at - current.opened_at:,.1f}" in rounds
    devices = text_of(section(html, "devices"))
    assert "a online It waits for work." in devices and "http://a" in devices
    assert "Round 1 is published: 2 devices are in it." in section(html, "events")


def test_plain_updates_and_pushed_models_are_counted(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path, topology="direct")
    bodies = []
    for device in ("a", "b", "a"):
        settings = federation.announce(device)
        bodies.append(plain_update(federation.delta(), 10, settings, device).to_bytes())
        federation.device(device).post("http://main/cmodel", bodies[-1])
    federation.step("main", "aggregate_models")
    assert read(federation.main.store, find_round, "package", 1).bytes_up == sum(map(len, bodies))
    said = federation.step("main", "send_model_clients")
    assert (
        said["delivered"] == []
        and read(federation.main.store, find_round, "package", 1).bytes_down == 0
    )
    refused = plain_update(federation.delta(), 10, settings, "a").to_bytes()
    with pytest.raises(Exception, match="is published"):
        federation.device("a").post("http://main/cmodel", refused)
    assert read(federation.main.store, find_round, "package", 1).bytes_up == sum(map(len, bodies))


def test_versions_have_buttons_that_do_what_they_say(federation: Any) -> None:
    first, second = publish(federation), publish(federation)
    federation.step("main", "send_model_clients")
    client = federation.network.apps["main"].test_client()
    forms = re.findall(
        r'<form class="step" id="do-\w+".*?</form>', section(shown(federation), "rounds"), re.DOTALL
    )
    words = [buttons(form) for form in forms]
    assert words == [["Pin"], ["Roll back", "Pin"], ["Roll back", "Pin"]], (
        "that in force is not rolled back to"
    )
    action = re.search(r'action="([^"]+)"', forms[1])
    (value,) = re.findall(r'name="version" value="([0-9a-f]{64})"', forms[1])
    assert action and value == first.version != second.version
    assert client.post(action[1], data={"version": value}, headers=BROWSER).status_code == 200
    assert read(federation.main.store, newest_version, "package").parent == first.version
    assert 'formaction="/pin"' in forms[1]
    answer = client.post("/pin", data={"version": first.version}, headers=BROWSER)
    assert answer.status_code == 200 and "Unpin" in buttons(section(shown(federation), "detectors"))
    assert "Roll back" not in buttons(shown(federation)), (
        "nothing changes the model of a detector that is pinned"
    )


def test_free_words_of_devices_are_only_words(federation: Any) -> None:
    publish(federation)
    runs.start(federation.main, "package", 3)
    advance.advance(federation.main)
    main, number = (
        federation.main,
        read(federation.main.store, newest_round, "package").plan.round,
    )
    write(
        main.store,
        judge,
        read(main.store, newest_version, "package"),
        "rejected",
        HOSTILE,
        main.clock(),
    )
    advance.advance(main)
    there = Device("a", HOSTILE, main.clock(), True)
    write(
        main.store,
        note_status,
        there,
        {"package": Status(None, None, None, None, (number, HOSTILE))},
    )
    write(
        main.store,
        make_due,
        read(main.store, newest_round, "package").plan,
        main.clock(),
        HOSTILE,
    )
    html = shown(federation)
    assert (
        HOSTILE not in html
        and "<script>alert" not in html
        and "1337" not in text_of(section(html, "devices"))
    )
    for name in ("devices", "rounds", "detectors"):
        assert HOSTILE in text_of(section(html, name)) or HOSTILE in unescape(
            section(html, name)
        ), name


def test_page_asks_the_database_the_same_however_long_the_past(federation: Any) -> None:
    long_past(federation, 2)
    for name in ("b", "c"):
        call(federation.main, name)
    with statements() as few:
        page(federation.main)
    long_past(federation, MANY, ("package", "cat"))
    for number in range(MANY):
        call(federation.main, f"device-{number}", setback=(1, "No pictures."))
    for detector in ("package", "cat"):
        runs.start(federation.main, detector, 5)
    advance.advance(federation.main)
    with statements() as many:
        page(federation.main)
    assert len(many) == len(few) <= 16


def test_newest_are_shown_and_the_others_counted(federation: Any) -> None:
    long_past(federation, MANY, ("package", "cat"))
    shown_status = status(federation.main)
    for each in shown_status["detectors"]:
        assert [one["round"] for one in each["rounds"]] == list(range(MANY + 1, MANY - 9, -1))
        assert each["rounds"][1]["bytes_up"] == 1000 + MANY and each["round_count"] == MANY + 1
        assert [one["round"] for one in each["versions"]] == list(range(MANY, MANY - 10, -1))
        assert [one["in_force"] for one in each["versions"]] == [True] + [False] * 9
    html = shown(federation)
    assert f"The newest 10 rounds; {MANY - 9} older ones are not shown" in section(html, "rounds")
    versions = shown_status["detectors"][1]["version_count"]
    assert (
        f"The newest 5 versions of the model; {versions - 5} older ones are not shown"
        in section(html, "rounds")
    )
    assert len(re.findall("<circle", html)) == 2 * MANY
    assert f"cat, round {MANY}: 75.0%" in section(html, "accuracy")


def test_accuracy_of_old_rounds_stays_in_the_chart_when_their_scores_are_let_go_of(
    federation: Any,
) -> None:
    long_past(federation, 30)
    before = read(federation.main.store, accuracies, 100)["package"]
    write(federation.main.store, forget_old, "package", 5, 5)
    assert read(federation.main.store, scores, f"{0:032x}{1:032x}") == ()
    assert read(federation.main.store, accuracies, 100)["package"] == before and len(before) == 30
    assert list(read(federation.main.store, accuracies, 7)["package"]) == list(range(24, 31))


def test_devices_that_need_a_person_come_first_and_those_beyond_a_hundred_are_counted(
    federation: Any,
) -> None:
    main = federation.main
    for number in range(120):
        call(main, f"device-{number:03}", at=main.clock() - (3600 if number == 119 else 0))
    runs.start(main, "package", 1)
    advance.advance(main)
    call(main, "device-118", setback=(1, "The disk is full."))
    rows = re.findall(r"<tr><td>(device-\d+)</td>", section(shown(federation), "devices"))
    assert rows[:3] == ["device-118", "device-119", "device-000"] and len(rows) == 100
    assert "And 20 more devices: 20 training." in text_of(section(shown(federation), "devices"))
    assert "120 devices: 1 failing, 1 offline, 118 training" in text_of(
        section(shown(federation), "summary")
    )
    assert len(status(main)["devices"]) == 120, "/status tells of all of them"


def test_refused_requests_are_counted_by_reason(federation: Any) -> None:
    before = status(federation.main)["refusals"].get("invalid-message", 0)
    for _ in range(3):
        federation.network.apps["main"].test_client().get("/run?detector=No+Name")
    assert status(federation.main)["refusals"]["invalid-message"] == before + 3
    assert f"invalid-message {before + 3:,}" in text_of(section(shown(federation), "refused"))


def test_run_has_a_progress_bar_and_the_button_that_fits(federation: Any) -> None:
    publish(federation)
    first = read(federation.main.store, newest_round, "package").plan.round
    runs.start(federation.main, "package", 4)
    assert first == 1
    publish(federation)
    card = section(shown(federation), "detectors")
    assert '<progress max="4" value="1"' in card and buttons(card) == ["Stop the run"]
    runs.stop(federation.main, "package")
    assert buttons(section(shown(federation), "detectors")) == ["Resume the run"]


class Clock:
    """A main server whose clock is the test's."""

    def __init__(self, federation: Any) -> None:
        self.now, self.federation = NOON, federation
        self.main = replace(federation.main, clock=lambda: self.now)

    def next(self) -> str:
        advance.advance(self.main)
        return self.sentence()

    def sentence(self) -> str:
        return next_step(self.main, read(self.main.store, read_snapshot), "package")

    def at(self, seconds: float) -> str:
        return time.strftime("%H:%M", time.localtime(NOON + seconds))


def test_what_happens_next_in_a_run(federation: Any) -> None:
    clock = Clock(federation)
    main = clock.main
    for device in ("a", "b", "c", "d", "e"):
        call(main, device)
    runs.start(main, "package", 2)
    assert clock.sentence() == "Round 1 is about to begin."
    closes = f"the round closes at {clock.at(600)} or when all have."
    assert (
        clock.next()
        == f"Waiting for updates of round 1: a, b, c and 2 more have not sent; {closes}"
    )
    for device in ("a", "b", "c", "d"):
        call(main, device, sent_round=1)
    assert clock.sentence() == f"Waiting for updates of round 1: e has not sent; {closes}"
    call(main, "e", sent_round=1)
    assert clock.next() == "Round 1 has its 5 updates: the secure aggregator adds them up now."
    runs.stop(main, "package")
    assert (
        clock.sentence()
        == "Stopped by the operator. “Resume the run” goes on; what was sent is kept."
    )


def test_what_happens_next_when_the_deadline_is_over_and_too_few_have_sent(federation: Any) -> None:
    clock = Clock(federation)
    call(clock.main, "a")
    runs.start(clock.main, "package", 1)
    advance.advance(clock.main)
    clock.now += 601
    said = "Round 1 is to be added up, and has 0 of the 2 updates it needs: a has not sent."
    assert clock.next() == said


def test_what_happens_next_when_so_many_updates_are_enough(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    clock = Clock(make_federation(tmp_path, target_cohort=3))
    for device in ("a", "b", "c", "d"):
        call(clock.main, device)
    runs.start(clock.main, "package", 1)
    assert clock.next().endswith("or when 3 have.")


def test_what_happens_next_by_hand(make_federation: Callable[..., Any], tmp_path: Path) -> None:
    federation = make_federation(tmp_path / "secure")
    clock = Clock(federation)
    federation.announce("a")
    assert clock.sentence().startswith(
        "Round 1 is open and needs 2 updates: train and send on each device, then"
    )
    version = publish(federation)
    assert (
        "“Send Aggregated Models to Federated Clients” gives it to the devices" in clock.sentence()
    )
    write(federation.main.store, release, version.version, NOON)
    write(
        federation.main.store,
        note_status,
        Device("a", "http://a", NOON, True),
        {"package": Status(1, None, version.version, (version.version, 0.5, 4), None)},
    )
    assert clock.sentence() == (
        "The devices try the model of round 1 on their own pictures: 1 of 2 have answered, and the others are waited "
        f"for until {clock.at(120)}."
    )
    write(federation.main.store, judge, version, PASSED, "", NOON)
    assert clock.sentence().startswith("No round is open: “Run rounds” opens the next one")
    write(federation.main.store, set_pin, "package", version.version, NOON)
    assert clock.sentence() == "Pinned: no round changes the model until you press “Unpin”."
    direct = make_federation(tmp_path / "direct", topology="direct")
    settings = direct.announce("a")
    there = Clock(direct)
    assert "has 0 of the 2 updates it needs: train and send on the devices" in there.sentence()
    for device in ("a", "b"):
        direct.announce(device)
        write(direct.main.store, keep_plain_update, settings, device, "d" * 64, NOON)
    assert "has 2 of the 2 updates it needs: press “Aggregate Local Models”" in there.sentence()


def test_time_of_another_day_has_its_day(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    clock = Clock(make_federation(tmp_path, round_deadline_s=86_400.0))
    call(clock.main, "a")
    runs.start(clock.main, "package", 1)
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(NOON + 86_400))
    assert f"the round closes at {day} or" in clock.next()


def test_fingerprint_is_another_one_when_the_page_should_be(federation: Any) -> None:
    clock, seen = Clock(federation), []

    def look() -> None:
        seen.append(page_token(clock.main))
        assert seen[-1] == page_token(clock.main)

    look()
    call(clock.main, "a")
    look()
    settings = federation.announce("a")
    look()
    for device in ("x", "y"):
        write(clock.main.store, keep_plain_update, settings, device, "d" * 64, NOON)
        look()
    write(clock.main.store, keep_plain_update, settings, "x", "e" * 64, NOON + 1)
    look()
    call(clock.main, "a", setback=(1, "The disk is full."))
    look()
    clock.now += 76
    look()
    assert len(set(seen)) == len(seen), "each of these is worth another look"


def test_device_that_only_asks_again_changes_nothing(federation: Any) -> None:
    clock = Clock(federation)
    call(clock.main, "a")
    before = page_token(clock.main)
    clock.now += 20
    call(clock.main, "a")
    assert page_token(clock.main) == before


def test_version_that_is_pending_shows_no_verdict(federation: Any) -> None:
    version = publish(federation)
    assert version.gate == PENDING
    assert "pending" in text_of(section(shown(federation), "rounds"))
    assert status(federation.main)["detectors"][0]["versions"][0]["in_force"] is False
    federation.step("main", "send_model_clients")
    assert status(federation.main)["detectors"][0]["versions"][0]["in_force"] is True
