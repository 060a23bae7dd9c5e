"""What a device may say of itself: its address, its detectors, the rounds that it trained.

The gate has verified who speaks before a message gets here; a device speaks for itself alone.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from main_server.context import MainServer
from main_server.store.devices import all_detectors, participations
from shared.errors import InvalidMessage
from shared.protocol.announcement import MAX_DETECTORS
from shared.transport.addresses import permitted


def detectors(server: MainServer) -> tuple[str, ...]:
    """Return every detector that a device takes part in, in alphabetical order."""
    with server.store.read() as connection:
        return all_detectors(connection)


def check_detectors(server: MainServer, device: str, names: set[str]) -> None:
    """Refuse more detectors than one device may take part in, now and before: each costs a model.

    Raises:
        InvalidMessage: They are more.
    """
    with server.store.read() as connection:
        parts = participations(connection)
    before = {part.detector for part in parts if part.device == device}
    if len(before | names) > MAX_DETECTORS:
        raise InvalidMessage(f"A device takes part in {MAX_DETECTORS} detectors at most.")


def checked_address(address: str) -> str:
    """Return where a device says it is, if devices can be there.

    Args:
        address: A `shared.protocol.announcement.Address`.

    Raises:
        InvalidMessage: They cannot.
    """
    if not _is_address(address):
        raise InvalidMessage("A device's address looks like http://host:port.")
    return address.rstrip("/")


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and port != 0 and not _is_nowhere(str(parts.hostname))


def _is_nowhere(host: str) -> bool:
    """Return whether a device can never be there.

    Where a name leads is checked when it is connected to.
    """
    try:
        return not permitted(ip_address(host.partition("%")[0]), ())
    except ValueError:
        return False
