"""Messages between parties as bodies of HTTP requests and answers."""

from __future__ import annotations

from typing import TypeVar

from flask import Response, request

from shared.errors import InvalidMessage
from shared.messages import Message, decode, encode

M = TypeVar("M", bound=Message)


def read_body(kind: type[M]) -> M:
    """Return the message that the request carries.

    Args:
        kind: What it must be.

    Raises:
        InvalidMessage: It is anything else.
    """
    if not request.is_json:
        raise InvalidMessage("This request carries no JSON.")
    return decode(kind, request.get_data())


def answer_with(message: Message) -> Response:
    """Return the response that carries a message."""
    return Response(encode(message), mimetype="application/json")
