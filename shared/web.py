"""The shell of every web app: steps, content negotiation, errors, health. The services add their verbs and pages.

curl gets plain sentences, `Accept: application/json` gets JSON (errors as RFC 9457 problem details), and a browser
gets the service's page with the sentence on top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from shared.errors import DoorbellError, InvalidMessage
from shared.names import checked_name
from shared.steps import Answer

_HERE = Path(__file__).parent
Page = Callable[[], Mapping[str, object]]


def make_app(service: str, templates: Path, page: Page, health: Page, max_body_bytes: int) -> Flask:
    """Make a service's app with what they all have: `/`, `/healthz`, and answers to errors.

    Args:
        service: What it is, for people: "Secure aggregator".
        templates: Folder with the service's `page.html`.
        page: What `page.html` is to show now.
        health: What `/healthz` is to tell beside "ok".
        max_body_bytes: Larger requests are refused before they are read.
    """
    app = Flask(service, root_path=str(templates.parent), static_folder=str(_HERE / "static"))
    app.jinja_loader = jinja2.ChoiceLoader(
        [jinja2.FileSystemLoader(templates), jinja2.FileSystemLoader(_HERE / "templates")]
    )
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    app.config["DOORBELL_PAGE"] = page

    def show_page() -> Response:
        return Response(render_template("page.html", service=service, **page()))

    def show_health() -> Response:
        return jsonify({"service": service, "status": "ok"} | dict(health()))

    app.add_url_rule("/", "page", show_page)
    app.add_url_rule("/healthz", "healthz", show_health)
    app.register_error_handler(DoorbellError, lambda error: _problem(app, error.problem()))
    app.register_error_handler(HTTPException, lambda error: _problem(app, _http_problem(error)))
    app.register_error_handler(Exception, lambda error: _unexpected(app, error))
    return app


def add_step(app: Flask, path: str, verb: Callable[[str | None], Answer]) -> None:
    """Add an operator's step, by GET and POST; `?detector=NAME` picks one detector, and None means all.

    Args:
        app: The service's app.
        path: As the ancestors name it, "/modeltrain".
        verb: Does it and answers.
    """

    def view() -> Response:
        name = request.values.get("detector")
        answer = verb(checked_name(name, "detector") if name else None)
        if answer.ok:
            return _answer(app, answer, {"said": answer.said} | dict(answer.data))
        problem = {"type": "urn:doorbell:problem:step", "title": "The step was not done.", "status": answer.status}
        return _problem(app, problem | {"detail": answer.said} | dict(answer.data))

    app.add_url_rule(path, path.strip("/"), view, methods=["GET", "POST"])


def json_body() -> object:
    """Return the request's JSON.

    Raises:
        InvalidMessage: It has none.
    """
    try:
        message = request.get_json(silent=True)
    except RecursionError:
        message = None
    if message is None:
        raise InvalidMessage("This request carries no JSON.")
    return message


def _answer(app: Flask, answer: Answer, data: Mapping[str, object]) -> Response:
    best = request.accept_mimetypes.best_match(["text/plain", "application/json", "text/html"], default="text/plain")
    if best == "application/json":
        response = jsonify(data)
    elif best == "text/html":
        response = Response(_page_with(app, answer))
    else:
        response = Response(answer.said + "\n", mimetype="text/plain")
    response.status_code = answer.status
    return response


def _page_with(app: Flask, answer: Answer) -> str:
    """Return the service's page with the answer on top; the answer alone where the page itself cannot be made."""
    page: Page = app.config["DOORBELL_PAGE"]
    try:
        return render_template("page.html", service=app.name, notice=answer, **page())
    except Exception:
        app.logger.exception("the page could not be made")
        return render_template("base.html", service=app.name, notice=answer)


def _problem(app: Flask, problem: Mapping[str, Any]) -> Response:
    response = _answer(app, Answer(problem["status"], problem["detail"]), problem)
    if response.mimetype == "application/json":
        response.mimetype = "application/problem+json"
    return response


def _http_problem(error: HTTPException) -> dict[str, object]:
    detail = error.description or error.name
    return {"type": "about:blank", "title": error.name, "status": error.code or 500, "detail": detail}


def _unexpected(app: Flask, error: Exception) -> Response:
    app.logger.exception("a request failed", exc_info=error)
    happened = DoorbellError(
        "Something went wrong that nobody planned for.",
        kept="What was stored before is kept.",
        todo="Try again; the service's log says where it happened.",
    )
    return _problem(app, happened.problem())
