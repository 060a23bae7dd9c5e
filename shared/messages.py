"""How a message between parties is declared: a frozen struct, which is its parser, its limits and
its schema. Every party uses it.

The messages themselves stand in `shared/protocol/` and, for a round, in `shared/round/plan.py`. The
sender builds one and encodes it; the receiver decodes it or refuses it in a sentence.
"""

from __future__ import annotations

import base64
import re
from typing import Annotated, Any, ClassVar, Final, TypeVar

import msgspec
from msgspec import Meta

from shared.errors import InvalidMessage
from shared.names import NAME, VERSION

MAX_NUMBER: Final = 2**31 - 1
"""Largest number of a round, and of anything counted: the databases keep 32 bits."""

SAME_VERSION: Final = "Run the same version of every service."
_MAX_REASON_CHARS = 200
_FORM = re.compile(r"matching regex '\^\(\?:(?P<form>.*)\)\\+Z'", re.DOTALL)
_PLACE = re.compile(r"(?P<why>.*) - at (?P<place>.*)", re.DOTALL)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one party sends to another; each kind declares its members, types and bounds.

    Attributes:
        noun: What an error calls a message of this kind.
    """

    noun: ClassVar[str] = "message"

    def to_json(self) -> dict[str, Any]:
        """Return the message as JSON's own types: bytes in base64, no structs."""
        members: dict[str, Any] = msgspec.to_builtins(self)
        return members


M = TypeVar("M", bound=Message)


def decode(kind: type[M], data: bytes) -> M:
    """Return the message in JSON bytes; the inverse of `encode`.

    Args:
        kind: What it must be.
        data: As it came from a peer.

    Raises:
        InvalidMessage: It is not JSON, or a member is missing, unknown, of the wrong type or out of
            range.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    # Bytes that are not UTF-8 are a ValueError; nesting beyond the stack a RecursionError.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _invalid(kind, error) from error


def convert(kind: type[M], value: object) -> M:
    """Return the message in decoded JSON, such as a row of a database holds; raises as `decode`."""
    try:
        return msgspec.convert(value, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _invalid(kind, error) from error


def encode(message: Message) -> bytes:
    """Return a message in JSON, as it travels; the inverse of `decode`."""
    return msgspec.json.encode(message)


def matching(pattern: str) -> Meta:
    """Return the bound of a string that matches `pattern` as a whole."""
    # Python's `$` lets a line end pass, and ECMA-262, which JSON Schema uses, has no `\\Z`.
    return Meta(pattern=rf"^(?:{pattern})\Z", extra_json_schema={"pattern": f"^(?:{pattern})$"})


def sized(size: int) -> Meta:
    """Return the bound of exactly `size` bytes, which travel in base64."""
    digits, equals, more = base64.b64encode(bytes(size)).decode().partition("=")
    form = f"^[A-Za-z0-9+/]{{{len(digits)}}}{equals}{more}$"
    return Meta(min_length=size, max_length=size, extra_json_schema={"pattern": form})


Name = Annotated[str, matching(NAME.pattern)]
"""The name of a device, a detector, an architecture or a federation."""

Version = Annotated[str, matching(VERSION.pattern)]
"""A model's version: the SHA-256 of its container, 64 hexadecimal digits."""

RoundNumber = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
Count = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
Key = Annotated[bytes, sized(32)]
"""A public Ed25519 key, or an HMAC-SHA256."""

Signature = Annotated[bytes, sized(64)]
"""An Ed25519 signature."""


def _invalid(kind: type[Message], error: Exception) -> InvalidMessage:
    """Return the refusal of what is not a message of `kind`, with the library's reason."""
    why = _FORM.sub(r"of the form \g<form>", str(error))
    found = _PLACE.fullmatch(why)
    if found is not None:
        place = found["place"].replace("`", "").replace("$.", "")
        why = f"{place.replace('$', 'the message')}: {found['why']}"
    # Names of unknown members are the peer's own words.
    shown = "".join(char for char in why[:_MAX_REASON_CHARS] if char.isprintable())
    return InvalidMessage(f"Invalid {kind.noun}: {shown}.", todo=SAME_VERSION)
