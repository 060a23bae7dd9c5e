"""Requests from one service to another: time-outs, retries with back-off, typed refusals.

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
_PASSING = {502, 503, 504}  # a proxy's or a starting server's: worth another attempt
# The longest answer is a model: its header, and 16 M params of 4 bytes.
_MAX_ANSWER_BYTES = MAX_HEADER_BYTES + (64 << 20)
_PATIENCE = 3  # times `timeout_s`, for a whole answer
_PIECE_BYTES = 1 << 16
_MAX_DETAIL_CHARS = 1000
_LOOK_THERE = "Look at that service's log, or fix its address, and try again."
# Not compressed: what is signed is what is on the wire.
_ASKED = {"Accept": "application/json", "Accept-Encoding": "identity"}
_VOUCHED = {*range(200, 300), 400, 404, 409}
"""Statuses of answers that the peer must have signed.

A peer that refuses a request's signature (401, 403) has nothing to bind its answer to.
"""


@dataclass(frozen=True)
class Peer:
    """Another service.

    Attributes:
        name: What the federation calls it: the audience of requests.
        url: Its address.
        public_key: Its Ed25519 key, 32 bytes, or None if its answers need not be signed.
    """

    name: str
    url: str
    public_key: bytes | None = None


@dataclass(frozen=True)
class Reply:
    """A peer's answer.

    Attributes:
        body: Its body.
        headers: Its header fields.
        bytes_up: Length of the request's body, in bytes.
        bytes_down: Length of the answer's body, in bytes.
    """

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
        self._identity = identity
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._sleep = sleep
        self._clock = clock
        self._session = session or requests.Session()
        # No proxy and no .netrc of the environment decides where an update goes.
        self._session.trust_env = False

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
            InvalidMessage, Forbidden, NotFound, OutOfOrder: The peer refused, in its own words.
            PeerUnreachable: There is no answer, or one that is not this peer's.
        """
        fields = {"Content-Type": CONTAINER_TYPE} | (headers or {})
        return self._send("POST", url, container, fields, to)

    def _send(
        self, method: str, url: str, body: bytes, headers: dict[str, str], to: Peer | None
    ) -> Reply:
        answer, signature = self._attempt(method, url, body, _ASKED | headers, to)
        # Before a word of it is believed: a refusal too may come from somebody in between.
        if to is not None and to.public_key is not None and answer.status in _VOUCHED:
            _verify(url, answer, signature, to.name, to.public_key)
        if not 200 <= answer.status < 300:
            raise _refusal(url, answer)
        return Reply(answer.body, answer.headers, len(body), len(answer.body))

    def _attempt(
        self, method: str, url: str, body: bytes, headers: dict[str, str], to: Peer | None
    ) -> tuple[_Answer, dict[str, str]]:
        """Send until there is an answer; return it with the signature that it is bound to.

        Each attempt is signed anew: its nonce may be spent although no answer came.
        """
        for attempt in range(1, self._attempts + 1):
            is_last = attempt == self._attempts
            try:
                signature = self._signature(method, url, body, headers, to)
                answer = self._exchange(method, url, body, headers | signature)
                if answer.status not in _PASSING or is_last:
                    return answer, signature
            # ValueError: a host's name that cannot be parsed.
            except (requests.RequestException, HTTPError, ValueError) as error:
                if is_last:
                    raise PeerUnreachable(
                        f"No answer from {_origin(url)}.",
                        todo="Start that service, or fix its address, and try again.",
                    ) from error
            self._sleep(0.1 * 4 ** (attempt - 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _exchange(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> _Answer:
        """Send one request, and read its answer as it comes."""
        with self._session.request(
            method,
            url,
            data=body or None,
            headers=headers | id_header(),
            timeout=self._timeout_s,
            # A redirect would send an update to an address of a peer's choice.
            allow_redirects=False,
            stream=True,
        ) as response:
            return _Answer(response.status_code, response.headers, self._read(url, response))

    def _read(self, url: str, response: requests.Response) -> bytes:
        """Return an answer's body as it is on the wire, within bounds that are not the peer's."""
        body = bytearray()
        # The session's time-out is for each piece: a peer that dribbles would never reach it.
        deadline = time.monotonic() + _PATIENCE * self._timeout_s
        is_usable = response.headers.get("Content-Encoding", "identity") == "identity"
        while is_usable:
            part = response.raw.read1(_PIECE_BYTES, decode_content=False)
            if not part:
                return bytes(body)
            body += part
            is_usable = len(body) <= _MAX_ANSWER_BYTES and time.monotonic() <= deadline
        raise PeerUnreachable(
            f"The answer of {_origin(url)} is compressed, too long or too slow.",
            todo=_LOOK_THERE,
        )

    def _signature(
        self, method: str, url: str, body: bytes, headers: dict[str, str], to: Peer | None
    ) -> dict[str, str]:
        if self._identity is None or to is None:
            return {}
        # As it goes onto the wire: requests rewrites some escapes.
        as_sent = requests.Request(method, url).prepare().url or url
        return sign_request(method, as_sent, headers, body, self._identity, to.name, self._clock())


def _verify(
    url: str, answer: _Answer, asked: Mapping[str, str], name: str, public_key: bytes
) -> None:
    """Refuse an answer that a peer has not signed for just this request."""
    try:
        verify_response(answer.status, answer.headers, answer.body, asked, public_key)
    except (NotSigned, BadSignature) as error:
        raise PeerUnreachable(
            f"{_origin(url)} is not the {name} of this federation. {error.happened}",
            todo=error.todo,
        ) from error


def _refusal(url: str, answer: _Answer) -> DoorbellError:
    """Return the error that a peer's refusal stands for, in the peer's own words."""
    try:
        if answer.status in _REFUSALS and _is_json(answer.headers):
            detail = decode(Problem, answer.body).detail
            return _REFUSALS[answer.status](detail[:_MAX_DETAIL_CHARS], kept="")
    except InvalidMessage:
        pass  # not a service of ours
    return PeerUnreachable(
        f"{_origin(url)} answered {answer.status}, unlike a service of this federation.",
        todo=_LOOK_THERE,
    )


def _is_json(headers: Mapping[str, str]) -> bool:
    kinds = ("application/json", "application/problem+json")
    return headers.get("Content-Type", "").startswith(kinds)


def _origin(url: str) -> str:
    return "/".join(url.split("/")[:3])
