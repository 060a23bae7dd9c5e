"""Devices as the main server knows them: they announce themselves, and hear which rounds are open.

The gate has verified who speaks before a message gets here; a device speaks for itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from main_server.context import MainServer
from main_server.rounds.rounds import open_round
from main_server.store.records import Device
from shared.errors import InvalidMessage
from shared.names import checked_name
from shared.round.plan import RoundPlan
from shared.security.authenticator import Caller
from shared.transport.addresses import permitted
from shared.web.openapi import NAME_TEXT, as_json, record, record_of, table, text

MAX_DETECTORS = 64
_ADDRESS = re.compile(r'https?://[!"$->A-\[\]-~]{1,248}')
"""Without `?` and `#`, behind which the path of a message would be lost, and without `@`: no
password travels.
"""
_TRAINED = table({"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1})
ADDRESS = text(_ADDRESS.pattern)
STATUS = as_json(record(address=ADDRESS, detectors={**_TRAINED, "maxProperties": MAX_DETECTORS}))
ROUNDS = as_json(record(name=NAME_TEXT, rounds=table(record_of(RoundPlan))))


def announce(server: MainServer, caller: Caller, message: object) -> dict[str, RoundPlan]:
    """Note a device, and return the open round of each of its detectors (step 2).

    Args:
        server: The main server.
        caller: Who sent it.
        message: Decoded JSON: `address`, and `detectors`: name to the last round trained, or null.

    Raises:
        InvalidMessage: The message is anything else.
    """
    if not isinstance(message, Mapping) or not isinstance(
        detectors := message.get("detectors"), Mapping
    ):
        raise InvalidMessage("This is not the status of a device.")
    device = Device(caller.name, checked_address(message.get("address")), server.clock())
    trained = {
        checked_name(name, "detector"): checked_round_number(number)
        for name, number in detectors.items()
    }
    check_detectors(server, caller.name, set(trained))
    server.store.note_device(device, trained)
    return {detector: open_round(server, detector) for detector in trained}


def check_detectors(server: MainServer, device: str, detectors: set[str]) -> None:
    """Refuse more detectors than one device may take part in, now and before: each costs a model.

    Raises:
        InvalidMessage: They are more.
    """
    before = {part.detector for part in server.store.participations() if part.device == device}
    if len(before | detectors) > MAX_DETECTORS:
        raise InvalidMessage(f"A device takes part in {MAX_DETECTORS} detectors at most.")


def checked_address(value: object) -> str:
    """Return where a device says it is, if devices can be there.

    Raises:
        InvalidMessage: They cannot.
    """
    try:
        parts = urlsplit(value) if isinstance(value, str) and _ADDRESS.fullmatch(value) else None
        valid = (
            parts is not None
            and parts.port != 0
            and bool(parts.hostname)
            and not _is_nowhere(str(parts.hostname))
        )
    except ValueError:
        valid = False
    if not valid or not isinstance(value, str):
        raise InvalidMessage("A device's address looks like http://host:port.")
    return value.rstrip("/")


def _is_nowhere(host: str) -> bool:
    """Return whether a device can never be there; where a name leads is checked when it is
    connected to.
    """
    try:
        return not permitted(ip_address(host.partition("%")[0]), ())
    except ValueError:
        return False


def checked_round_number(value: object) -> int | None:
    """Return `value` if it is the number of a round, or null.

    Raises:
        InvalidMessage: It is not.
    """
    if value is None or (type(value) is int and 0 < value < 2**31):
        return value
    raise InvalidMessage("A device's last trained round is a whole number, or null.")
