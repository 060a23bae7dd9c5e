"""Step 2 of a round: a device announces itself, and hears what the open rounds ask of it."""

from __future__ import annotations

from main_server.context import MainServer
from main_server.members.devices import check_detectors, checked_address
from main_server.rounds.opening import open_round
from main_server.store.devices import note_device
from main_server.store.records import Device
from shared.protocol.announcement import Announcement
from shared.round.plan import RoundPlan
from shared.security.authenticator import Caller


def announce(server: MainServer, caller: Caller, message: Announcement) -> dict[str, RoundPlan]:
    """Note a device, and return the plan of the open round of each of its detectors.

    Args:
        server: The main server.
        caller: Who sent it.
        message: Where it is, and what it trained.

    Raises:
        InvalidMessage: No device can be at its address, or it takes part in too many detectors.
    """
    device = Device(caller.name, checked_address(message.address), server.clock())
    check_detectors(server, caller.name, set(message.detectors))
    with server.store.write() as connection:
        note_device(connection, device, message.detectors)
    return {detector: open_round(server, detector) for detector in message.detectors}
