"""The status of each device, and why: for the page, the command line and the runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from main_server.context import MainServer
from main_server.store.changes import change_token
from main_server.store.records import Device, Participation, Round
from main_server.store.snapshot import Snapshot, read_snapshot

ONLINE_S = 75.0
"""A device that waits for work calls at least every half minute: two calls may be lost before it
counts as offline.
"""

STATES = ("failing", "late", "offline", "training", "sent", "online", "by hand")
"""What a device can be, the worst first."""


@dataclass(frozen=True)
class DeviceStatus:
    """One device as an operator wants to see it.

    Attributes:
        device: Its name.
        state: One of `STATES`; "by hand": it does not wait for work.
        why: One sentence.
        last_seen: Seconds since the epoch.
        address: Where it says that it is.
    """

    device: str
    state: str
    why: str
    last_seen: float
    address: str


def is_online(device: Device, now: float) -> bool:
    """Return whether a device waits for work, and did so a moment ago."""
    # Either way: the clock may have been set back.
    return device.waiting and abs(now - device.last_seen) <= ONLINE_S


def device_statuses(
    server: MainServer, snapshot: Snapshot | None = None
) -> tuple[DeviceStatus, ...]:
    """Return the status of every device that announced itself, by name.

    Args:
        server: The main server.
        snapshot: The state of the federation, if it was read already.
    """
    now = server.clock()
    if snapshot is None:
        with server.store.read() as connection:
            snapshot = read_snapshot(connection)
    waiting_for = defaultdict(list)
    requested = snapshot.requested_rounds
    for part in snapshot.parts:
        if part.detector in requested:
            sent = snapshot.sent.get(part.detector, {})
            waiting_for[part.device].append((part, requested[part.detector], sent))
    found = []
    for device in snapshot.devices:
        mine = waiting_for[device.name]
        state, why = _in_rounds(device, mine, now) or _otherwise(device, bool(mine), now)
        found.append(DeviceStatus(device.name, state, why, device.last_seen, device.address))
    return tuple(found)


def page_token(server: MainServer) -> str:
    """Return text that is another one when a page should show something else."""
    with server.store.read() as connection:
        return change_token(connection, server.clock() - ONLINE_S)


def _in_rounds(
    device: Device, mine: list[tuple[Participation, Round, Mapping[str, float]]], now: float
) -> tuple[str, str] | None:
    """Return the state of a device that requested rounds wait for, and why.

    Args:
        device: The device.
        mine: Its part in each requested round, the round, and when each device sent its update.
        now: Seconds since the epoch.

    Returns:
        None if no round waits for it.
    """
    for part, current, _ in mine:
        if part.setback_round == current.plan.round:
            return "failing", f"{part.detector}, round {part.setback_round}: {part.setback}"
    missing = [
        (part.detector, current, sent) for part, current, sent in mine if device.name not in sent
    ]
    for detector, current, sent in missing:
        if current.due_at is not None or len(sent) >= current.plan.min_cohort:
            return "late", _why_late(device, detector, current, len(sent), now)
    if missing and is_online(device, now):
        names = [f"{detector}, round {each.plan.round}" for detector, each, _ in missing]
        return "training", ", ".join(names) + "."
    return None


def _why_late(device: Device, detector: str, current: Round, sent: int, now: float) -> str:
    why = f"{detector}: round {current.plan.round} has {sent} updates, and none of this device"
    if is_online(device, now):
        return f"{why}."
    return f"{why}; last seen {_ago(now - device.last_seen)}."


def _otherwise(device: Device, sent: bool, now: float) -> tuple[str, str]:
    seen = f"ast seen {_ago(now - device.last_seen)}."
    if not device.waiting:
        return "by hand", f"It does not wait for work; l{seen}"
    if not is_online(device, now):
        return "offline", f"L{seen}"
    return ("sent", "Its updates are sent.") if sent else ("online", "It waits for work.")


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if abs(seconds) >= 2 * length:
            return f"{abs(seconds) / length:.0f} {unit}s ago"
    return f"{abs(seconds):.0f} seconds ago"
