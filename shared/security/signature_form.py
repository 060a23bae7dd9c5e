"""The one form of a signature: what RFC 9421 and RFC 9530 leave open is decided here.

`shared/security/signing.py` says what is signed for whom; this module writes and reads it, and the
library does the rest.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, cast

import cryptography.exceptions
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier
from http_message_signatures.algorithms import ED25519
from http_message_signatures.exceptions import HTTPMessageSignaturesException

from shared.errors import BadSignature, NotSigned
from shared.security.identity import Identity

LABEL = "doorbell"
MAX_FIELD_CHARS = 1024
_FIELDS = {"signature-input", "signature", "content-digest", "content-type"}
PARAMETERS: dict[str, re.Pattern[str] | None] = {
    "created": None,
    "expires": None,
    "nonce": re.compile(r"[A-Za-z0-9_-]{22}"),
    "keyid": re.compile(r"[0-9a-f]{32}"),
    "alg": re.compile("ed25519"),
    "tag": re.compile(r"[ -~]+"),
}
SAME_VERSION = (
    "Bring both services to the same version, and see that no proxy between them changes messages."
)


class Headers(Protocol):
    """Header fields of a message, as Flask, requests and a plain dict hold them.

    A repeated field may come twice.
    """

    def items(self) -> Iterable[tuple[str, str]]:
        """Return the fields' names and values."""


def sign_form(
    message: Any, covered: tuple[str, ...], identity: Identity, now: float, **parameters: Any
) -> dict[str, str]:
    """Sign a message, and return the header fields to add.

    Args:
        message: As the library takes it.
        covered: The components that the signature covers, in this order.
        identity: Who signs.
        now: Seconds since the epoch.
        parameters: More parameters of the signature.

    Raises:
        ValueError: The message cannot be signed.
    """
    fields: dict[str, str] = message.headers
    signer = HTTPMessageSigner(signature_algorithm=ED25519)
    try:
        prepared = signer.prepare(
            message,
            key_id=identity.key_id,
            created=datetime.fromtimestamp(int(now), UTC),
            label=LABEL,
            covered_component_ids=_with_content_type(covered, fields),
            use_existing_digest=True,
            **parameters,
        )
        signer.apply(message, prepared, identity.sign(prepared.signature_base))
    except (HTTPMessageSignaturesException, ValueError) as error:
        raise ValueError(f"this message cannot be signed: {error}") from error
    return {name: value for name, value in fields.items() if name != "content-type"}


class _Verifier(HTTPMessageVerifier):  # type: ignore[misc]  # the library's types are not checked here
    """The library's verifier, with `admit` in place of its choices and its clock.

    `admit` takes the covered components and the parameters, and returns the signer's key.
    """

    def __init__(self, admit: Callable[[tuple[str, ...], dict[str, Any]], bytes]) -> None:
        super().__init__(signature_algorithm=ED25519, key_resolver=self)
        self._admit = admit

    def validate_created_and_expires(self, sig_input: Any, max_age: object = None) -> None:
        """Called by the library first of all, and outside of what it catches."""
        self._public = self._admit(tuple(map(str, sig_input)), dict(sig_input.params))

    def resolve_public_key(self, _key_id: str) -> Ed25519PublicKey:
        """Return the key that `admit` found."""
        return Ed25519PublicKey.from_public_bytes(self._public)


def verify_form(
    message: Any,
    covered: tuple[str, ...],
    names: set[str],
    public_key: Callable[[Mapping[str, Any]], bytes],
) -> dict[str, Any]:
    """Verify a message's signature in the one form that it may have.

    Args:
        message: As the library takes it.
        covered: The components that must be covered, in this order.
        names: The parameters that it must have.
        public_key: Returns the signer's key, 32 bytes, or refuses the parameters.

    Returns:
        The signature's parameters.

    Raises:
        BadSignature: It does not hold; the slug says why.
    """
    expected = _with_content_type(covered, message.headers)

    def admit(found: tuple[str, ...], parameters: dict[str, Any]) -> bytes:
        _check_form(found, parameters, expected, names)
        return public_key(parameters)

    try:
        (result,) = _Verifier(admit).verify(message)
    except HTTPMessageSignaturesException as error:
        if isinstance(error.__cause__, cryptography.exceptions.InvalidSignature):
            raise BadSignature(
                "signature-invalid",
                "The message is not the one that was signed, or not by the key that it names.",
                "Send it again; if it stays so, look for a proxy that changes messages.",
            ) from error
        raise malformed("it is not written as RFC 9421 says") from error
    return cast(dict[str, Any], result.parameters)


def _check_form(
    found: tuple[str, ...],
    parameters: Mapping[str, Any],
    expected: tuple[str, ...],
    names: set[str],
) -> None:
    """Refuse a signature that covers other components, or has other parameters, than expected."""
    uncovered = [part for part in expected if part not in found]
    missing = uncovered + sorted(names - parameters.keys())
    if missing:
        happened = f"The signature does not cover {missing[0]}."
        raise BadSignature("signature-incomplete", happened, SAME_VERSION)
    # No choice for the signer: what is covered besides, or in another order, is another form.
    if found != expected or parameters.keys() != names:
        raise malformed("it covers other things than ours, or in another order")
    for name, value in parameters.items():
        if not _is_usable(PARAMETERS[name], value):
            raise malformed(f"unexpected signature parameter {name}")


def _is_usable(pattern: re.Pattern[str] | None, value: object) -> bool:
    if pattern is None:
        return type(value) is int  # a bool is none
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def own_fields(headers: Headers, body: bytes) -> dict[str, str]:
    """Return what is covered of a message of our own."""
    fields = {
        name.lower(): value for name, value in headers.items() if name.lower() == "content-type"
    }
    if body and not fields:
        raise ValueError("a message with a body needs a Content-Type")
    return fields | {"Content-Digest": _content_digest(hashlib.sha256(body).digest())}


def peer_fields(headers: Headers) -> dict[str, str]:
    """Return what may be covered of a peer's message: each field once, and short."""
    fields: dict[str, str] = {}
    for name, value in headers.items():
        known = name.lower()
        if known not in _FIELDS:
            continue
        # Twice the same field would leave open which of them was signed.
        if known in fields or len(value) > MAX_FIELD_CHARS:
            raise malformed(f"the field {known} comes twice or is too long")
        fields[known] = value.strip(" ")
    if not {"signature", "signature-input"} <= fields.keys():
        raise NotSigned(
            "The message is not signed.", todo="Let a service of this federation send it."
        )
    if not fields["signature-input"].startswith(f"{LABEL}="):
        raise malformed(f"its label is not {LABEL}")
    if "content-digest" not in fields:
        raise BadSignature(
            "signature-incomplete", "The message has no Content-Digest.", SAME_VERSION
        )
    return fields


def check_body(body: bytes, fields: Mapping[str, str]) -> bytes:
    """Return the SHA-256 of a body, 32 bytes, if it is the one that was signed (RFC 9530)."""
    if body and "content-type" not in fields:
        raise BadSignature(
            "signature-incomplete", "The message has a body and no Content-Type.", SAME_VERSION
        )
    digest = hashlib.sha256(body).digest()
    if fields["content-digest"] != _content_digest(digest):
        raise BadSignature(
            "digest-mismatch", "The body is not the one that was signed.", "Send it again."
        )
    return digest


def _content_digest(sha256: bytes) -> str:
    """Return the field's value (RFC 9530, section 2)."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def _with_content_type(covered: tuple[str, ...], fields: Mapping[str, str]) -> tuple[str, ...]:
    return (*covered, '"content-type"') if "content-type" in fields else covered


def malformed(why: str) -> BadSignature:
    """Return the error for a signature that is not in the form of this module."""
    return BadSignature(
        "signature-malformed",
        f"The signature is not in this federation's form: {why}.",
        SAME_VERSION,
    )
