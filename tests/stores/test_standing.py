"""How things stand, read from either database: the newest of everything, and how much more there
is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import main_server.store.store
import sec_agg.store.store
from main_server.store.changes import change_token
from main_server.store.contributions import keep_plain_update
from main_server.store.devices import all_devices, participations
from main_server.store.evaluations import Score, scores
from main_server.store.events import newest_events
from main_server.store.pins import set_pin
from main_server.store.publication import judge, note_status, publish
from main_server.store.records import PASSED, Device, Participation, Status, Version
from main_server.store.retention import forget_old
from main_server.store.rounds import (
    add_round,
    count_bytes_down,
    find_round,
    newest_round,
    newest_rounds,
)
from main_server.store.runs import STOPPED, move_run, newest_runs, start_run
from main_server.store.snapshot import accuracies, read_snapshot
from main_server.store.tables import MIGRATIONS
from main_server.store.versions import find_version, newest_versions
from sec_agg.store.snapshot import Current, Sent, Sum
from sec_agg.store.store import Stored
from shared.round.plan import RoundPlan
from shared.storage.database import Database
from tests.main_store import read, write

NOW = 1_800_000_000.125
Rounds = Callable[..., RoundPlan]


def version(detector: str, number: int, **values: Any) -> Version:
    name = f"{detector.encode().hex():0<32}{number:032}"
    return Version(name, detector, number, "porch-cnn", "signed", None, NOW, **values)


def device(name: str) -> Device:
    return Device(name, f"http://{name}", NOW, True)


def status(**said: Any) -> Status:
    return replace(Status(None, None, None, None, None), **said)


def published(
    store: main_server.store.store.Store, settings: RoundPlan, received: int = 0
) -> Version:
    made = version(settings.detector, settings.round)
    write(store, add_round, settings, NOW + settings.round)
    write(store, publish, settings, ("a", "b"), "s" * 64, 0, made, received)
    return made


def test_newest_rounds_and_versions_of_each_detector(
    main_store: main_server.store.store.Store, round_of: Rounds
) -> None:
    for detector, count in (("person", 4), ("car", 2)):
        for number in range(1, count + 1):
            published(main_store, round_of(number, detector=detector), 100 * number)
    write(main_store, add_round, round_of(9), NOW)
    standing = read(main_store, read_snapshot, rounds=3, versions=2, events=4)
    assert {
        name: [each.plan.round for each in rounds] for name, rounds in standing.rounds.items()
    } == {"car": [2, 1], "person": [9, 4, 3]}
    assert dict(standing.round_counts) == {"car": 2, "person": 5}
    assert standing.rounds["person"][1] == read(main_store, find_round, "person", 4)
    assert [each.bytes_up for each in standing.rounds["person"]] == [0, 400, 300]
    assert {
        name: [each.round for each in versions] for name, versions in standing.versions.items()
    } == {"car": [2, 1], "person": [4, 3]}
    assert dict(standing.version_counts) == {"car": 2, "person": 4}
    assert standing.versions["person"] == read(main_store, newest_versions, "person", 2)
    assert (
        standing.events == read(main_store, newest_events, 4)
        and standing.event_count == len(read(main_store, newest_events, 100)) > 4
    )
    assert standing.newest_round("person") == read(main_store, newest_round, "person")
    assert standing.newest_round("dog") is None


def test_who_takes_part_and_who_has_sent(
    main_store: main_server.store.store.Store, round_of: Rounds
) -> None:
    empty = read(main_store, read_snapshot)
    assert (empty.devices, empty.parts, empty.detectors, dict(empty.sent), dict(empty.runs)) == (
        (),
        (),
        (),
        {},
        {},
    )
    for number in (1, 2):
        write(main_store, add_round, round_of(number), NOW)
        for name in ("b", "a"):
            write(
                main_store,
                note_status,
                device(name),
                {"person": status(sent_round=number, setback=(number, "No pictures."))},
            )
    write(main_store, note_status, device("a"), {"car": status()})
    standing = read(main_store, read_snapshot)
    assert standing.devices == read(main_store, all_devices) == (device("a"), device("b"))
    assert standing.parts == read(main_store, participations)
    assert standing.parts[0] == Participation("a", "car", None, None) and standing.detectors == (
        "car",
        "person",
    )
    assert (
        dict(standing.sent) == {"person": {"a": NOW, "b": NOW}}
        and standing.parts[1].setback == "No pictures."
    )


def test_newest_run_and_how_far_it_is(
    main_store: main_server.store.store.Store, round_of: Rounds
) -> None:
    for number in range(1, 4):
        published(main_store, round_of(number))
    write(main_store, start_run, "car", 2, 1, NOW)
    first = write(main_store, start_run, "person", 9, 1, NOW)
    write(main_store, move_run, first, STOPPED, "why", NOW)
    second = write(main_store, start_run, "person", 7, 2, NOW)
    write(main_store, set_pin, "car", "v" * 64, NOW)
    standing = read(main_store, read_snapshot)
    assert standing.runs["person"] == (second, 2) and standing.runs["car"][1] == 0
    assert {run for run, _ in standing.runs.values()} == set(read(main_store, newest_runs))
    assert dict(standing.pins) == {"car": "v" * 64}


def test_accuracy_is_the_mean_weighted_by_pictures_and_outlives_the_scores(
    main_store: main_server.store.store.Store, round_of: Rounds
) -> None:
    made = [published(main_store, round_of(number)) for number in range(1, 4)]
    assert read(main_store, accuracies, 10) == {}
    for name, accuracy, pictures in (("a", 0.5, 30), ("b", 1.0, 10), ("c", 0.0, 0)):
        write(
            main_store,
            note_status,
            device(name),
            {"person": status(score=(made[0].version, accuracy, pictures))},
        )
    noted = read(main_store, find_version, made[0].version)
    assert noted and (noted.accuracy, noted.scored_by, noted.scored_pictures) == (0.625, 2, 40)
    write(
        main_store, note_status, device("b"), {"person": status(score=(made[0].version, 0.5, 10))}
    )
    write(
        main_store, note_status, device("c"), {"person": status(score=(made[2].version, 0.25, 4))}
    )
    assert read(main_store, accuracies, 10) == {"person": {1: 0.5, 3: 0.25}}
    assert read(main_store, accuracies, 1) == {"person": {3: 0.25}}
    write(main_store, note_status, device("a"), {"person": status(score=(made[1].version, 0.0, 0))})
    unscored = read(main_store, find_version, made[1].version)
    assert unscored and (unscored.accuracy, unscored.scored_by) == (None, 0)
    assert read(main_store, scores, made[1].version) == (Score("a", 0.0, 0),)
    write(main_store, forget_old, "person", 1, 1)
    assert read(main_store, scores, made[0].version) == ()
    assert read(main_store, accuracies, 10) == {"person": {1: 0.5, 3: 0.25}}


def test_upgrade_sums_up_the_scores_that_are_there(
    backend: str, tmp_path: Path, database_url: str | None
) -> None:
    database = Database.connect(tmp_path, MIGRATIONS, database_url)
    rows: dict[str, list[dict[str, Any]]] = {
        "versions": [
            {
                "version": name,
                "detector": "person",
                "round": number,
                "architecture": "porch-cnn",
                "manifest": "signed",
                "made_at": NOW,
                "gate": PASSED,
                "said": "",
                "forgotten": False,
            }
            for number, name in enumerate("vw")
        ],
        "scores": [
            {"version": "v", "device": name, "accuracy": accuracy, "pictures": pictures}
            for name, accuracy, pictures in (("a", 0.5, 30), ("b", 1.0, 10), ("c", 0.0, 0))
        ],
    }
    with database.prepare() as (_, connection):
        database.migrate(connection, "0002")
        for name, table in database.tables(connection).items():
            database.fill(connection, table, rows.get(name, []))
    database.upgrade()
    database.close()
    store = main_server.store.store.Store.open(tmp_path, database_url)
    known = [read(store, find_version, name) for name in "vw"]
    assert [each and (each.accuracy, each.scored_by, each.scored_pictures) for each in known] == [
        (0.625, 2, 40),
        (None, 0, 0),
    ]
    store.database.close()


def test_bytes_are_counted_with_their_round(
    main_store: main_server.store.store.Store, round_of: Rounds
) -> None:
    write(main_store, count_bytes_down, "person", 5)
    published(main_store, round_of(1), 7)
    published(main_store, round_of(1), 7)
    write(main_store, count_bytes_down, "person", 2**33)
    write(main_store, add_round, round_of(2), NOW)
    for _ in range(2):
        assert write(main_store, keep_plain_update, round_of(2), "a", "d" * 64, NOW, 11)
        write(main_store, count_bytes_down, "person", 13)
    write(main_store, count_bytes_down, "car", 17)
    rounds = read(main_store, newest_rounds, "person", 2)
    assert [(each.bytes_up, each.bytes_down) for each in rounds] == [(22, 26), (7, 2**33)]
    published(main_store, round_of(2), 3)
    assert not write(main_store, keep_plain_update, round_of(2), "a", "d" * 64, NOW, 11)
    current = read(main_store, find_round, "person", 2)
    assert current and (current.state, current.bytes_up) == ("published", 25)


def test_fingerprint_of_the_main_server(
    main_store: main_server.store.store.Store, round_of: Rounds
) -> None:
    seen = [read(main_store, change_token)]
    for change in (
        lambda: write(main_store, note_status, device("a"), {"person": status()}),
        lambda: write(main_store, add_round, round_of(), NOW),
        lambda: write(main_store, keep_plain_update, round_of(), "a", "d" * 64, NOW),
        lambda: write(main_store, note_status, device("a"), {"person": status(setback=(1, "why"))}),
        lambda: write(
            main_store, judge, replace(published(main_store, round_of())), PASSED, "", NOW
        ),
    ):
        change()
        seen.append(read(main_store, change_token))
        assert read(main_store, change_token) == seen[-1]
    assert len(set(seen)) == len(seen)
    assert read(main_store, change_token, NOW) != read(main_store, change_token, NOW + 1), (
        "who was last seen before is not there"
    )


def test_aggregator_tells_the_newest_round_who_sent_and_the_last_sums(
    aggregator_store: sec_agg.store.store.Store, round_of: Rounds
) -> None:
    store = aggregator_store
    empty = store.standing(5)
    assert (empty.rounds, empty.sums, empty.sum_count) == ((), (), 0)
    for number in range(1, 5):
        store.remember_round(round_of(number))
        for at, name in enumerate("abc"):
            store.keep_update(
                "person",
                number,
                Stored(name, f"{number}" * 64, b"sealed", "k"),
                NOW + 10 * number + at,
            )
        seen = store.updates("person", number)
        if number < 4:
            store.freeze("person", number, seen, {each.device: each.digest for each in seen[:2]})
            store.keep_sum("person", number, "f" * 64)
    store.note_delivery("person", 1)
    store.remember_round(round_of(1, detector="car"))
    store.keep_update("car", 1, Stored("a", "5" * 64, b"sealed", "k"), NOW)
    store.freeze("car", 1, store.updates("car", 1), {"a": "5" * 64})
    store.keep_sum("car", 1, "f" * 64)
    store.remember_round(round_of(2, detector="car"))
    standing = store.standing(2)
    car, person = standing.rounds
    assert car == Current("car", 2, 3, 2, "open", False, ())
    sent = tuple(
        Sent(name, "4" * 64, False, NOW + 40 + at) for at, name in reversed(list(enumerate("abc")))
    )
    assert person == Current("person", 4, 3, 2, "open", False, sent)
    assert standing.sums == tuple(
        Sum("person", number, False, 2, 1, NOW + 10 * number + 2) for number in (3, 2)
    )
    assert standing.sum_count == 4
    assert [(each.detector, each.delivered) for each in store.standing(9).sums[2:]] == [
        ("person", True),
        ("car", False),
    ]


def test_fingerprint_of_the_aggregator(
    aggregator_store: sec_agg.store.store.Store, round_of: Rounds
) -> None:
    store, seen = aggregator_store, [aggregator_store.fingerprint()]
    for change in (
        lambda: store.remember_round(round_of()),
        lambda: store.keep_update("person", 1, Stored("a", "d" * 64, b"sealed", "k"), NOW),
        lambda: store.freeze("person", 1, store.updates("person", 1), {"a": "d" * 64}),
        lambda: store.keep_sum("person", 1, "f" * 64),
        lambda: store.note_delivery("person", 1),
    ):
        change()
        seen.append(store.fingerprint())
        assert store.fingerprint() == seen[-1]
    assert len(set(seen)) == len(seen)
