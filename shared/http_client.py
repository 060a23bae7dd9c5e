"""Requests from one service to another: time-outs, retries with back-off, typed refusals. Every party uses it.

Every message of the protocol may be repeated safely, so a request that found nobody, or a server that was just
starting, is sent again. Redirects are not followed. Signing a request is one function between here and the wire.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import requests

from shared.errors import DoorbellError, InvalidMessage, NotFound, OutOfOrder, PeerUnreachable

CONTAINER_TYPE = "application/vnd.doorbell.container"
_REFUSALS: dict[int, type[DoorbellError]] = {400: InvalidMessage, 404: NotFound, 409: OutOfOrder, 503: PeerUnreachable}
_PASSING = {502, 503, 504}


@dataclass(frozen=True)
class Reply:
    """A peer's answer: its body, and how many body bytes went up and came down."""

    body: bytes
    json: Any
    bytes_up: int
    bytes_down: int


class HttpClient:
    """Talks to the other services over kept-alive connections.

    Args:
        timeout_s: Seconds to wait for a connection, and for each piece of an answer.
        attempts: How often to try before giving up.
        session: Where requests go; tests may replace it.
        sleep: How to wait between attempts; tests may replace it.
    """

    def __init__(
        self,
        timeout_s: float = 60.0,
        attempts: int = 3,
        session: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timeout_s, self._attempts, self._sleep = timeout_s, attempts, sleep
        self._session = session or requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc decides where an update goes

    def get(self, url: str) -> Reply:
        """GET `url`; raises as `post` does."""
        return self._send("GET", url, b"", {})

    def post_json(self, url: str, message: object) -> Reply:
        """POST `message` as JSON; raises as `post` does."""
        return self._send("POST", url, json.dumps(message).encode(), {"Content-Type": "application/json"})

    def post(self, url: str, container: bytes) -> Reply:
        """POST a container.

        Raises:
            InvalidMessage, NotFound, OutOfOrder: The peer refused with 400, 404 or 409; its own words are kept.
            PeerUnreachable: Nobody answered, or not as a service of ours would.
        """
        return self._send("POST", url, container, {"Content-Type": CONTAINER_TYPE})

    def _send(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Reply:
        response = self._attempt(method, url, body, {"Accept": "application/json"} | headers)
        is_json = response.headers.get("Content-Type", "").startswith(("application/json", "application/problem+json"))
        try:
            message = response.json() if is_json else None
        except (ValueError, RecursionError):
            message = None
        if 200 <= response.status_code < 300:
            return Reply(response.content, message, len(body), len(response.content))
        raise self._refusal(url, response.status_code, message)

    def _attempt(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> requests.Response:
        for attempt in range(1, self._attempts + 1):
            try:
                response = self._session.request(
                    method, url, data=body or None, headers=headers, timeout=self._timeout_s, allow_redirects=False
                )
                if response.status_code not in _PASSING or attempt == self._attempts:
                    return response
            except (requests.RequestException, ValueError) as error:  # ValueError: a name or Location beyond parsing
                if attempt == self._attempts:
                    raise PeerUnreachable(
                        f"No answer from {_origin(url)}.",
                        todo="Start that service, or mend its address, and try again.",
                    ) from error
            self._sleep(0.1 * 4 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    @staticmethod
    def _refusal(url: str, status: int, message: Any) -> DoorbellError:
        if status in _REFUSALS and isinstance(message, dict) and isinstance(message.get("detail"), str):
            return _REFUSALS[status](message["detail"], kept="")
        return PeerUnreachable(
            f"{_origin(url)} answered {status}, which is not what a service of this federation says.",
            todo="Look at that service's log, or mend its address, and try again.",
        )


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])
