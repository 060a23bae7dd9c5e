"""A manifest: the main server's word for just one model, and nothing else passes for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from learning.architectures import architecture
from learning.model import Model, version_of
from shared.errors import Forbidden
from shared.security.identity import Identity
from shared.security.manifest import check_manifest, manifest_of, signed_manifest

MAIN, OTHER = (Identity.from_private(bytes([number]) * 32) for number in (1, 2))
NOW, CONTEXT = 1_800_000_000.25, b"doorbell-manifest/1"


def a_model(**changed: Any) -> Model:
    params = architecture("efficientnet-lite0-head").initial(np.random.default_rng(5))
    return replace(Model("package", 3, "a" * 64, "efficientnet-lite0-head", params), **changed)


MODEL = a_model()
DATA = MODEL.to_bytes()
MANIFEST = manifest_of("doorbell", MODEL, DATA, NOW)
HEADER = signed_manifest(MANIFEST, MAIN)


def refused(
    header: str | None, model: Model = MODEL, data: bytes = DATA, key: bytes = MAIN.public
) -> None:
    with pytest.raises(Forbidden, match="not the main server's word") as caught:
        check_manifest(header, key, model, data)
    assert (caught.value.slug, caught.value.status) == ("manifest-invalid", 403)
    assert caught.value.problem()["type"] == "urn:doorbell:problem:manifest-invalid"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def signed(members: object, main: Identity = MAIN, context: bytes = CONTEXT) -> str:
    """Sign anything as if it were a manifest."""
    data = members if isinstance(members, bytes) else json.dumps(members).encode()
    return f"{encoded(data)}.{encoded(main.sign(context + data))}"


def with_members(**changed: object) -> str:
    """Return the header with other members under the old signature."""
    return (
        f"{encoded(json.dumps(MANIFEST.to_json() | changed, sort_keys=True, separators=(',', ':')).encode())}."
        + (HEADER.partition(".")[2])
    )


@pytest.mark.parametrize(
    "changed", [{}, {"parent": None, "round": 0}, {"detector": "raccoon", "round": 2**31 - 1}]
)
def test_model_passes_with_its_own_manifest(changed: Mapping[str, Any]) -> None:
    model = a_model(**changed)
    data = model.to_bytes()
    header = signed_manifest(manifest_of("doorbell", model, data, NOW), MAIN)
    check_manifest(header, MAIN.public, model, data)
    assert len(header) < 1000
    assert header.isascii()


def test_manifest_says_what_the_model_is() -> None:
    assert MANIFEST.to_json() == {
        "federation": "doorbell",
        "detector": "package",
        "version": version_of(DATA),
        "parent": "a" * 64,
        "architecture": "efficientnet-lite0-head",
        "round": 3,
        "time": NOW,
    }
    assert json.loads(base64.b64decode(HEADER.partition(".")[0])) == MANIFEST.to_json()
    assert with_members() == HEADER
    assert signed(base64.b64decode(HEADER.partition(".")[0])) == HEADER


OTHERS = {
    "detector": "raccoon",
    "version": "0" * 64,
    "parent": "b" * 64,
    "architecture": "porch-cnn",
    "round": 4,
}


@pytest.mark.parametrize(
    ("member", "value"), [*OTHERS.items(), ("parent", None), ("round", 0), ("round", "3")]
)
def test_manifest_of_something_else_is_refused_though_the_main_server_signed_it(
    member: str, value: object
) -> None:
    refused(signed(MANIFEST.to_json() | {member: value}))


@pytest.mark.parametrize(
    ("member", "value"), [*OTHERS.items(), ("time", NOW + 1), ("federation", "street")]
)
def test_member_changed_after_signing_is_refused(member: str, value: object) -> None:
    refused(with_members(**{member: value}))


@pytest.mark.parametrize("changed", [{"detector": "raccoon"}, {"round": 4}, {"parent": None}])
def test_another_model_is_refused_under_this_manifest(changed: Mapping[str, Any]) -> None:
    model = a_model(**changed)
    refused(HEADER, model, model.to_bytes())


def test_bytes_with_another_hash_are_refused() -> None:
    params = {name: value + np.float32(1) for name, value in MODEL.params.items()}
    model = replace(MODEL, params=params)
    refused(HEADER, model, model.to_bytes())
    refused(HEADER, MODEL, DATA + b" ")


def test_signature_of_another_key_or_for_another_purpose_is_refused() -> None:
    refused(signed_manifest(MANIFEST, OTHER))
    refused(HEADER, key=OTHER.public)
    refused(HEADER, key=b"")
    refused(signed(MANIFEST.to_json(), context=b""))
    refused(signed(MANIFEST.to_json(), context=b"doorbell-manifest/2"))


@pytest.mark.parametrize("position", [0, 31, 63])
def test_signature_with_one_bit_changed_is_refused(position: int) -> None:
    data, _, text = HEADER.partition(".")
    signature = bytearray(base64.b64decode(text))
    signature[position] ^= 1
    refused(f"{data}.{encoded(bytes(signature))}")


DATA_PART, SIGNATURE_PART = HEADER.split(".")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        ".",
        "..",
        "x",
        "x.y",
        "é.é",
        "null",
        DATA_PART,
        f"{DATA_PART}.",
        f".{SIGNATURE_PART}",
        f"{HEADER}.",
        f"{HEADER}.{SIGNATURE_PART}",
        f"{SIGNATURE_PART}.{DATA_PART}",
        HEADER[:-1],
        HEADER[1:],
        f" {HEADER}",
        f"{HEADER}\n",
        f"{HEADER}, {HEADER}",
        HEADER.replace(".", " "),
        HEADER * 10,
        f"{HEADER}{'A' * 4000}",
        "A" * 100_000,
        "." * 100_000,
        f"{'A' * 2048}.{SIGNATURE_PART}",
    ],
    ids=lambda header: repr(header)[:20],
)
def test_header_that_is_no_manifest_is_refused(header: str | None) -> None:
    refused(header)


@pytest.mark.parametrize(
    "members",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        None,
        [],
        "manifest",
        1,
        {},
        {"version": "0" * 64},
        MANIFEST.to_json() | {"more": 1},
        {k: v for k, v in MANIFEST.to_json().items() if k != "time"},
        [MANIFEST.to_json()],
        MANIFEST.to_json() | {"federation": "d" * 3000},
        MANIFEST.to_json() | {"detector": []},
    ],
    ids=lambda members: repr(members)[:20],
)
def test_signed_words_that_are_no_manifest_are_refused(members: object) -> None:
    refused(signed(members))
