"""The shell of every web app: steps, content negotiation, errors, health.

The services add their verbs and pages.

curl gets plain sentences, `Accept: application/json` gets JSON (errors as RFC 9457 problem
details), and a browser gets the service's page with the sentence on top.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
from flask import Flask, Response, g, jsonify, render_template, request
from gunicorn.http.errors import NoMoreData, ParseException
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed

from shared import __version__
from shared.errors import DoorbellError
from shared.names import checked_name
from shared.settings import LogSettings, OperatorSettings
from shared.telemetry import logs, metrics
from shared.web import instrumentation, openapi
from shared.web import operators as guard
from shared.web.live import render_page
from shared.web.openapi import Operation, declare
from shared.web.steps import Answer

_HERE = Path(__file__).parent
_STATIC_VERSION = hashlib.sha256(
    b"".join(path.read_bytes() for path in sorted((_HERE / "static").iterdir()))
).hexdigest()[:12]
Page = Callable[[], Mapping[str, object]]

_HEADERS = {
    # Nothing from elsewhere, and no script but our own files (W3C CSP level 3).
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    # With no-referrer, browsers send `Origin: null` when a page of ours posts its own form (WHATWG
    # Fetch).
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def make_app(
    service: str,
    templates: Path,
    page: Page,
    health: Page,
    max_body_bytes: int,
    operators: OperatorSettings | None = None,
    gauges: metrics.Gauges = tuple,
) -> Flask:
    """Make a service's app with what all have: page, health, description, errors, operator's guard.

    Args:
        service: What it is, for people: "Secure aggregator".
        templates: Folder with the service's `page.html`.
        page: What `page.html` is to show now.
        health: What `/healthz` is to tell beside "ok".
        max_body_bytes: Larger requests are refused before they are read.
        operators: Who may press its buttons; None reads the environment.
        gauges: What the service's database tells `/metrics`.
    """
    app = Flask(service, root_path=str(templates.parent), static_folder=str(_HERE / "static"))
    app.jinja_loader = jinja2.ChoiceLoader(
        [jinja2.FileSystemLoader(templates), jinja2.FileSystemLoader(_HERE / "templates")]
    )
    app.jinja_env.filters["clock"] = lambda seconds: time.strftime(
        "%Y-%m-%d %H:%M:%S", time.localtime(seconds)
    )
    app.jinja_env.globals["static_version"] = _STATIC_VERSION
    app.config["MAX_CONTENT_LENGTH"] = max_body_bytes
    logs.set_up(service, LogSettings.read().form)
    instrumentation.install(app)
    app.config["DOORBELL_PAGE"] = page
    app.config["DOORBELL_NAV"] = [
        ("/", "Overview")
    ]  # path and words of each page; who adds a page adds to it

    def show_page() -> Response:
        return Response(render_page(app, "page.html", page))

    def show_health() -> Response:
        return jsonify(
            {"service": service, "status": "ok", "version": __version__} | dict(health())
        )

    def show_metrics() -> Response:
        return Response(metrics.expose(gauges), content_type=metrics.CONTENT_TYPE)

    operators = operators or OperatorSettings.read()

    def show_description() -> Response:
        has_token = operators.token is not None
        return jsonify(
            openapi.describe(service, app.url_map.iter_rules(), app.extensions, has_token)
        )

    app.add_url_rule("/", "page", show_page)
    app.add_url_rule("/healthz", "healthz", show_health)
    app.add_url_rule("/metrics", "metrics", show_metrics)
    app.add_url_rule("/openapi.json", "openapi", show_description)
    declare(app.extensions, "page", GET=openapi.PAGE)
    declare(app.extensions, "healthz", GET=openapi.HEALTH)
    declare(app.extensions, "metrics", GET=openapi.METRICS)
    declare(app.extensions, "openapi", GET=openapi.ITSELF)
    declare(app.extensions, "static", GET=openapi.STATIC)
    guard.install(app, operators)
    app.after_request(_protect)
    app.register_error_handler(guard.Refused, lambda error: _refused(app, error))
    app.register_error_handler(DoorbellError, lambda error: _problem(app, error.problem()))
    app.register_error_handler(HTTPException, lambda error: _http_problem(app, error))
    for malformed in (
        ParseException,
        NoMoreData,
    ):  # gunicorn's, where a body is read: it is in chunks that are none
        app.register_error_handler(malformed, lambda _: _http_problem(app, BadRequest()))
    app.register_error_handler(Exception, lambda error: _unexpected(app, error))
    return app


def add_step(
    app: Flask,
    path: str,
    verb: Callable[[str | None], Answer],
    summary: str = "",
    fails: tuple[int, ...] = (),
    takes: tuple[openapi.Schema, ...] = (openapi.PICK,),
    answer: openapi.Content = openapi.STEP,
) -> None:
    """Add an operator's step, by GET and POST; `?detector=NAME` picks one detector, and None means
    all.

    Args:
        app: The service's app.
        path: As the ancestors name it, "/modeltrain".
        verb: Does it and answers.
        summary: What it does, one sentence.
        fails: Statuses of its problems, beside 400 and 409.
        takes: Its parameters, in the query or a posted form.
        answer: What its answer contains.
    """

    def view() -> Response:
        if request.method == "HEAD":  # who asks for headers alone does not mean to train
            raise MethodNotAllowed(["GET", "POST"])
        picked = [
            checked_name(name, "detector") for name in request.values.getlist("detector") if name
        ]
        answer = verb(picked[0] if picked else None)
        if answer.ok:
            return _answer(app, answer, {"said": answer.said} | dict(answer.data))
        problem = {
            "type": "urn:doorbell:problem:step",
            "title": "The step was not done.",
            "status": answer.status,
        }
        return _problem(app, problem | {"detail": answer.said} | dict(answer.data))

    app.add_url_rule(path, path.strip("/"), view, methods=["GET", "POST"])
    step = Operation(summary, {}, answer, (400, 409, *fails), "operator", takes)
    declare(
        app.extensions, path.strip("/"), GET=step, POST=replace(step, body=openapi.form(*takes))
    )


def add_message(
    app: Flask,
    rule: str,
    view: Callable[..., Response],
    methods: Sequence[str] = ("POST",),
    operation: Operation | None = None,
) -> None:
    """Add the address of a message between services: it is no operator's, so the operators' guard
    lets it pass.

    Args:
        app: The service's app.
        rule: As Flask writes it, "/model/<version>".
        view: Answers; its name must be unique in the app.
        methods: HTTP methods.
        operation: What it does; without one it is not described.
    """
    app.extensions.setdefault(guard.MESSAGES, set()).add(view.__name__)
    if operation is not None:
        declare(app.extensions, view.__name__, **dict.fromkeys(methods, operation))
    app.add_url_rule(rule, view.__name__, view, methods=methods)


def _answer(app: Flask, answer: Answer, data: Mapping[str, object]) -> Response:
    kinds = ["text/plain", "application/json", "text/html", "application/problem+json"]
    best = request.accept_mimetypes.best_match(kinds, default="text/plain")
    if best in ("application/json", "application/problem+json"):
        response = jsonify(data)
    elif best == "text/html":
        response = Response(_page_with(app, answer))
    else:
        response = Response(answer.said + "\n", mimetype="text/plain")
    response.status_code = answer.status
    return response


def _page_with(app: Flask, answer: Answer) -> str:
    """Return the service's page with the answer on top, or the answer alone.

    Alone for who is not the operator, and where making the page fails too.
    """
    if "operator" not in g:
        return render_template(g.get("template", "base.html"), service=app.name, notice=answer)
    page: Page = app.config["DOORBELL_PAGE"]
    try:
        return render_page(app, "page.html", page, notice=answer)
    except Exception:
        app.logger.exception("the page could not be made")
        return render_page(app, "base.html", dict, notice=answer)


def _problem(app: Flask, problem: Mapping[str, Any]) -> Response:
    slug = str(problem["type"]).removeprefix("urn:doorbell:problem:")
    metrics.count_refusal(slug if slug != "about:blank" else f"http-{problem['status']}")
    response = _answer(app, Answer(problem["status"], problem["detail"]), problem)
    if response.mimetype == "application/json":
        response.mimetype = "application/problem+json"
    return response


def _refused(app: Flask, error: guard.Refused) -> Response:
    g.template = error.template
    response = _problem(app, error.problem())
    response.headers.update(error.headers)
    return response


def _http_problem(app: Flask, error: HTTPException) -> Response:
    detail = error.description or error.name
    problem = {
        "type": "about:blank",
        "title": error.name,
        "status": error.code or 500,
        "detail": detail,
    }
    response = _problem(app, problem)
    # Such as Allow, which a 405 must have (RFC 9110, section 15.5.6).
    own = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    response.headers.update(own)
    return response


def _unexpected(app: Flask, error: Exception) -> Response:
    app.logger.exception("a request failed", exc_info=error)
    happened = DoorbellError(
        "Unexpected error; the log has a traceback.",
        kept="What was stored before is kept.",
        todo="Try again.",
    )
    return _problem(app, happened.problem())


def _protect(response: Response) -> Response:
    """Set the headers that every answer has."""
    response.headers.update(_HEADERS)
    # Static files carry a digest of all of them in their address; all else may change any time.
    if request.endpoint != "static" or response.status_code >= 400:
        response.headers["Cache-Control"] = "no-store"
    elif request.args.get("v") == _STATIC_VERSION:
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    if request.is_secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    return response
