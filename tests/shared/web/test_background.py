"""What a service does besides answering requests: started once it serves, begun again when it
fails, ended on stop.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from main_server.app import create_app
from main_server.settings import MainSettings
from shared.web import background
from shared.web.background import add_background, start_background, threads_of

PATIENCE_S = 30.0


@pytest.fixture
def app() -> Flask:
    return Flask("test")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_RESTART_S", 0.01)


def named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_work_is_not_started_before_the_service_is(app: Flask) -> None:
    begun = threading.Event()
    add_background(app, "sweep", lambda stop: begun.set() or stop.wait())  # type: ignore[func-returns-value]
    assert not begun.wait(0.2)
    stop = start_background(app, 8)
    assert begun.wait(PATIENCE_S)
    stop.set()


def test_making_the_main_servers_app_starts_nothing(tmp_path: Path) -> None:
    app = create_app(MainSettings.read({"DOORBELL_HOME": str(tmp_path)}))
    assert app.test_client().get("/healthz").status_code == 200
    assert named("news") == []
    stop = start_background(app, 16)
    try:
        (thread,) = named("news")
        assert thread.daemon, "a worker that is told to end is not held up by it"
    finally:
        stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_work_ends_when_the_event_is_set(app: Flask) -> None:
    ended: list[str] = []
    for name in ("one", "two"):
        add_background(
            app, f"test-{name}", lambda stop, name=name: ended.append(name) if stop.wait() else None
        )  # type: ignore[misc]
    stop = start_background(app, 8)
    threads = named("test-one") + named("test-two")
    assert len(threads) == 2
    assert ended == []
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(ended) == ["one", "two"]
    assert not named("test-one") and not named("test-two")


def test_work_that_fails_begins_again_and_says_why(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    times, going = [], threading.Event()

    def work(stop: threading.Event) -> None:
        times.append(1)
        if len(times) < 3:
            raise RuntimeError("a mistake of ours")
        going.set()
        stop.wait()

    add_background(app, "test-failing", work)
    with caplog.at_level(logging.ERROR):
        stop = start_background(app, 8)
        assert going.wait(PATIENCE_S)
        stop.set()
    assert len(times) == 3
    assert caplog.messages == ["test-failing failed, and begins again in 0.01 s"] * 2
    assert "a mistake of ours" in caplog.text


def test_failing_work_is_not_begun_again_after_stop(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_RESTART_S", PATIENCE_S)
    times, failed = [], threading.Event()

    def work(_: threading.Event) -> None:
        times.append(1)
        failed.set()
        raise RuntimeError("a mistake of ours")

    add_background(app, "test-stopped", work)
    stop = start_background(app, 8)
    assert failed.wait(PATIENCE_S)
    (thread,) = named("test-stopped")
    stop.set()
    thread.join(PATIENCE_S / 2)
    assert not thread.is_alive(), "it does not sleep through the end"
    assert len(times) == 1


def test_one_that_fails_does_not_disturb_another(app: Flask) -> None:
    going = threading.Event()

    def fails(_: threading.Event) -> None:
        raise RuntimeError("a mistake of ours")

    add_background(app, "test-bad", fails)
    add_background(app, "test-good", lambda stop: going.set() or stop.wait())  # type: ignore[func-returns-value]
    stop = start_background(app, 8)
    assert going.wait(PATIENCE_S)
    stop.set()


def test_work_knows_how_many_threads_the_worker_has(app: Flask) -> None:
    heard: list[int] = []
    add_background(app, "test-threads", lambda _: heard.append(threads_of(app)) or _.wait())  # type: ignore[func-returns-value]
    stop = start_background(app, 64)
    threads = named("test-threads")
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert threads_of(app) == 64
    assert set(heard) <= {64}


@pytest.mark.parametrize("other", [object(), None, lambda environ, start: []])
def test_what_is_no_app_of_ours_has_nothing_to_be_started(other: Any) -> None:
    before = set(threading.enumerate())
    start_background(other, 8).set()
    assert set(threading.enumerate()) <= before
