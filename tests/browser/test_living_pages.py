"""A page that is left open: it follows a training, and it survives a service that goes and comes
back.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import expect

from tests.browser.conftest import until
from tests.e2e.conftest import Federation, MakeFederation

WHERE = re.compile(r"epoch (\d+) of \d+, batch (\d+) of \d+")
BATCHES = 100


@pytest.fixture(scope="module")
def federation(
    make_federation: MakeFederation,
    draw_pictures: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Federation:
    """A main server, and a device whose trainings take a while: many small batches."""
    root: Path = tmp_path_factory.mktemp("many-pictures")
    draw_pictures(root, "face", "client_1", BATCHES // 2)
    return make_federation(
        "main",
        "device1",
        DOORBELL_DATA=str(root),
        DOORBELL_BATCH_SIZE="1",
        DOORBELL_EPOCHS="100",
        DOORBELL_WAIT_FOR_WORK="no",
    )


@pytest.fixture
def training(federation: Federation) -> Iterator[list[requests.Response]]:
    """A training that somebody else has started; it is cancelled in the end."""
    answers: list[requests.Response] = []
    thread = threading.Thread(
        target=lambda: answers.append(federation.step("device1", "/modeltrain", "POST"))
    )
    thread.start()
    deadline = time.monotonic() + 60
    while _where(_doing(federation)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield answers
    federation.step("device1", "/cancel", "POST")
    thread.join(30)


def _doing(federation: Federation) -> str:
    return str(requests.get(federation.url("device1", "/healthz"), timeout=10).json()["doing"])


def _where(words: str) -> int | None:
    """Return how many batches are done, by the words of a page or of /healthz."""
    found = WHERE.search(words)
    return None if found is None else BATCHES * (int(found[1]) - 1) + int(found[2])


def test_training_is_followed_as_it_happens(
    federation: Federation, open_page: Any, training: Any, photograph: Any
) -> None:
    with open_page(federation.url("device1")) as page:
        expect(page.locator("#line")).to_have_text("Live")
        for _ in range(5):
            done = _where(_doing(federation))
            begun = time.monotonic()
            while (_where(page.locator("[data-words]").inner_text()) or 0) < done:
                assert time.monotonic() - begun < 10
            assert time.monotonic() - begun < 0.5
        shown = page.locator("#doing")
        expect(shown).to_contain_text(
            re.compile(r"loss \d\.\d+, accuracy \d+\.\d%, about \d+ s left")
        )
        rows = shown.locator("tbody tr")
        expect(rows.first).to_be_visible()
        before = rows.count()
        until(page, f"document.querySelectorAll('#doing tbody tr').length > {before}")
        value = float(page.locator("progress").get_attribute("value") or 0)
        assert 0 < value < 1
        photograph(page, "device1-training")


def test_training_can_be_cancelled_and_nothing_is_lost(
    federation: Federation, open_page: Any, training: Any
) -> None:
    with open_page(federation.url("device1")) as page:
        page.get_by_role("button", name="Cancel Training").click()
        expect(page.locator("#notice")).to_have_text(
            re.compile("^Cancelled: training face, epoch .* are kept.$")
        )
        expect(page.get_by_role("button", name="Cancel Training")).to_have_count(0)
        expect(page.locator("[data-words]")).to_have_text("Idle.")
        deadline = time.monotonic() + 10
        while not training:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert training[0].status_code == 409 and "The training was cancelled." in training[0].text


def test_page_left_open_says_that_the_connection_is_lost_and_is_true_again_afterwards(
    federation: Federation, open_page: Any, draw_pictures: Callable[..., None]
) -> None:
    with open_page(federation.url("device1"), expected=("ERR_", "Failed to load")) as page:
        line = page.locator("#line")
        expect(line).to_have_text("Live")
        federation.stop("device1")
        expect(line).to_have_text(re.compile(r"^No connection: this is from .+\. Trying again\.$"))
        page.get_by_role("button", name="Send Status to Federated Server").click()
        expect(page.locator("#notice")).to_contain_text("no answer came")
        draw_pictures(Path(federation.variables["DOORBELL_DATA"]), "animal", "client_1")
        federation.start("device1")
        expect(line).to_have_text("Live", timeout=15_000)
        page.get_by_role("button", name="Send Status to Federated Server").click()
        expect(page.locator("#notice")).to_contain_text("registered for round 1")
        expect(page.locator("#overview")).to_contain_text("animal")


def test_page_that_gets_no_stream_looks_by_itself(federation: Federation, open_page: Any) -> None:
    with open_page(federation.url("device1"), expected=("429", "EventSource")) as page:
        page.route("**/live", lambda route: route.fulfill(status=429, body="full"))
        page.reload()
        expect(page.locator("#line")).to_have_text(re.compile("^Up to date at "), timeout=15_000)
