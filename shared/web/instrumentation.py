"""What is noted of every request: an id, metrics for Prometheus, and a line in the log."""

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
    seconds = time.monotonic() - g.begun
    endpoint = request.endpoint
    count_request(
        endpoint, request.method, response.status_code, _taken(response), _given(response)
    )
    # A stream of events lasts as long as a page is open: that is no time of an answer.
    if response.mimetype != "text/event-stream":
        time_request(endpoint, seconds)
    response.headers[HEADER] = request_id()
    is_quiet = endpoint in _QUIET or g.get("quiet", False)
    if response.status_code >= 400 or not is_quiet:
        _log_request(response.status_code, seconds)
    return response


def _taken(response: Response) -> int:
    """Return how many bytes of a body were taken; what was refused was not."""
    if request.method != "POST" or response.status_code >= 400:
        return 0
    return request.content_length or 0


def _given(response: Response) -> int:
    """Return how many bytes of a body are answered; of a stream nobody knows."""
    if request.method == "HEAD" or (response.is_streamed and not response.content_length):
        return 0
    return response.content_length or response.calculate_content_length() or 0


def _log_request(status: int, seconds: float) -> None:
    said = {
        "method": request.method,
        # What somebody typed for an address may be a secret.
        "path": request.path if request.endpoint else "an unknown address",
        "status": status,
        "ms": round(1000 * seconds),
        "who": g.get("member") or ("operator" if "operator" in g else "nobody"),
    }
    _log.info("%(method)s %(path)s %(status)s in %(ms)s ms, by %(who)s", said, extra=said)
