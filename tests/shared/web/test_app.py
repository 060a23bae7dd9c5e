"""The shell of every web app: the same sentence as text, page or JSON, and no error without one."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import ServiceUnavailable

from shared import __version__
from shared.errors import OutOfOrder
from shared.messages import Message
from shared.web.app import add_step, make_app
from shared.web.json_messages import answer_with, read_body
from shared.web.steps import Answer, Done, do_each

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
LIMIT = 1000
PAGE = """{% extends "base.html" %}{% from "steps.html" import step %}
{% block main %}{{ step("/train", "Train", names) }}{% endblock %}"""
FORM = "application/x-www-form-urlencoded"


class SecretError(Exception):
    """Nobody planned for this one."""


@dataclass
class Service:
    """What the verbs saw, and whether the page can be made."""

    asked: list[str | None] = field(default_factory=list)
    page_is_broken: bool = False

    def train(self, detector: str | None) -> Answer:
        self.asked.append(detector)
        return do_each(
            [detector or "person"],
            lambda name: Done(f"{name} <b>is</b> trained.", {"round": 3}),
            "nothing",
        )

    def early(self, _: str | None) -> Answer:
        raise OutOfOrder("It is too early.", todo="Train first.")

    def refused(self, _: str | None) -> Answer:
        return Answer(409, "person: It is too early.", {"detectors": {"person": {"status": 409}}})

    def broken(self, _: str | None) -> Answer:
        raise SecretError("a secret in a traceback")

    def page(self) -> dict[str, object]:
        if self.page_is_broken:
            raise SecretError("a secret in a page")
        return {"names": ["person", "parcel"]}


@pytest.fixture
def service() -> Service:
    return Service()


class Anything(Message, frozen=True):
    """A message with one member."""

    message: Any


@pytest.fixture
def app(service: Service, tmp_path: Path) -> Flask:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "page.html").write_text(PAGE)
    app = make_app("Test service", templates, service.page, lambda: {"topology": "secure"}, LIMIT)
    for path, verb in (
        ("/train", service.train),
        ("/early", service.early),
        ("/refused", service.refused),
    ):
        add_step(app, path, verb)
    add_step(app, "/broken", service.broken)
    app.add_url_rule(
        "/message", "message", lambda: answer_with(read_body(Anything)), methods=["POST"]
    )
    app.add_url_rule("/down", "down", lambda: (_ for _ in ()).throw(ServiceUnavailable()))
    return app


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    logging.disable(logging.CRITICAL)
    yield app.test_client()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("accept", ["*/*", None, "text/plain", "image/png", "text/*"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_curl_gets_the_plain_sentence(client: FlaskClient, method: str, accept: str | None) -> None:
    response = client.open("/train", method=method, headers={"Accept": accept} if accept else {})
    assert (response.status_code, response.mimetype) == (200, "text/plain")
    assert response.text == "person: person <b>is</b> trained.\n"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_browser_gets_the_page_with_the_sentence_escaped_on_top(
    client: FlaskClient, method: str
) -> None:
    response = client.open("/train", method=method, headers={"Accept": BROWSER})
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert (
        '<p id="notice" role="status" class="good">person: person &lt;b&gt;is&lt;/b&gt; trained.</p>'
        in response.text
    )
    assert '<form class="step" method="post" action="/train" id="do-train">' in response.text
    assert "<h1>Test service</h1>" in response.text


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_json_gets_the_sentence_and_the_figures(client: FlaskClient, method: str) -> None:
    response = client.open("/train", method=method, headers={"Accept": "application/json"})
    assert (response.status_code, response.mimetype) == (200, "application/json")
    said = "person <b>is</b> trained."
    detectors = {"person": {"status": 200, "said": said, "round": 3}}
    assert response.json == {"said": f"person: {said}", "detectors": detectors}


def test_detector_is_picked_by_query_and_by_form(client: FlaskClient, service: Service) -> None:
    client.get("/train?detector=parcel")
    client.post("/train?detector=parcel")
    client.post("/train", data={"detector": "cat"})
    client.post("/train", data={"detector": ""})
    client.get("/train")
    assert service.asked == ["parcel", "parcel", "cat", None, None]


@pytest.mark.parametrize("name", ["Person", "../person", "a b", "<script>", "a" * 33, "é", "a\0"])
def test_bad_name_of_a_detector_is_refused_before_the_verb_sees_it(
    client: FlaskClient, service: Service, name: str
) -> None:
    by_query = client.get(
        "/train", query_string={"detector": name}, headers={"Accept": "application/json"}
    )
    by_form = client.post("/train", data={"detector": name})
    assert (by_query.status_code, by_form.status_code) == (400, 400)
    assert by_query.json is not None
    assert by_query.json["type"] == "urn:doorbell:problem:invalid-message"
    assert name not in by_query.text + by_form.text
    assert service.asked == []


def test_refused_step_is_problem_json(client: FlaskClient) -> None:
    response = client.post("/refused", headers={"Accept": "application/json"})
    assert (response.status_code, response.mimetype) == (409, "application/problem+json")
    assert response.json == {
        "type": "urn:doorbell:problem:step",
        "title": "The step was not done.",
        "status": 409,
        "detail": "person: It is too early.",
        "detectors": {"person": {"status": 409}},
    }


def test_refused_step_is_a_sentence_for_curl_and_a_notice_for_a_browser(
    client: FlaskClient,
) -> None:
    plain = client.get("/refused")
    assert (plain.status_code, plain.mimetype, plain.text) == (
        409,
        "text/plain",
        "person: It is too early.\n",
    )
    page = client.get("/refused", headers={"Accept": BROWSER})
    assert (page.status_code, page.mimetype) == (409, "text/html")
    assert '<p id="notice" role="status" class="bad">person: It is too early.</p>' in page.text
    assert "<form" in page.text


def test_error_of_ours_becomes_its_status_and_words(client: FlaskClient) -> None:
    assert client.get("/early").text == "It is too early. Nothing was changed. Train first.\n"
    response = client.get("/early", headers={"Accept": "application/json"})
    assert (response.status_code, response.mimetype) == (409, "application/problem+json")
    assert response.json == OutOfOrder("It is too early.", todo="Train first.").problem()


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        ("*/*", "text/plain"),
        (BROWSER, "text/html"),
        ("application/json", "application/problem+json"),
    ],
    ids=["curl", "browser", "service"],
)
class TestInEveryForm:
    """Errors that come from no verb, in each of the three forms."""

    def test_unexpected_error_is_500_and_tells_nothing(
        self, client: FlaskClient, accept: str, mimetype: str
    ) -> None:
        response = client.get("/broken", headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (500, mimetype)
        assert "Unexpected error; the log has a traceback." in response.text
        for told in ("Traceback", "SecretError", "a secret", "test_web", ".py"):
            assert told not in response.text

    def test_broken_page_is_still_answered(
        self, client: FlaskClient, service: Service, accept: str, mimetype: str
    ) -> None:
        service.page_is_broken = True
        response = client.get("/", headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (500, mimetype)
        assert "Unexpected error" in response.text
        assert "secret" not in response.text

    def test_body_above_the_limit_is_413(
        self, client: FlaskClient, service: Service, accept: str, mimetype: str
    ) -> None:
        for path, content_type in (("/train", FORM), ("/message", "application/json")):
            body = b"1" * (LIMIT + 1)
            response = client.post(
                path, data=body, content_type=content_type, headers={"Accept": accept}
            )
            assert (response.status_code, response.mimetype) == (413, mimetype)
        assert service.asked == []

    def test_unknown_path_is_404(self, client: FlaskClient, accept: str, mimetype: str) -> None:
        response = client.get("/nowhere", headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (404, mimetype)

    def test_other_method_is_405(self, client: FlaskClient, accept: str, mimetype: str) -> None:
        response = client.delete("/train", headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (405, mimetype)

    def test_error_of_the_framework_keeps_its_status(
        self, client: FlaskClient, accept: str, mimetype: str
    ) -> None:
        response = client.get("/down", headers={"Accept": accept})
        assert (response.status_code, response.mimetype) == (503, mimetype)


def test_unexpected_error_is_logged_where_the_operator_looks(
    app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        app.test_client().get("/broken")
    assert "SecretError: a secret in a traceback" in caplog.text


def test_step_that_was_done_says_so_though_the_page_is_broken(
    client: FlaskClient, service: Service
) -> None:
    service.page_is_broken = True
    response = client.post("/train", headers={"Accept": BROWSER})
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert "trained." in response.text


def test_body_as_large_as_the_limit_is_taken(client: FlaskClient) -> None:
    response = client.post(
        "/message", data=b'{"message":1}'.rjust(LIMIT), content_type="application/json"
    )
    assert response.json == {"message": 1}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"null", b"[" * 900, b"[" * LIMIT], ids=lambda body: str(body[:3])
)
def test_body_that_is_no_json_is_refused(client: FlaskClient, body: bytes) -> None:
    response = client.post("/message", data=body, content_type="application/json")
    assert response.status_code == 400
    assert response.text.startswith("Invalid message: ")


def test_deeply_nested_body_is_refused(app: Flask) -> None:
    app.config["MAX_CONTENT_LENGTH"] = None
    response = app.test_client().post(
        "/message", data=b'{"message":' + b"[" * 100_000, content_type="application/json"
    )
    assert response.status_code == 400
    assert response.text.startswith("Invalid message: maximum recursion depth")


def test_body_of_another_type_is_no_json(client: FlaskClient) -> None:
    assert client.post("/message", data=b"{}", content_type="text/plain").status_code == 400


def test_page_shows_what_the_service_has_to_show(client: FlaskClient) -> None:
    response = client.get("/", headers={"Accept": BROWSER})
    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert "<option>parcel</option>" in response.text
    assert (
        '<p id="notice" role="status" class="bad"></p>' in response.text
    )  # nothing is noted, and so not shown


def test_stylesheet_of_the_page_is_served(client: FlaskClient) -> None:
    named = re.search('href="(/static/style.css[?]v=[0-9a-f]{12})"', client.get("/").text)
    assert named
    response = client.get(named[1])
    assert response.mimetype == "text/css" and "immutable" in response.headers["Cache-Control"]
    assert "immutable" not in client.get("/static/style.css?v=older").headers.get(
        "Cache-Control", ""
    )


def test_health_names_the_service_and_what_it_has_to_tell(client: FlaskClient) -> None:
    assert client.get("/healthz").json == {
        "service": "Test service",
        "status": "ok",
        "version": __version__,
        "topology": "secure",
    }
