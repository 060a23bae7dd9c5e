"""Keeping what devices measured of their own and the global model on their test pictures."""

from __future__ import annotations

from main_server.context import MainServer
from main_server.store.evaluations import note_performance
from main_server.store.versions import find_version
from shared.errors import InvalidMessage, NotFound
from shared.protocol.evaluations import Performance
from shared.security.authenticator import Caller


def keep_evaluation(server: MainServer, caller: Caller, performance: Performance) -> None:
    """Keep what a device measured of its own and the global model.

    Raises:
        InvalidMessage: It is about a version that is not one of that detector's.
        NotFound: The device takes no part in that detector.
    """
    with server.store.write() as connection:
        version = find_version(connection, performance.version)
        if version is None or version.detector != performance.detector:
            raise InvalidMessage(
                f"That is no version of {performance.detector} here.",
                todo="Fetch the newest model, and measure again.",
            )
        is_kept = note_performance(connection, caller.name, performance, server.clock())
    if not is_kept:
        raise NotFound(
            f"{caller.name} does not take part in {performance.detector}.",
            todo="Open /sendstatus on it first.",
        )
