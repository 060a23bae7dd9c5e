"""Names that come from outside: their form, checked once at the edge. Every party uses it.

A peer's name is never used as a path unchecked: files are named by the receiver, by a hash or by a
name that passed here.
"""

from __future__ import annotations

import re

from shared.errors import InvalidMessage

MAIN_SERVER = "main-server"
AGGREGATOR = "secure-aggregator"
"""Names of the two servers: in messages, as roles, and as folders."""

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
VERSION = re.compile(r"[0-9a-f]{64}")


def checked_name(value: object, what: str) -> str:
    """Return `value` if it may name a device or a detector.

    Args:
        value: Anything a peer sent.
        what: What it names, for the message: "detector".

    Raises:
        InvalidMessage: It is not 1 to 32 of a-z, 0-9, `_`, `-`, or begins with `_` or `-`.
    """
    if isinstance(value, str) and NAME.fullmatch(value):
        return value
    raise InvalidMessage(
        f"That is not the name of a {what}.",
        todo="A name has 1 to 32 small letters, digits, '_' or '-', "
        "and begins with a letter or a digit.",
    )


def checked_version(value: object) -> str:
    """Return `value` if it is a model version: the SHA-256 of the model's bytes.

    Raises:
        InvalidMessage: It is not 64 hexadecimal digits.
    """
    if isinstance(value, str) and VERSION.fullmatch(value):
        return value
    raise InvalidMessage(
        "That is not a model version.", todo="A version is a SHA-256 in 64 hexadecimal digits."
    )
