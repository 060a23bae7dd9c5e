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
        happened = f"The main server did not send a {kind.noun}. {error.happened}"
        raise PeerUnreachable(happened, todo=SAME_VERSION) from error
