"""Step 2 of a round: a device announces itself, and hears what the open rounds ask of it."""

from __future__ import annotations

from collections.abc import Mapping

from main_server.context import MainServer
from main_server.members.devices import (
    ADDRESS,
    MAX_DETECTORS,
    check_detectors,
    checked_address,
    checked_round_number,
)
from main_server.rounds.opening import open_round
from main_server.store.devices import note_device
from main_server.store.records import Device
from shared.errors import InvalidMessage
from shared.names import checked_name
from shared.round.plan import RoundPlan
from shared.security.authenticator import Caller
from shared.web.openapi import NAME_TEXT, as_json, record, record_of, table

_TRAINED = table({"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1})
STATUS = as_json(record(address=ADDRESS, detectors={**_TRAINED, "maxProperties": MAX_DETECTORS}))
ROUNDS = as_json(record(name=NAME_TEXT, rounds=table(record_of(RoundPlan))))


def announce(server: MainServer, caller: Caller, message: object) -> dict[str, RoundPlan]:
    """Note a device, and return the plan of the open round of each of its detectors.

    Args:
        server: The main server.
        caller: Who sent it.
        message: Decoded JSON: `address`, and `detectors`: name to the last round trained, or null.

    Raises:
        InvalidMessage: The message is anything else.
    """
    detectors = message.get("detectors") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(detectors, Mapping):
        raise InvalidMessage("This is not the status of a device.")
    device = Device(caller.name, checked_address(message.get("address")), server.clock())
    trained = {
        checked_name(name, "detector"): checked_round_number(number)
        for name, number in detectors.items()
    }
    check_detectors(server, caller.name, set(trained))
    with server.store.write() as connection:
        note_device(connection, device, trained)
    return {detector: open_round(server, detector) for detector in trained}
