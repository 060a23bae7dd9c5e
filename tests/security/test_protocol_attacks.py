"""Attacks by members: updates, sums, seeds and models that are not what the protocol allows their
sender.
"""

from __future__ import annotations

import base64
import json
import pickle
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from learning.architectures import architecture
from learning.model import Model, parse_model
from main_server.store.publication import revoke
from main_server.store.rounds import find_round
from main_server.store.store import Store
from main_server.store.versions import find_version, newest_version
from shared.round.masking import SealingKey, new_private_key, new_seed, seal
from shared.round.payloads import (
    Aggregate,
    MaskedUpdate,
    PlainUpdate,
    parse_aggregate,
    parse_masked_update,
)
from shared.round.plan import EXTRA_COORDINATES
from shared.security.manifest import HEADER, manifest_of, signed_manifest
from shared.storage.blobs import BlobStore
from shared.transport.http_client import CONTAINER_TYPE
from tests.main_store import read, write

Field = Any
Build = Callable[[Field], bytes]


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(
    dtype: str = "U32", shape: object = (4,), offsets: object = (0, 16)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def forged(update: MaskedUpdate, **tensors: object) -> bytes:
    """Return an update's metadata over another description of its bytes."""
    metadata = {
        "format": "doorbell-update/1",
        "detector": update.detector,
        "round": str(update.round),
        "device": update.device,
        "base_version": update.base_version,
        "sealed_seed": base64.b64encode(update.sealed_seed).decode(),
    }
    return safetensors({"__metadata__": metadata} | tensors, bytes(16))


# -- devices to the aggregator
# ------------------------------------------------------------------------------------


def update(who: str, of: str = "animal", **changes: Any) -> Build:
    def build(field: Field) -> bytes:
        return replace(field.update(field.members[who], of), **changes).to_bytes()

    return build


def broken(**tensors: object) -> Build:
    return lambda field: forged(field.update(field.members["alice"], "animal"), **tensors)


def plain(field: Field) -> bytes:
    settings = field.rounds["main/animal"]
    delta = np.zeros(settings.size, np.float32)
    return PlainUpdate(
        "animal", settings.round, settings.base_version, "alice", 3, delta
    ).to_bytes()


def finished(field: Field) -> bytes:
    settings = field.rounds["finished/face"]
    made = field.update(field.members["alice"], "face")
    return replace(made, round=settings.round, base_version=settings.base_version).to_bytes()


def shortened(field: Field) -> bytes:
    made = field.update(field.members["alice"], "animal")
    return replace(made, masked=made.masked[:-1]).to_bytes()


def seedless(field: Field) -> bytes:
    made = field.update(field.members["alice"], "animal")
    return replace(made, sealed_seed=made.sealed_seed[:-1]).to_bytes()


INVALID, LATE, FORBIDDEN = (400, "invalid-message"), (409, "out-of-order"), (403, "forbidden")
UPDATES: list[tuple[str, str, Build, tuple[int, str]]] = [
    ("names another device", "alice", update("bob"), FORBIDDEN),
    ("names nobody", "alice", update("alice", device="nobody"), FORBIDDEN),
    ("by a revoked device", "ruth", update("ruth"), (403, "revoked")),
    ("names a path", "alice", update("alice", device="../../bob"), INVALID),
    ("detector swapped", "alice", update("alice", detector="parcel"), LATE),
    ("detector unknown", "alice", update("alice", detector="nowhere"), (404, "not-found")),
    ("detector is a path", "alice", update("alice", detector="../../etc"), INVALID),
    ("round to come", "alice", update("alice", round=7), LATE),
    ("round 0", "alice", update("alice", round=0), LATE),
    ("round of 2^31", "alice", update("alice", round=2**31), LATE),
    ("round finished", "alice", finished, LATE),
    ("another base version", "alice", update("alice", base_version="0" * 64), LATE),
    ("base version is a path", "alice", update("alice", base_version="../identity.key"), INVALID),
    ("cohort frozen", "alice", update("alice", "car"), LATE),
    ("cohort frozen, newcomer", "mallory", update("mallory", "car"), LATE),
    ("too short", "alice", shortened, INVALID),
    ("sealed seed too short", "alice", seedless, INVALID),
    ("plain update", "alice", plain, INVALID),
    ("empty body", "alice", lambda field: b"", INVALID),
    ("no container", "alice", lambda field: b"\x00" * 64, INVALID),
    ("header longer than the body", "alice", lambda field: b"\xff" * 8, INVALID),
    (
        "header of 2^40 elements",
        "alice",
        broken(masked=tensor(shape=[2**40], offsets=[0, 2**42])),
        INVALID,
    ),
    (
        "header of 2^63 elements, empty",
        "alice",
        broken(masked=tensor(shape=[2**63, 0], offsets=[0, 0])),
        INVALID,
    ),
    ("header of negative offsets", "alice", broken(masked=tensor(offsets=[-16, 0])), INVALID),
    ("header of negative elements", "alice", broken(masked=tensor(shape=[-2, -2])), INVALID),
    (
        "header of overlapping tensors",
        "alice",
        broken(masked=tensor(), other=tensor(offsets=[8, 24])),
        INVALID,
    ),
    ("header with a gap", "alice", broken(masked=tensor(shape=[2], offsets=[8, 16])), INVALID),
    ("header with fewer bytes", "alice", broken(masked=tensor(shape=[2], offsets=[0, 8])), INVALID),
    ("header of another type", "alice", broken(masked=tensor("F64", [2])), INVALID),
    ("header of floats", "alice", broken(masked=tensor("F32")), INVALID),
    ("header of fractions", "alice", broken(masked=tensor(shape=[4.0])), INVALID),
    ("header of booleans", "alice", broken(masked=tensor(shape=[True, 4])), INVALID),
    ("header of many dimensions", "alice", broken(masked=tensor(shape=[1] * 99 + [4])), INVALID),
    ("header of NaN", "alice", lambda field: safetensors(b'{"__metadata__": NaN}'), INVALID),
    ("header of deep brackets", "alice", lambda field: safetensors(b"[" * 100_000), INVALID),
    (
        "header of a huge number",
        "alice",
        lambda field: safetensors(b'{"a":' + b"9" * 100_000 + b"}"),
        INVALID,
    ),
    ("header with a tensor twice", "alice", lambda field: safetensors(b'{"a":1,"a":1}'), INVALID),
    ("pickle", "alice", lambda field: pickle.dumps({"masked": [1]}), INVALID),
]


@pytest.mark.parametrize(
    ("who", "build", "outcome"), [pytest.param(*row[1:], id=row[0]) for row in UPDATES]
)
def test_the_aggregator_refuses_an_update(
    field: Field, who: str, build: Build, outcome: tuple[int, str]
) -> None:
    field.refuses(
        field.container(field.members[who], "aggregator", "/cmodel", build(field)), *outcome
    )


def test_the_aggregator_takes_the_honest_update_again_and_a_newer_one(field: Field) -> None:
    alice, before = field.members["alice"], field.state()
    field.takes(field.container(alice, "aggregator", "/cmodel", field.sent["alice/animal"]))
    assert field.state() == before, "the same update twice changes nothing"
    field.takes(field.container(alice, "aggregator", "/cmodel", update("alice", "parcel")(field)))
    assert field.state() != before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_there_is_one_sum_for_a_frozen_cohort(field: Field, message: Any, method: str) -> None:
    before = field.state()
    answer = field.takes(message("aggregator", method, "/aggregate_models?detector=car"))
    assert "the sum is the same" in answer.json["detectors"]["car"]["said"]
    assert answer.json["detectors"]["car"]["left_out"] == ["nora"], "nora never announced herself"
    assert field.state() == before


def test_no_sum_is_made_of_one_update(field: Field, message: Any) -> None:
    field.refuses(message("aggregator", "POST", "/aggregate_models?detector=parcel"), 409, "step")


# -- the aggregator to the main server
# ----------------------------------------------------------------------------


def seed_of(field: Field, name: str, detector: str = "animal", as_name: str | None = None) -> bytes:
    settings = field.rounds[f"main/{detector}"]
    return seal(new_seed(), settings.sealing_key_bytes, settings.context(as_name or name))


def aggregate(*names: str, **changes: Any) -> Build:
    def build(field: Field) -> bytes:
        settings = field.rounds["main/animal"]
        seeds = {name: seed_of(field, name) for name in names}
        total = np.zeros(settings.size + EXTRA_COORDINATES, np.uint32)
        return replace(
            Aggregate("animal", settings.round, settings.base_version, seeds, total), **changes
        ).to_bytes()

    return build


def one_device_twice(field: Field) -> bytes:
    body = aggregate("alice", "bob")(field)
    return body.replace(b'[[\\"alice\\"', b'[[\\"bob\\"  ').replace(b'\\"bob\\", ', b'\\"bob\\", ')


def swapped_seeds(field: Field) -> bytes:
    seeds = {"alice": seed_of(field, "bob"), "bob": seed_of(field, "alice")}
    return aggregate(sealed_seeds=seeds)(field)


def seeds_of_another_key(field: Field) -> bytes:
    settings, other = field.rounds["main/animal"], SealingKey.from_private(new_private_key()).public
    return aggregate(
        sealed_seeds={
            name: seal(new_seed(), other, settings.context(name)) for name in ("alice", "bob")
        }
    )(field)


def seeds_of_another_detector(field: Field) -> bytes:
    return aggregate(
        sealed_seeds={name: seed_of(field, name, "parcel") for name in ("alice", "bob")}
    )(field)


def second_sum(field: Field) -> bytes:
    """Return another sum for the round that is finished: without its last addend it would give a
    device away.
    """
    stored = first_sum(field)
    return replace(
        parse_aggregate(stored), sum=parse_aggregate(stored).sum + np.uint32(1)
    ).to_bytes()


def fewer_devices(field: Field) -> bytes:
    stored = parse_aggregate(first_sum(field))
    return replace(stored, sealed_seeds={"alice": stored.sealed_seeds["alice"]}).to_bytes()


def first_sum(field: Field) -> bytes:
    digest = read(
        Store.open(field.home("main")), find_round, "face", field.rounds["finished/face"].round
    )
    blobs = BlobStore(field.home("aggregator") / "blobs")
    for path in sorted((field.home("aggregator") / "blobs").iterdir()):
        if digest is not None and path.name == digest.aggregate:
            return blobs.get(path.name)
    raise AssertionError("the aggregator kept no sum")


AGGREGATES: list[tuple[str, Build, tuple[int, str]]] = [
    ("over nobody", aggregate(), INVALID),
    ("over one device", aggregate("alice"), INVALID),
    ("naming a device twice", one_device_twice, INVALID),
    ("with a device that never announced itself", aggregate("alice", "nora"), INVALID),
    ("with a revoked device", aggregate("alice", "ruth"), INVALID),
    ("with nobody's device", aggregate("alice", "ghost"), INVALID),
    ("with the aggregator itself", aggregate("alice", "secure-aggregator"), INVALID),
    ("with swapped seeds", swapped_seeds, INVALID),
    ("with seeds for another key", seeds_of_another_key, INVALID),
    ("with seeds of another detector", seeds_of_another_detector, INVALID),
    ("too short", aggregate("alice", "bob", sum=np.zeros(3, np.uint32)), INVALID),
    ("for another base version", aggregate("alice", "bob", base_version="0" * 64), INVALID),
    ("for round 99", aggregate("alice", "bob", round=99), INVALID),
    ("for round 0", aggregate("alice", "bob", round=0), INVALID),
    ("for another detector", aggregate("alice", "bob", detector="parcel"), INVALID),
    ("for a detector unknown", aggregate("alice", "bob", detector="nowhere"), INVALID),
    ("second, different, for a finished round", second_sum, LATE),
    ("second, over fewer, for a finished round", fewer_devices, LATE),
    ("that is an update", update("alice"), INVALID),
    ("that is empty", lambda field: b"", INVALID),
]


@pytest.mark.parametrize(
    ("build", "outcome"), [pytest.param(*row[1:], id=row[0]) for row in AGGREGATES]
)
def test_the_main_server_refuses_a_sum(
    field: Field, build: Build, outcome: tuple[int, str]
) -> None:
    field.refuses(
        field.container(field.key_of("aggregator"), "main", "/secagg_model", build(field)), *outcome
    )


def test_naming_a_device_twice_is_what_it_says(field: Field) -> None:
    assert b'[[\\"bob\\"' in one_device_twice(field)


def test_the_main_server_takes_the_same_sum_again(field: Field) -> None:
    before = field.state()
    answer = field.takes(
        field.container(field.key_of("aggregator"), "main", "/secagg_model", first_sum(field))
    )
    assert "finished" in answer.json["said"]
    assert field.state() == before


SEEDS: list[tuple[str, Callable[[Field], object], tuple[int, str]]] = [
    ("for a closed round", lambda f: {"detector": "face", "round": 1, "sealed_seeds": {}}, LATE),
    (
        "for a round to come",
        lambda f: {"detector": "animal", "round": 9, "sealed_seeds": {}},
        INVALID,
    ),
    (
        "for a round by text",
        lambda f: {"detector": "animal", "round": "1", "sealed_seeds": {}},
        INVALID,
    ),
    (
        "for a round by truth",
        lambda f: {"detector": "animal", "round": True, "sealed_seeds": {}},
        INVALID,
    ),
    ("for a path", lambda f: {"detector": "../..", "round": 1, "sealed_seeds": {}}, INVALID),
    ("as a list", lambda f: {"detector": "animal", "round": 1, "sealed_seeds": []}, INVALID),
    (
        "of a path",
        lambda f: {"detector": "animal", "round": 1, "sealed_seeds": {"../x": ""}},
        INVALID,
    ),
    ("that are nothing", lambda f: [], INVALID),
]


@pytest.mark.parametrize(("build", "outcome"), [pytest.param(*row[1:], id=row[0]) for row in SEEDS])
def test_the_main_server_does_not_judge_seeds(
    field: Field,
    make_json_message: Any,
    signer: Any,
    build: Callable[[Field], object],
    outcome: tuple[int, str],
) -> None:
    message = make_json_message("main", "/check_seeds", build(field))
    field.refuses(signer(message, field.key_of("aggregator").identity, "main-server"), *outcome)


def test_the_main_server_names_the_seeds_that_do_not_open(
    field: Field, make_json_message: Any, signer: Any
) -> None:
    before = field.state()
    seeds = {
        "alice": seed_of(field, "alice"),
        "bob": seed_of(field, "alice"),
        "ruth": seed_of(field, "ruth"),
        "nora": seed_of(field, "nora"),
        "mallory": b"short",
    }
    said = {name: base64.b64encode(seed).decode() for name, seed in seeds.items()}
    said = {"detector": "animal", "round": field.rounds["main/animal"].round, "sealed_seeds": said}
    message = signer(
        make_json_message("main", "/check_seeds", said),
        field.key_of("aggregator").identity,
        "main-server",
    )
    assert set(field.takes(message).json["refused"]) == {"bob", "ruth", "nora", "mallory"}
    assert field.state() == before


# -- devices to the main server
# ---------------------------------------------------------------------------------


def delta(who: str, values: Any = None, **changes: Any) -> Build:
    def build(field: Field) -> bytes:
        settings = field.rounds["guarded/face"]
        vector = np.zeros(settings.size, np.float32)
        if values is not None:
            vector[5] = values
        made = PlainUpdate("face", settings.round, settings.base_version, who, 3, vector)
        return replace(made, **changes).to_bytes()

    return build


def masked_in_direct(field: Field) -> bytes:
    settings = field.rounds["guarded/face"]
    made = parse_masked_update(update("alice")(field))
    made = replace(
        made,
        device="ann",
        detector="face",
        round=settings.round,
        base_version=settings.base_version,
    )
    return made.to_bytes()


PLAIN: list[tuple[str, str, str, Build, tuple[int, str]]] = [
    ("plain in the secure topology", "main", "alice", plain, LATE),
    ("masked, to the main server", "main", "alice", update("alice"), INVALID),
    ("masked, in the direct topology", "guarded", "ann", masked_in_direct, INVALID),
    ("of another device", "guarded", "ann", delta("ben"), FORBIDDEN),
    ("of a device that never announced itself", "guarded", "ben", delta("ben"), INVALID),
    ("with NaN", "guarded", "ann", delta("ann", np.nan), INVALID),
    ("with infinity", "guarded", "ann", delta("ann", -np.inf), INVALID),
    ("of no weight", "guarded", "ann", delta("ann", weight=0), INVALID),
    ("of negative weight", "guarded", "ann", delta("ann", weight=-3), INVALID),
    ("of huge weight", "guarded", "ann", delta("ann", weight=10**30), INVALID),
    ("too short", "guarded", "ann", delta("ann", delta=np.zeros(3, np.float32)), INVALID),
    ("for round 99", "guarded", "ann", delta("ann", round=99), INVALID),
    ("for another base version", "guarded", "ann", delta("ann", base_version="0" * 64), INVALID),
]


@pytest.mark.parametrize(
    ("service", "who", "build", "outcome"), [pytest.param(*row[1:], id=row[0]) for row in PLAIN]
)
def test_the_main_server_refuses_an_update(
    field: Field, service: str, who: str, build: Build, outcome: tuple[int, str]
) -> None:
    field.refuses(field.container(field.members[who], service, "/cmodel", build(field)), *outcome)


def test_no_sum_is_taken_in_the_direct_topology(field: Field) -> None:
    settings = field.rounds["guarded/face"]
    total = np.zeros(settings.size + EXTRA_COORDINATES, np.uint32)
    seeds = {name: seed_of(field, name) for name in ("ann", "ben")}
    body = Aggregate("face", settings.round, settings.base_version, seeds, total).to_bytes()
    field.refuses(
        field.container(field.members["secure-aggregator"], "guarded", "/secagg_model", body), *LATE
    )


def test_the_direct_main_server_takes_the_honest_update(field: Field) -> None:
    before = field.state()
    field.takes(
        field.container(field.members["ann"], "guarded", "/cmodel", delta("ann", 0.5)(field))
    )
    assert field.state() != before


STATUSES: list[tuple[str, object]] = [
    ("no detectors", {"address": "http://h"}),
    ("detectors as a list", {"address": "http://h", "detectors": ["face"]}),
    ("a detector that is a path", {"address": "http://h", "detectors": {"../../etc": None}}),
    ("a detector with NUL", {"address": "http://h", "detectors": {"face\0": None}}),
    ("a detector in capitals", {"address": "http://h", "detectors": {"FACE": None}}),
    ("a detector of great length", {"address": "http://h", "detectors": {"a" * 5000: None}}),
    (
        "too many detectors",
        {"address": "http://h", "detectors": {f"d{n}": None for n in range(65)}},
    ),
    ("a round by text", {"address": "http://h", "detectors": {"face": "1"}}),
    ("a round that is NaN", {"address": "http://h", "detectors": {"face": float("nan")}}),
    ("a negative round", {"address": "http://h", "detectors": {"face": -1}}),
    ("a huge round", {"address": "http://h", "detectors": {"face": 10**400}}),
    ("no address", {"detectors": {"face": None}}),
    ("an address that is a number", {"address": 1, "detectors": {"face": None}}),
    ("an address of great length", {"address": "http://" + "h" * 300, "detectors": {"face": None}}),
]


@pytest.mark.parametrize("said", [pytest.param(row[1], id=row[0]) for row in STATUSES])
def test_the_main_server_refuses_an_announcement(
    field: Field, make_json_message: Any, signer: Any, said: object
) -> None:
    message = signer(
        make_json_message("main", "/clientstatus", said),
        field.members["mallory"].identity,
        "main-server",
    )
    field.refuses(message, *INVALID)


def test_a_device_cannot_fill_the_main_server_with_detectors(field: Field) -> None:
    """Every new detector costs a first model: 64 in one announcement are allowed, and so many in
    all.
    """
    greedy = field.join("greedy")
    field.announce(greedy, *(f"greedy{n}" for n in range(8)))
    more = field.status(greedy, *(f"more{n}" for n in range(60)))
    field.refuses(more, *INVALID)


@pytest.mark.parametrize("version", ["0" * 64, "zz", "..%2f..%2fidentity.key", "0" * 63 + "G"])
def test_no_file_but_a_published_model_is_handed_out(field: Field, version: str) -> None:
    message = field.container(
        field.members["alice"], "main", f"/model/{version}", b"", method="GET"
    )
    status = {"0" * 64: (404, "not-found"), "..%2f..%2fidentity.key": (404, "http")}.get(
        version, INVALID
    )
    if "%2f" in version:  # no rule has that form, so nothing even looks at the signature
        assert field.send(message).status == 404
    else:
        field.refuses(message, *status)


# -- models to a device
# -----------------------------------------------------------------------------------------


def published(field: Field) -> tuple[bytes, Model]:
    """Return the newest model of face that device 1 holds."""
    version = read(Store.open(field.home("main")), newest_version, "face")
    assert version is not None
    body = (field.home("main") / "blobs" / version.version).read_bytes()
    return body, parse_model(body)


def newer(field: Field, **changes: Any) -> Model:
    """Return a model that device 1 would install, were it the main server's word."""
    return replace(published(field)[1], **({"round": 50, "parent": "0" * 64} | changes))


def vouched(
    field: Field, model: Model, signer: str = "main", body: bytes | None = None
) -> tuple[bytes, str]:
    body = body if body is not None else model.to_bytes()
    return body, signed_manifest(
        manifest_of("doorbell", model, body, 1e9), field.key_of(signer).identity
    )


def spoilt(field: Field, value: float) -> tuple[bytes, str]:
    model = newer(field)
    params = {name: array.copy() for name, array in model.params.items()}
    next(iter(params.values())).flat[0] = value
    return vouched(field, replace(model, params=params))


def reshaped(field: Field) -> tuple[bytes, str]:
    model = newer(field)
    return vouched(
        field,
        replace(model, params={name: array.reshape(-1) for name, array in model.params.items()}),
    )


def of_another(field: Field) -> tuple[bytes, str]:
    model = newer(field)
    return model.to_bytes(), vouched(field, replace(model, round=51))[1]


def oldest(field: Field) -> tuple[bytes, str]:
    model = published(field)[1]
    first = (field.home("main") / "blobs" / str(model.parent)).read_bytes()
    version = read(Store.open(field.home("main")), find_version, str(model.parent))
    assert version is not None
    return first, version.manifest


def keras_zip(field: Field) -> tuple[bytes, str]:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(
            "config.json", '{"class_name": "Lambda", "config": {"function": "os.system"}}'
        )
    return vouched(field, newer(field), body=buffer.getvalue())


def bomb(field: Field) -> tuple[bytes, str]:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(field.folder / "pickled"), "w"))

    return vouched(field, newer(field), body=pickle.dumps(Payload()))


def pieces(field: Field, change: Callable[[str], str]) -> tuple[bytes, str]:
    """Return a true model with a manifest that was changed."""
    body, manifest = vouched(field, newer(field))
    return body, change(manifest)


def with_member(field: Field, **members: object) -> tuple[bytes, str]:
    """Return a manifest with other members, signed by the main server's own key."""
    model = newer(field)
    body = model.to_bytes()
    encoded = json.dumps(manifest_of("doorbell", model, body, 1.0).to_json() | members).encode()
    signature = field.key_of("main").identity.sign(b"doorbell-manifest/1" + encoded)
    return body, ".".join(base64.b64encode(part).decode() for part in (encoded, signature))


def elsewhere(field: Field) -> tuple[bytes, str]:
    """Return a model of an architecture that is not the one asked for."""
    other = architecture("efficientnet-lite0-head")
    return vouched(field, newer(field, params=other.initial(np.random.default_rng(1))))


VOUCH = (403, "manifest-invalid")
MODELS: list[tuple[str, Callable[[Field], tuple[bytes, str]], tuple[int, str]]] = [
    ("no manifest", lambda f: (newer(f).to_bytes(), ""), VOUCH),
    ("a manifest that is nothing", lambda f: (newer(f).to_bytes(), "AAAA.AAAA"), VOUCH),
    ("a manifest of three parts", lambda f: pieces(f, lambda text: text + ".AAAA"), VOUCH),
    (
        "a manifest without signature",
        lambda f: pieces(f, lambda text: text.split(".")[0] + "."),
        VOUCH,
    ),
    ("a long manifest", lambda f: pieces(f, lambda text: "A" * 4000 + text), VOUCH),
    ("another model's manifest", of_another, VOUCH),
    ("a manifest by the aggregator", lambda f: vouched(f, newer(f), "aggregator"), VOUCH),
    ("a manifest by the device", lambda f: vouched(f, newer(f), "device1"), VOUCH),
    ("a manifest for another detector", lambda f: with_member(f, detector="animal"), VOUCH),
    ("a manifest for another round", lambda f: with_member(f, round=49), VOUCH),
    ("a manifest for another parent", lambda f: with_member(f, parent=None), VOUCH),
    ("a manifest with more members", lambda f: with_member(f, more=1), VOUCH),
    ("a manifest with a round by text", lambda f: with_member(f, round="50"), VOUCH),
    ("an older model", oldest, LATE),
    (
        "a detector that is not here",
        lambda f: vouched(f, newer(f, detector="animal")),
        (404, "not-found"),
    ),
    ("a detector that is a path", lambda f: vouched(f, newer(f, detector="../../etc")), INVALID),
    (
        "an unknown architecture",
        lambda f: vouched(f, newer(f, architecture="evil-net")),
        (404, "not-found"),
    ),
    ("another architecture's params", elsewhere, INVALID),
    ("other shapes", reshaped, INVALID),
    ("NaN", lambda f: spoilt(f, np.nan), INVALID),
    ("infinity", lambda f: spoilt(f, np.inf), INVALID),
    ("a pickle", bomb, INVALID),
    ("a Keras zip", keras_zip, INVALID),
    (
        "a Keras HDF5",
        lambda f: vouched(f, newer(f), body=b"\x89HDF\r\n\x1a\n" + bytes(200)),
        INVALID,
    ),
    ("an empty body", lambda f: vouched(f, newer(f), body=b""), INVALID),
]


@pytest.mark.parametrize(
    ("build", "outcome"), [pytest.param(*row[1:], id=row[0]) for row in MODELS]
)
def test_a_device_installs_no_such_model(
    field: Field, build: Callable[[Field], tuple[bytes, str]], outcome: tuple[int, str]
) -> None:
    """The message is the main server's own in each case: what fails is the model."""
    body, manifest = build(field)
    more = [(HEADER, manifest)] if manifest else []
    field.refuses(
        field.container(field.key_of("main"), "device1", "/aggmodel", body, *more), *outcome
    )
    assert not (field.folder / "pickled").exists()


def test_a_device_installs_the_model_it_holds_once_more(field: Field) -> None:
    body, _ = published(field)
    version = read(Store.open(field.home("main")), newest_version, "face")
    assert version is not None
    before = field.state()
    field.takes(
        field.container(
            field.key_of("main"), "device1", "/aggmodel", body, (HEADER, version.manifest)
        )
    )
    assert field.state() == before
    assert CONTAINER_TYPE.startswith("application/")


def test_a_device_revoked_after_the_sum_does_not_block_its_detector(field: Field) -> None:
    """The main server refuses the sum, and the aggregator can make no other: the round has to be
    given up.
    """
    alice, thief = field.members["alice"], field.join("thief")
    for member in (alice, thief):
        field.announce(member, "gate")
        field.takes(
            field.container(
                member, "aggregator", "/cmodel", field.update(member, "gate").to_bytes()
            )
        )
    field.takes(field.step("aggregator", "/aggregate_models?detector=gate"))
    write(field.store(), revoke, "thief", "it was stolen.", time.time())
    assert field.send(field.step("aggregator", "/send_model_secagg?detector=gate")).status >= 400
    field.announce(alice, "gate")
    field.takes(
        field.container(alice, "aggregator", "/cmodel", field.update(alice, "gate").to_bytes())
    )
