"""A round by nothing but clicks, in the ancestors' order; then every page is looked at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import until
from tests.e2e.conftest import Federation, MakeFederation

PHONE = {"width": 360, "height": 740}
PAGES = [
    ("main", "/"),
    ("aggregator", "/"),
    ("device1", "/"),
    ("device1", "/?detector=face"),
    ("device1", "/events"),
    ("device2", "/report"),
    ("main", "/report"),
]


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    """Four services; nobody waits for work, so that what happens is what was clicked."""
    return make_federation(DOORBELL_WAIT_FOR_WORK="no", DOORBELL_EPOCHS="3")


def click(page: Page, words: str, said: str, kind: str = "good") -> None:
    """Press a button, and see the sentence that it ends in."""
    page.get_by_role("button", name=words, exact=True).first.click()
    notice = page.locator("#notice")
    expect(notice).to_have_class(kind, timeout=120_000)
    expect(notice).to_contain_text(said)


def a_round(
    federation: Federation, open_page: Any, number: int, train: str, **options: Any
) -> None:
    for device in ("device1", "device2"):
        with open_page(federation.url(device), **options) as page:
            page.get_by_label("What to learn").select_option("face")
            click(page, train, f"Trained for round {number}")
            page.get_by_label("What to learn").select_option("face")
            click(page, "Send Status to Federated Server", f"ready for round {number}")
            page.get_by_label("What to learn").select_option("face")
            click(
                page,
                "Send Model to Federated Server",
                f"The masked update for round {number} is sent",
            )
            expect(page.locator("#shown")).to_contain_text("its update is sent")
    with open_page(federation.url("aggregator"), **options) as page:
        expect(page.locator("main")).to_contain_text("device-1")
        click(
            page, "Aggregate Local Models", "The masked updates of 2 devices (device-1, device-2)"
        )
        click(page, "Send Aggregated Model to Main Server", f"The sum of round {number} is sent.")
    with open_page(federation.url("main"), **options) as page:
        click(page, "Send Aggregated Models to Federated Clients", "device-2")
        expect(page.locator("main")).to_contain_text(f"{number}")
    with open_page(federation.url("device2"), **options) as page:
        expect(page.locator("main")).to_contain_text(f"Holds the global model of round {number}")
        page.get_by_label("What to learn").select_option("face")
        click(page, "Measure Model Performance", "test pictures: local model accuracy")


def test_round_by_clicking_alone(federation: Federation, open_page: Any) -> None:
    a_round(federation, open_page, 1, "Model Training (Locally)")


def test_round_by_clicking_without_javascript(federation: Federation, open_page: Any) -> None:
    a_round(federation, open_page, 2, "Re Model Training (Locally)", java_script_enabled=False)


def test_step_out_of_order_says_what_to_do(federation: Federation, open_page: Any) -> None:
    with open_page(federation.url("device1"), expected=("409",)) as page:
        page.get_by_label("What to learn").select_option("animal")
        click(
            page,
            "Send Model to Federated Server",
            "Open /modeltrain on this device first.",
            kind="bad",
        )


def test_button_shows_at_once_that_it_works_and_is_not_pressed_twice(
    federation: Federation, open_page: Any
) -> None:
    with open_page(federation.url("device2")) as page:
        asked: list[str] = []
        page.on("request", lambda each: asked.append(each.url) if each.method == "POST" else None)
        page.get_by_label("What to learn").select_option("face")
        button = page.get_by_role("button", name="Re Model Training (Locally)")
        at_once = (
            "[document.getElementById('notice').textContent, button.getAttribute('aria-busy')]"
        )
        shown = button.evaluate(
            f"button => {{ button.click(); button.click(); return {at_once}; }}"
        )
        assert shown == ["Re Model Training (Locally): working …", "true"]
        expect(page.locator("#notice")).to_have_class("good")
        expect(button).not_to_have_attribute("aria-busy", "true")
        assert len(asked) == 1


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
def test_doorbell_is_rung_and_told_what_was_right(
    federation: Federation, open_page: Any, script: bool
) -> None:
    picture = next(
        Path(federation.variables["DOORBELL_DATA"]).glob("face/client_1/test/face/*.png")
    )
    with open_page(federation.url("device1", "/events"), java_script_enabled=script) as page:
        page.get_by_label("Ring with a picture").set_input_files(picture)
        page.get_by_role("button", name="Ring", exact=True).click()
        expect(page.locator("#notice")).to_contain_text("Detected: ")
        page.goto(federation.url("device1", "/events"))
        event = page.locator("article").first
        expect(event).to_contain_text("face: ")
        event.get_by_text("Say what it shows").click()
        event.get_by_label("face", exact=True).check()
        event.get_by_label("animal", exact=True).uncheck()
        event.get_by_role("button", name="Save label").click()
        expect(page.locator("#notice")).to_contain_text("Label saved (")
        expect(page.locator("#notice")).to_contain_text("no animal, face, no parcel.")
        page.goto(federation.url("device1", "/events"))
        page.get_by_role("button", name="Undo").first.click()
        expect(page.locator("#notice")).to_contain_text("Label removed")


def test_keyboard_alone_is_enough(federation: Federation, open_page: Any) -> None:
    with open_page(federation.url("device1")) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        for _ in range(20):
            page.keyboard.press("Tab")
            if (
                page.evaluate("document.activeElement.textContent")
                == "Send Status to Federated Server"
            ):
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        expect(page.locator("#notice")).to_have_class("good")
        assert (
            page.evaluate("document.activeElement.textContent") == "Send Status to Federated Server"
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("service", "path"), PAGES)
def test_axe_finds_nothing_and_the_page_is_photographed(
    federation: Federation, open_page: Any, photograph: Any, service: str, path: str, scheme: str
) -> None:
    with open_page(federation.url(service, path), color_scheme=scheme) as page:
        expect(page.locator("#line")).to_have_text("Live")
        page.evaluate(
            "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
        )
        page.evaluate(
            "document.querySelectorAll('img[loading]').forEach((image) => { image.loading = 'eager'; })"
        )
        until(page, "[...document.images].every((image) => image.complete)")
        photograph(page, re.sub(r"\W+", "-", f"{service}{path}").strip("-") + f"-{scheme}")
        broken = (
            "[...document.images].filter((image) => !image.naturalWidth).map((image) => image.src)"
        )
        assert page.evaluate(broken) == []
        options = {
            "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        }
        found = Axe().run(page, options=options)
        assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", [PHONE["width"], 590], ids=["phone", "at 200 percent"])
@pytest.mark.parametrize(("service", "path"), PAGES)
def test_narrow_page_needs_no_scrolling_sideways(
    federation: Federation, open_page: Any, photograph: Any, service: str, path: str, width: int
) -> None:
    with open_page(federation.url(service, path), viewport={"width": width, "height": 740}) as page:
        if width == PHONE["width"]:
            photograph(page, re.sub(r"\W+", "-", f"{service}{path}").strip("-") + "-phone")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width


@pytest.mark.parametrize(("service", "path"), PAGES)
def test_page_and_what_it_loads_weigh_little(
    federation: Federation, open_page: Any, service: str, path: str
) -> None:
    with open_page(federation.url(service, path)) as page:
        until(
            page,
            "[...document.images].every((image) => image.complete || image.loading === 'lazy')",
        )
        page.wait_for_timeout(300)
        entries = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        weight = page.evaluate(
            f"{entries}.filter((each) => !each.name.endsWith('/live'))"
            ".reduce((sum, each) => sum + each.transferSize, 0)"
        )
        assert 1000 < weight <= 150_000
