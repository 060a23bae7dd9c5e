"""A real Chromium in front of real gunicorn processes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.conftest import draw_pictures, make_federation, pictures, variables

__all__ = ["draw_pictures", "make_federation", "pictures", "variables"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"
# As root, and without a graphics card; and Chromium asks nobody else by itself.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = {"width": 1180, "height": 900}, {"width": 360, "height": 740}


def until(page: Page, script: str, seconds: float = 30.0) -> None:
    """Wait for a script to be true; Playwright's own way would evaluate it where the page's policy
    forbids that.
    """
    deadline = time.monotonic() + seconds
    while not page.evaluate(script):
        assert time.monotonic() < deadline, script
        time.sleep(0.02)


def chromium() -> str:
    """Return where Chromium is; the Makefile sees to it that there is one."""
    found = os.environ.get("CHROMIUM") or next(
        (path for name in NAMES if (path := shutil.which(name))), None
    )
    assert found, (
        "Chromium is missing: install it (Debian: apt-get install chromium), or say where it is in CHROMIUM."
    )
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def open_page(browser: Browser) -> Callable[..., Any]:
    """Return a context that opens a page, and in the end fails for what a visitor should never
    cause.

    That is an error or warning in the console, an uncaught exception, and a request to anybody but
    the service; a test that wants one of them names a part of its text in `expected`.
    """

    @contextmanager
    def opened(url: str, expected: tuple[str, ...] = (), **options: Any) -> Iterator[Page]:
        context = browser.new_context(
            **({"viewport": DESKTOP, "reduced_motion": "reduce"} | options)
        )
        page, wrong = context.new_page(), []
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = f"http://{urlsplit(url).netloc}/"
        page.on(
            "request",
            lambda asked: (
                wrong.append(asked.url) if not asked.url.startswith((own, "data:")) else None
            ),
        )
        page.goto(url)
        yield page
        context.close()
        unexpected = [text for text in wrong if not any(part in text for part in expected)]
        assert not unexpected, unexpected

    return opened


@pytest.fixture(scope="session")
def photograph() -> Callable[[Page, str], None]:
    """Return what keeps a picture of a whole page in var/screenshots."""

    def take(page: Page, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    return take
