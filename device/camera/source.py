"""A camera's source as it may be shown: it may be a URL that holds a password."""

from __future__ import annotations

import re


def redacted(source: str) -> str:
    """Return a camera's source without user, password, and anything after a plain path."""
    scheme, found, rest = source.partition("://")
    if not found:
        return source
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    if "@" in path:  # of a password with a slash, or of a query: where the host is, is unknown
        return f"{scheme}://…"
    host = authority.rpartition("@")[2]
    plain = re.match(r"[\w./~-]*", path, re.ASCII)
    return f"{scheme}://{host}{plain.group() if plain else ''}"
