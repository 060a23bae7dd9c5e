"""Going back to an earlier version, and staying at one.

A rollback is a new version with old params and a higher round number, so whoever holds a model
can go by one rule: numbers only grow.
"""

from __future__ import annotations

import re

from main_server.context import MainServer
from main_server.models.registry import republish
from main_server.store.pins import find_pins, remove_pin, set_pin
from main_server.store.publication import activate
from main_server.store.records import Version
from main_server.store.rounds import newest_round
from main_server.store.runs import STOPPED, move_run, running_run
from main_server.store.versions import find_versions, newest_version, release
from shared.errors import InvalidMessage, NotFound, OutOfOrder
from shared.names import checked_name
from shared.web.steps import Done

_PREFIX = re.compile(r"[0-9a-f]{6,64}")


def roll_back(server: MainServer, version: str) -> Done:
    """Activate an earlier version again, and give it to the devices.

    Args:
        server: The main server.
        version: Its name, or the beginning of it, at least 6 digits.

    Raises:
        InvalidMessage: That is no version prefix.
        NotFound: There is no such version, or more than one, or its parameters are not kept any
            more.
        OutOfOrder: It is active already, or the detector is pinned.
    """
    source = _find(server, version)
    check_not_pinned(server, source.detector)
    return _roll_back(server, source)


def pin(server: MainServer, version: str) -> Done:
    """Keep a detector at one version, rolled back to if need be.

    No round changes it until it is unpinned.

    Raises:
        InvalidMessage, NotFound: There is no such version; see `roll_back`.
    """
    source = _find(server, version)
    detector = source.detector
    newest = _newest(server, detector)
    if newest is None or newest.version != source.version:
        _roll_back(server, source)
        newest = _newest(server, detector) or source
    now = server.clock()
    with server.store.write() as connection:
        set_pin(connection, detector, newest.version, now)
        release(connection, newest.version, now)
        run = running_run(connection, detector)
        if run is not None:
            move_run(connection, run, STOPPED, f"{detector} is pinned.", now)
    pinned = f"{detector} is pinned to the model of round {newest.round}"
    said = f"{pinned}: no round changes it until it is unpinned."
    return Done(said, {"version": newest.version, "round": newest.round})


def unpin(server: MainServer, detector: str) -> Done:
    """Let rounds change a detector's model again.

    Raises:
        OutOfOrder: It is not pinned.
    """
    name = checked_name(detector, "detector")
    with server.store.write() as connection:
        if name not in find_pins(connection):
            raise OutOfOrder(f"{name} is not pinned.", kept="Nothing was changed.")
        remove_pin(connection, name, server.clock())
    return Done(f"{name} is not pinned any more: rounds change its model again.")


def check_not_pinned(server: MainServer, detector: str) -> None:
    """Refuse to change the model of a detector that is pinned.

    Raises:
        OutOfOrder: It is.
    """
    with server.store.read() as connection:
        pins = find_pins(connection)
    if detector in pins:
        raise OutOfOrder(
            f"{detector} is pinned to a version, so no round changes its model.",
            kept="What was sent is kept.",
            todo=f"On the main server: python -m federation unpin {detector}; then try again.",
        )


def made_again(server: MainServer, source: Version, said: str) -> Version:
    """Return a new version with the params of an earlier one, newer than all that there are.

    It is kept, but not active yet.

    Args:
        server: The main server.
        source: The earlier version.
        said: Why.

    Raises:
        NotFound: Its parameters are not kept any more.
    """
    with server.store.read() as connection:
        newest = newest_round(connection, source.detector)
        version = newest_version(connection, source.detector)
    last_round = newest.plan.round if newest else 0
    last_version = version.round if version else 0
    # The number of the open round may be used: that round is abandoned in the same transaction.
    return republish(server, source, max(last_version + 1, last_round), said)


def _roll_back(server: MainServer, source: Version) -> Done:
    newest = _newest(server, source.detector)
    if newest is not None and newest.version == source.version:
        active = f"That version of {source.detector} is active already."
        raise OutOfOrder(active, kept="Nothing was changed.")
    if source.architecture != server.settings.architecture:
        raise OutOfOrder(
            f"That version is a {source.architecture}, "
            f"and this federation learns {server.settings.architecture} now.",
            kept="Nothing was changed.",
            todo=f"Start the main server with DOORBELL_ARCHITECTURE={source.architecture}, "
            "then try again.",
        )
    why = f"The params of round {source.round} again, by the operator."
    again = made_again(server, source, why)
    model = f"The {source.detector} model of round {source.round}"
    said = f"{model} is active again, as that of round {again.round}."
    with server.store.write() as connection:
        activated = activate(connection, again, server.clock(), said)
    if not activated:
        raise OutOfOrder(
            f"A newer {source.detector} model came meanwhile.",
            kept="It is active.",
            todo="Try again.",
        )
    return Done(said, {"version": again.version, "round": again.round})


def _newest(server: MainServer, detector: str) -> Version | None:
    with server.store.read() as connection:
        return newest_version(connection, detector)


def _find(server: MainServer, prefix: str) -> Version:
    listed = "python -m federation models lists them."
    if not _PREFIX.fullmatch(prefix):
        raise InvalidMessage("Not a version prefix (at least 6 hex digits).", todo=listed)
    with server.store.read() as connection:
        found = find_versions(connection, prefix)
    if len(found) != 1:
        many = "More than one version begins" if found else "No version begins"
        raise NotFound(f"{many} with {prefix}.", todo=listed)
    return found[0]
