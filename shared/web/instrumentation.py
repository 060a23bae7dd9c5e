"""What is noted of every request: the id that it goes by, figures for Prometheus, and a line in the
log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response, g, request

from shared.telemetry.logs import HEADER, checked_id, request_id, under
from shared.telemetry.metrics import count_request, time_request

_QUIET = {"healthz", "live", "metrics", "openapi", "page", "static"}
_log = logging.getLogger(__name__)


def install(app: Flask) -> None:
    """Note every request to `app`; what is installed later happens within.

    A view with nothing to tell, such as a long poll in vain, sets `g.quiet`; `g.member` is who
    signed a message.
    """
    inner = app.wsgi_app

    def with_id(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with under(checked_id(environ.get("HTTP_X_REQUEST_ID"))):
            return inner(environ, start_response)

    app.wsgi_app = with_id  # type: ignore[method-assign]
    app.before_request(_begin)
    app.after_request(_note)


def _begin() -> None:
    g.begun = time.monotonic()


def _note(response: Response) -> Response:
    seconds, endpoint, status = time.monotonic() - g.begun, request.endpoint, response.status_code
    taken = request.content_length or 0 if request.method == "POST" and status < 400 else 0
    given = (
        response.content_length
        or (0 if response.is_streamed else response.calculate_content_length())
        or 0
    )
    count_request(endpoint, request.method, status, taken, 0 if request.method == "HEAD" else given)
    if response.mimetype != "text/event-stream":
        time_request(endpoint, seconds)
    response.headers[HEADER] = request_id()
    if status >= 400 or not (endpoint in _QUIET or g.get("quiet", False)):
        who = g.get("member") or ("operator" if "operator" in g else "nobody")
        path = (
            request.path if endpoint else "an unknown address"
        )  # what somebody typed may be a secret
        said = {
            "method": request.method,
            "path": path,
            "status": status,
            "ms": round(1000 * seconds),
            "who": who,
        }
        _log.info("%(method)s %(path)s %(status)s in %(ms)s ms, by %(who)s", said, extra=said)
    return response
