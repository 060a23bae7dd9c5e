"""Requests from one service to another: time-outs, retries with back-off, typed refusals. Every
party uses it.

Every message of the protocol may be repeated safely, so a request that found nobody, or a server
that was just starting, is sent again. Redirects are not followed. An answer is read as far as one
of this federation can be long, and never unpacked: a peer that floods, dribbles or compresses costs
neither memory nor hours. Signing a request is one function between here and the wire.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
from urllib3.exceptions import HTTPError

from shared.errors import (
    BadSignature,
    DoorbellError,
    Forbidden,
    InvalidMessage,
    NotFound,
    NotSigned,
    OutOfOrder,
    PeerUnreachable,
)
from shared.messages import SAME_VERSION, Message, decode, encode
from shared.protocol.answers import Problem
from shared.round.container import MAX_HEADER_BYTES
from shared.security.identity import Identity
from shared.security.signing import sign_request, verify_response
from shared.telemetry.logs import id_header

M = TypeVar("M", bound=Message)
CONTAINER_TYPE = "application/vnd.doorbell.container"
_REFUSALS: dict[int, type[DoorbellError]] = {
    400: InvalidMessage,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: OutOfOrder,
    503: PeerUnreachable,
    507: PeerUnreachable,  # its disk is full, say
}
_PASSING = {502, 503, 504}
# The longest answer is a model: its header, and 16 M params of 4 bytes.
_MAX_ANSWER_BYTES = MAX_HEADER_BYTES + (64 << 20)
_PATIENCE = 3  # times `timeout_s`, for a whole answer
_PIECE_BYTES = 1 << 16
_MAX_DETAIL_CHARS = 1000
_ASKED = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
}  # what is signed is what is on the wire
_VOUCHED = {*range(200, 300), 400, 404, 409}
"""Answers that the peer must have signed; who refuses a signature has nothing that it could bind
its answer to.
"""


@dataclass(frozen=True)
class Peer:
    """Another service: its name, its address, and its public key (32 bytes) where its answers must
    be signed.
    """

    name: str
    url: str
    public_key: bytes | None = None


@dataclass(frozen=True)
class Reply:
    """A peer's answer: its body, its header fields, and how many body bytes went up and came down."""

    body: bytes
    headers: Mapping[str, str]
    bytes_up: int
    bytes_down: int

    @property
    def json(self) -> Any:
        """The answer as plain values, as a person's tool shows it; None if it is not JSON."""
        try:
            return json.loads(self.body) if _is_json(self.headers) else None
        except (ValueError, RecursionError):
            return None

    def read(self, kind: type[M]) -> M:
        """Return the message in the answer.

        Args:
            kind: What it must be.

        Raises:
            InvalidMessage: It is anything else.
        """
        if not _is_json(self.headers):
            raise InvalidMessage(f"Invalid {kind.noun}: it is not JSON.", todo=SAME_VERSION)
        return decode(kind, self.body)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Talks to the other services over kept-alive connections, signing what it sends.

    Args:
        identity: Who signs; without one, or without a receiver, a request goes out unsigned.
        timeout_s: Seconds to wait for a connection, and for each piece of an answer.
        attempts: How often to try before giving up.
        session: Where requests go; tests may replace it.
        sleep: How to wait between attempts; tests may replace it.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        identity: Identity | None = None,
        timeout_s: float = 60.0,
        attempts: int = 3,
        session: requests.Session | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._identity, self._clock = identity, clock
        self._timeout_s, self._attempts, self._sleep = timeout_s, attempts, sleep
        self._session = session or requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc decides where an update goes

    def get(self, url: str, to: Peer | None = None) -> Reply:
        """GET `url`; raises as `post` does."""
        return self._send("GET", url, b"", {}, to)

    def post_json(self, url: str, message: object, to: Peer | None = None) -> Reply:
        """POST a message, or plain values, as JSON; raises as `post` does."""
        body = encode(message) if isinstance(message, Message) else json.dumps(message).encode()
        return self._send("POST", url, body, {"Content-Type": "application/json"}, to)

    def post(
        self,
        url: str,
        container: bytes,
        to: Peer | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """POST a container.

        Args:
            url: Where.
            container: The body.
            to: For whom the request is signed, and whose key must have signed the answer.
            headers: More header fields.

        Raises:
            InvalidMessage, Forbidden, NotFound, OutOfOrder: The peer refused; its own words are
            kept.
            PeerUnreachable: Nobody answered, or somebody else, or not as a service of ours would.
        """
        return self._send(
            "POST", url, container, {"Content-Type": CONTAINER_TYPE} | (headers or {}), to
        )

    def _send(
        self, method: str, url: str, body: bytes, headers: dict[str, str], to: Peer | None
    ) -> Reply:
        answer, signature = self._attempt(method, url, body, _ASKED | headers, to)
        if to is not None and to.public_key is not None and answer.status in _VOUCHED:
            try:
                verify_response(
                    answer.status, answer.headers, answer.body, signature, to.public_key
                )
            except (NotSigned, BadSignature) as error:
                raise PeerUnreachable(
                    f"{_origin(url)} is not the {to.name} of this federation. {error.happened}",
                    todo=error.todo,
                ) from error
        if not 200 <= answer.status < 300:
            raise _refusal(url, answer)
        return Reply(answer.body, answer.headers, len(body), len(answer.body))

    def _attempt(
        self, method: str, url: str, body: bytes, headers: dict[str, str], to: Peer | None
    ) -> tuple[_Answer, dict[str, str]]:
        """Send until somebody answers; each attempt is signed anew, since a nonce may be spent
        without an answer.
        """
        for attempt in range(1, self._attempts + 1):
            try:
                signature = self._signature(method, url, body, headers, to)
                with self._session.request(
                    method,
                    url,
                    data=body or None,
                    headers=headers | signature | id_header(),
                    timeout=self._timeout_s,
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    answer = _Answer(
                        response.status_code, response.headers, self._read(url, response)
                    )
                if answer.status not in _PASSING or attempt == self._attempts:
                    return answer, signature
            except (
                requests.RequestException,
                HTTPError,
                ValueError,
            ) as error:  # ValueError: a name beyond parsing
                if attempt == self._attempts:
                    raise PeerUnreachable(
                        f"No answer from {_origin(url)}.",
                        todo="Start that service, or mend its address, and try again.",
                    ) from error
            self._sleep(0.1 * 4 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _read(self, url: str, response: requests.Response) -> bytes:
        """Return an answer's body as it is on the wire; how long it is and takes is not the peer's
        to say.
        """
        body, deadline = bytearray(), time.monotonic() + _PATIENCE * self._timeout_s
        bearable = response.headers.get("Content-Encoding", "identity") == "identity"
        while bearable and (part := response.raw.read1(_PIECE_BYTES, decode_content=False)):
            body += part
            bearable = len(body) <= _MAX_ANSWER_BYTES and time.monotonic() <= deadline
        if not bearable:
            raise PeerUnreachable(
                f"{_origin(url)} sends an answer that is packed, too long, or takes too long.",
                todo="Look at that service's log, or mend its address, and try again.",
            )
        return bytes(body)

    def _signature(
        self, method: str, url: str, body: bytes, headers: dict[str, str], to: Peer | None
    ) -> dict[str, str]:
        if self._identity is None or to is None:
            return {}
        as_sent = (
            requests.Request(method, url).prepare().url or url
        )  # requests rewrites some escapes
        return sign_request(method, as_sent, headers, body, self._identity, to.name, self._clock())


def _refusal(url: str, answer: _Answer) -> DoorbellError:
    """Return the error that a peer's refusal stands for, in the peer's own words."""
    try:
        if answer.status in _REFUSALS and _is_json(answer.headers):
            detail = decode(Problem, answer.body).detail
            return _REFUSALS[answer.status](detail[:_MAX_DETAIL_CHARS], kept="")
    except InvalidMessage:
        pass  # it is no service of ours
    return PeerUnreachable(
        f"{_origin(url)} answered {answer.status}, which is not what a service of this federation"
        " says.",
        todo="Look at that service's log, or mend its address, and try again.",
    )


def _is_json(headers: Mapping[str, str]) -> bool:
    kinds = ("application/json", "application/problem+json")
    return headers.get("Content-Type", "").startswith(kinds)


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])
