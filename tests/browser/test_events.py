"""The page of events: labelled by keyboard alone, touched on a phone, and true of a camera that
goes and comes back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from device.store.events import EventStore
from device.store.store import DeviceStore
from device.vision.prediction import Prediction
from tests.browser.conftest import PHONE, until
from tests.e2e.conftest import Federation, MakeFederation

ANSWER = Prediction(0.61, True, 0.55, "a" * 64)
SEVERAL = {"animal": Prediction(0.2, False, 0.7, "b" * 64), "face": ANSWER}
AT = "document.activeElement.id"


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture that a folder which is played as a camera has."""
    return tmp_path_factory.mktemp("camera") / "1.png"


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation, camera: Path) -> Federation:
    """A device alone, with a camera."""
    cv2.imwrite(str(camera), np.full((90, 160, 3), 80, np.uint8))
    return make_federation(
        "device1", DOORBELL_WAIT_FOR_WORK="no", DOORBELL_CAMERA=str(camera.parent)
    )


@pytest.fixture
def events(federation: Federation) -> Iterator[EventStore]:
    """The device's events, of which there are none yet."""
    folder = federation.home / "devices" / "device-1"
    store = DeviceStore(folder)
    kept = EventStore(store.database, folder / "events")
    for event in kept.events(1000):
        kept.delete(event)
    yield kept
    store.database.close()


@pytest.fixture
def add(events: EventStore) -> Callable[..., list[int]]:
    """Return what lets the device have seen something, and returns the numbers of the events, the
    newest first.
    """

    def do(count: int, answers: dict[str, Prediction]) -> list[int]:
        jpegs = [
            cv2.imencode(".jpg", np.full((90, 160, 3), 9 * shade, np.uint8))[1]
            for shade in range(count)
        ]
        return [events.add(time.time(), "button", jpeg.tobytes(), answers).id for jpeg in jpegs][
            ::-1
        ]

    return do


def labels(events: EventStore, number: int) -> Any:
    event = events.event(number)
    return "gone" if event is None else event.labels


def into_the_cards(page: Page) -> None:
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "ARTICLE":
            return
    raise AssertionError("Tab does not lead to the cards")


def press(page: Page, key: str, there: int) -> None:
    """Press a key, and see which card has the focus at once; it has it still when the page is true
    again.
    """
    page.evaluate("window.before = document.querySelector('#seen > h2'), 0")
    page.keyboard.press(key)
    assert page.evaluate(AT) == f"card-{there}"
    if key in ("r", "w", "u", "Delete"):
        until(page, "!window.before.isConnected")
    expect(page.locator("#notice")).not_to_have_class("wait")
    page.wait_for_timeout(300)
    assert page.evaluate(AT) == f"card-{there}"


def test_events_are_labelled_by_keyboard_alone(
    federation: Federation, open_page: Any, events: EventStore, add: Callable[..., list[int]]
) -> None:
    numbers = add(5, {"face": ANSWER})
    events.label(labelled := numbers.pop(1), {"face": True})
    with open_page(federation.url("device1", "/events")) as page:
        expect(page.locator("#line")).to_have_text("Live")
        expect(page.locator("#keys")).to_be_visible()
        into_the_cards(page)
        assert page.evaluate(AT) == f"card-{numbers[0]}"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        press(page, "r", numbers[1])
        press(page, "w", numbers[2])
        assert [labels(events, number) for number in numbers] == [
            {"face": True},
            {"face": False},
            None,
            None,
        ]
        press(page, "k", numbers[1])
        press(page, "u", numbers[1])
        assert labels(events, numbers[1]) is None
        press(page, "ArrowUp", labelled)
        press(page, "ArrowUp", numbers[0])
        press(page, "ArrowUp", numbers[0])
        press(page, "j", labelled)
        press(page, "j", numbers[1])
        press(page, "Delete", numbers[2])
        assert labels(events, numbers[1]) == "gone"
        press(page, "ArrowDown", numbers[3])
        press(page, "r", numbers[3])
        assert labels(events, numbers[3]) == {"face": True}


def test_nobody_has_to_wait_between_two_events(
    federation: Federation, open_page: Any, events: EventStore, add: Callable[..., list[int]]
) -> None:
    numbers = add(24, {"face": ANSWER})
    with open_page(federation.url("device1", "/events")) as page:
        expect(page.locator("#line")).to_have_text("Live")
        into_the_cards(page)
        begun = time.monotonic()
        for number in numbers:
            page.keyboard.press("w" if number % 3 else "r")
        expect(page.locator("[data-new]")).to_have_count(0)
        assert time.monotonic() - begun < 10
        expect(page.locator("#notice")).to_have_class("good")
        assert [labels(events, number) for number in numbers] == [
            {"face": not number % 3} for number in numbers
        ]


def test_next_card_has_the_focus_where_labelled_ones_are_not_shown(
    federation: Federation, open_page: Any, events: EventStore, add: Callable[..., list[int]]
) -> None:
    numbers = add(26, {"face": ANSWER})
    with open_page(federation.url("device1", "/events?word=new")) as page:
        expect(page.locator("#line")).to_have_text("Live")
        into_the_cards(page)
        for _ in range(22):
            page.keyboard.press("j")
        press(page, "r", numbers[23])
        page.keyboard.press("r")
        until(page, f"{AT} === 'card-{numbers[24]}'")
        page.keyboard.press("r")
        until(page, f"{AT} === 'card-{numbers[25]}'")
        page.keyboard.press(
            "r"
        )  # nothing comes after it, and it is not shown any more: back to the one before
        until(page, f"{AT} === 'card-{numbers[21]}'")
        assert [number for number in numbers if labels(events, number)] == numbers[22:]


def test_button_that_is_pressed_by_enter_leaves_the_focus_among_the_cards(
    federation: Federation, open_page: Any, events: EventStore, add: Callable[..., list[int]]
) -> None:
    numbers = add(2, {"face": ANSWER})
    with open_page(federation.url("device1", "/events")) as page:
        expect(page.locator("#line")).to_have_text("Live")
        into_the_cards(page)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Right"
        press(page, "Enter", numbers[1])
        assert labels(events, numbers[0]) == {"face": True}


def test_keys_that_are_meant_for_something_else_label_nothing(
    federation: Federation, open_page: Any, events: EventStore, add: Callable[..., list[int]]
) -> None:
    (number,) = add(1, SEVERAL)
    with open_page(federation.url("device1", "/events")) as page:
        expect(page.locator("#line")).to_have_text("Live")
        posted: list[str] = []
        page.on("request", lambda each: posted.append(each.url) if each.method == "POST" else None)
        for key in ("r", "Delete"):
            page.keyboard.press(key)
        page.get_by_label("Labelled or not").focus()
        page.keyboard.press("r")
        into_the_cards(page)
        for key in (
            "Shift+R",
            "Alt+r",
            "Control+Delete",
            "w",
        ):  # of two answers, nobody knows which is wrong
            page.keyboard.press(key)
        page.wait_for_timeout(500)
        assert posted == [] and labels(events, number) is None
        page.locator("summary").click()
        page.get_by_label("animal", exact=True).focus()
        page.keyboard.press("r")
        until(page, f"!document.querySelector('#card-{number}').hasAttribute('data-new')")
        assert labels(events, number) == {"animal": False, "face": True}
        assert [re.sub(".*/", "", url) for url in posted] == ["label"]


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
def test_answer_says_from_where_on_it_is_yes(
    federation: Federation, open_page: Any, add: Callable[..., list[int]], script: bool
) -> None:
    (number,) = add(1, SEVERAL)
    with open_page(federation.url("device1", "/events"), java_script_enabled=script) as page:
        card = page.locator(f"#card-{number}")
        expect(card).to_contain_text(
            "animal: no, 20 % threshold 70 % face: yes, 61 % threshold 55 %"
        )
        assert card.get_by_text("threshold 55 %").is_visible()
        assert page.locator("#keys").is_visible() == script


def test_everything_on_a_phone_is_large_enough_for_a_finger(
    federation: Federation,
    open_page: Any,
    events: EventStore,
    add: Callable[..., list[int]],
    photograph: Any,
) -> None:
    numbers = add(27, {"face": ANSWER})
    events.label(numbers[1], {"face": True})
    with open_page(
        federation.url("device1", "/events"), viewport=PHONE, has_touch=True, is_mobile=True
    ) as page:
        expect(page.locator("#line")).to_have_text("Live")
        page.evaluate(
            "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
        )
        targets = "a:not(.skip), button, select, summary, input:not([type=hidden], [type=checkbox]), .choice"
        small = page.evaluate(
            f"[...document.querySelectorAll('{targets}')].map((each) => [each.getBoundingClientRect().height,"
            " each.outerHTML]).filter(([height]) => height < 44)"
        )
        assert small == []
        assert page.locator(targets).count() > 150
        expect(page.locator("#keys")).to_be_hidden()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE["width"]
        photograph(page, "device1-events-touched")


def test_event_is_labelled_by_a_tap(
    federation: Federation, open_page: Any, events: EventStore, add: Callable[..., list[int]]
) -> None:
    newer, older = add(2, {"face": ANSWER})
    with open_page(
        federation.url("device1", "/events"), viewport=PHONE, has_touch=True, is_mobile=True
    ) as page:
        expect(page.locator("#line")).to_have_text("Live")
        page.evaluate(
            "addEventListener('pointerdown', (each) => { window.pointer = each.pointerType; }), 0"
        )
        page.tap(f"#label-right-button-{older}")
        expect(page.locator(f"#card-{older}")).to_contain_text("Label: face.")
        assert page.evaluate("window.pointer") == "touch"
        assert (labels(events, newer), labels(events, older)) == (None, {"face": True})
        page.tap(f"#unlabel-do-button-{older}")
        expect(page.locator(f"#label-right-button-{older}")).to_be_visible()
        assert labels(events, older) is None


def test_open_page_shows_by_itself_who_rings_elsewhere(
    federation: Federation, open_page: Any, add: Callable[..., list[int]]
) -> None:
    (before,) = add(1, {"face": ANSWER})
    jpeg = cv2.imencode(".jpg", np.full((90, 160, 3), 200, np.uint8))[1].tobytes()
    with open_page(federation.url("device1", "/events")) as page:
        expect(page.locator("#line")).to_have_text("Live")
        page.evaluate("window.same = true")
        into_the_cards(page)
        answer = requests.post(
            federation.url("device1", "/ring"),
            data=jpeg,
            headers={"Content-Type": "image/jpeg", "Accept": "application/json"},
            timeout=30,
        )
        number = answer.json()["event"]
        card = page.locator(f"#card-{number}")
        expect(card).to_contain_text("no model was active", timeout=10_000)
        expect(page.locator("article")).to_have_count(2)
        assert page.locator("article").first.get_attribute("id") == f"card-{number}"
        until(page, f"document.querySelector('#card-{number} img').naturalWidth === 160")
        assert page.evaluate("window.same") is True, "and nobody has reloaded it"
        assert page.evaluate(AT) == f"card-{before}", "nor was the focus moved"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_open_page_says_by_itself_how_the_camera_is(
    federation: Federation,
    open_page: Any,
    add: Callable[..., list[int]],
    camera: Path,
    photograph: Any,
    scheme: str,
) -> None:
    add(2, SEVERAL)
    with open_page(federation.url("device1", "/events"), color_scheme=scheme) as page:
        expect(page.locator("#line")).to_have_text("Live")
        shown = page.locator("#camera")
        deadline = time.monotonic() + 20
        while not requests.post(federation.url("device1", "/ring"), timeout=10).ok:
            assert time.monotonic() < deadline, federation.log("device1")
        expect(shown).to_contain_text(re.compile(r"Camera: watching since \d{4}-"), timeout=5_000)
        page.wait_for_timeout(500)
        looked: list[str] = []
        page.on(
            "request",
            lambda each: looked.append(each.url) if each.resource_type == "fetch" else None,
        )
        page.wait_for_timeout(3_000)
        assert looked == [], "nothing has changed meanwhile"
        kept = camera.read_bytes()
        camera.unlink()
        reason = re.compile(
            r"no picture since \d\d:\d\d: the folder has no picture that can be read.*tried again"
        )
        expect(shown).to_contain_text(reason, timeout=20_000)
        assert Axe().run(page).violations_count == 0
        photograph(page, f"device1-events-no-camera-{scheme}")
        camera.write_bytes(kept)
        expect(shown).to_contain_text("watching since", timeout=40_000)
        assert Axe().run(page).violations_count == 0
