"""Names from outside: a small alphabet, and nothing that could be a path, a header or a query."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import InvalidMessage
from shared.names import checked_name, checked_version

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789_-"
NAMES = st.builds(str.__add__, st.sampled_from(ALPHABET[:-2]), st.text(ALPHABET, max_size=31))


@given(NAMES)
@example("a" * 32)
@example("0")
def test_every_name_of_the_alphabet_is_returned_unchanged(name: str) -> None:
    assert checked_name(name, "device") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 33,
        "-a",
        "_a",
        "A",
        "é",
        "a b",
        "a/b",
        "..",
        "a.b",
        "a\n",
        "\na",
        "a\0",
        "a%2f",
        "٣",
        "ａ",
        "a'",
    ],
)
def test_name_outside_the_alphabet_is_refused(name: str) -> None:
    with pytest.raises(InvalidMessage):
        checked_name(name, "device")


@given(st.text(max_size=40))
def test_accepted_name_holds_nothing_but_the_alphabet(text: str) -> None:
    try:
        name = checked_name(text, "device")
    except InvalidMessage:
        return
    assert 1 <= len(name) <= 32
    assert set(name) <= set(ALPHABET)
    assert name[0] not in "_-"


@pytest.mark.parametrize("value", [None, 1, True, b"person", ["person"], {"person": 1}])
def test_name_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidMessage):
        checked_name(value, "device")


def test_refusal_says_what_was_to_be_named_and_how_a_name_looks() -> None:
    with pytest.raises(InvalidMessage, match="name of a detector") as refused:
        checked_name("No Name", "detector")
    assert "1 to 32 small letters" in str(refused.value)


def test_refusal_does_not_repeat_what_the_peer_sent() -> None:
    with pytest.raises(InvalidMessage) as refused:
        checked_name("<script>", "detector")
    assert "<script>" not in str(refused.value)


@given(st.binary(min_size=32, max_size=32))
def test_every_sha256_in_hexadecimal_is_a_version(digest: bytes) -> None:
    assert checked_version(digest.hex()) == digest.hex()


@pytest.mark.parametrize(
    "value",
    ["", "0" * 63, "0" * 65, "0" * 64 + "\n", "A" * 64, "g" * 64, "٣" * 64, None, 0, b"0" * 64],
)
def test_anything_else_is_no_version(value: object) -> None:
    with pytest.raises(InvalidMessage, match=re.escape("SHA-256")):
        checked_version(value)
