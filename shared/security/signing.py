"""Signed messages between services: HTTP Message Signatures (RFC 9421) with Ed25519, and
Content-Digest (RFC 9530).

A request is signed over its method, path, query, body and receiver, is good for minutes, and counts
once. The answer is signed over its status, its body and the signature it answers (RFC 9421, section
2.4), so it fits no other question. There is one form and no choice: one signature, labelled
"doorbell", whose every part and parameter is expected here.

The host is not covered, because proxies rename it; the receiver's name in the tag takes its place.
A clock may be off by 300 s, so a request is taken while `created - 300 s <= now <= expires + 300
s`. An answer needs no clock: the nonce in its request makes it fresh. A request that is sent again
must be signed again, for its nonce may be spent although no answer came.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from shared.errors import BadSignature
from shared.security.identity import Identity, fingerprint
from shared.security.signature_form import (
    PARAMETERS,
    Headers,
    check_body,
    malformed,
    own_fields,
    peer_fields,
    sign_form,
    verify_form,
)
from shared.storage.nonces import Spending

PROTOCOL = "doorbell/1"
LIFETIME_S = 300
"""How long a request of ours is good: it may wait for a worker, or be sent again by a proxy."""

MAX_LIFETIME_S = 600
"""How long a peer's may be; its nonce must be kept for so long."""

CLOCK_TOLERANCE_S = 300
"""How far two clocks may differ: a device may not have reached its time server yet."""

_REQUEST = ('"@method"', '"@path"', '"@query"', '"content-digest"')
_ANSWER = (
    '"@status"',
    '"content-digest"',
    '"signature";req;key="doorbell"',
    '"signature-input";req;key="doorbell"',
)
_ORIGIN = "http://doorbell"  # the library wants a whole address; only path and query are covered


@dataclass(frozen=True)
class Receiver:
    """A service that takes signed requests.

    Attributes:
        name: The audience: a request to another service is refused.
        keys: Returns the public key (32 bytes) of a fingerprint, or None for an unknown one.
        nonces: The nonces that were spent.
    """

    name: str
    keys: Callable[[str], bytes | None]
    nonces: Spending


@dataclass(frozen=True)
class Verified:
    """A request whose signature held; nothing else gets a signed answer.

    Attributes:
        key_id: Fingerprint of the key that signed it.
        body: The bytes that were signed.
        body_sha256: Their SHA-256, 32 bytes.
        signature: The fields that its answer is bound to.
    """

    key_id: str
    body: bytes = field(repr=False)
    body_sha256: bytes
    signature: Mapping[str, str]


def sign_request(
    method: str,
    url: str,
    headers: Headers,
    body: bytes,
    identity: Identity,
    audience: str,
    now: float,
) -> dict[str, str]:
    """Sign a request.

    Args:
        method: In capitals.
        url: The whole address, percent-encoded as it goes onto the wire.
        headers: Those it has; Content-Type is covered, and must be among them if there is a body.
        body: Empty for a GET, and digested all the same.
        identity: Who signs.
        audience: The receiver's name.
        now: Seconds since the epoch.

    Returns:
        Content-Digest, Signature-Input and Signature, to be added; `verify_response` wants them
        again.

    Raises:
        ValueError: Such a method, address or Content-Type cannot be signed, or a body has no
            Content-Type.
    """
    # 128 random bits: two requests never have the same nonce.
    nonce = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
    message = SimpleNamespace(method=method, url=url, headers=own_fields(headers, body))
    expires = datetime.fromtimestamp(int(now) + LIFETIME_S, UTC)
    return sign_form(
        message, _REQUEST, identity, now, tag=f"{PROTOCOL} {audience}", expires=expires, nonce=nonce
    )


def verify_request(
    method: str,
    target: str,
    headers: Headers,
    read_body: Callable[[], bytes],
    receiver: Receiver,
    now: float,
) -> Verified:
    """Verify a request; the inverse of `sign_request`.

    What is cheap is checked first, and a stranger's body is not read.

    Args:
        method: As it came.
        target: Path and query as they came, not decoded: "/cmodel?detector=porch".
        headers: As they came.
        read_body: Returns the body; called once the signature held.
        receiver: Whom it should be for.
        now: Seconds since the epoch.

    Raises:
        NotSigned: There is no signature.
        BadSignature: It does not hold; the slug says why.
    """
    fields = peer_fields(headers)
    if not target.startswith("/") or "#" in target:
        raise malformed("its target is not a path")

    def public_key(parameters: Mapping[str, Any]) -> bytes:
        if parameters["tag"] != f"{PROTOCOL} {receiver.name}":
            raise BadSignature(
                "signature-wrong-audience",
                "The request is signed for another service.",
                "See that each address in the settings is that of the service it stands for.",
            )
        _check_clock(parameters["created"], parameters["expires"], now)
        public = receiver.keys(parameters["keyid"])
        if public is None:
            raise BadSignature(
                "signature-unknown-key",
                "The request is signed with an unknown key id.",
                "Let its sender join the federation; if it has joined before, ask the main server's"
                " operator.",
            )
        return public

    message = SimpleNamespace(method=method, url=_ORIGIN + target, headers=fields)
    parameters = verify_form(message, _REQUEST, set(PARAMETERS), public_key)
    body = read_body()
    digest = check_body(body, fields)
    key_id = parameters["keyid"]
    # Last of all, once everything else held: a nonce is not spent by a message that is refused.
    # It is remembered until the message would be too old anyway (RFC 9421, section 7.2.2).
    until = parameters["expires"] + CLOCK_TOLERANCE_S
    if not receiver.nonces.spend(key_id, parameters["nonce"], until, now):
        raise BadSignature(
            "signature-replayed",
            "This request was received before.",
            "Sign it again, then send it again.",
        )
    return Verified(key_id, body, digest, fields)


def sign_response(
    status: int, headers: Headers, body: bytes, request: Verified, identity: Identity, now: float
) -> dict[str, str]:
    """Sign the answer to a request that was verified.

    Args:
        status: HTTP status.
        headers: Those it has; Content-Type is covered, and must be among them if there is a body.
        body: As it goes onto the wire: nothing may compress it afterwards.
        request: What it answers.
        identity: Who answers.
        now: Seconds since the epoch.

    Returns:
        Content-Digest, Signature-Input and Signature, to be added.

    Raises:
        ValueError: Such a Content-Type cannot be signed, or a body has none.
    """
    message = SimpleNamespace(
        status_code=status, headers=own_fields(headers, body), request=_asked(request.signature)
    )
    return sign_form(message, _ANSWER, identity, now, tag=PROTOCOL)


def verify_response(
    status: int, headers: Headers, body: bytes, asked: Mapping[str, str], public: bytes
) -> None:
    """Verify the answer to a request; the inverse of `sign_response`.

    Args:
        status: HTTP status.
        headers: As they came.
        body: As it came, before any decoding.
        asked: What `sign_request` returned for the request.
        public: The public key of the service that was asked, 32 bytes.

    Raises:
        NotSigned: There is no signature. A request whose own signature failed gets such an answer;
            so what it says may come from anybody.
        BadSignature: It does not hold, or answers another request; the slug says why.
    """
    fields = peer_fields(headers)

    def public_key(parameters: Mapping[str, Any]) -> bytes:
        if parameters["tag"] != PROTOCOL:
            raise malformed("its tag is not that of an answer")
        if parameters["keyid"] != fingerprint(public):
            raise BadSignature(
                "signature-wrong-key",
                "The answer is signed with another key than that of the service that was asked.",
                "Fix that service's address; or, if it lost its key, join it anew.",
            )
        return public

    message = SimpleNamespace(status_code=status, headers=fields, request=_asked(asked))
    verify_form(message, _ANSWER, {"created", "keyid", "alg", "tag"}, public_key)
    check_body(body, fields)


def _check_clock(created: int, expires: int, now: float) -> None:
    if not 0 < expires - created <= MAX_LIFETIME_S:
        raise malformed(f"it is not good for 1 to {MAX_LIFETIME_S} s")
    ahead = created - now
    late = now - expires
    todo = "Set both clocks, by NTP say, and send it again."
    if ahead > CLOCK_TOLERANCE_S:
        raise BadSignature(
            "signature-from-the-future",
            f"The clocks differ by {ahead:.0f} s: the sender's is ahead.",
            todo,
        )
    if late > CLOCK_TOLERANCE_S:
        raise BadSignature(
            "signature-expired",
            f"The request expired {late:.0f} s ago: it was held up, or its sender's clock is slow.",
            todo,
        )


def _asked(signed: Mapping[str, str]) -> SimpleNamespace:
    """Return a request as far as its answer covers it: its two signature fields."""
    fields = {
        name: value
        for name, value in signed.items()
        if name.lower() in {"signature", "signature-input"}
    }
    return SimpleNamespace(method="GET", url=_ORIGIN, headers=fields)
