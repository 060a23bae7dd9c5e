"""The aggregator waits for work, does it once or twice to the same effect, and lets nothing and
nobody stop it.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.serving import make_server

from main_server.store.rounds import find_round
from sec_agg import poll_loop
from sec_agg.aggregation import Aggregator, aggregate, hand_over
from sec_agg.poll_loop import AGAIN_S, LEAST_S, WAIT_S, Attendant, attend
from sec_agg.pruning import Pruner
from sec_agg.roster import Roster
from sec_agg.store.store import Store
from shared.errors import Forbidden, OutOfOrder, PeerUnreachable
from shared.round.payloads import parse_aggregate
from shared.security.identity import Identity
from shared.storage.blobs import BlobStore
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient
from shared.web.background import start_background
from tests.main_store import read

SUM = "main/secagg_model"
Answer = dict[str, Any]


def wanted(*rounds: int, detector: str = "package", again_s: float = 0) -> Answer:
    tasks = [{"do": "aggregate", "detector": detector, "round": number} for number in rounds]
    return {"tasks": tasks, "again_s": again_s}


class Reply:
    """What an `HttpClient` returns, as far as it is looked at."""

    def __init__(self, message: Any) -> None:
        self.json = message


class Asked:
    """The aggregator's way to the real main server, but for /work: there it gets what a test has
    made ready.
    """

    def __init__(self, http: HttpClient, *answers: Any) -> None:
        self.http, self.answers = http, list(answers)
        self.asked: list[Any] = []
        self.paths: list[str] = []

    def get(self, url: str, to: Any) -> Any:
        self.paths.append(url)
        return self.http.get(url, to)

    def post(self, url: str, body: bytes, to: Any) -> Any:
        return self.http.post(url, body, to)

    def post_json(self, url: str, message: Any, to: Any) -> Any:
        if not url.endswith("/work"):
            return self.http.post_json(url, message, to)
        assert to.public_key is not None, "the answer must be signed"
        self.asked.append(message.to_json())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer)


def asking(aggregator: Aggregator, *answers: Any) -> tuple[Aggregator, Any]:
    """Return an aggregator that gets these answers to /work, the last one again and again; and its
    http client.
    """
    http: Any = Asked(aggregator.http, *answers)
    return replace(aggregator, http=http), http


def pruner(aggregator: Aggregator) -> Pruner:
    return Pruner(aggregator.store, aggregator.blobs)


def attendant(federation: Any, *answers: Any) -> Attendant:
    aggregator, _ = asking(federation.aggregator, *answers)
    return Attendant(aggregator, pruner(aggregator))


def send(federation: Any, *devices: str, detector: str = "package") -> None:
    for device in devices:
        federation.upload(device, federation.delta(), detector=detector)


def state(federation: Any, number: int, detector: str = "package") -> str:
    return str(read(federation.main.store, find_round, detector, number).state)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return what the aggregator has complained about."""
    caplog.set_level(logging.WARNING, "sec_agg.poll_loop")
    return lambda: [
        record.getMessage() for record in caplog.records if record.name == "sec_agg.poll_loop"
    ]


def test_round_that_is_due_is_added_up_and_handed_over(federation: Any) -> None:
    send(federation, "a", "b")
    aggregator, http = asking(federation.aggregator, wanted(1))
    assert Attendant(aggregator, pruner(aggregator)).attend_once() == 0
    assert http.asked == [{"wait_s": WAIT_S}]
    assert state(federation, 1) == "published"
    assert federation.aggregator.store.newest_round("package").delivered


def test_without_work_it_asks_again_at_once_but_not_in_a_whirl(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attendant(federation, wanted()).attend_once() == LEAST_S
    seconds = iter([100.0, 127.0])
    monkeypatch.setattr(poll_loop.time, "monotonic", lambda: next(seconds))
    one = attendant(federation, wanted())
    monkeypatch.setattr(one._pruner, "idle", lambda: None)
    assert one.attend_once() == 0


def test_main_server_without_a_slot_is_left_alone_for_as_long_as_it_says(federation: Any) -> None:
    pauses = {attendant(federation, wanted(again_s=20)).attend_once() for _ in range(20)}
    assert all(10 <= pause <= 30 for pause in pauses)
    assert len(pauses) > 10


def test_too_few_updates_are_complained_about_once_per_round_and_tried_again(
    federation: Any, said: Callable[[], list[str]]
) -> None:
    send(federation, "a")
    one = attendant(federation, wanted(1))
    for _ in range(3):
        assert one.attend_once() == AGAIN_S
    assert len(said()) == 1
    assert "1 of the 2 updates it needs" in said()[0]
    send(federation, "b")
    assert one.attend_once() == 0
    send(federation, "a")
    one._aggregator, _ = asking(federation.aggregator, wanted(2))
    for _ in range(2):
        assert one.attend_once() == AGAIN_S
    assert len(said()) == 2
    assert "Round 2" in said()[1]


def test_task_that_comes_again_is_handed_over_again_unhurried(federation: Any) -> None:
    send(federation, "a", "b")
    one = attendant(federation, wanted(1))
    assert one.attend_once() == 0
    assert one.attend_once() == AGAIN_S
    assert len(federation.network.sent(SUM)) == 2
    assert len(set(federation.network.sent(SUM))) == 1


def test_sum_that_was_made_and_not_handed_over_is_handed_over(federation: Any) -> None:
    send(federation, "a", "b")
    aggregate(federation.aggregator, "package")
    federation.start()
    assert attendant(federation, wanted(1)).attend_once() == 0
    assert state(federation, 1) == "published"


def test_newer_round_than_is_known_is_asked_for_and_the_old_sum_is_not_sent_for_it(
    federation: Any, said: Callable[[], list[str]]
) -> None:
    send(federation, "a", "b")
    aggregate(federation.aggregator, "package")
    hand_over(federation.aggregator, "package")
    assert federation.announce("a").round == 2
    assert attendant(federation, wanted(2)).attend_once() == AGAIN_S
    assert federation.aggregator.store.newest_round("package").round == 2
    assert len(federation.network.sent(SUM)) == 1
    assert "Round 2 has 0 of the 2 updates it needs" in said()[0]
    send(federation, "a", "b")
    assert attendant(federation, wanted(2)).attend_once() == 0
    assert state(federation, 2) == "published"


def test_round_that_is_over_is_not_added_up(federation: Any, said: Callable[[], list[str]]) -> None:
    send(federation, "a", "b")
    one = attendant(federation, wanted(7))
    assert one.attend_once() == AGAIN_S
    assert "Round 7 of package is not the newest one here: that is round 1" in said()[0]
    assert state(federation, 1) == "open"
    assert federation.aggregator.store.newest_round("package").state == "open"


def test_one_detector_does_not_hold_up_the_others(
    federation: Any, said: Callable[[], list[str]]
) -> None:
    send(federation, "a")
    send(federation, "a", "b", detector="raccoon")
    tasks = wanted(1)["tasks"] + wanted(1, detector="raccoon")["tasks"]
    assert attendant(federation, {"tasks": tasks, "again_s": 0}).attend_once() == AGAIN_S
    assert (state(federation, 1), state(federation, 1, "raccoon")) == ("open", "published")
    assert len(said()) == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"tasks": []},
        {"tasks": 1, "again_s": 0},
        {"tasks": [1], "again_s": 0},
        {"tasks": [{}], "again_s": 0},
        wanted(again_s=float("nan")),
        wanted(again_s=1e9),
        wanted(again_s=-1),
        wanted(1, detector="../x"),
        {"tasks": [{"do": "aggregate", "detector": "package", "round": None}], "again_s": 0},
    ],
)
def test_answer_that_is_no_list_of_tasks_is_not_acted_upon(federation: Any, answer: Any) -> None:
    send(federation, "a", "b")
    with pytest.raises(PeerUnreachable, match="did not send a list of tasks"):
        attendant(federation, answer).attend_once()
    assert federation.aggregator.store.newest_round("package").state == "open"


def test_task_of_another_kind_is_left_to_newer_versions(federation: Any) -> None:
    assert (
        attendant(federation, {"tasks": [{"do": "dance"}], "again_s": 0}).attend_once() == LEAST_S
    )


def test_pauses_grow_while_the_main_server_does_not_answer_and_begin_anew_when_it_does(
    federation: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    limits: list[float] = []

    class Rng:
        """Draws the longest pause."""

        def uniform(self, low: float, high: float) -> float:
            limits.append(high)
            assert low == 0
            return high

    class Stop(threading.Event):
        """Passes the time, and ends after so many pauses."""

        def __init__(self) -> None:
            super().__init__()
            self.pauses: list[float] = []

        def wait(self, timeout: float | None = None) -> bool:
            self.pauses.append(timeout or 0)
            if len(self.pauses) == 12:
                self.set()
            return self.is_set()

    monkeypatch.setattr(poll_loop, "_rng", Rng())
    silent = PeerUnreachable("No answer.")
    aggregator, _ = asking(
        federation.aggregator, *[silent] * 8, wanted(), silent, silent, Forbidden("Not yet.")
    )
    stop = Stop()
    attend(aggregator, pruner(aggregator), stop)
    assert stop.pauses == [1, 2, 4, 8, 16, 32, 60, 60, LEAST_S, 1, 2, 4]
    assert len(limits) == 11
    silence = "attending: No answer. Nothing was changed."
    assert said() == [silence, silence, "attending: Not yet. Nothing was changed."]


def test_main_server_that_vanishes_within_a_task_counts_as_out_of_reach(federation: Any) -> None:
    send(federation, "a", "b")
    one = attendant(federation, wanted(1))
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        one.attend_once()
    federation.network.down = set()
    assert one.attend_once() == 0


def test_aggregator_that_knows_of_no_round_takes_no_part_in_one_that_was_vouched_for(
    federation: Any,
) -> None:
    """It may have been added up in an earlier life, over another cohort."""
    send(federation, "a", "b")
    aggregate(federation.aggregator, "package")
    lost, http = asking(
        replace(federation.aggregator, store=Store(federation.folder / "lost")), wanted(1)
    )
    assert Attendant(lost, pruner(lost)).attend_once() == AGAIN_S
    assert http.paths[0] == "http://main/round/package?first=1"
    assert state(federation, 1) == "abandoned"
    assert lost.store.newest_round("package").round == 2
    with pytest.raises(OutOfOrder, match="Round 1 is abandoned"):
        hand_over(federation.aggregator, "package")


def test_first_is_asked_for_only_where_no_round_is_known(federation: Any) -> None:
    aggregator, http = asking(federation.aggregator, wanted(1), wanted(2))
    one = Attendant(aggregator, pruner(aggregator))
    federation.announce("a")
    one.attend_once()
    send(federation, "a", "b")
    aggregate(aggregator, "package")
    hand_over(aggregator, "package")
    one.attend_once()
    rounds = [path for path in http.paths if "/round/" in path]
    assert rounds[0] == "http://main/round/package?first=1"
    assert len(rounds) >= 3
    assert set(rounds[1:]) == {"http://main/round/package"}


def test_app_attends_when_it_is_served_and_at_no_other_time(federation: Any) -> None:
    app, log = federation.network.apps["aggregator"], federation.network.log
    assert not [where for where, _ in log if where == "main/work"]
    stop = start_background(app, 8)
    deadline = time.monotonic() + 20
    while not [where for where, _ in log if where == "main/work"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stop.set()


class Counted(threading.Event):
    """Counts the pauses, which last a hundredth of a second each."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses += 1
        return super().wait(0.01)


def test_one_of_several_attends_and_another_takes_over_when_it_ends(federation: Any) -> None:
    stops, clients, threads = [Counted(), Counted()], [], []
    for stop in stops:
        aggregator, http = asking(federation.aggregator, wanted())
        threads.append(
            threading.Thread(
                target=attend, args=(aggregator, pruner(aggregator), stop), daemon=True
            )
        )
        clients.append(http)
        threads[-1].start()
        _until(lambda stop=stop: stop.pauses > 3)  # type: ignore[misc]
    assert clients[0].asked
    assert not clients[1].asked
    stops[0].set()
    _until(lambda: bool(clients[1].asked))
    stops[1].set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_another_takes_over_when_the_process_that_attends_is_killed(federation: Any) -> None:
    folder = federation.aggregator.enrolment.folder
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    holder = context.Process(
        target=_hold_turn, args=(folder / "attending.lock", there), daemon=True
    )
    holder.start()
    assert here.recv() == "held"
    aggregator, http = asking(federation.aggregator, wanted())
    stop = Counted()
    thread = threading.Thread(
        target=attend, args=(aggregator, pruner(aggregator), stop), daemon=True
    )
    thread.start()
    _until(lambda: stop.pauses > 3)
    assert not http.asked
    holder.kill()
    _until(lambda: bool(http.asked))
    stop.set()
    thread.join(10)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_two_aggregators_on_one_database_that_are_asked_at_once_make_one_sum(
    federation: Any,
) -> None:
    devices = [f"device-{number}" for number in range(8)]
    send(federation, *devices)
    folder = federation.aggregator.enrolment.folder
    server = make_server("127.0.0.1", 0, federation.network.apps["main"], threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for _ in range(2):
            here, there = context.Pipe()
            process = context.Process(
                target=_add_up,
                args=(folder, federation.database_url, server.server_port, there),
                daemon=True,
            )
            process.start()
            pipes.append(here)
            processes.append(process)
        assert [pipe.recv() for pipe in pipes] == ["ready"] * 2
        for pipe in pipes:
            pipe.send("go")
        answers = [pipe.recv() for pipe in pipes]
    finally:
        server.shutdown()
        for process in processes:
            process.kill()
    assert answers[0][0] == answers[1][0] == devices
    assert answers[0][1] == answers[1][1] != b""
    blobs = [path.read_bytes() for path in (folder / "blobs").iterdir()]
    assert sum(b"doorbell-aggregate/1" in blob[:200] for blob in blobs) == 1
    assert list(parse_aggregate(answers[0][1]).sealed_seeds) == devices
    assert state(federation, 1) == "published"


def _hold_turn(path: Path, pipe: Any) -> None:
    with poll_loop._turn(path, threading.Event()):
        pipe.send("held")
        time.sleep(600)


def _add_up(folder: Path, database_url: str | None, port: int, pipe: Any) -> None:
    """Be an aggregator process of its own that adds up round 1 when told to, and hands it over."""
    identity = Identity.open(folder / "identity.key")
    http = HttpClient(identity)
    url = f"http://127.0.0.1:{port}"
    enrolment = Enrolment(
        identity, "secure-aggregator", "secure-aggregator", folder, url, http, None, folder
    )
    store = Store(folder, database_url)
    aggregator = Aggregator(
        store, BlobStore(folder / "blobs"), http, enrolment, Roster(enrolment, http)
    )
    pipe.send("ready")
    pipe.recv()
    devices = aggregate(aggregator, "package", 1).figures["devices"]
    hand_over(aggregator, "package")
    newest = aggregator.store.newest_round("package")
    assert newest is not None and newest.aggregate is not None
    pipe.send((devices, aggregator.blobs.get(newest.aggregate)))


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(poll_loop, "TURN_S", 0.01)
    yield
