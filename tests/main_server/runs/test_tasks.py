"""Waiting for work: what is taken, what is answered, how long one waits, and what wakes whoever
does.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from main_server.context import MainServer
from main_server.members.members import rename, revoke
from main_server.runs import advance, runs
from main_server.runs.change_notifier import ChangeNotifier
from main_server.runs.tasks import for_aggregator, for_device
from main_server.store.contributions import sent_updates
from main_server.store.devices import all_devices, participations
from main_server.store.evaluations import scores
from main_server.store.events import newest_event_id
from main_server.store.pins import remove_pin
from main_server.store.rounds import abandon_round, make_due, newest_round
from main_server.store.versions import newest_version, release
from shared.errors import Forbidden, InvalidMessage
from shared.messages import convert
from shared.protocol.announcement import MAX_DETECTORS
from shared.protocol.work import (
    MAX_DETAIL_CHARS,
    MAX_WAIT_S,
    AddUp,
    AggregatorWaits,
    DetectorStatus,
    DeviceWaits,
    Install,
)
from tests.conftest import Federation
from tests.main_store import read, write

NOTHING: dict[str, Any] = DetectorStatus(None, None, None, None, None, None).to_json()
VERSION = "0123456789abcdef" * 4
ASKING: dict[str, Any] = {"address": "http://a", "wait_s": 0, "detectors": {"package": NOTHING}}
PATIENCE_S = 30.0


def asking(wait_s: float = 0, **said: Any) -> dict[str, Any]:
    return ASKING | {"wait_s": wait_s, "detectors": {"package": NOTHING | said}}


def tasks(federation: Any, device: str = "a", **said: Any) -> list[dict[str, Any]]:
    """Return what a device is to do that says so of one detector."""
    main, message = federation.main, convert(DeviceWaits, asking(**said))
    work = for_device(main, ChangeNotifier(main), federation.caller(device), message)
    return list(work.to_json()["tasks"])


def begin(federation: Any) -> Any:
    """Start a run, and let it ask for its first round; return that."""
    for device in ("a", "b"):
        tasks(federation, device)
    runs.start(federation.main, "package", 3)
    advance.advance(federation.main)
    return read(federation.main.store, newest_round, "package").plan


@pytest.fixture
def watched(federation: Any) -> Iterator[Callable[..., ChangeNotifier]]:
    """Return a maker of news that are watched, as in a started service."""
    stop, threads = threading.Event(), []

    def watch(count: int = 64) -> ChangeNotifier:
        news = ChangeNotifier(federation.main)
        threads.append(threading.Thread(target=news.watch, args=(stop, count)))
        threads[-1].start()
        until = time.monotonic() + PATIENCE_S
        while news._slots is None and time.monotonic() < until:
            time.sleep(0.01)
        return news

    yield watch
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)


# --- what is asked


def test_what_a_device_says_is_noted(federation: Any) -> None:
    main = replace(federation.main, clock=lambda: 1234.5)
    version = federation.announce("a").base_version
    said = {
        "trained_round": 3,
        "sent_round": None,
        "held": version,
        "refused": None,
        "score": {"version": version, "accuracy": 0.25, "pictures": 80},
        "setback": {"round": 2, "said": "It\nfell."},
    }
    message = convert(DeviceWaits, asking(**said) | {"address": "http://elsewhere/"})
    for_device(main, ChangeNotifier(main), federation.caller("a"), message)
    (device,) = read(main.store, all_devices)
    assert (device.name, device.address, device.last_seen, device.waiting) == (
        "a",
        "http://elsewhere",
        1234.5,
        True,
    )
    (part,) = read(main.store, participations)
    assert (part.trained_round, part.delivered, part.setback_round, part.setback) == (
        3,
        version,
        2,
        "It fell.",
    )
    assert [vars(score) for score in read(main.store, scores, version)] == [
        {"device": "a", "accuracy": 0.25, "pictures": 80}
    ]


def test_score_of_another_detectors_version_is_not_noted(federation: Any) -> None:
    version = federation.announce("a", "raccoon").base_version
    tasks(federation, score={"version": version, "accuracy": 0.5, "pictures": 8})
    tasks(federation, score={"version": VERSION, "accuracy": 0.5, "pictures": 8})
    assert (
        read(federation.main.store, scores, version)
        == read(federation.main.store, scores, VERSION)
        == ()
    )


def test_said_again_is_no_news(federation: Any) -> None:
    settings = begin(federation)
    score = {"version": settings.base_version, "accuracy": 0.5, "pictures": 8}
    tasks(federation, sent_round=1, score=score)
    newest = read(federation.main.store, newest_event_id)
    tasks(federation, sent_round=1, score=score)
    assert read(federation.main.store, newest_event_id) == newest


def test_update_that_was_sent_for_no_open_round_is_not_noted(federation: Any) -> None:
    settings = begin(federation)
    tasks(federation, sent_round=7)
    assert read(federation.main.store, sent_updates, settings) == {}
    write(federation.main.store, abandon_round, settings, 1.0, "why")
    tasks(federation, sent_round=1)
    assert read(federation.main.store, sent_updates, settings) == {}


GARBAGE: list[Any] = [
    None,
    [],
    "work",
    1,
    {},
    {"wait_s": 0},
    ASKING | {"more": 1},
    {key: value for key, value in ASKING.items() if key != "address"},
    *(
        ASKING | {"wait_s": each}
        for each in (-1, MAX_WAIT_S + 0.1, "1", None, True, float("nan"), float("inf"), [])
    ),
    *(
        ASKING | {"address": each}
        for each in (None, "a:1", "ftp://a", "http://169.254.169.254", 5, "http://a/?b")
    ),
    *(
        ASKING | {"detectors": each}
        for each in (None, [], "package", {"No Name": NOTHING}, {"package": None})
    ),
    ASKING | {"detectors": {f"d{number}": NOTHING for number in range(MAX_DETECTORS + 1)}},
    asking(more=1),
    ASKING | {"detectors": {"package": {"held": None}}},
    *(
        asking(**{name: each})
        for name in ("trained_round", "sent_round")
        for each in (0, -1, 2**31, True, "1", [])
    ),
    *(
        asking(**{name: each})
        for name in ("held", "refused")
        for each in ("", "0" * 63, "F" * 64, 0, "0" * 64 + "\n")
    ),
    *(asking(score=each) for each in ([], 1, {}, {"version": VERSION, "accuracy": 0.5})),
    *(
        asking(score={"version": VERSION, "accuracy": each, "pictures": 1})
        for each in (-0.1, 1.1, float("nan"), "1", None, True)
    ),
    *(
        asking(score={"version": VERSION, "accuracy": 1, "pictures": each})
        for each in (0, -1, 1.0, 2**31, None, True)
    ),
    asking(score={"version": "x", "accuracy": 1, "pictures": 1}),
    *(asking(setback=each) for each in ([], "it fell", {}, {"round": 1})),
    *(asking(setback={"round": each, "said": ""}) for each in (-1, 2**31, True, 1.0, None)),
    *(
        asking(setback={"round": 1, "said": each})
        for each in (None, 1, "x" * (MAX_DETAIL_CHARS + 1), [])
    ),
]


def test_message_that_does_not_ask_for_work_is_refused_and_nothing_is_noted(
    federation: Any,
) -> None:
    caller, before = federation.caller("a"), federation.remembered("main-server")
    for message in GARBAGE:
        with pytest.raises(InvalidMessage):
            for_device(
                federation.main,
                ChangeNotifier(federation.main),
                caller,
                convert(DeviceWaits, message),
            )
    assert federation.remembered("main-server") == before


@pytest.mark.parametrize(
    "message", [None, [], {}, ASKING, {"wait_s": None}, {"wait_s": 56}, {"wait_s": 0, "more": 1}]
)
def test_aggregator_that_does_not_ask_for_work_is_refused(federation: Any, message: object) -> None:
    with pytest.raises(InvalidMessage):
        for_aggregator(
            federation.main, ChangeNotifier(federation.main), convert(AggregatorWaits, message)
        )


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.just(VERSION),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=6,
)
PARTS: dict[str, dict[str, Any]] = {
    "score": {"version": VERSION, "accuracy": 1, "pictures": 1},
    "setback": {"round": 1, "said": ""},
}


@st.composite
def mangled(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what a device says of a detector, with one member, or a member's member, replaced by
    anything.
    """
    name, value = draw(st.sampled_from(sorted(NOTHING))), draw(ANYTHING)
    if name in PARTS and draw(st.booleans()):
        value = PARTS[name] | {draw(st.sampled_from(sorted(PARTS[name]))): value}
    return NOTHING | {name: value}


@settings(deadline=None, max_examples=300)
@given(value=ANYTHING | mangled())
def test_garbage_is_refused_and_nothing_else_goes_wrong(value: object) -> None:
    for kind, message in (
        (DetectorStatus, value),
        (AggregatorWaits, value),
        (AggregatorWaits, {"wait_s": value}),
    ):
        try:
            parsed = convert(kind, message)
        except InvalidMessage:
            continue
        assert parsed.to_json() == message


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    value=ANYTHING | st.builds(lambda each: asking() | {"detectors": {"package": each}}, mangled())
)
def test_garbage_over_the_wire_is_taken_or_refused_with_a_sentence(
    federation: Any, value: object
) -> None:
    text = json.dumps(value).encode()
    a = federation.device("a")
    if json.loads(text) is not None:
        try:
            a.post_json("http://main/work", value)
        except InvalidMessage as error:
            assert str(error)


def test_sentence_of_a_setback_is_printed_safely(federation: Any) -> None:
    federation.announce("a")
    tasks(federation, setback={"round": 0, "said": "one\ntwo\0three\x1b[31m é"})
    (part,) = read(federation.main.store, participations)
    assert part.setback == "one two three [31m é"


def test_device_takes_part_in_so_many_detectors_at_most_now_and_before(federation: Any) -> None:
    main, caller = federation.main, federation.caller("a")
    many = {f"d{number}": NOTHING for number in range(MAX_DETECTORS)}
    for_device(
        main, ChangeNotifier(main), caller, convert(DeviceWaits, ASKING | {"detectors": many})
    )
    assert len(read(main.store, participations)) == MAX_DETECTORS
    with pytest.raises(InvalidMessage, match="64 detectors at most"):
        for_device(main, ChangeNotifier(main), caller, convert(DeviceWaits, asking()))
    assert len(read(main.store, participations)) == MAX_DETECTORS
    for_device(main, ChangeNotifier(main), federation.caller("b"), convert(DeviceWaits, asking()))


# --- who asks


def test_device_speaks_for_itself_alone_and_hears_its_name(federation: Any) -> None:
    federation.device("b")
    answer = federation.device("a").post_json("http://main/work", ASKING).json
    assert answer == {"name": "a", "tasks": [], "again_s": 25.0}
    assert [device.name for device in read(federation.main.store, all_devices)] == ["a"]
    with pytest.raises(InvalidMessage):
        federation.device("a").post_json("http://main/work", ASKING | {"name": "b"})


def test_each_role_asks_in_its_own_way(federation: Any) -> None:
    assert federation.as_aggregator.post_json("http://main/work", {"wait_s": 0}).json == {
        "tasks": [],
        "again_s": 25.0,
    }
    with pytest.raises(InvalidMessage):
        federation.as_aggregator.post_json("http://main/work", ASKING)
    with pytest.raises(InvalidMessage):
        federation.device("a").post_json("http://main/work", {"wait_s": 0})


def test_revoked_device_is_refused(federation: Any) -> None:
    a = federation.device("a")
    a.post_json("http://main/work", ASKING)
    revoke(federation.main, "a", "It was stolen.")
    with pytest.raises(Forbidden, match="a was revoked: It was stolen"):
        a.post_json("http://main/work", ASKING)
    assert read(federation.main.store, participations) == ()


def test_whoever_signs_nothing_is_refused(federation: Any) -> None:
    with pytest.raises(Forbidden, match="not signed"):
        federation.http.post("http://main/work", b"{}")


# --- what is answered


def test_released_version_that_is_not_held_is_to_be_installed(federation: Any) -> None:
    version = federation.announce("a").base_version
    assert tasks(federation) == [], "it is not released yet"
    write(federation.main.store, release, version, 1.0)
    install = [{"do": "install", "detector": "package", "version": version}]
    assert tasks(federation) == tasks(federation) == install, (
        "nothing is remembered between two calls"
    )
    assert tasks(federation, held="f" * 64) == install
    assert tasks(federation, held=version) == []
    assert tasks(federation, refused=version) == [], "it did not answer there"
    assert tasks(federation, refused="f" * 64) == install


def test_device_that_holds_a_newer_version_is_not_told_to_go_back(federation: Any) -> None:
    write(federation.main.store, release, federation.announce("a").base_version, 1.0)
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    newest = read(federation.main.store, newest_version, "package")
    assert newest.released_at is None, "by hand a version is released when it is delivered"
    assert tasks(federation, held=newest.version) == []
    other = federation.announce("a", "raccoon").base_version
    assert [task["do"] for task in tasks(federation, held=other)] == ["install"]


def test_device_is_asked_to_train_until_it_has_sent(federation: Any) -> None:
    held = begin(federation).base_version
    train = [{"do": "train", "detector": "package", "round": 1}]
    assert tasks(federation, held=held) == train
    assert tasks(federation, held=held, trained_round=1) == train
    assert tasks(federation, held=held, setback={"round": 0, "said": "before"}) == train
    assert tasks(federation, held=held, setback={"round": 1, "said": "now"}) == []
    assert tasks(federation, held=held, sent_round=1) == []


def test_nobody_is_asked_to_train_for_a_round_that_is_not_a_runs(federation: Any) -> None:
    federation.announce("a")
    advance.advance(federation.main)
    assert tasks(federation) == []
    assert (
        for_aggregator(federation.main, ChangeNotifier(federation.main), AggregatorWaits(0)).tasks
        == ()
    )


def test_nobody_is_asked_to_train_for_a_round_that_has_enough_and_is_due(federation: Any) -> None:
    settings = begin(federation)
    held = settings.base_version
    tasks(federation, "a", held=held, sent_round=1)
    write(federation.main.store, make_due, settings, 1.0, "The deadline is over.")
    assert [task["do"] for task in tasks(federation, "c", held=held)] == ["train"], (
        "one update is too few"
    )
    tasks(federation, "b", held=held, sent_round=1)
    assert tasks(federation, "c", held=held) == []


def test_aggregator_is_asked_as_long_as_the_round_is_due(federation: Any) -> None:
    settings = begin(federation)

    def ask() -> Any:
        notifier = ChangeNotifier(federation.main)
        return for_aggregator(federation.main, notifier, AggregatorWaits(0)).tasks

    assert ask() == ()
    write(federation.main.store, make_due, settings, 1.0, "All are there.")
    assert ask() == ask() == (AddUp("package", 1),)
    write(federation.main.store, abandon_round, settings, 2.0, "why")
    assert ask() == ()


def test_device_hears_of_its_own_detectors_alone(federation: Any) -> None:
    begin(federation)
    main = federation.main
    said = convert(DeviceWaits, ASKING | {"detectors": {"raccoon": NOTHING}})
    assert for_device(main, ChangeNotifier(main), federation.caller("a"), said).tasks == ()


# --- waiting


def test_whoever_finds_work_does_not_wait(
    federation: Any, watched: Callable[..., ChangeNotifier]
) -> None:
    begin(federation)
    news, begun = watched(), time.monotonic()
    message = convert(DeviceWaits, asking(PATIENCE_S))
    answer = for_device(federation.main, news, federation.caller("a"), message)
    assert [task["do"] for task in answer.to_json()["tasks"]] == ["install", "train"]
    assert time.monotonic() - begun < PATIENCE_S / 2


def test_whoever_waits_in_vain_is_answered_in_time(
    federation: Any, watched: Callable[..., ChangeNotifier]
) -> None:
    news, begun = watched(), time.monotonic()
    assert news.wait_for(list, 0.6) == ([], 0.0)
    assert 0.6 <= time.monotonic() - begun < PATIENCE_S / 2
    assert news.wait_for(list, 0) == ([], 0.0)


def test_device_that_is_renamed_while_it_waits_hears_its_new_name(federation: Federation) -> None:
    class Renaming(ChangeNotifier):
        """Lets a device be renamed while it waits."""

        def wait_for(
            self, tasks: Callable[[], list[Any]], wait_s: float
        ) -> tuple[list[Any], float]:
            rename(federation.main, "a", "garden")
            return [], 0.0

    caller = federation.caller("a")
    message = convert(DeviceWaits, asking(PATIENCE_S))
    answer = for_device(federation.main, Renaming(federation.main), caller, message)
    assert answer.name == "garden", "by its old one it would send an update that nobody takes"


def test_change_by_another_process_wakes_whoever_waits_within_a_second(
    federation: Any, watched: Callable[..., ChangeNotifier]
) -> None:
    caller, news, answers = federation.caller("a"), watched(), []
    version = federation.announce("a").base_version
    time.sleep(1.5)  # until what has happened so far is no news any more

    def wait() -> None:
        message = convert(DeviceWaits, asking(PATIENCE_S))
        answer = for_device(federation.main, news, caller, message)
        answers.append((time.monotonic(), answer.tasks))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    assert not answers
    other = MainServer.open(federation.settings, federation.http)
    write(other.store, release, version, 1.0)
    changed = time.monotonic()
    waiting.join(PATIENCE_S)
    ((woken, found),) = answers
    assert found == (Install("package", version),)
    assert woken - changed < 2.0, "a busy machine may take a little longer than the second"


def test_run_advances_by_itself_and_the_aggregator_hears_of_it(
    federation: Any, watched: Callable[..., ChangeNotifier]
) -> None:
    settings = begin(federation)
    news, found = watched(), []
    waiting = threading.Thread(
        target=lambda: found.append(
            for_aggregator(federation.main, news, AggregatorWaits(PATIENCE_S)).tasks
        )
    )
    waiting.start()
    for device in ("a", "b"):
        tasks(federation, device, held=settings.base_version, sent_round=1)
    sent = time.monotonic()
    waiting.join(PATIENCE_S)
    assert time.monotonic() - sent < PATIENCE_S / 2
    assert found == [(AddUp("package", 1),)]


@pytest.mark.parametrize(("threads", "slots"), [(1, 0), (2, 1), (4, 2), (16, 8), (64, 56)])
def test_some_threads_stay_free_for_other_requests(
    federation: Any, watched: Callable[..., ChangeNotifier], threads: int, slots: int
) -> None:
    news, free, release = watched(threads), threading.Semaphore(0), threading.Event()

    def look() -> list[Any]:
        if threading.current_thread().name.startswith("waits"):
            free.release()
        return ["work"] if release.is_set() else []

    waiting = [
        threading.Thread(target=news.wait_for, args=(look, PATIENCE_S), name=f"waits {each}")
        for each in range(slots)
    ]
    for thread in waiting:
        thread.start()
        assert free.acquire(timeout=PATIENCE_S)
    until = time.monotonic() + PATIENCE_S
    while news._slots is not None and news._slots._value and time.monotonic() < until:
        time.sleep(0.01)
    assert news.wait_for(list, PATIENCE_S) == ([], 25.0)
    release.set()
    write(federation.main.store, remove_pin, "package", 1.0)  # any news
    for thread in waiting:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert news._slots is not None and news._slots._value == slots, "all slots are free again"


def test_without_a_watch_nobody_waits(federation: Any) -> None:
    begun = time.monotonic()
    assert ChangeNotifier(federation.main).wait_for(list, PATIENCE_S) == ([], 25.0)
    assert time.monotonic() - begun < PATIENCE_S / 2


def test_watch_that_ends_keeps_nobody_waiting(federation: Any) -> None:
    news, stop = ChangeNotifier(federation.main), threading.Event()
    answers: list[Any] = []
    first = threading.Thread(target=news.watch, args=(stop, 16))
    first.start()
    while news._slots is None:
        time.sleep(0.01)
    waiting = threading.Thread(target=lambda: answers.append(news.wait_for(list, 5 * PATIENCE_S)))
    waiting.start()
    while news._slots._value == 8:
        time.sleep(0.01)
    stop.set()
    first.join(PATIENCE_S)
    waiting.join(PATIENCE_S)
    assert answers == [([], 0.0)]


def test_no_wake_up_is_lost_however_close_it_comes(federation: Any) -> None:
    news = ChangeNotifier(federation.main)
    news._slots = threading.BoundedSemaphore(8)
    for number in range(1, 300):
        work: list[Any] = []

        def change(number: int = number, work: list[Any] = work) -> None:
            work.append("work")
            news._notify(number)

        writer = threading.Thread(target=change)

        def look(
            work: list[Any] = work, writer: threading.Thread = writer, odd: int = number % 2
        ) -> list[Any]:
            found = list(work)
            if not writer.ident:
                writer.start()
                if odd:  # the news come after the look, and before the waiting begins
                    writer.join()
            return found

        begun = time.monotonic()
        assert news.wait_for(look, PATIENCE_S) == (["work"], 0.0)
        assert time.monotonic() - begun < PATIENCE_S / 2
        writer.join()


def test_database_that_is_away_for_a_while_does_not_end_the_watch(
    federation: Any, watched: Callable[..., ChangeNotifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    from main_server.runs import change_notifier  # noqa: PLC0415
    from shared.errors import StorageUnavailable  # noqa: PLC0415

    away = threading.Event()
    away.set()

    def advance(_: MainServer) -> None:
        if away.is_set():
            raise StorageUnavailable("The database does not answer.")

    monkeypatch.setattr(change_notifier, "advance", advance)
    news, answers = watched(), []
    waiting = threading.Thread(
        target=lambda: answers.append(
            news.wait_for(lambda: ["work"] if not away.is_set() else [], PATIENCE_S)
        )  # type: ignore[list-item]
    )
    waiting.start()
    write(federation.main.store, remove_pin, "package", 1.0)
    time.sleep(0.8)
    assert not answers
    away.clear()
    back = time.monotonic()
    waiting.join(PATIENCE_S)
    assert answers == [(["work"], 0.0)]
    assert time.monotonic() - back < PATIENCE_S / 2
