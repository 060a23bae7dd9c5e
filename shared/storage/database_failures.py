"""The errors of SQLite and PostgreSQL, as the messages that a person reads."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, TimeoutError

from shared.errors import StorageFailed, StorageUnavailable

_BUSY = ("is busy.", "Try again in a moment.")
_GONE = ("does not answer.", "Start it, or fix DATABASE_URL; then try again.")
_CLOSED = ("cannot be written.", "Let this service's user write there, then try again.")
_DAMAGED = ("is damaged.", "Stop the service, and restore a backup: python -m federation restore.")
_FULL = ("is full, or its disk is.", "Free some space there, then try again.")
_MESSAGES: dict[int | str, tuple[str, str]] = {
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _CLOSED,
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened.",
        "Let this service's user own its folder, then try again.",
    ),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written: the disk reports an error.",
        "Look at the disk.",
    ),
    # PostgreSQL's errors, and classes of them
    "08": _GONE,
    "3D": _GONE,
    "57": _GONE,
    "53": _FULL,
    "25006": _CLOSED,
    "42501": _CLOSED,
    "55P03": _BUSY,
    "40P01": _BUSY,
    "40001": _BUSY,  # waited too long for a lock; a deadlock; changed meanwhile
    "58": ("cannot be read or written: its disk fails.", "Look at the disk."),
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}


def storage_failure(what: str, error: Exception) -> StorageFailed | None:
    """Return the message for a failure of the database itself; None for a mistake of ours.

    Args:
        what: How the database is named in messages.
        error: What sqlite3 or SQLAlchemy raised.
    """
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    state = getattr(cause, "sqlstate", None) or ""
    # SQLite's low byte is the primary result code; PostgreSQL's first two characters the class.
    keys = [code & 0xFF] if code else [state, state[:2]]
    message = next((_MESSAGES[key] for key in keys if key in _MESSAGES), None)
    no_answer = (
        not code
        and not state
        and "OperationalError" in {kind.__name__ for kind in type(cause).__mro__}
    )
    if no_answer or getattr(error, "connection_invalidated", False):
        message = _GONE
    elif isinstance(error, TimeoutError):  # all connections are in use
        message = _BUSY
    if message is None:
        return None
    kind = StorageUnavailable if message in (_GONE, _BUSY) else StorageFailed
    return kind(f"{what} {message[0]}", kept="What was stored before is kept.", todo=message[1])
