"""What an open page is told, and when."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from shared.errors import StorageUnavailable
from shared.web import live as live_module
from shared.web.app import make_app
from shared.web.live import CHANGED_EVERY_S, Live, TooManyPages, add_live, remembered


class Service:
    """What a service shows, and how often it was asked."""

    def __init__(self) -> None:
        self.shown, self.asked, self.away = "a", 0, False
        self.doing: dict[str, object] | None = None

    def fingerprint(self) -> str:
        self.asked += 1
        if self.away:
            raise StorageUnavailable("The database is away.")
        return self.shown

    def progress(self) -> dict[str, object] | None:
        return self.doing


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def live(service: Service) -> Iterator[Live]:
    made, stop = Live(service.fingerprint, service.progress), threading.Event()
    thread = threading.Thread(target=made.serve, args=(stop, 8))
    thread.start()
    while made._slots is None:
        time.sleep(0.001)
    yield made
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


@pytest.fixture
def listen(live: Live) -> Iterator[Callable[[], Iterator[tuple[str, Any]]]]:
    responses = []

    def opened() -> Iterator[tuple[str, Any]]:
        with Flask("test").test_request_context():
            responses.append(live.listen())
        return _events(responses[-1].response)

    yield opened
    for response in responses:
        response.close()


def _events(stream: Any) -> Iterator[tuple[str, Any]]:
    assert next(stream) == "retry: 1000\n\n"
    for message in stream:
        kind, data, *rest = message.split("\n")
        assert rest == ["", ""]
        yield kind.removeprefix("event: "), data.removeprefix("data: ")


def test_page_hears_at_once_what_it_should_show_and_what_changes(
    service: Service, live: Live, listen: Any
) -> None:
    events = listen()
    assert next(events) == ("changed", live.seen())
    service.shown = "b"
    begun = time.monotonic()
    kind, digest = next(events)
    assert kind == "changed" and time.monotonic() - begun < 0.5
    assert digest == live.seen()
    service.shown = "a"
    assert next(events)[1] != digest


def test_progress_is_told_as_it_is_and_its_end_too(service: Service, listen: Any) -> None:
    events = listen()
    next(events)
    service.doing = {"words": "epoch 1 of 2 “å”", "value": 0.5}
    begun = time.monotonic()
    kind, data = next(events)
    assert (kind, json.loads(data)) == (
        "progress",
        service.doing,
    ) and time.monotonic() - begun < 0.5
    service.doing = None
    assert next(events) == ("progress", "null")


def test_silence_is_broken_now_and_then(listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "BEAT_EVERY_S", 0.2)
    events = listen()
    next(events)
    assert [next(events), next(events)] == [("beat", ""), ("beat", "")]


def test_stream_ends_after_a_while_and_the_page_asks_for_another(
    listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "LONGEST_S", 0.3)
    assert [kind for kind, _ in listen()] == ["changed"]


def test_streams_end_when_the_service_does(service: Service) -> None:
    live, stop = Live(service.fingerprint), threading.Event()
    thread = threading.Thread(target=live.serve, args=(stop, 8))
    thread.start()
    while live._slots is None:
        time.sleep(0.001)
    with Flask("test").test_request_context():
        events = _events(live.listen().response)
    next(events)
    stop.set()
    begun = time.monotonic()
    assert list(events) == [] and time.monotonic() - begun < 1
    thread.join(5)


def test_a_quarter_of_the_threads_may_be_streams_and_a_closed_page_makes_room(live: Live) -> None:
    with Flask("test").test_request_context():
        responses = [live.listen(), live.listen()]
        with pytest.raises(TooManyPages) as refused:
            live.listen()
        assert refused.value.status == 429
        responses[0].close()
        live.listen().close()
        responses[1].close()


def test_service_that_is_not_started_has_no_streams(service: Service) -> None:
    with Flask("test").test_request_context(), pytest.raises(TooManyPages):
        Live(service.fingerprint).listen()


def test_many_pages_ask_no_more_often_than_one(service: Service, live: Live) -> None:
    begun = time.monotonic()
    for _ in itertools.takewhile(
        lambda _: time.monotonic() < begun + 3 * CHANGED_EVERY_S, itertools.count()
    ):
        live.seen()
    assert service.asked <= 4


def test_database_that_is_away_only_delays_the_news(service: Service, live: Live) -> None:
    before = live.seen()
    service.shown, service.away = "b", True
    time.sleep(CHANGED_EVERY_S + 0.05)
    assert live.seen() == before and service.asked >= 2
    service.away = False
    time.sleep(CHANGED_EVERY_S + 0.05)
    assert live.seen() != before


def test_what_a_page_shows_is_made_once_for_each_change(service: Service) -> None:
    made: list[str] = []

    def make() -> str:
        made.append(service.shown)
        return f"page of {service.shown}"

    get = remembered(make, service.fingerprint)
    assert [get(), get(), get()] == ["page of a"] * 3 and made == ["a"]
    service.shown = "b"
    assert [get(), get()] == ["page of b"] * 2 and made == ["a", "b"]
    service.shown = "a"
    assert get() == "page of a" and made == ["a", "b", "a"]


def test_what_no_fingerprint_tells_of_is_seen_after_a_while(service: Service) -> None:
    made: list[int] = []
    get = remembered(lambda: made.append(1) or len(made), service.fingerprint, 0.05)
    assert (get(), get()) == (1, 1)
    time.sleep(0.1)
    assert get() == 2


def test_change_while_a_page_is_made_is_one_that_the_page_has_not_seen(
    tmp_path: Path, service: Service
) -> None:
    (tmp_path / "page.html").write_text(
        '{% extends "base.html" %}{% block main %}{{ said }}{% endblock %}'
    )

    def page() -> dict[str, object]:
        said, service.shown = service.shown, "b"
        return {"said": f"This is {said}."}

    app = make_app("Test", tmp_path, page, dict, 1000)
    add_live(app, Live(service.fingerprint))
    html = app.test_client().get("/").text
    time.sleep(CHANGED_EVERY_S + 0.05)
    assert "This is a." in html and app.extensions["doorbell-live"].seen() not in html


def test_page_carries_what_it_shows_and_the_address_to_look_at(
    tmp_path: Path, service: Service
) -> None:
    (tmp_path / "page.html").write_text('{% extends "base.html" %}')
    assert (
        "data-seen" not in make_app("Test", tmp_path, dict, dict, 1000).test_client().get("/").text
    )
    app = make_app("Test", tmp_path, dict, dict, 1000)
    add_live(app, Live(service.fingerprint))
    page = app.test_client().get("/").text
    digest = app.extensions["doorbell-live"].seen()
    assert f'<body data-seen="{digest}" data-page="/">' in page and "live.js" in page
    assert app.test_client().get("/live").status_code == 429
