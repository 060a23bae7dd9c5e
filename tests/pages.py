"""What tests of pages do with HTML: get it as a browser does, and read it as a person does."""

from __future__ import annotations

import re
from html import unescape

from flask import Flask

BROWSER = {"Accept": "text/html"}


def page_of(app: Flask, path: str = "/") -> str:
    """Return a page of an app as a browser on its machine gets it."""
    answer = app.test_client().get(path, headers=BROWSER | {"Host": "localhost"})
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def text_of(html: str) -> str:
    """Return what a person reads of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def section(html: str, name: str) -> str:
    """Return a section of a page that stays true while it is open."""
    found = re.search(rf'<section id="{name}" data-live>.*?</section>', html, re.DOTALL)
    assert found, f"there is always a section {name}, so that a page that is open gets it"
    return found[0]


def buttons(html: str) -> list[str]:
    """Return the words on the buttons of a page."""
    return [unescape(words) for words in re.findall(r"<button[^>]*>([^<]+)</button>", html)]
