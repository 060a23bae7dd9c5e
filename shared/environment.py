"""Reads variables of the environment, and turns whatever is wrong with one into a sentence that
names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import time
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from shared.errors import DoorbellError, SettingsError
from shared.names import checked_name
from shared.round.plan import Topology
from shared.storage.blobs import parse_blob_place
from shared.transport.addresses import Network

T = TypeVar("T")
LogForm = Literal["text", "json"]


class Reader:
    """Reads variables, and turns whatever is wrong with one into a sentence that names it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.home = self("DOORBELL_HOME", "var", Path)
        self.data = self("DOORBELL_DATA", str(self.home / "pictures"), Path)
        self.main_url = self("DOORBELL_MAIN_URL", "http://localhost:8000", url)
        self.aggregator_url = self("DOORBELL_AGGREGATOR_URL", "http://localhost:8003", url)
        self.join_code = self._environ.get("DOORBELL_JOIN_CODE") or None
        self.database_url = self._database_url()
        self.blobs = self._blobs()
        self.s3_endpoint = self.optional("DOORBELL_S3_ENDPOINT", url)

    def __call__(self, variable: str, default: str, parse: Callable[[str], T]) -> T:
        """Return what `parse` makes of a variable, or of its default."""
        text = self._environ.get(variable) or default
        try:
            return parse(text)
        except (ValueError, DoorbellError) as error:
            raise SettingsError(
                f"{variable} cannot be {text!r}: {error}",
                kept="The service was not started.",
                todo=f"Mend {variable}.",
            ) from error

    def optional(self, variable: str, parse: Callable[[str], T]) -> T | None:
        """Return what `parse` makes of a variable, or None if it is not set."""
        return self(variable, "", parse) if self._environ.get(variable) else None

    def hidden(self, variable: str) -> str | None:
        """Return a variable that may carry a secret, so that no error shows it; who uses it checks
        it.
        """
        return self._environ.get(variable) or None

    def _blobs(self) -> str | None:
        """Return DOORBELL_BLOBS; the error does not show it, since somebody may have written
        credentials into it.
        """
        text = self._environ.get("DOORBELL_BLOBS")
        try:
            return text if text and parse_blob_place(text) else None
        except ValueError as error:
            raise SettingsError(
                f"DOORBELL_BLOBS cannot be used: {error}",
                kept="The service was not started.",
                todo="Mend DOORBELL_BLOBS.",
            ) from error

    def _database_url(self) -> str | None:
        """Return DATABASE_URL, as Heroku names it; the error does not show it, since a password may
        be in it.
        """
        text = self._environ.get("DATABASE_URL")
        if text and not re.fullmatch(r"postgres(ql)?://[^\s/]+/[^\s/?]+(\?\S*)?", text):
            raise SettingsError(
                "DATABASE_URL cannot be used: it names no PostgreSQL database.",
                kept="The service was not started.",
                todo="It looks like postgresql://user:password@host:5432/name. Without it, SQLite is used.",
            )
        return text or None

    def secret(self, variable: str) -> str | None:
        """Return a secret that can travel in a header; the error does not show it."""
        text = self._environ.get(variable)
        if text and not re.fullmatch(r"[!-~]{20,1000}", text):
            raise SettingsError(
                f"{variable} cannot be used: it needs 20 to 1000 ASCII characters, none of them a space.",
                kept="The service was not started.",
                todo=f"Mend {variable}, for instance with what openssl rand -hex 32 prints.",
            )
        return text or None


def service_name(text: str) -> str:
    """Return a service's name."""
    return checked_name(text, "service")


def topology(text: str) -> Topology:
    """Return a topology."""
    if text == "secure":
        return "secure"
    if text == "direct":
        return "direct"
    raise ValueError("it is 'secure' or 'direct'.")


def log_form(text: str) -> LogForm:
    """Return the form of log lines."""
    if text == "text":
        return "text"
    if text == "json":
        return "json"
    raise ValueError("it is 'text' or 'json'.")


def url(text: str) -> str:
    """Return the address of a service, without a slash at its end."""
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.port == 0
        or set("?#@") & set(text)
    ):
        raise ValueError(
            "an address looks like http://localhost:8000 or https://example.org, without a password."
        )
    return text.rstrip("/")


def host(text: str) -> str:
    """Return the host to listen on: a name or an address; an IPv6 address in brackets."""
    if not re.fullmatch(r"[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?\]", text):
        raise ValueError("a host looks like localhost, 0.0.0.0 or [::], without a port.")
    return text


def url_list(text: str) -> tuple[str, ...]:
    """Return URLs, separated by commas or white space; a comma inside of a URL separates nothing.

    They are not checked, and so never quoted: they may hold credentials.
    """
    begins = r"(?=[A-Za-z][A-Za-z0-9+.-]*://)"  # RFC 3986, section 3.1: how a URL begins
    return tuple(part for part in re.split(rf"[\s,]+{begins}", text.strip(", \t\r\n")) if part)


def networks(text: str) -> tuple[Network, ...]:
    """Return networks in CIDR notation, separated by commas."""
    return tuple(ip_network(part.strip()) for part in text.split(","))


def yes_or_no(text: str) -> bool:
    """Return whether it is yes."""
    if text not in ("yes", "no"):
        raise ValueError("it is 'yes' or 'no'.")
    return text == "yes"


def time_of_day(text: str) -> time:
    """Return a local time of day."""
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError("a time of day looks like 03:30.")
    return time.fromisoformat(text)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return what parses a whole number from low to high."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"it is a whole number from {low} to {high}.")
        return int(text)

    return parse


def fraction(high: float) -> Callable[[str], float]:
    """Return what parses a number from nearly 0 to high."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = 0.0
        if not 1e-9 <= number <= high:
            raise ValueError(f"it is a number from 1e-09 to {high:g}.")
        return number

    return parse


def detector_names(text: str) -> tuple[str, ...]:
    """Return the names of detectors, separated by commas."""
    return tuple(checked_name(part.strip(), "detector") for part in text.split(","))
