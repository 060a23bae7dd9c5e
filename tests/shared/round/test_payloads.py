"""Containers: equal payloads are equal bytes, safetensors' own library reads them, and nothing else
gets in.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learning.architectures import ARCHITECTURES, Architecture, architecture
from learning.model import Model, parse_model, version_of
from main_server.settings import MAX_COHORT
from shared.errors import DoorbellError, InvalidMessage, NotFound
from shared.round.payloads import (
    Aggregate,
    MaskedUpdate,
    PlainUpdate,
    parse_aggregate,
    parse_masked_update,
    parse_plain_update,
)

Payload = MaskedUpdate | PlainUpdate | Aggregate | Model
Parse = Callable[[bytes], Payload]
Header = dict[str, Any]

VECTORS: dict[str, dict[str, str]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "containers.json").read_text()
)
VERSION = "0123456789abcdef" * 4
SEALED = bytes(i * 7 % 251 for i in range(1168))
EACH_ARCHITECTURE = pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=ARCHITECTURES)
PARSERS: dict[str, Parse] = {
    "masked": parse_masked_update,
    "plain": parse_plain_update,
    "aggregate": parse_aggregate,
    "model": parse_model,
}
EACH = pytest.mark.parametrize("kind", PARSERS)
VECTOR_KINDS = pytest.mark.parametrize("kind", ["masked", "plain", "aggregate"])
TENSOR = {"masked": "masked", "plain": "delta", "aggregate": "sum", "model": "hidden/kernel"}


def params(name: str = "efficientnet-lite0-head") -> dict[str, NDArray[np.float32]]:
    """Params that every machine computes alike."""
    arch = architecture(name)
    return arch.unflatten((np.arange(arch.size) % 251 / 8 - 15).astype(np.float32))


PAYLOADS: dict[str, Payload] = {
    "masked": MaskedUpdate(
        "person", 3, VERSION, "device-1", SEALED, np.array([1, 2**32 - 1, 258, 4], np.uint32)
    ),
    "plain": PlainUpdate("person", 3, VERSION, "device-1", 40, np.array([0.5, -1, 2], np.float32)),
    "aggregate": Aggregate(
        "person",
        3,
        VERSION,
        {"device-1": SEALED, "device-2": SEALED[::-1]},
        np.array([5, 6, 7, 2**31], np.uint32),
    ),
    "model": Model("person", 3, VERSION, "efficientnet-lite0-head", params()),
}
VALID = {kind: payload.to_bytes() for kind, payload in PAYLOADS.items()}


def taken_apart(data: bytes) -> tuple[Header, bytes]:
    """Return header and body of a container, by the format's own description."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def put_together(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def changed(
    kind: str,
    metadata: Header | None = None,
    tensor: Header | None = None,
    body: bytes | None = None,
) -> bytes:
    """Return a valid container but for these members; None as a value takes the member away."""
    header, whole = taken_apart(VALID[kind])
    header["__metadata__"] |= metadata or {}
    header[TENSOR[kind]] |= tensor or {}
    for members in (header["__metadata__"], header[TENSOR[kind]]):
        for name in [name for name, value in members.items() if value is None]:
            del members[name]
    return put_together(header, whole if body is None else body)


def same(one: object, two: object) -> bool:
    """Whether payloads are equal, arrays and their dtypes included."""
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return one == two


def assert_same_payload(one: Payload, two: Payload) -> None:
    assert type(one) is type(two)
    for field in dataclasses.fields(one):
        assert same(getattr(one, field.name), getattr(two, field.name)), field.name


def refused(kind: str, data: bytes, match: str | None = None) -> None:
    with pytest.raises(InvalidMessage, match=match):
        PARSERS[kind](data)


# What is written is read


@EACH
def test_container_comes_back_as_it_was(kind: str) -> None:
    assert_same_payload(PARSERS[kind](VALID[kind]), PAYLOADS[kind])


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True)
VERSIONS = st.binary(min_size=32, max_size=32).map(bytes.hex)
ROUNDS = st.integers(0, 2**31)
SEALED_SEEDS = st.binary(min_size=8, max_size=8).map(lambda part: part * 146)
WORDS = st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=40).map(
    lambda words: np.array(words, np.uint32)
)
VALUES = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=40).map(
    lambda values: np.array(values, np.float32)
)


@settings(max_examples=50)
@given(st.builds(MaskedUpdate, NAMES, ROUNDS, VERSIONS, NAMES, SEALED_SEEDS, WORDS))
def test_every_masked_update_comes_back(update: MaskedUpdate) -> None:
    assert_same_payload(parse_masked_update(update.to_bytes()), update)


@settings(max_examples=50)
@given(st.builds(PlainUpdate, NAMES, ROUNDS, VERSIONS, NAMES, st.integers(1, 2**32), VALUES))
def test_every_plain_update_comes_back(update: PlainUpdate) -> None:
    assert_same_payload(parse_plain_update(update.to_bytes()), update)


@settings(max_examples=50)
@given(
    st.builds(
        Aggregate, NAMES, ROUNDS, VERSIONS, st.dictionaries(NAMES, SEALED_SEEDS, max_size=5), WORDS
    )
)
def test_every_aggregate_comes_back(aggregate: Aggregate) -> None:
    assert_same_payload(parse_aggregate(aggregate.to_bytes()), aggregate)


@EACH_ARCHITECTURE
@pytest.mark.parametrize("parent", [None, VERSION])
def test_every_architectures_model_comes_back(arch: Architecture, parent: str | None) -> None:
    model = Model("person", 0, parent, arch.name, arch.initial(np.random.default_rng(0)))
    read = parse_model(model.to_bytes())
    assert_same_payload(read, model)
    assert list(read.params) == [spec.name for spec in arch.specs]


@EACH
def test_arrays_are_views_that_cannot_be_written(kind: str) -> None:
    payload = PARSERS[kind](VALID[kind])
    for value in (
        v
        for field in vars(payload).values()
        for v in (field.values() if isinstance(field, dict) else [field])
    ):
        if isinstance(value, np.ndarray):
            assert not value.flags.writeable
            assert not value.flags.owndata


# The format


@EACH
def test_safetensors_own_library_reads_ours(kind: str, tmp_path: Path) -> None:
    (tmp_path / "ours").write_bytes(VALID[kind])
    header, body = taken_apart(VALID[kind])
    metadata = header.pop("__metadata__")
    with safetensors.safe_open(tmp_path / "ours", "numpy") as opened:
        assert opened.metadata() == metadata
        assert set(opened.keys()) == set(header)
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            assert opened.get_tensor(name).tobytes() == body[start:end]
    assert set(safetensors.numpy.load(VALID[kind])) == set(header)


@EACH
def test_container_that_safetensors_own_library_wrote_is_read(kind: str) -> None:
    metadata = taken_apart(VALID[kind])[0]["__metadata__"]
    theirs = safetensors.numpy.save(safetensors.numpy.load(VALID[kind]), metadata)
    assert_same_payload(PARSERS[kind](theirs), PAYLOADS[kind])


@EACH
def test_equal_payloads_are_equal_bytes(kind: str) -> None:
    assert {dataclasses.replace(PAYLOADS[kind]).to_bytes() for _ in range(20)} == {VALID[kind]}


def test_order_of_params_and_devices_does_not_change_the_bytes() -> None:
    model, aggregate = PAYLOADS["model"], PAYLOADS["aggregate"]
    assert isinstance(model, Model)
    assert isinstance(aggregate, Aggregate)
    turned = dict(reversed(model.params.items()))
    assert dataclasses.replace(model, params=turned).to_bytes() == VALID["model"]
    seeds = dict(reversed(aggregate.sealed_seeds.items()))
    assert dataclasses.replace(aggregate, sealed_seeds=seeds).to_bytes() == VALID["aggregate"]


@EACH
def test_layout_is_the_pinned_one(kind: str) -> None:
    length = int.from_bytes(VALID[kind][:8], "little")
    assert length % 8 == 0
    assert VALID[kind][8 : 8 + length].decode() == VECTORS[kind]["header"]
    assert hashlib.sha256(VALID[kind]).hexdigest() == VECTORS[kind]["sha256"]


def test_tensor_that_is_not_contiguous_is_written_in_its_order() -> None:
    update = PlainUpdate("person", 1, VERSION, "device-1", 1, np.arange(10, dtype=np.float32)[::3])
    assert parse_plain_update(update.to_bytes()).delta.tolist() == [0, 3, 6, 9]


def test_version_is_the_sha256_of_the_bytes() -> None:
    assert version_of(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@EACH_ARCHITECTURE
def test_upload_is_the_integers_and_at_most_4_kb(arch: Architecture) -> None:
    longest = "x" * 32
    masked = MaskedUpdate(
        longest, 2**31, VERSION, longest, SEALED, np.zeros(arch.size + 2, np.uint32)
    )
    assert len(masked.to_bytes()) <= 4 * (arch.size + 2) + 4096
    plain = PlainUpdate(longest, 2**31, VERSION, longest, 2**20, np.zeros(arch.size, np.float32))
    assert len(plain.to_bytes()) <= 4 * (arch.size + 2) + 4096


def test_aggregate_over_the_largest_cohort_is_read() -> None:
    seeds = {f"{i:032d}": SEALED for i in range(MAX_COHORT)}
    aggregate = Aggregate("x" * 32, 1, VERSION, seeds, np.zeros(3, np.uint32))
    assert len(parse_aggregate(aggregate.to_bytes()).sealed_seeds) == MAX_COHORT


# What is refused: the header


@EACH
@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 10, 100, -1, -4])
def test_container_cut_short_is_refused(kind: str, cut: int) -> None:
    refused(kind, VALID[kind][:cut])


@EACH
@pytest.mark.parametrize("extra", [b"\0", bytes(4), bytes(8)], ids=len)
def test_trailing_bytes_are_refused(kind: str, extra: bytes) -> None:
    refused(kind, VALID[kind] + extra)


@EACH
@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1])
def test_header_of_an_impossible_length_is_refused(kind: str, length: int) -> None:
    refused(kind, length.to_bytes(8, "little") + VALID[kind][8:])


@EACH
def test_header_longer_than_the_file_is_refused(kind: str) -> None:
    refused(kind, (len(VALID[kind]) - 7).to_bytes(8, "little") + VALID[kind][8:])


def test_header_that_the_file_ends_within_is_refused_though_it_reads_well() -> None:
    empty = changed("plain", tensor={"shape": [0], "data_offsets": [0, 0]}, body=b"")
    parse_plain_update(empty)
    refused("plain", (len(empty) - 7).to_bytes(8, "little") + empty[8:])


def test_header_above_4_mib_is_refused_though_it_is_whole() -> None:
    header, body = taken_apart(VALID["masked"])
    text = json.dumps(header).encode()
    parse_masked_update(put_together(text.ljust(4 << 20), body))
    refused("masked", put_together(text.ljust((4 << 20) + 8), body))


@EACH
@pytest.mark.parametrize(
    "nested", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000]
)
def test_deeply_nested_header_is_refused(kind: str, nested: bytes) -> None:
    refused(kind, put_together(nested, b""))


@pytest.mark.parametrize(
    "nested", ["[" * 100_000, "[" * 5000 + "]" * 5000, '{"a":' * 100_000], ids=lambda n: n[:3]
)
def test_deeply_nested_list_of_devices_is_refused(nested: str) -> None:
    refused("aggregate", changed("aggregate", {"sealed_seeds": nested}))


@EACH
@pytest.mark.parametrize(
    "header", [b"null", b"[]", b"{}", b'"x"', b"12", b"{x}", b"\xff\xfe", b'{"__metadata__":{}}']
)
def test_header_that_is_no_header_is_refused(kind: str, header: bytes) -> None:
    refused(kind, put_together(header, b""))


@EACH
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig"])
def test_header_in_another_encoding_is_refused(kind: str, encoding: str) -> None:
    header, body = taken_apart(VALID[kind])
    refused(kind, put_together(json.dumps(header).encode(encoding), body))


@VECTOR_KINDS
def test_member_given_twice_is_refused(kind: str) -> None:
    header, body = taken_apart(VALID[kind])
    name = f'"{TENSOR[kind]}":'
    text = json.dumps(header, separators=(",", ":")).replace(
        name, f'{name}{{"dtype":"F32"}},{name}'
    )
    refused(kind, put_together(text.encode(), body))


# What is refused: metadata


@EACH
def test_container_without_metadata_is_refused(kind: str) -> None:
    header, body = taken_apart(VALID[kind])
    del header["__metadata__"]
    refused(kind, put_together(header, body))


@EACH
@pytest.mark.parametrize("metadata", [None, [], "x", 1, {}], ids=repr)
def test_metadata_that_is_no_object_of_members_is_refused(kind: str, metadata: object) -> None:
    header, body = taken_apart(VALID[kind])
    refused(kind, put_together(header | {"__metadata__": metadata}, body))


@EACH
@pytest.mark.parametrize("value", [1, 1.5, True, [], {}, ["3"]], ids=repr)
def test_metadata_that_is_not_text_is_refused(kind: str, value: object) -> None:
    refused(kind, changed(kind, {"round": value}))
    refused(kind, changed(kind, {"unheard-of": value}))


REQUIRED = [
    (kind, name)
    for kind in PARSERS
    for name in taken_apart(VALID[kind])[0]["__metadata__"]
    if (kind, name) != ("model", "parent")
]


@pytest.mark.parametrize(("kind", "name"), REQUIRED)
def test_missing_member_of_the_metadata_is_refused(kind: str, name: str) -> None:
    refused(kind, changed(kind, {name: None}))


@EACH
@pytest.mark.parametrize("other", PARSERS)
def test_container_of_another_kind_is_refused(kind: str, other: str) -> None:
    if kind != other:
        refused(kind, VALID[other])


@EACH
@pytest.mark.parametrize("text", ["doorbell-update/2", "doorbell-model", "", "pt"])
def test_unknown_format_is_refused(kind: str, text: str) -> None:
    refused(kind, changed(kind, {"format": text}))


@EACH
@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", " 1", "1_0", "0x1", "٣", "²", "1" * 11, "nan"]
)
def test_round_that_is_no_whole_number_is_refused(kind: str, text: str) -> None:
    refused(kind, changed(kind, {"round": text}))


@EACH
def test_detector_that_is_no_name_is_refused(kind: str) -> None:
    refused(kind, changed(kind, {"detector": "../person"}))


@pytest.mark.parametrize("kind", ["masked", "plain"])
def test_device_that_is_no_name_is_refused(kind: str) -> None:
    refused(kind, changed(kind, {"device": "Device 1"}))


@VECTOR_KINDS
def test_base_version_that_is_no_version_is_refused(kind: str) -> None:
    refused(kind, changed(kind, {"base_version": VERSION[:-1]}))


@pytest.mark.parametrize("weight", ["0", "-1", "1.5", "inf", ""])
def test_plain_update_without_weight_is_refused(weight: str) -> None:
    refused("plain", changed("plain", {"weight": weight}))


def base64_of(length: int) -> str:
    return base64.b64encode(bytes(length)).decode()


BAD_SEEDS = [
    "",
    "é",
    "====",
    "a",
    base64_of(1167),
    base64_of(1169),
    base64_of(1168) + "\n",
    base64_of(1168)[:-2] + "-_",
]


@pytest.mark.parametrize("text", BAD_SEEDS)
def test_sealed_seed_that_is_not_1168_bytes_in_base64_is_refused(text: str) -> None:
    refused("masked", changed("masked", {"sealed_seed": text}))
    refused("aggregate", changed("aggregate", {"sealed_seeds": json.dumps([["device-1", text]])}))


def test_aggregate_that_names_a_device_twice_is_refused() -> None:
    pair = ["device-1", base64_of(1168)]
    parse_aggregate(changed("aggregate", {"sealed_seeds": json.dumps([pair])}))
    refused(
        "aggregate", changed("aggregate", {"sealed_seeds": json.dumps([pair, pair])}), match="twice"
    )
    other = ["device-1", base64.b64encode(SEALED).decode()]
    refused(
        "aggregate",
        changed("aggregate", {"sealed_seeds": json.dumps([pair, other])}),
        match="twice",
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "null",
        "1",
        "NaN",
        '"ab"',
        '["ab"]',
        "[1]",
        "[[]]",
        '[["device-1"]]',
        '[["device-1",1]]',
        "[[null,null]]",
        '{"device-1":1}',
        '[["device-1","a","b"]]',
        f'[["Device 1","{base64_of(1168)}"]]',
        '[{"a":1,"b":2}]',
    ],
)
def test_list_of_devices_that_is_no_list_of_pairs_is_refused(text: str) -> None:
    refused("aggregate", changed("aggregate", {"sealed_seeds": text}))


def test_parent_that_is_no_version_is_refused() -> None:
    refused("model", changed("model", {"parent": "0"}))


# What is refused: tensors


@EACH
def test_extra_tensor_is_refused(kind: str) -> None:
    header, body = taken_apart(VALID[kind])
    extra = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
    refused(kind, put_together(header | {"extra": extra}, body + bytes(4)))
    empty = {"dtype": "U32", "shape": [0], "data_offsets": [0, 0]}
    refused(kind, put_together(header | {"extra": empty}, body))


@EACH
def test_tensor_of_another_name_is_refused(kind: str) -> None:
    header, body = taken_apart(VALID[kind])
    header["other"] = header.pop(TENSOR[kind])
    refused(kind, put_together(header, body))


@EACH
@pytest.mark.parametrize("dtype", ["F64", "I32", "BF16", "f32", "", None, 1, [], {}], ids=repr)
def test_unknown_dtype_is_refused(kind: str, dtype: object) -> None:
    header, body = taken_apart(VALID[kind])
    header[TENSOR[kind]]["dtype"] = dtype
    refused(kind, put_together(header, body))


@EACH
def test_dtype_of_another_kind_is_refused(kind: str) -> None:
    refused(
        kind, changed(kind, tensor={"dtype": "F32" if kind in ("masked", "aggregate") else "U32"})
    )


@VECTOR_KINDS
@pytest.mark.parametrize("rank", [0, 2, 3, 9, 1000])
def test_vector_of_another_rank_is_refused(kind: str, rank: int) -> None:
    size = len(taken_apart(VALID[kind])[1]) // 4
    if rank == 0:
        refused(kind, changed(kind, tensor={"shape": [], "data_offsets": [0, 4]}, body=bytes(4)))
    else:
        refused(kind, changed(kind, tensor={"shape": [size] + [1] * (rank - 1)}))


@pytest.mark.parametrize("kind", ["masked", "aggregate"])
@pytest.mark.parametrize("size", [0, 1, 2])
def test_masked_vector_without_room_for_a_parameter_is_refused(kind: str, size: int) -> None:
    refused(
        kind,
        changed(
            kind, tensor={"shape": [size], "data_offsets": [0, 4 * size]}, body=bytes(4 * size)
        ),
    )


SHAPES = [
    None,
    4,
    "4",
    {},
    [-4],
    [4.0],
    [True, 4],
    ["4"],
    [None],
    [3],
    [5],
    [2**40],
    [2**64],
    [2**40, 0],
    [-1, -4],
    [[4]],
]


@VECTOR_KINDS
@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_shape_that_does_not_describe_the_bytes_is_refused(kind: str, shape: object) -> None:
    size = len(taken_apart(VALID[kind])[1]) // 4
    if shape != [size]:
        refused(kind, changed(kind, tensor={"shape": shape}))


OFFSETS = [
    None,
    0,
    "ab",
    {},
    {"a": 0, "b": 16},
    [],
    [0],
    [0, 16, 16],
    [4, 16],
    [0, 15],
    [0, 17],
    [0, 20],
    [16, 0],
    [-16, 0],
    [0, -1],
    [0.0, 16.0],
    [False, 16],
    ["0", "16"],
    [None, None],
    [0, 2**64],
    [2**63, 2**63 + 16],
    [math.nan, 16],
]


@pytest.mark.parametrize("offsets", OFFSETS, ids=repr)
@pytest.mark.parametrize("kind", ["masked", "aggregate"])
def test_offsets_that_do_not_describe_the_bytes_are_refused(kind: str, offsets: object) -> None:
    refused(kind, changed(kind, tensor={"data_offsets": offsets}))


def two_tensors(first: list[int], second: list[int], size: int) -> bytes:
    header, body = taken_apart(VALID["model"])
    one, two = "logit/bias", "logit/kernel"
    assert header[one]["data_offsets"][1] == header[two]["data_offsets"][0]
    start = header[one]["data_offsets"][0]
    header[one]["data_offsets"] = [start + n for n in first]
    header[two]["data_offsets"] = [start + n for n in second]
    return put_together(header, body[: start + size].ljust(start + size, b"\0"))


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        ([0, 4], [0, 256], 260),
        ([0, 4], [0, 256], 256),
        ([252, 256], [0, 256], 256),
        ([0, 4], [8, 264], 264),
        ([4, 8], [8, 264], 264),
        ([0, 4], [4, 260], 264),
    ],
    ids=[
        "overlap",
        "overlap, tight",
        "one inside another",
        "gap",
        "gap at the start",
        "gap at the end",
    ],
)
def test_tensors_that_overlap_or_leave_gaps_are_refused(
    first: list[int], second: list[int], size: int
) -> None:
    assert_same_payload(parse_model(two_tensors([0, 4], [4, 260], 260)), PAYLOADS["model"])
    refused("model", two_tensors(first, second, size))


@EACH
@pytest.mark.parametrize("entry", [None, [], "x", 1, {}, [1, 2]], ids=repr)
def test_tensor_entry_that_is_no_object_of_members_is_refused(kind: str, entry: object) -> None:
    header, body = taken_apart(VALID[kind])
    refused(kind, put_together(header | {TENSOR[kind]: entry}, body))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_value_that_is_not_finite_is_refused_in_updates_and_models(bad: float, place: int) -> None:
    delta = np.zeros(3, np.float32)
    delta[place] = bad
    refused(
        "plain",
        PlainUpdate("person", 1, VERSION, "device-1", 1, delta).to_bytes(),
        match="not finite",
    )
    values = {name: value.copy() for name, value in params().items()}
    values["hidden/kernel"].flat[place] = bad
    model = Model("person", 1, None, "efficientnet-lite0-head", values)
    refused("model", model.to_bytes(), match="not finite")


@EACH_ARCHITECTURE
def test_model_with_a_wrong_shape_is_refused(arch: Architecture) -> None:
    name = arch.specs[0].name
    values = params(arch.name)
    for wrong in (values[name].ravel(), values[name][..., :-1], values[name].T, values[name][None]):
        refused(
            "model",
            Model("a", 1, None, arch.name, values | {name: wrong}).to_bytes(),
            match="does not have",
        )


@EACH_ARCHITECTURE
def test_model_that_lacks_a_parameter_is_refused(arch: Architecture) -> None:
    values = params(arch.name)
    del values["logit/bias"]
    refused("model", Model("a", 1, None, arch.name, values).to_bytes(), match="does not have")


def test_model_of_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(NotFound, match="resnet"):
        parse_model(changed("model", {"architecture": "resnet"}))


def test_model_under_another_architectures_name_is_refused() -> None:
    refused(
        "model",
        changed("model", {"architecture": "porch-cnn"}),
        match="does not have the parameters of porch-cnn",
    )


# Whatever bytes come


@EACH
@given(
    data=st.binary(max_size=200)
    | st.builds(put_together, st.binary(max_size=100), st.binary(max_size=50))
)
@settings(max_examples=200)
def test_random_bytes_are_refused_politely(kind: str, data: bytes) -> None:
    with pytest.raises(DoorbellError):
        PARSERS[kind](data)


@EACH
@given(
    place=st.floats(0, 1),
    width=st.integers(0, 9),
    inserted=st.binary(max_size=9),
    in_header=st.booleans(),
)
@settings(max_examples=200)
def test_mutated_container_is_read_or_refused_politely(
    kind: str, place: float, width: int, inserted: bytes, in_header: bool
) -> None:
    data = VALID[kind]
    end = 8 + int.from_bytes(data[:8], "little") if in_header else len(data)
    start = int(place * end)
    mutated = data[:start] + inserted + data[start + width :]
    try:
        PARSERS[kind](mutated)
    except DoorbellError:
        return
    assert len(mutated) == len(data), "no byte more or less can make a valid container"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from([2**40, 2**63, 2**64, 10**400, -1])
    | st.sampled_from(["U32", "F32", "doorbell-update/1", "9" * 5000, "\ud800", "[["]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(node: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every node of a JSON document."""
    inner = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    return [path, *(deeper for key, value in inner for deeper in places(value, (*path, key)))]


def replaced(node: Any, path: tuple[Any, ...], value: object) -> Any:
    if not path:
        return value
    if isinstance(node, list):
        return [replaced(n, path[1:], value) if i == path[0] else n for i, n in enumerate(node)]
    return {key: replaced(n, path[1:], value) if key == path[0] else n for key, n in node.items()}


@EACH
@given(data=st.data())
@settings(max_examples=200)
def test_header_with_any_member_replaced_is_read_or_refused_politely(
    kind: str, data: st.DataObject
) -> None:
    header, body = taken_apart(VALID[kind])
    path = data.draw(st.sampled_from(places(header)))
    changed = replaced(header, path, data.draw(JSON))
    try:
        PARSERS[kind](put_together(changed, body))
    except DoorbellError:
        return
    assert changed == header or path[:1] == ("__metadata__",), (
        "only metadata may differ in a container that is read"
    )


@given(JSON)
@settings(max_examples=200)
def test_any_list_of_devices_is_read_or_refused_politely(value: object) -> None:
    try:
        read = parse_aggregate(changed("aggregate", {"sealed_seeds": json.dumps(value)}))
    except DoorbellError:
        return
    assert not read.sealed_seeds, "nothing drawn here holds a sealed seed"


@VECTOR_KINDS
@pytest.mark.parametrize("elements", [2**32, 2**40, 2**62])
def test_nothing_is_allocated_for_what_a_header_claims(kind: str, elements: int) -> None:
    claims = [
        changed(kind, tensor={"shape": [elements], "data_offsets": [0, 4 * elements]}),
        changed(kind, tensor={"shape": [elements]}),
        (8 * elements % 2**64).to_bytes(8, "little") + VALID[kind][8:],
    ]
    tracemalloc.start()
    try:
        started = time.process_time()
        for data in claims:
            refused(kind, data)
        assert time.process_time() - started < 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
