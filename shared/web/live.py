"""Pages that stay true while they are open: server-sent events say that something changed.

A page hears three kinds of events at `/live` (WHATWG HTML, section 9.2): `changed`, with a digest
of what it should show, whenever that is another one; `progress`, with where long work is; and
`beat`, so that silence means a lost connection. `static/live.js` fetches the page again when the
digest is not the one that it shows. Nothing else travels in an event: what a page shows is made in
one place, by its template.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final, TypeVar

from flask import Flask, Response, render_template

from shared.errors import DoorbellError
from shared.web.background import add_background, threads_of
from shared.web.openapi import STRING, Operation, declare, record

LOOK_EVERY_S: Final = 0.1
CHANGED_EVERY_S: Final = 0.25
BEAT_EVERY_S: Final = 10.0
LONGEST_S: Final = 600.0
"""A stream ends after so long, and the page asks for another.

So no thread is held by a browser that went to sleep.
"""

_KEY = "doorbell-live"
Progress = Mapping[str, object]
T = TypeVar("T")


class TooManyPages(DoorbellError):
    """All threads that may serve open pages do."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    slug = "too-many-pages"


class Live:
    """What the open pages of one process are told.

    Args:
        fingerprint: Returns text that is another one when the page should show something else. It
            is cheap, and asked at most four times a second, however many pages are open; what it
            raises only delays the news.
        progress: Returns where long work is, for `progress`, or None while there is none.
    """

    def __init__(
        self, fingerprint: Callable[[], str], progress: Callable[[], Progress | None] = lambda: None
    ) -> None:
        self._fingerprint = fingerprint
        self._progress = progress
        self._stop = threading.Event()
        self._slots: threading.Semaphore | None = None
        # One thread asks the database for all open pages; the others wait for its answer.
        self._asking = threading.Lock()
        self._seen = ""
        self._seen_at = float("-inf")

    def serve(self, stop: threading.Event, threads: int) -> None:
        """Let pages listen until `stop` is set.

        Args:
            stop: Ends the streams, so that nobody waits for them when the process ends.
            threads: How many requests this process answers at once; a quarter of them may be
                streams.
        """
        self._stop = stop
        # Open pages must not take the threads that answer messages and steps.
        self._slots = threading.BoundedSemaphore(threads // 4)
        stop.wait()

    def seen(self, at_once: bool = False) -> str:
        """Return the digest of what a page should show.

        Args:
            at_once: Whether it must be that of now; else it may be a quarter of a second old.
        """
        with self._asking:
            if at_once or time.monotonic() > self._seen_at + CHANGED_EVERY_S:
                # Where the database does not answer, the page itself will say so.
                with suppress(DoorbellError):
                    self._seen = hashlib.sha256(self._fingerprint().encode()).hexdigest()[:16]
                self._seen_at = time.monotonic()
            return self._seen

    def listen(self) -> Response:
        """Answer with a stream of events.

        Raises:
            TooManyPages: There are as many as there may be; the page looks by itself now and then.
        """
        slots = self._slots
        if slots is None or not slots.acquire(blocking=False):
            raise TooManyPages(
                "As many pages are open as can be kept up to date.",
                todo="This one looks by itself.",
            )
        response = Response(self._events(), mimetype="text/event-stream")
        # A proxy that collects an answer before it passes it on would hold the events back.
        response.headers["X-Accel-Buffering"] = "no"
        response.call_on_close(slots.release)
        return response

    def _events(self) -> Iterator[str]:
        begun = time.monotonic()
        beat = begun
        shown = ""
        progress: Progress | None = None
        yield "retry: 1000\n\n"
        while not self._stop.is_set() and time.monotonic() < begun + LONGEST_S:
            now = self.seen()
            if now != shown:
                shown = now
                yield f"event: changed\ndata: {now}\n\n"
            current = self._progress()
            if current != progress:
                progress = current
                yield f"event: progress\ndata: {json.dumps(progress)}\n\n"
            if time.monotonic() > beat + BEAT_EVERY_S:
                beat = time.monotonic()
                yield "event: beat\ndata: \n\n"
            self._stop.wait(LOOK_EVERY_S)


def remembered(
    make: Callable[[], T], seen: Callable[[], str], longest_s: float = 2.0
) -> Callable[[], T]:
    """Return a function that makes what a page shows once for each change, however many look at it.

    Args:
        make: Makes it, at some cost.
        seen: Returns the digest of what is to be shown, as `Live.seen` does.
        longest_s: For so many seconds it may miss what the digest does not tell of, such as the
            time of day.
    """
    lock = threading.Lock()
    kept: dict[str, tuple[float, T]] = {}

    def get() -> T:
        # Under the lock: ten browsers that hear of a change at once cost one look.
        with lock:
            digest = seen()
            if digest not in kept or time.monotonic() > kept[digest][0] + longest_s:
                kept.clear()
                kept[digest] = time.monotonic(), make()
            return kept[digest][1]

    return get


def add_live(app: Flask, live: Live) -> None:
    """Add `/live` to an app whose pages are to stay true."""
    app.extensions[_KEY] = live
    add_background(app, "open pages", lambda stop: live.serve(stop, threads_of(app)))
    app.add_url_rule("/live", "live", live.listen)
    stream = Operation(
        "Tell a page what changes.",
        {},
        {"text/event-stream": record(event=STRING, data=STRING)},
        (429,),
        "operator",
    )
    declare(app.extensions, "live", GET=stream)


def render_page(
    app: Flask, template: str, make: Callable[[], Mapping[str, object]], **more: object
) -> str:
    """Return a page that stays true while it is open.

    The digest that it carries is taken before what it shows is made: what changes meanwhile is seen
    as a change.

    Args:
        app: Whose page.
        template: Its name.
        make: Makes what the template shows.
        more: What the template shows besides.
    """
    live: Live | None = app.extensions.get(_KEY)
    seen = None if live is None else live.seen(at_once=True)
    return render_template(template, service=app.name, seen=seen, **more, **make())
