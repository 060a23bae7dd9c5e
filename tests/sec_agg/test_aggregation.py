"""The aggregator's half of a round, with a real main server behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learning.architectures import architecture
from main_server.store.rounds import find_round
from sec_agg.aggregation import aggregate, read_vectors
from sec_agg.store.store import Stored
from sec_agg.summing import sum_buckets
from shared.errors import InvalidMessage, NotFound, OutOfOrder, PeerUnreachable
from shared.round.fixed_point import encode, scale_of
from shared.round.masking import mask, new_seed, seal
from shared.round.payloads import (
    Aggregate,
    MaskedUpdate,
    parse_aggregate,
    parse_masked_update,
)
from shared.round.plan import RoundPlan
from tests.main_store import read
from tests.updates import masked_update, plain_update

CMODEL = "http://aggregator/cmodel"
SUM = "main/secagg_model"


def resealed(body: bytes, **changed: Any) -> bytes:
    """Return a masked update with other members."""
    return replace(parse_masked_update(body), **changed).to_bytes()


def masked_with_another_seed(
    settings: RoundPlan, device: str, delta: Any, rng: np.random.Generator
) -> bytes:
    context = settings.context(device)
    masked = mask(encode(delta, 10, settings, rng), new_seed(), context)
    sealed = seal(new_seed(), settings.sealing_key_bytes, context)
    return MaskedUpdate(
        settings.detector, settings.round, settings.base_version, device, sealed, masked
    ).to_bytes()


def sums(federation: Any) -> set[bytes]:
    """Return every aggregate container on the aggregator's disk or sent by it."""
    found = set(federation.network.sent(SUM))
    for blob in (federation.folder / "aggregator" / "blobs").iterdir():
        try:
            found.add(parse_aggregate(blob.read_bytes()) and blob.read_bytes())
        except InvalidMessage:
            continue
    return found


@pytest.mark.parametrize("name", ["efficientnet-lite0-head", "porch-cnn"])
@pytest.mark.parametrize("clipping_norm", [None, 1.0])
@pytest.mark.parametrize(
    ("weights", "caps"), [((3, 40), {}), ((1, 7, 100, 5000), {"cohort_cap": 4, "weight_cap": 100})]
)
def test_published_model_is_base_plus_weighted_mean_within_the_quantisation_step(
    make_federation: Callable[..., Any],
    tmp_path: Path,
    name: str,
    clipping_norm: float | None,
    weights: Any,
    caps: Any,
) -> None:
    federation = make_federation(tmp_path, architecture=name, clipping_norm=clipping_norm, **caps)
    settings = federation.announce("device-0")
    base = federation.params().astype(np.float64)
    deltas = [federation.rng.normal(0, 0.02, settings.size).astype(np.float32) for _ in weights]
    for number, (delta, weight) in enumerate(zip(deltas, weights, strict=True)):
        federation.upload(f"device-{number}", delta, weight)
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")

    counted = [min(weight, settings.weight_cap) for weight in weights]
    clipped = [
        delta * min(1.0, (clipping_norm or np.inf) / np.linalg.norm(delta)) for delta in deltas
    ]
    expected = base + np.average(np.array(clipped, np.float64), axis=0, weights=counted)
    quantisation = len(weights) / (scale_of(settings) * sum(counted))
    float32 = 2.0**-22 * (np.abs(expected) + np.abs(base) + 0.1)
    assert architecture(name).size == settings.size
    assert not np.allclose(expected, base, atol=1e-3)
    assert (np.abs(federation.params() - expected) <= quantisation + float32).all()


def test_huge_clip_and_no_clamp_equal_plain_averaging(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    published = {}
    deltas = [np.random.default_rng(n).normal(0, 0.5, 82_049).astype(np.float32) for n in range(3)]
    for topology, clipping_norm in (("secure", 1e9), ("direct", None)):
        caps = {"weight_cap": 64, "cohort_cap": 4, "value_range": 8.0}
        federation = make_federation(
            tmp_path / topology, topology=topology, clipping_norm=clipping_norm, **caps
        )
        for number, delta in enumerate(deltas):
            settings = federation.announce(f"device-{number}")
            if topology == "secure":
                federation.upload(f"device-{number}", delta, 1 + number)
            else:
                body = plain_update(delta, 1 + number, settings, f"device-{number}").to_bytes()
                federation.device(f"device-{number}").post("http://main/cmodel", body)
        if topology == "secure":
            federation.step("aggregator", "aggregate_models")
            federation.step("aggregator", "send_model_secagg")
            step = 3 / (scale_of(settings) * 6)
        else:
            federation.step("main", "aggregate_models")
        published[topology] = federation.params().astype(np.float64)
    assert np.abs(published["secure"] - published["direct"]).max() <= step + 1e-6


def test_same_update_twice_counts_once(federation: Any) -> None:
    body = federation.upload("a", federation.delta())
    federation.upload("b", federation.delta())
    before = federation.remembered("aggregator")
    said = federation.device("a").post(CMODEL, body).json["said"]
    assert "same once more" in said
    assert federation.remembered("aggregator") == before
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]


def test_new_bytes_replace_old_ones_until_the_cohort_is_frozen(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path, cohort_cap=2, weight_cap=16)
    settings = federation.announce("a")
    base, delta = federation.params(), federation.delta()
    federation.upload("a", federation.delta(0.5), 5)
    federation.upload("b", delta, 5)
    federation.upload("a", delta, 15)
    federation.step("aggregator", "aggregate_models")
    with pytest.raises(OutOfOrder, match="too late"):
        federation.upload("a", federation.delta(), 5)
    federation.step("aggregator", "send_model_secagg")
    step = 2 / (scale_of(settings) * 20)
    assert np.abs(federation.params() - (base + delta)).max() <= step + 1e-6


def test_after_freezing_new_bytes_are_refused_and_the_sum_stays(federation: Any) -> None:
    body = federation.upload("a", federation.delta())
    federation.upload("b", federation.delta())
    first = federation.step("aggregator", "aggregate_models")
    before = federation.remembered("aggregator")
    for device in ("a", "c"):
        with pytest.raises(OutOfOrder, match="Train for the next round"):
            federation.upload(device, federation.delta())
    assert "same once more" in federation.device("a").post(CMODEL, body).json["said"]
    again = federation.step("aggregator", "aggregate_models")
    assert (again["devices"], again["round"]) == (first["devices"], first["round"])
    assert "the sum is the same" in again["said"]
    assert federation.remembered("aggregator") == before
    assert len(sums(federation)) == 1


def test_handing_over_again_sends_the_same_bytes_and_answers_the_same(federation: Any) -> None:
    federation.upload("a", federation.delta())
    federation.upload("b", federation.delta())
    federation.step("aggregator", "aggregate_models")
    first = federation.step("aggregator", "send_model_secagg")
    params, before = federation.params(), federation.remembered("main-server")
    assert federation.step("aggregator", "send_model_secagg") == first
    assert len(federation.network.sent(SUM)) == 2
    assert len(set(federation.network.sent(SUM))) == 1
    assert federation.remembered("main-server") == before
    np.testing.assert_array_equal(federation.params(), params)


def test_update_whose_seed_does_not_open_is_left_out_and_named(federation: Any) -> None:
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    settings = federation.announce("c")
    body = masked_update(federation.delta(), 10, settings, "c", federation.rng).to_bytes()
    federation.device("c").post(CMODEL, resealed(body, sealed_seed=bytes(1168)))
    base = federation.params()
    done = federation.step("aggregator", "aggregate_models")
    assert done["devices"] == ["a", "b"]
    assert "Left out" in done["said"]
    assert done["said"].endswith("Left out, because their sealed seeds or keys are not taken: c.")
    assert federation.step("aggregator", "aggregate_models")["left_out"] == ["c"]
    federation.step("aggregator", "send_model_secagg")
    assert not np.array_equal(federation.params(), base)


def test_seed_sealed_for_another_device_is_left_out(federation: Any) -> None:
    federation.upload("a", federation.delta())
    stolen = federation.upload("b", federation.delta())
    federation.announce("c")
    federation.device("c").post(CMODEL, resealed(stolen, device="c"))
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]


def test_device_that_never_announced_itself_is_left_out(federation: Any) -> None:
    for device in ("a", "b"):
        settings = federation.announce(device)
        federation.upload(device, federation.delta())
    body = masked_update(federation.delta(), 10, settings, "stranger", federation.rng).to_bytes()
    federation.device("stranger").post(CMODEL, body)
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]


def test_too_few_usable_updates_are_refused_by_name_and_nothing_changes(federation: Any) -> None:
    federation.announce("c")
    federation.upload("a", federation.delta())
    body = federation.upload("b", federation.delta())
    federation.device("b").post(CMODEL, resealed(body, sealed_seed=bytes(1168)))
    before = federation.remembered("aggregator"), federation.remembered("main-server")
    with pytest.raises(
        OutOfOrder, match=r"1 of the 2.*Still missing: b, c.*b is left out: .*does not open"
    ):
        federation.step("aggregator", "aggregate_models")
    assert (federation.remembered("aggregator"), federation.remembered("main-server")) == before
    federation.device("b").post(CMODEL, body)
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]


def test_missing_devices_are_named_and_nothing_changes(federation: Any) -> None:
    for device in ("b", "c"):
        federation.announce(device)
    federation.upload("a", federation.delta())
    before = federation.remembered("aggregator"), federation.remembered("main-server")
    with pytest.raises(
        OutOfOrder,
        match=r"1 of the 2 updates it needs\. Still missing: b, c\. What was sent is kept",
    ):
        federation.step("aggregator", "aggregate_models")
    assert (federation.remembered("aggregator"), federation.remembered("main-server")) == before


def test_steps_before_their_time_say_what_to_do_first(federation: Any) -> None:
    with pytest.raises(OutOfOrder, match="/aggregate_models on this aggregator first"):
        federation.step("aggregator", "send_model_secagg")
    with pytest.raises(OutOfOrder, match="No masked update has arrived yet"):
        federation.http.post("http://aggregator/aggregate_models", b"")
    with pytest.raises(NotFound, match="No device takes part in package"):
        federation.step("aggregator", "aggregate_models")
    federation.upload("a", federation.delta())
    with pytest.raises(OutOfOrder, match="Round 1 is not added up yet"):
        federation.step("aggregator", "send_model_secagg")


@pytest.mark.parametrize(
    ("changed", "refusal", "words"),
    [
        ({"masked": np.zeros(82_050, "<u4")}, InvalidMessage, "another length"),
        ({"masked": np.zeros(82_052, "<u4")}, InvalidMessage, "another length"),
        ({"round": 2}, OutOfOrder, "round 1 is open"),
        ({"base_version": "0" * 64}, OutOfOrder, "round 1 is open"),
    ],
)
def test_update_of_another_round_version_or_length_is_refused(
    federation: Any, changed: Any, refusal: type[Exception], words: str
) -> None:
    body = federation.upload("a", federation.delta())
    before = federation.remembered("aggregator")
    with pytest.raises(refusal, match=words):
        federation.device("b").post(CMODEL, resealed(body, device="b", **changed))
    assert federation.remembered("aggregator") == before


@pytest.mark.parametrize("body", [b"", b"nonsense", bytes(4096)])
def test_bytes_that_are_no_update_are_refused(federation: Any, body: bytes) -> None:
    with pytest.raises(InvalidMessage):
        federation.device("a").post(CMODEL, body)


def test_full_cohort_takes_new_bytes_of_its_devices_alone(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path, cohort_cap=2)
    for device in ("a", "b", "a"):
        federation.upload(device, federation.delta())
    with pytest.raises(OutOfOrder, match="full"):
        federation.upload("c", federation.delta())
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]


def test_main_server_out_of_reach_changes_nothing_and_the_same_steps_work_later(
    federation: Any,
) -> None:
    settings = federation.announce("a")
    bodies = [
        masked_update(federation.delta(), 10, settings, d, federation.rng).to_bytes()
        for d in ("a", "b")
    ]
    federation.announce("b")
    empty = federation.remembered("aggregator")
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        federation.device("a").post(CMODEL, bodies[0])
    assert federation.remembered("aggregator") == empty
    federation.network.down = set()
    for device, body in zip("ab", bodies, strict=True):
        federation.device(device).post(CMODEL, body)
    before = federation.remembered("aggregator")
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        federation.step("aggregator", "aggregate_models")
    assert federation.remembered("aggregator") == before
    federation.network.down = set()
    federation.step("aggregator", "aggregate_models")
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        federation.step("aggregator", "send_model_secagg")
    federation.network.down = set()
    assert "Round 1 is finished" in federation.step("aggregator", "send_model_secagg")["said"]


def test_threads_that_aggregate_at_the_same_time_make_one_sum(federation: Any) -> None:
    for device in ("a", "b", "c"):
        federation.upload(device, federation.delta())
    start, answers = threading.Barrier(6), []

    def work() -> None:
        start.wait()
        answers.append(aggregate(federation.aggregator, "package").figures)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [{"round": 1, "devices": ["a", "b", "c"], "left_out": []}] * 6
    assert len(sums(federation)) == 1


def test_update_that_comes_between_check_and_freeze_is_checked_too(federation: Any) -> None:
    for device in ("a", "b"):
        federation.upload(device, federation.delta())

    class Meanwhile:
        """Another device sends while the main server checks the seeds, the first time."""

        def __init__(self) -> None:
            self.checks: list[list[str]] = []

        def post_json(self, url: str, message: Any, to: Any) -> Any:
            reply = federation.aggregator.http.post_json(url, message, to)
            self.checks.append(sorted(message.sealed_seeds))
            if len(self.checks) == 1:
                federation.upload("c", federation.delta())
            return reply

    meanwhile: Any = Meanwhile()
    done = aggregate(replace(federation.aggregator, http=meanwhile), "package")
    assert done.figures["devices"] == ["a", "b", "c"]
    assert meanwhile.checks == [["a", "b"], ["a", "b", "c"]]


def test_aggregator_that_stopped_after_freezing_adds_up_the_frozen_cohort(federation: Any) -> None:
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    store = federation.aggregator.store
    seen = store.updates("package", 1)
    assert store.freeze("package", 1, seen, {stored.device: stored.digest for stored in seen})
    federation.start()
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]
    assert "Round 1 is finished" in federation.step("aggregator", "send_model_secagg")["said"]


def test_cohort_is_not_frozen_from_a_stale_view_nor_twice(federation: Any) -> None:
    federation.upload("a", federation.delta())
    store = federation.aggregator.store
    stale = store.updates("package", 1)
    federation.upload("b", federation.delta())
    assert not store.freeze("package", 1, stale, {"a": stale[0].digest})
    seen = store.updates("package", 1)
    assert store.freeze("package", 1, seen, {"a": seen[0].digest})
    assert not store.freeze("package", 1, seen, {stored.device: stored.digest for stored in seen})
    assert [stored.device for stored in store.cohort("package", 1)] == ["a"]
    assert not store.keep_update("package", 1, Stored("c", "0" * 64, b"", "0" * 32), 0.0)


def test_first_sum_is_kept_whatever_comes_after(federation: Any) -> None:
    federation.upload("a", federation.delta())
    store = federation.aggregator.store
    assert store.keep_sum("package", 1, "1" * 64) == "1" * 64
    assert store.keep_sum("package", 1, "2" * 64) == "1" * 64
    assert store.newest_round("package").aggregate == "1" * 64


def test_device_masked_with_another_seed_fails_the_round_and_the_next_opens(
    federation: Any,
) -> None:
    federation.upload("a", federation.delta())
    settings = federation.announce("b")
    base = federation.params()
    body = masked_with_another_seed(settings, "b", federation.delta(), federation.rng)
    federation.device("b").post(CMODEL, body)
    federation.step("aggregator", "aggregate_models")
    with pytest.raises(InvalidMessage, match="makes no sense"):
        federation.step("aggregator", "send_model_secagg")
    np.testing.assert_array_equal(federation.params(), base)
    assert read(federation.main.store, find_round, "package", 1).state == "failed"
    with pytest.raises(OutOfOrder, match="Round 1 is failed"):
        federation.step("aggregator", "send_model_secagg")
    for device in ("a", "b"):
        assert federation.announce(device).round == 2
        federation.upload(device, federation.delta())
    federation.step("aggregator", "aggregate_models")
    assert "Round 2 is finished" in federation.step("aggregator", "send_model_secagg")["said"]


def test_aggregator_refuses_what_belongs_to_the_direct_topology(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path)
    settings = federation.announce("a")
    body = masked_update(federation.delta(), 10, settings, "a", federation.rng).to_bytes()
    federation.start(topology="direct")
    with pytest.raises(OutOfOrder, match="/aggregate_models on the main server"):
        federation.device("a").post(CMODEL, body)
    with pytest.raises(OutOfOrder, match="/aggregate_models on the main server"):
        federation.step("aggregator", "aggregate_models")


def test_detectors_have_rounds_of_their_own(federation: Any) -> None:
    for device in ("a", "b"):
        federation.upload(device, federation.delta(), detector="package")
    federation.upload("a", federation.delta(), detector="raccoon")
    reply = federation.http.post("http://aggregator/aggregate_models", b"").json
    assert reply["detectors"]["package"]["status"] == 200
    assert reply["detectors"]["raccoon"]["status"] == 409


def test_container_of_the_sum_names_the_cohort_with_its_sealed_seeds(federation: Any) -> None:
    for device in ("b", "a"):
        federation.upload(device, federation.delta())
    federation.step("aggregator", "aggregate_models")
    (container,) = sums(federation)
    aggregated: Aggregate = parse_aggregate(container)
    kept = {
        stored.device: stored.sealed_seed
        for stored in federation.aggregator.store.updates("package", 1)
    }
    assert aggregated.sealed_seeds == kept
    assert (aggregated.detector, aggregated.round) == ("package", 1)


@given(
    size=st.sampled_from([1, 2, 65_535, 65_536, 65_537, 131_072]),
    count=st.integers(1, 4),
    head=st.binary(max_size=9),
    seed=st.integers(0, 2**32 - 1),
)
def test_adding_up_is_the_sum_modulo_two_to_the_32(
    tmp_path_factory: pytest.TempPathFactory, size: int, count: int, head: bytes, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("vectors")
    vectors = np.random.default_rng(seed).integers(0, 2**32, (count, size), np.uint64)
    for number, vector in enumerate(vectors):
        (folder / str(number)).write_bytes(head + vector.astype("<u4").tobytes())
    files = [folder / str(number) for number in range(count)]
    (total,) = sum_buckets(read_vectors(files, size), [0] * count)
    np.testing.assert_array_equal(total, vectors.sum(axis=0) % 2**32)


def test_adding_up_a_file_that_ended_early_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(12))
    with pytest.raises(OSError):
        list(read_vectors([tmp_path / "short"], 4))
