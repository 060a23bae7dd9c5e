"""What the main server answers, read by the aggregator."""

from __future__ import annotations

from typing import TypeVar

from shared.errors import InvalidMessage, PeerUnreachable
from shared.messages import SAME_VERSION, Message
from shared.transport.http_client import Reply

M = TypeVar("M", bound=Message)


def read_answer(reply: Reply, kind: type[M]) -> M:
    """Return the message in an answer of the main server.

    Args:
        reply: The answer; its signature was verified.
        kind: What it must be.

    Raises:
        PeerUnreachable: It is anything else: a device cannot help that, and may try again.
    """
    try:
        return reply.read(kind)
    except InvalidMessage as error:
        raise unexpected(kind, error) from error


def unexpected(kind: type[Message], error: InvalidMessage) -> PeerUnreachable:
    """Return the error for an answer that is not of a kind: the main server is as good as away."""
    happened = f"The main server did not send a {kind.noun}. {error.happened}"
    return PeerUnreachable(happened, todo=SAME_VERSION)
