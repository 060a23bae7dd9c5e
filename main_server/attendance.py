"""Who is there, who is late, who is failing, and why: for the page, the command line and the runs."""

from __future__ import annotations

from dataclasses import dataclass

from main_server.context import MainServer
from main_server.records import Device, Participation, Round
from main_server.rounds import asked_rounds

ONLINE_S = 75.0
"""A device that waits for work calls at least every half minute; two calls may be lost before it counts as offline."""


@dataclass(frozen=True)
class Attendance:
    """One device as an operator wants to see it.

    Attributes:
        device: Its name.
        state: "online", "offline", "by hand" (it does not wait for work), "training", "sent", "late" or "failing".
        why: One sentence.
        last_seen: Seconds since the epoch.
    """

    device: str
    state: str
    why: str
    last_seen: float


def is_online(device: Device, now: float) -> bool:
    """Return whether a device waits for work, and did so a moment ago."""
    return device.waiting and abs(now - device.last_seen) <= ONLINE_S  # either way: the clock may have been set back


def attendance(server: MainServer) -> tuple[Attendance, ...]:
    """Return every device that announced itself, by name."""
    now, parts = server.clock(), server.store.participations()
    asked = {name: (each, server.store.sent(each.settings)) for name, each in asked_rounds(server).items()}
    found = []
    for device in server.store.devices():
        mine = [
            (part, *asked[part.detector]) for part in parts if part.device == device.name and part.detector in asked
        ]
        state, why = _in_rounds(device, mine, now) or _otherwise(device, bool(mine), now)
        found.append(Attendance(device.name, state, why, device.last_seen))
    return tuple(found)


def _in_rounds(
    device: Device, mine: list[tuple[Participation, Round, dict[str, float]]], now: float
) -> tuple[str, str] | None:
    """Return what a device does in the rounds that wait for it, each with what was sent; None if none does."""
    for part, current, _ in mine:
        if part.setback_round == current.settings.round:
            return "failing", f"{part.detector}, round {part.setback_round}: {part.setback}"
    missing = [(part.detector, current, sent) for part, current, sent in mine if device.name not in sent]
    for detector, current, sent in missing:
        if current.due_at is not None or len(sent) >= current.settings.min_cohort:
            away = "" if is_online(device, now) else f"; it was last heard of {_ago(now - device.last_seen)}"
            number, count = current.settings.round, len(sent)
            return "late", f"{detector}: round {number} has {count} updates, and none of this device{away}."
    if missing and is_online(device, now):
        return "training", ", ".join(f"{detector}, round {each.settings.round}" for detector, each, _ in missing) + "."
    return None


def _otherwise(device: Device, sent: bool, now: float) -> tuple[str, str]:
    heard = f"ast heard of {_ago(now - device.last_seen)}."
    if not device.waiting:
        return "by hand", f"It does not wait for work; l{heard}"
    if not is_online(device, now):
        return "offline", f"L{heard}"
    return ("sent", "Its updates are sent.") if sent else ("online", "It waits for work.")


def _ago(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if abs(seconds) >= 2 * length:
            return f"{abs(seconds) / length:.0f} {unit}s ago"
    return f"{abs(seconds):.0f} seconds ago"
