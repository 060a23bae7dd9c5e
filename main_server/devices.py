"""Devices as the main server knows them: they announce themselves, and hear which rounds are open.

Enrolment and signatures are checked before a message gets here; this module trusts the name it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from main_server.context import MainServer
from main_server.rounds import open_round
from main_server.store import Device
from shared.errors import InvalidMessage
from shared.names import checked_name
from shared.round_settings import RoundSettings

MAX_DETECTORS = 64


def announce(server: MainServer, message: object) -> dict[str, RoundSettings]:
    """Note a device, and return the open round of each of its detectors (step 2).

    Args:
        server: The main server.
        message: Decoded JSON: `device`, `address`, and `detectors`: name to the last round trained, or null.

    Raises:
        InvalidMessage: The message is anything else.
    """
    if not isinstance(message, Mapping) or not isinstance(detectors := message.get("detectors"), Mapping):
        raise InvalidMessage("This is not the status of a device.")
    if len(detectors) > MAX_DETECTORS:
        raise InvalidMessage(f"A device takes part in {MAX_DETECTORS} detectors at most.")
    device = Device(checked_name(message.get("device"), "device"), _address(message.get("address")), server.clock())
    trained = {checked_name(name, "detector"): _round_number(number) for name, number in detectors.items()}
    server.store.note_device(device, trained)
    return {detector: open_round(server, detector) for detector in trained}


def _address(value: object) -> str:
    try:
        parts = urlsplit(value) if isinstance(value, str) and len(value) <= 256 else None
        valid = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        valid = valid and parts is not None and not parts.query and not parts.fragment
    except ValueError:
        valid = False
    if not valid or not isinstance(value, str):
        raise InvalidMessage("A device's address looks like http://host:port.")
    return value.rstrip("/")


def _round_number(value: object) -> int | None:
    if value is None or (type(value) is int and 0 < value < 2**31):
        return value
    raise InvalidMessage("A device's last trained round is a whole number, or null.")
