"""The messages that a camera's process sends to the web process: a header and so many bytes.

    FRAME   a picture as JPEG, and when it was taken
    REASON  a few words in UTF-8: why there are no more pictures

Time stamps are of the monotonic clock, which the processes of a machine share.
"""

from __future__ import annotations

import os
import selectors
import struct
import time
from typing import IO

FRAME = 1
REASON = 2
_HEADER = struct.Struct(">BdI")  # what it is, when (in seconds), and how many bytes follow
_LARGEST_BYTES = {FRAME: 4 << 20, REASON: 1 << 10}
_PART_BYTES = 1 << 16


class Lost(Exception):
    """There are no more pictures; the text says why, in a few words."""


def send(pipe: int, kind: int, body: bytes) -> None:
    """Write one message to a file descriptor.

    Raises:
        OSError: Nobody reads any more.
    """
    data = memoryview(_HEADER.pack(kind, time.monotonic(), len(body)) + body)
    while data:
        data = data[os.write(pipe, data) :]


class Receiver:
    """Reads messages, each within a time-out, and refuses a length that is too large."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(pipe, selectors.EVENT_READ)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()

    def next(self, patience_s: float) -> tuple[int, float, bytes]:
        """Return the next message.

        Args:
            patience_s: How long to wait for all of it, in seconds.

        Returns:
            FRAME or REASON, the time stamp in seconds, and the body.

        Raises:
            Lost: It did not come in time, or is not valid.
            EOFError: The other end is closed.
        """
        deadline = time.monotonic() + patience_s
        kind, stamp, length = _HEADER.unpack(self._exactly(_HEADER.size, deadline))
        # Before anything of that length is allocated.
        if length > _LARGEST_BYTES.get(kind, -1):
            raise Lost("what its process sends is no picture")
        return kind, stamp, self._exactly(length, deadline)

    def _exactly(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < count:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                raise Lost("it is frozen")
            part = os.read(self._pipe, min(count - len(data), _PART_BYTES))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
