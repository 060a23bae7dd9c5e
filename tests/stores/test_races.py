"""Of all who try a step at once, threads and processes, exactly one wins, on SQLite and on
PostgreSQL.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from main_server.store.events import newest_events
from main_server.store.members import Invitation, all_members, find_invitation, invite
from main_server.store.publication import publish
from main_server.store.records import PENDING, UNCHECKED
from main_server.store.rounds import add_round, newest_round
from main_server.store.runs import newest_runs
from main_server.store.versions import newest_version, newest_versions
from sec_agg.store.store import Stored
from tests.main_store import read, write
from tests.stores import races
from tests.stores.races import NOW, THREADS, version

PROCESSES = 2
ALL = PROCESSES * THREADS
Race = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def racers() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def race(racers: ProcessPoolExecutor, tmp_path: Path, database_url: str | None) -> Race:
    """Return a function that has everybody try one step of a service's store, and returns what they
    got.
    """

    def go(service: str, step: str, *args: Any) -> list[Any]:
        for ready in tmp_path.glob("ready-*"):
            ready.unlink()
        given = (step, service, tmp_path, database_url)
        running = [
            racers.submit(races.run, *given, place, PROCESSES, args) for place in range(PROCESSES)
        ]
        results = [result for process in running for result in process.result(120)]
        assert not [result for result in results if isinstance(result, Exception)], results
        assert len(results) == ALL
        return results

    return go


def test_one_sum_closes_a_round(main_store: Any, race: Race, round_of: Any) -> None:
    write(main_store, add_round, round_of(), NOW)
    (aggregate,) = set(race("main_server", "publish", round_of()))
    assert read(main_store, newest_round, "person").aggregate == aggregate
    (made,) = read(main_store, newest_versions, "person", 10)
    assert made.gate == PENDING and aggregate == f"sum {int(made.version)}"
    assert [event.kind for event in read(main_store, newest_events, 10)].count("published") == 1


def test_one_judges_a_version_and_one_version_comes_instead(
    main_store: Any, race: Race, round_of: Any
) -> None:
    write(main_store, add_round, round_of(), NOW)
    write(main_store, publish, round_of(), ("a", "b"), "sum", 0, version(1, "f" * 64))
    assert sorted(race("main_server", "judge", read(main_store, newest_version, "person"))) == [
        False
    ] * (ALL - 1) + [True]
    instead, judged = read(main_store, newest_versions, "person", 10)
    assert judged.said == f"by {int(instead.version)}" and instead.gate == UNCHECKED


def test_one_joins_by_the_last_use_of_a_code(main_store: Any, race: Race) -> None:
    write(main_store, invite, Invitation("code", b"secret", "device", 1, math.inf))
    results = race("main_server", "admit", "code")
    assert results.count(None) == 1 and len(read(main_store, all_members)) == 1
    assert read(main_store, find_invitation, "code").uses_left == 0


def test_one_run_is_started_and_one_stops_it(main_store: Any, race: Race) -> None:
    (only,) = set(race("main_server", "start_run", "person"))
    (run,) = read(main_store, newest_runs)
    assert run.id == only and [event.kind for event in read(main_store, newest_events, 10)] == [
        "run-started"
    ]
    assert race("main_server", "move_run", run).count(True) == 1


def test_a_round_is_opened_once_and_due_once(main_store: Any, race: Race, round_of: Any) -> None:
    assert set(race("main_server", "open_round", round_of())) == {1}
    race("main_server", "make_due", round_of())
    assert sorted(event.kind for event in read(main_store, newest_events, 10)) == ["due", "opened"]


def test_cohort_cap_holds(aggregator_store: Any, race: Race, round_of: Any) -> None:
    assert set(race("sec_agg", "hear_of_round", round_of())) == {"open"}
    assert race("sec_agg", "send_update", round_of()).count(True) == round_of().cohort_cap
    assert len(aggregator_store.updates("person", 1)) == round_of().cohort_cap


def test_one_cohort_is_frozen_and_one_sum_is_kept(
    aggregator_store: Any, race: Race, round_of: Any
) -> None:
    aggregator_store.remember_round(round_of())
    for name in "abc":
        aggregator_store.keep_update("person", 1, Stored(name, name * 64, b"seed", "key"), NOW)
    seen = aggregator_store.updates("person", 1)
    assert race("sec_agg", "freeze", round_of(), seen).count(True) == 1
    assert aggregator_store.cohort("person", 1) in (seen, seen[1:])
    (kept,) = set(race("sec_agg", "keep_sum", round_of()))
    assert aggregator_store.newest_round("person").aggregate == kept


def test_one_update_is_made_of_a_training(
    device_store: Any, race: Race, training_values: dict[str, object]
) -> None:
    device_store.trainings.add(training_values)
    (kept,) = set(race("device", "keep_update", device_store.trainings.newest("person")))
    assert device_store.trainings.newest("person").update == kept


def test_one_spends_each_nonce(aggregator_store: Any, race: Race) -> None:
    results = race("sec_agg", "spend", 20)
    assert [sum(tries) for tries in zip(*results, strict=True)] == [1] * 20


@pytest.mark.parametrize("service", list(races.STORES))
def test_an_empty_database_bears_several_first_openings_at_once(race: Race, service: str) -> None:
    migrations = Path(races.__file__).parents[2] / service / "migrations"
    assert set(race(service, "first_opening")) == {
        max(path.stem[:4] for path in migrations.glob("0*.py"))
    }
