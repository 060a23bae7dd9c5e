"""The main server's half of a round: what it refuses, what fails a round, and how rounds follow one
another.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learning.architectures import architecture
from main_server.store.rounds import find_round, newest_round
from main_server.store.versions import newest_version
from shared.errors import Forbidden, InvalidMessage, NotFound, OutOfOrder
from shared.round.fixed_point import encode
from shared.round.masking import mask, new_seed, seal
from shared.round.payloads import Aggregate
from shared.round.plan import MAX_VALUE_RANGE, RoundPlan, parse_round_plan
from tests.main_store import read
from tests.updates import masked_update, plain_update

SUM = "http://main/secagg_model"


def parts(
    federation: Any, *devices: str, announced: bool = True
) -> tuple[RoundPlan, dict[str, Any]]:
    """Return the open round and a masked update for each of these devices."""
    settings = federation.announce(devices[0])
    if announced:
        for device in devices:
            federation.announce(device)
    delta = federation.delta()
    return settings, {d: masked_update(delta, 10, settings, d, federation.rng) for d in devices}


def summed(settings: RoundPlan, updates: Mapping[str, Any], **changed: Any) -> bytes:
    """Add masked updates up as the aggregator does, with other members if so wished."""
    total = np.zeros(settings.size + 2, np.uint32)
    for update in updates.values():
        total += update.masked
    seeds = {device: update.sealed_seed for device, update in updates.items()}
    members = {
        "detector": "package",
        "round": settings.round,
        "base_version": settings.base_version,
    }
    return Aggregate(**(members | {"sealed_seeds": seeds, "sum": total} | changed)).to_bytes()


def state(federation: Any) -> tuple[object, ...]:
    blobs = sorted(path.name for path in (federation.folder / "main-server" / "blobs").iterdir())
    return federation.remembered("main-server"), blobs


def with_metadata(container: bytes, edit: Callable[[dict[str, str]], None]) -> bytes:
    """Rewrite the metadata of a container's raw bytes."""
    length = int.from_bytes(container[:8], "little")
    header = json.loads(container[8 : 8 + length])
    edit(header["__metadata__"])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + container[8 + length :]


def test_sum_over_the_least_cohort_is_taken(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b")
    base = federation.params()
    reply = federation.as_aggregator.post(SUM, summed(settings, updates)).json
    assert reply["devices"] == ["a", "b"]
    assert not np.array_equal(federation.params(), base)


def test_sum_over_one_device_is_refused(federation: Any) -> None:
    settings, updates = parts(federation, "a")
    before = state(federation)
    with pytest.raises(InvalidMessage, match=r"a cohort of 1 is below min_cohort \(2\)"):
        federation.as_aggregator.post(SUM, summed(settings, updates))
    assert state(federation) == before


def test_sum_over_more_devices_than_the_cap_is_refused(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path, cohort_cap=2)
    settings, updates = parts(federation, "a", "b", "c")
    before = state(federation)
    with pytest.raises(InvalidMessage, match=r"a cohort of 3 is above cohort_cap \(2\)"):
        federation.as_aggregator.post(SUM, summed(settings, updates))
    assert state(federation) == before


def test_sum_over_a_device_that_never_announced_itself_is_refused(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b", announced=False)
    before = state(federation)
    with pytest.raises(InvalidMessage, match="b has not announced itself for package"):
        federation.as_aggregator.post(SUM, summed(settings, updates))
    assert state(federation) == before


def test_device_announced_for_another_detector_alone_is_refused(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b", announced=False)
    federation.announce("b", "raccoon")
    with pytest.raises(InvalidMessage, match="b has not announced itself for package"):
        federation.as_aggregator.post(SUM, summed(settings, updates))


def test_list_that_names_a_device_twice_is_refused(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b")

    def twice(metadata: dict[str, str]) -> None:
        pairs = json.loads(metadata["sealed_seeds"])
        metadata["sealed_seeds"] = json.dumps([pairs[0], pairs[0]])

    def once(metadata: dict[str, str]) -> None:
        metadata["sealed_seeds"] = json.dumps(json.loads(metadata["sealed_seeds"]))

    container = summed(settings, updates)
    before = state(federation)
    with pytest.raises(InvalidMessage, match="names a device twice"):
        federation.as_aggregator.post(SUM, with_metadata(container, twice))
    assert state(federation) == before
    federation.as_aggregator.post(SUM, with_metadata(container, once))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"base_version": "0" * 64}, "not made for this round's model"),
        ({"sum": np.zeros(82_050, np.uint32)}, "not made for this round's model"),
        ({"sum": np.zeros(82_052, np.uint32)}, "not made for this round's model"),
        ({"round": 2}, "no such round of package"),
        ({"round": 0}, "no such round of package"),
        ({"detector": "raccoon"}, "no such round of raccoon"),
    ],
    ids=["version", "short", "long", "later round", "round 0", "detector"],
)
def test_sum_of_another_version_length_or_round_is_refused(
    federation: Any, changed: Any, words: str
) -> None:
    settings, updates = parts(federation, "a", "b")
    before = state(federation)
    with pytest.raises(InvalidMessage, match=words):
        federation.as_aggregator.post(SUM, summed(settings, updates, **changed))
    assert state(federation) == before


def test_seeds_that_are_swapped_between_devices_are_refused(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b")
    seeds = {"a": updates["b"].sealed_seed, "b": updates["a"].sealed_seed}
    before = state(federation)
    with pytest.raises(InvalidMessage, match="does not open"):
        federation.as_aggregator.post(SUM, summed(settings, updates, sealed_seeds=seeds))
    assert state(federation) == before


@pytest.mark.parametrize("body", [b"", b"nonsense", bytes(2000)])
def test_bytes_that_are_no_sum_are_refused(federation: Any, body: bytes) -> None:
    federation.announce("a")
    before = state(federation)
    with pytest.raises(InvalidMessage):
        federation.as_aggregator.post(SUM, body)
    assert state(federation) == before


def test_masked_update_of_a_single_device_is_no_sum(federation: Any) -> None:
    _, updates = parts(federation, "a", "b")
    with pytest.raises(InvalidMessage):
        federation.as_aggregator.post(SUM, updates["a"].to_bytes())


def test_first_sum_of_a_round_is_the_only_one(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b", "c")
    first = summed(settings, {d: updates[d] for d in ("a", "b")})
    answer = federation.as_aggregator.post(SUM, first).json
    before = state(federation)
    with pytest.raises(OutOfOrder, match="has had its one sum"):
        federation.as_aggregator.post(SUM, summed(settings, updates))
    assert federation.as_aggregator.post(SUM, first).json == answer
    assert state(federation) == before


def test_sum_that_makes_no_sense_fails_the_round_and_keeps_the_model(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b")
    base, bad = (
        federation.params(),
        summed(settings, updates, sum=np.full(settings.size + 2, 2**31, np.uint32)),
    )
    with pytest.raises(InvalidMessage, match="makes no sense"):
        federation.as_aggregator.post(SUM, bad)
    np.testing.assert_array_equal(federation.params(), base)
    for again in (bad, summed(settings, updates)):
        with pytest.raises(OutOfOrder, match="Round 1 is failed"):
            federation.as_aggregator.post(SUM, again)
    opened = federation.announce("a")
    assert (opened.round, opened.base_version) == (2, settings.base_version)


def test_sum_whose_weight_no_cohort_of_that_size_has_fails_the_round(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b")
    total = np.zeros(settings.size + 2, np.uint32)
    total[-2] = 2 * settings.weight_cap + 1
    for update in updates.values():
        total += mask(np.zeros_like(total), *_opened(federation, update, settings))
    with pytest.raises(InvalidMessage, match="makes no sense"):
        federation.as_aggregator.post(SUM, summed(settings, updates, sum=total))
    assert read(federation.main.store, find_round, "package", 1).state == "failed"


def _opened(federation: Any, update: Any, settings: RoundPlan) -> tuple[bytes, bytes]:
    context = settings.context(update.device)
    return federation.main.key.open_sealed(update.sealed_seed, context), context


def test_seeds_are_checked_one_by_one(federation: Any) -> None:

    settings, updates = parts(federation, "a", "b")
    seeds: dict[str, Any] = {
        d: base64.b64encode(u.sealed_seed).decode() for d, u in updates.items()
    }
    seeds |= {"b": seeds["a"], "c": seeds["a"], "d": "not base64", "e": "é", "f": 5, "g": ""}
    for device in "defg":
        federation.announce(device)
    before = state(federation)
    message = {"detector": "package", "round": settings.round, "sealed_seeds": seeds}
    refused = federation.as_aggregator.post_json("http://main/check_seeds", message).json["refused"]
    assert sorted(refused) == ["b", "c", "d", "e", "f", "g"]
    assert "does not open" in refused["b"]
    assert "has not announced itself" in refused["c"]
    assert "no sealed seed" in refused["e"]
    assert state(federation) == before


@pytest.mark.parametrize(
    "changed",
    [
        {"sealed_seeds": None},
        {"sealed_seeds": []},
        {"sealed_seeds": {"../a": ""}},
        {"detector": None},
        {"detector": "raccoon"},
        {"round": None},
        {"round": "1"},
        {"round": True},
        {"round": 2},
        {"round": -1},
        {"round": 10**30},
    ],
    ids=str,
)
def test_message_that_is_no_list_of_seeds_is_refused(
    federation: Any, changed: dict[str, object]
) -> None:
    federation.announce("a")
    message = {"detector": "package", "round": 1, "sealed_seeds": {}}
    with pytest.raises(InvalidMessage):
        federation.as_aggregator.post_json("http://main/check_seeds", message | changed)


def test_seeds_of_a_closed_round_are_not_checked(federation: Any) -> None:
    settings, updates = parts(federation, "a", "b")
    federation.as_aggregator.post(SUM, summed(settings, updates))
    message = {"detector": "package", "round": 1, "sealed_seeds": {}}
    with pytest.raises(OutOfOrder, match="Round 1 is published"):
        federation.as_aggregator.post_json("http://main/check_seeds", message)


def test_clamped_values_are_counted_and_widen_the_next_round(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path, value_range=0.5)
    settings, base = federation.announce("a"), federation.params()
    wide = np.zeros(settings.size, np.float32)
    wide[:3] = [2.0, -2.0, 0.5]
    for device in ("a", "b"):
        federation.upload(device, wide)
    federation.step("aggregator", "aggregate_models")
    said = federation.step("aggregator", "send_model_secagg")["said"]
    assert "4 values were clamped; the next round allows up to 1." in said
    np.testing.assert_allclose((federation.params() - base)[:4], [0.5, -0.5, 0.5, 0], atol=1e-2)
    assert federation.announce("a").value_range == 1.0
    for device in ("a", "b"):
        federation.upload(device, np.zeros(settings.size, np.float32))
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    assert federation.announce("a").value_range == 1.0


def test_value_range_stops_widening_where_round_settings_end(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path, value_range=MAX_VALUE_RANGE)
    wide = np.full(82_049, 2e9, np.float32)
    for device in ("a", "b"):
        federation.upload(device, wide)
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    assert federation.announce("a").value_range == MAX_VALUE_RANGE
    assert federation.announce("a").round == 2


@pytest.mark.parametrize(
    "changed", [{"architecture": "porch-cnn"}, {"topology": "direct"}, {"clipping_norm": 1.0}]
)
def test_changed_settings_abandon_the_open_round_and_numbers_never_repeat(
    make_federation: Callable[..., Any], tmp_path: Path, changed: dict[str, object]
) -> None:
    federation = make_federation(tmp_path)
    settings, updates = parts(federation, "a", "b")
    container, seen = summed(settings, updates), [settings.round]
    before = {name: getattr(federation.settings, name) for name in changed}
    for values in (changed, before, changed):
        federation.start(**values)
        opened = federation.announce("a")
        assert opened == federation.announce("b")
        assert all(getattr(opened, name) == value for name, value in values.items())
        assert opened.size == architecture(opened.architecture).size
        seen.append(opened.round)
        with pytest.raises(OutOfOrder, match="Round 1 is abandoned"):
            federation.as_aggregator.post(SUM, container)
    assert seen == sorted(set(seen))
    with pytest.raises(OutOfOrder):
        federation.device("a").post("http://aggregator/cmodel", updates["a"].to_bytes())


def test_changed_architecture_starts_from_fresh_params_that_devices_take_for_newer(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path)
    settings, updates = parts(federation, "a", "b")
    federation.as_aggregator.post(SUM, summed(settings, updates))
    published = read(federation.main.store, newest_version, "package")
    federation.start(architecture="porch-cnn")
    opened = federation.announce("a")
    newest = read(federation.main.store, newest_version, "package")
    assert (newest.architecture, newest.version) == ("porch-cnn", opened.base_version)
    assert newest.round > published.round
    assert opened.round > newest.round


def test_restart_under_the_same_settings_goes_on_with_the_open_round(federation: Any) -> None:
    settings = federation.announce("a")
    federation.start()
    assert federation.announce("a") == settings


def test_open_round_reads_back_as_it_was_written(federation: Any) -> None:
    settings = federation.announce("a")
    assert read(federation.main.store, newest_round, "package").plan == settings
    assert parse_round_plan(json.loads(json.dumps(settings.to_json()))) == settings


# --- the direct topology


@pytest.fixture
def direct(make_federation: Callable[..., Any], tmp_path: Path) -> Any:
    return make_federation(tmp_path, topology="direct")


def send_plain(federation: Any, device: str, weight: int, delta: Any) -> bytes:
    body = plain_update(delta, weight, federation.announce(device), device).to_bytes()
    federation.device(device).post("http://main/cmodel", body)
    return body


def test_direct_topology_publishes_base_plus_weighted_mean(direct: Any) -> None:
    direct.announce("a")
    base, deltas = direct.params().astype(np.float64), [direct.delta() for _ in range(3)]
    for device, weight, delta in zip("abc", (1, 10, 9000), deltas, strict=True):
        send_plain(direct, device, weight, delta)
    done = direct.step("main", "aggregate_models")
    assert done["devices"] == ["a", "b", "c"]
    expected = base + np.average(np.array(deltas, np.float64), axis=0, weights=[1, 10, 4096])
    np.testing.assert_allclose(direct.params(), expected, atol=1e-6)


def test_direct_aggregation_repeated_answers_the_same_and_changes_nothing(direct: Any) -> None:
    for device in ("a", "b"):
        send_plain(direct, device, 5, direct.delta())
    first = direct.step("main", "aggregate_models")
    params = direct.params()
    assert direct.step("main", "aggregate_models") == first
    np.testing.assert_array_equal(direct.params(), params)
    direct.announce("a")
    assert direct.step("main", "aggregate_models") == first


def test_direct_update_is_replaced_until_the_mean_is_taken_and_refused_after(direct: Any) -> None:
    direct.announce("a")
    base, delta = direct.params(), direct.delta()
    send_plain(direct, "a", 5, direct.delta(1.0))
    late = send_plain(direct, "a", 5, delta)
    send_plain(direct, "b", 5, delta)
    direct.step("main", "aggregate_models")
    np.testing.assert_allclose(direct.params(), base + delta, atol=1e-6)
    with pytest.raises(OutOfOrder, match="Round 1 is published"):
        direct.device("a").post("http://main/cmodel", late)


def test_direct_aggregation_of_too_few_says_who_is_missing(direct: Any) -> None:
    direct.announce("b")
    send_plain(direct, "a", 5, direct.delta())
    before = state(direct)
    with pytest.raises(OutOfOrder, match=r"1 of the 2 updates it needs\. Still missing: b"):
        direct.step("main", "aggregate_models")
    assert state(direct) == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"base_version": "0" * 64}, "not made for this round's model"),
        ({"delta": np.zeros(3, np.float32)}, "not made for this round's model"),
        ({"delta": np.full(82_049, np.nan, np.float32)}, "not finite"),
        ({"weight": 0}, "no weight"),
        ({"round": 2}, "no such round"),
    ],
    ids=["version", "length", "nan", "weight", "round"],
)
def test_direct_update_that_does_not_fit_is_refused(
    direct: Any, changed: dict[str, Any], words: str
) -> None:
    settings = direct.announce("a")
    update = plain_update(direct.delta(), 5, settings, "a")
    before = direct.remembered("main-server")
    with pytest.raises(InvalidMessage, match=words):
        direct.device("a").post(
            "http://main/cmodel", type(update)(**(vars(update) | changed)).to_bytes()
        )
    assert direct.remembered("main-server") == before


def test_direct_update_of_a_device_that_has_not_announced_itself_is_refused(direct: Any) -> None:
    settings, stranger = direct.announce("a"), direct.device("stranger")
    before = direct.remembered("main-server")
    with pytest.raises(InvalidMessage, match="stranger has not announced itself"):
        stranger.post(
            "http://main/cmodel", plain_update(direct.delta(), 5, settings, "stranger").to_bytes()
        )
    assert direct.remembered("main-server") == before


def test_direct_update_in_the_name_of_another_device_is_refused(direct: Any) -> None:
    settings = direct.announce("a")
    direct.announce("b")
    before = direct.remembered("main-server")
    with pytest.raises(Forbidden, match="a cannot speak for b"):
        direct.device("a").post(
            "http://main/cmodel", plain_update(direct.delta(), 5, settings, "b").to_bytes()
        )
    assert direct.remembered("main-server") == before


def test_plain_updates_and_plain_aggregation_are_refused_in_the_secure_topology(
    federation: Any,
) -> None:
    settings = federation.announce("a")
    body = plain_update(federation.delta(), 5, settings, "a").to_bytes()
    before = state(federation)
    with pytest.raises(OutOfOrder, match="plain updates are not taken"):
        federation.device("a").post("http://main/cmodel", body)
    with pytest.raises(OutOfOrder, match="on the secure aggregator"):
        federation.step("main", "aggregate_models")
    assert state(federation) == before


def test_sums_are_refused_in_the_direct_topology(direct: Any) -> None:
    settings = direct.announce("a")
    direct.announce("b")
    seeds, total = {}, np.zeros(settings.size + 2, np.uint32)
    for device in ("a", "b"):
        seed, context = new_seed(), settings.context(device)
        seeds[device] = seal(seed, direct.main.key.public, context)
        total += mask(encode(direct.delta(), 5, settings, direct.rng), seed, context)
    before = state(direct)
    with pytest.raises(OutOfOrder, match="sums are not taken"):
        direct.as_aggregator.post(
            SUM, Aggregate("package", 1, settings.base_version, seeds, total).to_bytes()
        )
    assert state(direct) == before


def test_nobody_takes_part_in_a_detector_nobody_announced(direct: Any) -> None:
    with pytest.raises(NotFound, match="No device takes part in package"):
        direct.step("main", "aggregate_models")
    with pytest.raises(OutOfOrder, match="No device has announced itself yet"):
        direct.http.post("http://main/aggregate_models", b"")
