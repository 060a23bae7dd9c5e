"""The aggregator's page: who has sent, what happens next, and that an update is noise here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, event

from sec_agg.page import BINS, READ, SHOWN, SUMS, outlook, page
from sec_agg.store.store import Stored
from shared.round.fixed_point import encode
from shared.round.payloads import parse_masked_update
from tests.pages import buttons, page_of, section, text_of

HOSTILE = "<script>alert('&')</script>"
NOON = 1_900_000_000.0


def shown(federation: Any) -> str:
    """Return the page as a browser gets it."""
    return page_of(federation.network.apps["aggregator"])


def sentence(federation: Any) -> str:
    (current,) = federation.aggregator.store.standing(1).rounds
    return outlook(current)


def now(federation: Any) -> str:
    """Return the step of the newest round that the page marks."""
    (words,) = re.findall(r'aria-current="step">([^<]+)<', shown(federation))
    return str(words)


def fill(federation: Any, rounds: int, devices: int) -> None:
    """Give the aggregator's database so many rounds that were handed over, with updates of so many
    devices.
    """
    store, settings = federation.aggregator.store, federation.announce("a")
    with store.database.write() as connection:
        tables = store.database.tables(connection)
        shared = ("detector", "base_version", "size", "min_cohort", "cohort_cap")
        row = {name: getattr(settings, name) for name in shared}
        row |= {"state": "summed", "aggregate": "f" * 64, "delivered": True}
        store.database.fill(
            connection,
            tables["rounds"],
            [row | {"round": number} for number in range(1, rounds + 1)],
        )
        sent = {
            "detector": "package",
            "digest": "",
            "sealed_seed": b"",
            "key_id": "k",
            "in_cohort": True,
        }
        store.database.fill(
            connection,
            tables["updates"],
            [
                sent | {"round": number, "device": f"device-{at}", "received_at": NOON + number}
                for number in range(1, rounds + 1)
                for at in range(devices)
            ],
        )


@contextmanager
def statements() -> Iterator[list[str]]:
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def test_empty_aggregator_says_what_it_is_and_what_to_do(federation: Any) -> None:
    html = shown(federation)
    assert buttons(html) == ["Aggregate Local Models", "Send Aggregated Model to Main Server"]
    assert "No masked update has arrived yet" in section(html, "rounds")
    assert "As soon as an update is here, its first numbers are shown" in section(html, "noise")
    assert "It cannot know" in section(html, "noise") and "<table>" not in section(html, "sums")


def test_round_is_followed_from_open_to_handed_over(federation: Any) -> None:
    store = federation.aggregator.store
    federation.upload("a", federation.delta())
    assert now(federation) == "open: updates come in"
    assert (
        sentence(federation) == "Waiting for updates: 1 of the 2 that are needed at least are here."
    )
    federation.upload("b", federation.delta())
    assert sentence(federation).startswith(
        "2 updates are here, and 2 are needed at least: “Aggregate Local Models”"
    )
    rounds = text_of(section(shown(federation), "rounds"))
    assert re.search(
        r"b [\d-]{10} [\d:]{8} 328,204 not decided yet a [\d-]{10} [\d:]{8} 328,204", rounds
    )
    assert "Masked updates: 2, 328.2 kB each, 656.4 kB in all" in rounds
    seen = store.updates("package", 1)
    store.freeze("package", 1, seen, {each.device: each.digest for each in seen[:1]})
    assert now(federation) == "frozen: who is in the sum is fixed"
    assert sentence(federation).startswith("Who is in the sum is fixed")
    rounds = text_of(section(shown(federation), "rounds"))
    assert rounds.count(" left out") == rounds.count(" 328,204 yes") == 1
    store.keep_sum("package", 1, "f" * 64)
    assert now(federation) == "added up"
    assert sentence(federation).startswith(
        "The sum is made: “Send Aggregated Model to Main Server”"
    )
    assert "package 1 added up 1 1" in text_of(section(shown(federation), "sums"))
    store.note_delivery("package", 1)
    assert now(federation) == "handed over"
    assert sentence(federation) == "The main server has the sum; the next round is waited for."
    assert "package 1 handed over 1 1" in text_of(section(shown(federation), "sums"))


def test_first_numbers_of_the_newest_update_are_shown_as_they_lie_here(federation: Any) -> None:
    federation.upload("a", federation.delta())
    masked = parse_masked_update(federation.upload("b", federation.delta())).masked
    noise = page(federation.aggregator)["noise"]
    assert noise.numbers == tuple(masked[:SHOWN].tolist())
    counts = np.histogram(masked[:READ], BINS, (0, 2**32))[0]
    assert noise.counts == tuple(counts.tolist()) and (noise.count, noise.expected) == (
        READ,
        READ / BINS,
    )
    html = section(shown(federation), "noise")
    assert (
        " ".join(map(str, noise.numbers)) in html and "<strong>b</strong> sent for package" in html
    )
    assert re.findall(r"<title>([\d,]+)</title>", html) == [f"{count:,}" for count in counts]
    assert "of the first 65,536 numbers" in html and "about 4,096 (the line)" in " ".join(
        html.split()
    )


def test_masked_numbers_are_even_and_without_the_mask_they_would_not_be(federation: Any) -> None:
    settings, delta = federation.announce("a"), federation.delta()
    federation.upload("a", delta)
    noise = page(federation.aggregator)["noise"]
    far = 6 * noise.expected**0.5  # six standard deviations of a count
    assert all(abs(count - noise.expected) < far for count in noise.counts)
    plain = np.bincount(encode(delta, 10, settings, federation.rng) >> 28, minlength=BINS)
    assert plain[[0, -1]].sum() > 0.99 * plain.sum()


def test_update_is_read_once_however_often_the_page_is_shown(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation.upload("a", federation.delta())
    first, read = page(federation.aggregator), []
    monkeypatch.setattr(type(federation.aggregator.blobs), "path", lambda *_: read.append(1))
    assert page(federation.aggregator)["noise"] == first["noise"] and not read


def test_update_whose_bytes_are_lost_does_not_cost_the_page(federation: Any) -> None:
    federation.upload("a", federation.delta())
    (stored,) = federation.aggregator.store.updates("package", 1)
    federation.aggregator.blobs.delete(stored.digest)
    assert "As soon as an update is here" in section(shown(federation), "noise")


def test_file_that_is_shorter_than_its_vector_does_not_cost_the_page(federation: Any) -> None:
    settings = federation.announce("a")
    store, blobs = federation.aggregator.store, federation.aggregator.blobs
    store.remember_round(settings)
    store.keep_update("package", 1, Stored("a", blobs.put(b"short"), b"sealed", "k"), NOON)
    assert page(federation.aggregator)["noise"] is None


def test_name_that_is_hostile_is_only_a_name(federation: Any) -> None:
    store = federation.aggregator.store
    store.remember_round(federation.announce("a"))
    store.keep_update(
        "package",
        1,
        Stored(HOSTILE, federation.aggregator.blobs.put(bytes(400_000)), b"", "k"),
        NOON,
    )
    html = shown(federation)
    assert HOSTILE not in html
    assert (
        unescape(section(html, "rounds")).count(HOSTILE)
        == unescape(section(html, "noise")).count(HOSTILE)
        == 1
    )


def test_page_asks_the_database_the_same_however_long_the_past(federation: Any) -> None:
    with statements() as few:
        page(federation.aggregator)
    fill(federation, 60, 110)
    with statements() as many:
        page(federation.aggregator)
    html = shown(federation)
    assert len(many) == len(few) <= 6
    assert section(html, "sums").count("<tr><td>") == SUMS
    assert f"{60 - SUMS} older sums were made" in html
    assert (
        section(html, "rounds").count("<tr><td>") == 100
        and "And 10 more, who sent earlier." in html
    )


def test_fingerprint_is_another_one_when_the_page_should_be(federation: Any) -> None:
    store, seen = federation.aggregator.store, []

    def look() -> None:
        seen.append(store.fingerprint())
        assert seen[-1] == store.fingerprint()

    look()
    store.remember_round(federation.announce("a"))
    look()
    for name, at in (("a", NOON), ("b", NOON + 1), ("a", NOON + 2)):
        store.keep_update("package", 1, Stored(name, "d" * 64, b"sealed", "k"), at)
        look()
    kept = store.updates("package", 1)
    store.freeze("package", 1, kept, {each.device: each.digest for each in kept})
    look()
    store.keep_sum("package", 1, "f" * 64)
    look()
    store.note_delivery("package", 1)
    look()
    assert len(set(seen)) == len(seen)
