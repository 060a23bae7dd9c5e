"""Log lines, and the id that follows a request, or a round, through every service.

The id comes with a request as X-Request-ID, or is made for it, and goes on with every request to
another service; each line that is written meanwhile has it. Rounds that run by themselves have ids
that all services know: `round-animal-7`. What is logged is a name, a path, a number or a sentence:
never a header, a query or a body.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, ParamSpec, TextIO, TypeVar

LogForm = Literal["text", "json"]
HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_OURS = ("shared", "dataset", "device", "sec_agg", "main_server", "federation")
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime"}
_current: ContextVar[str] = ContextVar("request_id", default="")

P = ParamSpec("P")
T = TypeVar("T")


def request_id() -> str:
    """Return the id of what is being done, or "" if it has none."""
    return _current.get()


def id_header() -> dict[str, str]:
    """Return the header field that carries the id to another service; {} without an id."""
    return {HEADER: _current.get()} if _current.get() else {}


def checked_id(text: str | None) -> str:
    """Return an id that came with a request, or a new one in place of what is none."""
    return text if text and _ID.fullmatch(text) else secrets.token_hex(8)


def round_id(detector: str, number: int) -> str:
    """Return the id of a round that runs by itself."""
    return f"round-{detector}-{number}"


def version_id(version: str) -> str:
    """Return the id under which a version of a model is fetched."""
    return f"version-{version[:12]}"


@contextmanager
def under(name: str) -> Iterator[None]:
    """Let what is done in the block have this id."""
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


def carried(function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` to be run by other threads, under the id that is in force here and now."""
    name = _current.get()

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with under(name):
            return function(*args, **kwargs)

    return run


def set_up(service: str, form: LogForm) -> None:
    """Let this process write what it logs to standard error; again, it only changes how.

    Args:
        service: What writes it, for people: "Secure aggregator".
        form: "text": a readable line. "json": an object a line.
    """
    root = logging.getLogger()
    for known in [handler for handler in root.handlers if isinstance(handler, _StandardError)]:
        root.removeHandler(known)
    handler = _StandardError()
    handler.setFormatter(formatter(service, form))
    root.addHandler(handler)
    for package in (*_OURS, service):
        logging.getLogger(package).setLevel(logging.INFO)


def formatter(service: str, form: LogForm) -> logging.Formatter:
    """Return what makes a line of a record, as for `set_up`."""
    return _Json(service) if form == "json" else _Text()


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error by then: tests, and whoever daemonizes, may replace it."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Text(logging.Formatter):
    """A readable line; whatever a peer may have put into it stays in that line."""

    def format(self, record: logging.LogRecord) -> str:
        name = _current.get() or "-"
        said = (
            f"{_time(record)} {record.levelname} {record.name} [{name}]"
            f" {_printable(record.getMessage())}"
        )
        return f"{said}\n{self.formatException(record.exc_info)}" if record.exc_info else said


class _Json(logging.Formatter):
    """A JSON object; what a call gives as `extra` are members of it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "request": _current.get() or None,
            "message": record.getMessage(),
        }
        said |= {
            name: value
            for name, value in vars(record).items()
            if name not in _STANDARD and name not in said
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def _time(record: logging.LogRecord) -> str:
    return (
        datetime.fromtimestamp(record.created, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
