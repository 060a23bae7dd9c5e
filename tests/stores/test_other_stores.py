"""The aggregator's and the device's stores do what their docstrings promise, on SQLite and on
PostgreSQL alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import device.store.store
import sec_agg.store.store
from device.store.records import Failure, GlobalModel, ScheduledTraining, Score
from sec_agg.store.store import Round, Stored
from shared.round.plan import RoundPlan

NOW = 1_800_000_000.0
Rounds = Callable[..., RoundPlan]


def stored(name: str, fill: str = "") -> Stored:
    return Stored(name, (fill or name) * 64, b"\x00sealed\xff", "key")


def test_round_is_remembered_as_it_was_first_heard_of(
    aggregator_store: sec_agg.store.store.Store, round_of: Rounds
) -> None:
    known = Round("person", 1, "0" * 64, 3, 2, 3, "open", None, False)
    assert aggregator_store.newest_round("person") is None
    assert aggregator_store.remember_round(round_of()) == known
    assert (
        aggregator_store.remember_round(round_of(cohort_cap=9))
        == known
        == aggregator_store.newest_round("person")
    )
    aggregator_store.remember_round(round_of(2))
    aggregator_store.remember_round(round_of(detector="car"))
    assert aggregator_store.detectors() == ("car", "person")


def test_update_is_replaced_by_its_device_until_the_cohort_is_full_or_frozen(
    aggregator_store: sec_agg.store.store.Store, round_of: Rounds
) -> None:
    assert not aggregator_store.keep_update("person", 1, stored("a"), NOW)
    aggregator_store.remember_round(round_of())
    assert all(aggregator_store.keep_update("person", 1, stored(name), NOW) for name in "abc")
    assert not aggregator_store.keep_update("person", 1, stored("d"), NOW)
    assert aggregator_store.keep_update("person", 1, stored("a", "f"), NOW + 1)
    kept = (stored("a", "f"), stored("b"), stored("c"))
    assert aggregator_store.updates("person", 1) == kept
    assert aggregator_store.cohort("person", 1) == ()
    cohort = {one.device: one.digest for one in kept[:2]}
    assert not aggregator_store.freeze("person", 1, kept[:2], cohort), (
        "an update came since it was looked at"
    )
    assert [aggregator_store.freeze("person", 1, kept, cohort) for _ in range(2)] == [True, False]
    assert aggregator_store.cohort("person", 1) == kept[:2]
    assert not aggregator_store.keep_update("person", 1, stored("a"), NOW)


def test_first_sum_stays(aggregator_store: sec_agg.store.store.Store, round_of: Rounds) -> None:
    aggregator_store.remember_round(round_of())
    kept = tuple(stored(name) for name in "ab")
    for one in kept:
        aggregator_store.keep_update("person", 1, one, NOW)
    aggregator_store.freeze("person", 1, kept, {one.device: one.digest for one in kept})
    assert [aggregator_store.keep_sum("person", 1, name) for name in ("x", "y")] == ["x", "x"]
    for _ in range(2):
        aggregator_store.note_delivery("person", 1)
    newest = aggregator_store.newest_round("person")
    assert newest and (newest.state, newest.aggregate, newest.delivered) == ("summed", "x", True)


def test_model_waits_is_in_force_or_turned_down(
    device_store: device.store.store.DeviceStore,
) -> None:
    first, second, third = (
        GlobalModel("person", letter * 64, number) for number, letter in enumerate("abc")
    )
    assert (
        device_store.models.propose(second) is None and device_store.models.propose(first) == second
    )
    assert device_store.models.candidate(
        "person"
    ) == second and device_store.models.candidates() == ("person",)
    score = Score(second.version, "person", 1, 0.875, 40)
    assert device_store.models.activate(second, score) and not device_store.models.activate(first)
    assert (
        device_store.models.active("person") == second
        and device_store.models.candidate("person") is None
    )
    assert (
        device_store.models.score(second.version)
        == score
        == device_store.models.newest_score("person")
    )
    device_store.models.propose(third)
    for _ in range(2):
        device_store.models.reject(third, "It does not answer.")
    assert (
        device_store.models.active("person") == second
        and device_store.models.rejected("person") == third.version
    )
    assert device_store.failures.latest("person") == Failure("person", 2, "It does not answer.")
    assert device_store.models.active("car") is None and device_store.models.score("none") is None


def test_training_makes_good_what_went_wrong(
    device_store: device.store.store.DeviceStore,
    training_values: dict[str, object],
    round_of: Rounds,
) -> None:
    device_store.failures.record(Failure("person", 2, "No pictures."))
    device_store.schedule.begin("person", 5, "2027-01-15")
    assert device_store.schedule.latest("person") == ScheduledTraining("person", "2027-01-15", 5, 0)
    device_store.trainings.add(training_values)
    assert device_store.failures.latest("person") == Failure("person", 2, "No pictures.")
    device_store.trainings.add(training_values | {"round": 2})
    newest = device_store.trainings.newest("person")
    assert (
        newest
        and newest.history == training_values["history"]
        and newest.update is None
        and not newest.sent
    )
    assert device_store.trainings.newest_rounds() == {"person": newest.round}
    assert (
        device_store.failures.latest("person") is None
        and device_store.trainings.sent_round("person") is None
    )
    assert [device_store.trainings.keep_update(newest, letter * 64) for letter in "ab"] == [
        "a" * 64
    ] * 2
    for _ in range(2):
        device_store.trainings.record_sent(newest)
    assert device_store.trainings.newest("person") == replace(newest, update="a" * 64, sent=1)
    assert device_store.trainings.sent_round("person") == 2
    device_store.schedule.end("person")
    assert device_store.schedule.latest("person") == ScheduledTraining(
        "person", "2027-01-15", 20, None
    )
    device_store.rounds.remember([round_of(4)])
    for _ in range(2):
        device_store.rounds.remember([round_of(5)])
    assert (
        device_store.rounds.newest("person") == round_of(5)
        and device_store.rounds.newest("car") is None
    )


def test_forgetting_keeps_the_newest(
    device_store: device.store.store.DeviceStore, training_values: dict[str, object]
) -> None:
    for number in range(4):
        device_store.trainings.add(
            training_values | {"round": number, "local_model": str(number) * 64}
        )
        device_store.models.activate(
            GlobalModel("person", f"{number}" * 64, number),
            Score(f"{number}" * 64, "person", number, 0.5, 4),
        )
    needed = device_store.forget_old(2)
    assert needed == {"0" * 64, "2" * 64, "3" * 64}
    assert (
        device_store.models.score("1" * 64) is None
        and device_store.models.score("2" * 64) is not None
    )
