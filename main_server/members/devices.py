"""Devices as the main server knows them: they announce themselves, and hear which rounds are open.

The gate has verified who speaks before a message gets here; a device speaks for itself alone.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from main_server.context import MainServer
from main_server.rounds.rounds import open_round
from main_server.store.records import Device
from shared.errors import InvalidMessage
from shared.protocol.announcement import MAX_DETECTORS, Announcement
from shared.round.plan import RoundPlan
from shared.security.authenticator import Caller
from shared.transport.addresses import permitted


def announce(server: MainServer, caller: Caller, message: Announcement) -> dict[str, RoundPlan]:
    """Note a device, and return the open round of each of its detectors (step 2).

    Args:
        server: The main server.
        caller: Who sent it.
        message: Where it is, and what it trained.

    Raises:
        InvalidMessage: No device can be at its address, or it takes part in too many detectors.
    """
    device = Device(caller.name, checked_address(message.address), server.clock())
    check_detectors(server, caller.name, set(message.detectors))
    server.store.note_device(device, message.detectors)
    return {detector: open_round(server, detector) for detector in message.detectors}


def check_detectors(server: MainServer, device: str, detectors: set[str]) -> None:
    """Refuse more detectors than one device may take part in, now and before: each costs a model.

    Raises:
        InvalidMessage: They are more.
    """
    before = {part.detector for part in server.store.participations() if part.device == device}
    if len(before | detectors) > MAX_DETECTORS:
        raise InvalidMessage(f"A device takes part in {MAX_DETECTORS} detectors at most.")


def checked_address(address: str) -> str:
    """Return where a device says it is, if devices can be there.

    Args:
        address: A `shared.protocol.announcement.Address`.

    Raises:
        InvalidMessage: They cannot.
    """
    try:
        parts = urlsplit(address)
        is_usable = parts.port != 0 and bool(parts.hostname)
        is_valid = is_usable and not _is_nowhere(str(parts.hostname))
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidMessage("A device's address looks like http://host:port.")
    return address.rstrip("/")


def _is_nowhere(host: str) -> bool:
    """Return whether a device can never be there; where a name leads is checked when it is
    connected to.
    """
    try:
        return not permitted(ip_address(host.partition("%")[0]), ())
    except ValueError:
        return False
