"""What the variables of the environment may hold: one `Values` for each kind of value.

`shared.settings` declares settings with these, and turns a refusal into an error that names the
variable. Every service uses them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar
from urllib.parse import urlsplit

from shared.names import checked_name

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
LogForm = Literal["text", "json"]

SMALLEST_FRACTION = 1e-9
"""Below it, float32 arithmetic with a rate or a norm loses all of its digits."""

_HOST = re.compile(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?\]")
_SECRET = re.compile(r"[!-~]{20,1000}")
_POSTGRESQL = re.compile(r"postgres(ql)?://[^\s/]+/[^\s/?]+(\?\S*)?")
_URL_BEGINS = r"(?=[A-Za-z][A-Za-z0-9+.-]*://)"  # RFC 3986, section 3.1


@dataclass(frozen=True)
class Values(Generic[T_co]):
    """The values that a setting takes.

    Attributes:
        range: Which they are, in Markdown: "1 to 100".
        parse: Returns the value of a text, or raises ValueError or `DoorbellError`.
        hint: How to fix a refused one, after the words "Fix VARIABLE".
    """

    range: str
    parse: Callable[[str], T_co]
    hint: str = ""


def whole(low: int, high: int) -> Values[int]:
    """Return the whole numbers from low to high."""

    def parse(text: str) -> int:
        # isdecimal alone takes digits of every script; int() alone takes "1_0" and " 7"
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"it must be a whole number from {low} to {high}.")
        return int(text)

    return Values(f"{low} to {high}", parse)


def fraction(high: float) -> Values[float]:
    """Return the numbers from nearly 0 to high."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        # NaN is refused as well: it compares as false
        if not SMALLEST_FRACTION <= number <= high:
            raise ValueError(f"it must be a number from {SMALLEST_FRACTION:g} to {high:g}.")
        return number

    return Values(f"above 0, at most {high:g}", parse)


def name_of(what: str) -> Values[str]:
    """Return the names of services, detectors or federations.

    Args:
        what: How an error calls it: "service".
    """
    return Values("name", lambda text: checked_name(text, what))


def comma_separated(range_: str, item: Callable[[str], T]) -> Values[tuple[T, ...]]:
    """Return lists, separated by commas; an empty text is an empty list.

    Args:
        range_: What the items are, in Markdown.
        item: Parses one of them.
    """

    def parse(text: str) -> tuple[T, ...]:
        if not text:
            return ()
        return tuple(item(part.strip()) for part in text.split(","))

    return Values(range_, parse)


def _log_form(text: str) -> LogForm:
    if text == "text":
        return "text"
    if text == "json":
        return "json"
    raise ValueError("it must be 'text' or 'json'.")


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("it must be 'yes' or 'no'.")
    return text == "yes"


def _url(text: str) -> str:
    """Return the URL of a service, without a slash at its end."""
    parts = urlsplit(text)
    usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    if not usable or set("?#@") & set(text):
        raise ValueError(
            "a URL looks like http://localhost:8000 or https://example.org, without a password."
        )
    return text.rstrip("/")


def _url_list(text: str) -> tuple[str, ...]:
    """Return URLs, separated by commas or white space; a comma inside of a URL separates nothing.

    They are not checked, and so never quoted: they may hold credentials.
    """
    parts = re.split(rf"[\s,]+{_URL_BEGINS}", text.strip(", \t\r\n"))
    return tuple(part for part in parts if part)


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError("a host looks like localhost, 0.0.0.0 or [::], without a port.")
    return text


def _secret(text: str) -> str:
    if not _SECRET.fullmatch(text):
        raise ValueError("it needs 20 to 1000 ASCII characters, none of them a space.")
    return text


def _database_url(text: str) -> str:
    if not _POSTGRESQL.fullmatch(text):
        raise ValueError("a PostgreSQL URL looks like postgresql://user:password@host:5432/name.")
    return text


TEXT = Values("text", str)
"""Any text; the code that uses it checks it."""
PATH = Values("path", Path)
URL = Values("URL", _url)
URLS = Values("URLs", _url_list)
HOST = Values("host or address", _host)
PORT_NUMBER = whole(1, 65535)
YES_OR_NO = Values("`yes` or `no`", _yes_or_no)
LOG_FORM = Values("`text` or `json`", _log_form)
SECRET = Values(
    "20 to 1000 characters", _secret, ", for example with the output of openssl rand -hex 32"
)
"""A secret that can travel in a header: printable ASCII without a space."""
DATABASE_URL = Values(
    "`postgresql://` URL", _database_url, ", or unset it to keep the rows in SQLite"
)
