"""The log: one id for a request wherever it goes, one line for what matters, and never a secret."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from main_server.app import create_app
from main_server.settings import MainSettings
from main_server.store.rounds import ask_for_updates, make_due
from main_server.store.runs import start_run
from sec_agg.poll_loop import Attendant
from sec_agg.pruning import Pruner
from shared.errors import SettingsError
from shared.settings import LogSettings
from shared.telemetry.logs import (
    HEADER,
    carried,
    checked_id,
    formatter,
    id_header,
    request_id,
    round_id,
    set_up,
    under,
)
from tests.main_store import write

TOKEN = "the-operator-of-this-test"
JOIN_CODE = "doorbell-0123456789abcdef-a-secret-that-was-typed-into-the-wrong-place"


class Lines(logging.Handler):
    """Everything that is logged, as JSON says it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(formatter("test", "json"))
        self.said: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(json.loads(self.format(record)))

    def requests(self) -> list[tuple[str, int]]:
        return [
            (line["path"], line["status"])
            for line in self.said
            if line["logger"] == "shared.web.instrumentation"
        ]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return create_app(MainSettings.read({"DOORBELL_HOME": str(tmp_path)}))


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("main_server.runs.runs").makeRecord(
        "main_server.runs.runs", logging.WARNING, "runs.py", 1, message, args, None, extra=extra
    )


# --- ids


@pytest.mark.parametrize(
    "name", ["a", "round-animal-7", "0190f2c4-7e1b-7cc0-98c4-dc0c0c07398f", "A.b_c:d", "x" * 64]
)
def test_well_formed_id_is_kept(app: Flask, lines: Lines, name: str) -> None:
    assert app.test_client().get("/status", headers={HEADER: name}).headers[HEADER] == name
    assert [line["request"] for line in lines.said] == [name]


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a\tb", "a/b", "é", "<b>", "a;b", '"', "%0a"]
)
def test_anything_else_gets_another(app: Flask, lines: Lines, name: str) -> None:
    given = app.test_client().get("/status", headers={HEADER: name}).headers[HEADER]
    assert re.fullmatch("[0-9a-f]{16}", given)
    assert [line["request"] for line in lines.said] == [given]


def test_every_answer_has_its_own(app: Flask) -> None:
    client = app.test_client()
    answers = [
        client.get("/status"),
        client.get("/status"),
        client.get("/nowhere"),
        client.post("/work"),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 401]
    assert len({answer.headers[HEADER] for answer in answers}) == 4
    assert request_id() == "", "none is left behind in the thread"


def test_id_goes_on_to_the_other_service_and_to_what_that_asks(
    federation: Any, lines: Lines
) -> None:
    with under("by-hand-1"):
        federation.upload("device-1", federation.delta())
    paths = [
        line["path"] for line in lines.said if line["request"] == "by-hand-1" and "path" in line
    ]
    assert sorted(paths) == ["/clientstatus", "/cmodel", "/join", "/roster", "/round/package"]
    assert {line["who"] for line in lines.said if line.get("path") == "/cmodel"} == {"device-1"}


def test_rounds_that_run_by_themselves_have_one_id_everywhere(
    federation: Any, lines: Lines
) -> None:
    for name in ("device-1", "device-2"):
        federation.upload(name, federation.delta())
    settings = federation.announce("device-1")
    write(federation.main.store, start_run, "package", 1, 1, 1.0)
    write(federation.main.store, ask_for_updates, settings, 2.0)
    write(federation.main.store, make_due, settings, 3.0, "It is time.")
    aggregator = federation.aggregator
    Attendant(aggregator, Pruner(aggregator.store, aggregator.blobs)).attend_once()
    said = [line for line in lines.said if line["request"] == "round-package-1"]
    assert {"main_server.runs.tasks", "main_server.rounds.publishing", "sec_agg.poll_loop"} <= {
        line["logger"] for line in said
    }
    assert ("/secagg_model", 200) in [(line.get("path"), line.get("status")) for line in said]


def test_threads_started_within_can_carry_it() -> None:
    seen: list[str] = []

    def note() -> None:
        seen.append(request_id())

    with under("outer"):
        threads = [threading.Thread(target=carried(note)), threading.Thread(target=note)]
        with under("inner"):
            assert id_header() == {HEADER: "inner"}
    for thread in threads:
        thread.start()
        thread.join()
    assert seen == ["outer", ""]
    assert id_header() == {}


def test_models_are_pushed_under_the_id_of_the_step(federation: Any, lines: Lines) -> None:
    for name in ("device-1", "device-2"):
        federation.upload(name, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    federation.network.apps["device-1"] = federation.network.apps[
        "aggregator"
    ]  # it refuses, and says under which id
    with under("push-1"):
        federation.step("main", "send_model_clients")
    refused = [line for line in lines.said if line.get("status") == 403]
    assert [line["request"] for line in refused] == ["push-1"]


# --- lines


def test_json_is_one_object_a_line_with_everything_in_it() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        failed = sys.exc_info()
    made = record("the run of %s waits", "animal\nfake line", status=409, folder=Path("x"))
    made.exc_info = failed
    with under(round_id("animal", 7)):
        (line,) = formatter("Main server", "json").format(made).splitlines()
    said = json.loads(line)
    when = datetime.fromisoformat(said.pop("time"))
    assert when.utcoffset() == timedelta(0) and abs(when.timestamp() - made.created) < 0.01
    assert said.pop("exception").splitlines()[-2:] == ["ValueError: two", "lines"]
    assert said == {
        "level": "warning",
        "service": "Main server",
        "logger": "main_server.runs.runs",
        "request": "round-animal-7",
        "message": "the run of animal\nfake line waits",
        "status": 409,
        "folder": "x",
    }


def test_extra_never_takes_the_place_of_what_every_line_has() -> None:
    said = json.loads(
        formatter("Main server", "json").format(record("x", service="forged", time="forged"))
    )
    assert said["service"] == "Main server" and said["time"] != "forged"


@pytest.mark.parametrize(
    "peer", ["a\nb", "a\rb", "a\x1b[31mb", "a\u2028b", "a\x00b", "a\ud800b"], ids=ascii
)
def test_text_is_one_line_whatever_a_peer_says(peer: str) -> None:
    line = formatter("Main server", "text").format(record("%s waits", peer))
    assert line.isprintable() and line.encode()
    assert re.fullmatch(
        r"20[0-9-]{8}T[0-9:]{8}\.[0-9]{3}Z WARNING main_server\.runs\.runs \[-\] a\\.*b waits", line
    )


def test_exception_stands_below_its_line_in_text() -> None:
    made = record("it failed")
    made.exc_info = (ValueError, ValueError("no number"), None)
    said, *trace = formatter("Main server", "text").format(made).splitlines()
    assert said.endswith("[-] it failed") and trace[-1] == "ValueError: no number"


def test_each_line_is_written_once_however_often_it_is_set_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(3):
        set_up("Main server", "text")
    logging.getLogger("main_server.runs.runs").info("once")
    logging.getLogger("Main server").info("once too")
    logging.getLogger("urllib3").info("not at all")
    assert [line.rpartition("] ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "once",
        "once too",
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_form_is_that_of_the_environment(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOORBELL_LOG", form)
    create_app(MainSettings.read({"DOORBELL_HOME": str(tmp_path)})).test_client().get("/status")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("{") is (form == "json") and "GET /status 200 in" in line
    set_up("Main server", "text")


def test_other_form_is_named() -> None:
    assert LogSettings.read({}).form == "text"
    with pytest.raises(SettingsError, match="DOORBELL_LOG cannot be 'xml'"):
        LogSettings.read({"DOORBELL_LOG": "xml"})


# --- which requests, and what of them


def test_request_has_its_line_with_all_there_is_to_know(app: Flask, lines: Lines) -> None:
    app.test_client().get("/status?detector=face")
    (line,) = lines.said
    assert (line["method"], line["path"], line["status"], line["who"]) == (
        "GET",
        "/status",
        200,
        "operator",
    )
    assert line["ms"] >= 0 and line["message"] == f"GET /status 200 in {line['ms']} ms, by operator"


def test_what_nobody_wants_to_read_has_none_unless_it_failed(
    app: Flask, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = app.test_client()
    for path in ("/", "/healthz", "/metrics", "/static/style.css", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert lines.requests() == []
    client.get("/static/nothing.css")
    monkeypatch.setattr("shared.telemetry.metrics.expose", lambda _: 1 / 0)
    client.get("/metrics")
    assert lines.requests() == [("/static/nothing.css", 404), ("/metrics", 500)]


def test_long_poll_in_vain_has_none(federation: Any, lines: Lines) -> None:
    said = {"address": "http://device-1", "wait_s": 0, "detectors": {}}
    federation.device("device-1").post_json("http://main/work", said)
    assert ("/work", 200) not in lines.requests()
    settings = federation.announce("device-1")
    write(federation.main.store, start_run, "package", 1, 1, 1.0)
    write(federation.main.store, ask_for_updates, settings, 2.0)
    state = dict.fromkeys(("trained_round", "sent_round", "held", "score", "setback", "refused"))
    federation.device("device-1").post_json(
        "http://main/work", said | {"detectors": {"package": state}}
    )
    assert ("/work", 200) in lines.requests()
    assert [line["message"] for line in lines.said if line["request"] == "round-package-1"] == [
        "package: device-1 is to train, round 1"
    ]


def test_no_secret_gets_into_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Lines,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DOORBELL_OPERATOR_TOKEN", TOKEN)
    client = create_app(MainSettings.read({"DOORBELL_HOME": str(tmp_path)})).test_client()
    assert client.post("/login", data={"token": TOKEN}).status_code == 303
    cookie = next(iter(client._cookies.values())).value  # type: ignore[union-attr]
    asked: list[Callable[[], Any]] = [
        lambda: client.get("/status"),  # with the cookie
        lambda: client.get(f"/status?token={TOKEN}"),
        lambda: client.get("/status", headers={"Authorization": f"Bearer {TOKEN}"}),
        lambda: client.get("/status", headers={"Authorization": f"Bearer {TOKEN}x"}),
        lambda: client.get(f"/{JOIN_CODE}"),
        lambda: client.get(f"/join/{JOIN_CODE}?code={JOIN_CODE}"),
        lambda: client.post("/join", json={"code": JOIN_CODE, "name": "x"}),
        lambda: client.get("/login", query_string={"token": TOKEN}),
    ]
    for ask in asked:
        ask()
    everything = json.dumps(lines.said) + capsys.readouterr().err
    assert len(lines.requests()) == len(asked) + 1
    assert not [
        secret for secret in (TOKEN, JOIN_CODE, JOIN_CODE[:30], cookie) if secret in everything
    ]


def test_ids_are_hard_to_guess_and_well_formed() -> None:
    made = {checked_id(None) for _ in range(100)}
    assert len(made) == 100 and all(checked_id(name) == name for name in made)
