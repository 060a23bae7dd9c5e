"""Who is there, who is late, who is failing, and why: for the page, the command line and the runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from main_server.context import MainServer
from main_server.rounds.rounds import asked_rounds
from main_server.store.records import Device, Participation, Round
from main_server.store.snapshot import Standing

ONLINE_S = 75.0
"""A device that waits for work calls at least every half minute; two calls may be lost before it
counts as offline.
"""


STATES = ("failing", "late", "offline", "training", "sent", "online", "by hand")
"""What a device can be, the worst first."""


@dataclass(frozen=True)
class Attendance:
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
    return (
        device.waiting and abs(now - device.last_seen) <= ONLINE_S
    )  # either way: the clock may have been set back


def attendance(server: MainServer, standing: Standing | None = None) -> tuple[Attendance, ...]:
    """Return every device that announced itself, by name; `standing` is how things stand, if that
    is known already.
    """
    now, standing = server.clock(), standing or server.store.standing()
    rounds = asked_rounds((run for run, _ in standing.runs.values()), standing.newest_round)
    asked = {name: (each, standing.sent.get(name, {})) for name, each in rounds.items()}
    parts = defaultdict(list)
    for part in standing.parts:
        if part.detector in asked:
            parts[part.device].append((part, *asked[part.detector]))
    found = []
    for device in standing.devices:
        mine = parts[device.name]
        state, why = _in_rounds(device, mine, now) or _otherwise(device, bool(mine), now)
        found.append(Attendance(device.name, state, why, device.last_seen, device.address))
    return tuple(found)


def fingerprint(server: MainServer) -> str:
    """Return text that is another one when a page should show something else."""
    return server.store.fingerprint(server.clock() - ONLINE_S)


def _in_rounds(
    device: Device, mine: list[tuple[Participation, Round, Mapping[str, float]]], now: float
) -> tuple[str, str] | None:
    """Return what a device does in the rounds that wait for it, each with what was sent; None if
    none does.
    """
    for part, current, _ in mine:
        if part.setback_round == current.settings.round:
            return "failing", f"{part.detector}, round {part.setback_round}: {part.setback}"
    missing = [
        (part.detector, current, sent) for part, current, sent in mine if device.name not in sent
    ]
    for detector, current, sent in missing:
        if current.due_at is not None or len(sent) >= current.settings.min_cohort:
            away = (
                ""
                if is_online(device, now)
                else f"; it was last heard of {_ago(now - device.last_seen)}"
            )
            number, count = current.settings.round, len(sent)
            return (
                "late",
                f"{detector}: round {number} has {count} updates, and none of this device{away}.",
            )
    if missing and is_online(device, now):
        return "training", ", ".join(
            f"{detector}, round {each.settings.round}" for detector, each, _ in missing
        ) + "."
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
