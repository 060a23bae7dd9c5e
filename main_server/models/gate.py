"""The gate: what devices say of a new version decides whether it stays active.

After installing a version each device reports its accuracy on its own validation pictures. If the
mean, weighted by pictures, over the devices that reported both the version and its parent falls by
more than `max_regression`, the version is rejected and its parent's params are activated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from main_server.context import MainServer
from main_server.members.device_status import is_online
from main_server.models.rollback import made_again
from main_server.store import publication
from main_server.store.devices import all_devices, participations
from main_server.store.evaluations import Score, scores
from main_server.store.pins import find_pins
from main_server.store.records import PASSED, PENDING, REJECTED, UNCHECKED, Version
from main_server.store.versions import find_version, newest_version

# Sums of floats: a regression of exactly the limit passes.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same devices' validation pictures; accuracies are weighted means."""

    before: float
    after: float
    devices: int
    pictures: int

    @classmethod
    def of(cls, parent: Sequence[Score], version: Sequence[Score]) -> Comparison | None:
        """Compare over the devices that reported both.

        Args:
            parent: What devices reported of the version before.
            version: What they reported of the new one.

        Returns:
            The comparison, or None if no device reported both.
        """
        earlier = {score.device: score for score in parent if score.pictures}
        both = [
            (earlier[score.device], score)
            for score in version
            if score.pictures and score.device in earlier
        ]
        if not both:
            return None
        # Both accuracies weigh by the new count: pictures that a device gained meanwhile do not
        # move the difference.
        pictures = sum(score.pictures for _, score in both)
        before = sum(old.accuracy * score.pictures for old, score in both) / pictures
        after = sum(score.accuracy * score.pictures for _, score in both) / pictures
        return cls(before, after, len(both), pictures)

    def __str__(self) -> str:
        devices = f"{self.devices} device{'s' if self.devices > 1 else ''}"
        return (
            f"{self.before:.1%} before, {self.after:.1%} after, "
            f"on {self.pictures} validation pictures of {devices}"
        )


@dataclass(frozen=True)
class Verdict:
    """How the gate of a version closes, and why; `instead` is what a rollback activates."""

    gate: str
    said: str
    instead: Version | None = None


def judge(server: MainServer, version: Version) -> bool:
    """Close the gate of a version if it can be closed now; return whether it is closed."""
    if version.gate != PENDING:
        return True
    now = server.clock()
    with server.store.read() as connection:
        newest = newest_version(connection, version.detector)
        is_pinned = version.detector in find_pins(connection)
        reported = scores(connection, version.version)
        before = scores(connection, version.parent or "")
        parent = find_version(connection, version.parent or "")
        devices = all_devices(connection)
        parts = participations(connection, version.detector)
    if newest is not None and newest.version != version.version:
        said = f"The version of round {newest.round} came before the devices had answered."
        return _close(server, version, Verdict(UNCHECKED, said))
    if is_pinned:
        return _close(server, version, Verdict(UNCHECKED, f"{version.detector} was pinned to it."))
    if version.released_at is None:
        return False
    online = {device.name for device in devices if is_online(device, now)}
    expected = online & {part.device for part in parts}
    missing = expected - {score.device for score in reported}
    # With no device online, one may still come. Either way: the clock may have been set back.
    is_early = abs(now - version.released_at) < server.settings.gate_deadline_s
    if is_early and (missing or not expected):
        return False
    return _close(server, version, _verdict(server, version, parent, before, reported))


def _verdict(
    server: MainServer,
    version: Version,
    parent: Version | None,
    before: Sequence[Score],
    reported: Sequence[Score],
) -> Verdict:
    """Return what becomes of a version; a rejected one gets its parent republished."""
    comparison = Comparison.of(before, reported)
    if parent is None or comparison is None:
        said = "No device reported an accuracy both for it and for the version before."
        return Verdict(UNCHECKED, said)
    regression = comparison.before - comparison.after
    if regression <= server.settings.max_regression + _ROUNDING:
        return Verdict(PASSED, f"{comparison}.")
    why = f"The params of round {parent.round} again: round {version.round} was rejected."
    instead = made_again(server, parent, why)
    active = f"The model of round {parent.round} is active again, as that of {instead.round}."
    return Verdict(REJECTED, f"{comparison}. {active}", instead)


def _close(server: MainServer, version: Version, verdict: Verdict) -> bool:
    """Close the gate and, if need be, roll back, in one transaction that only the first makes."""
    with server.store.write() as connection:
        return publication.judge(
            connection,
            version,
            verdict.gate,
            verdict.said,
            server.clock(),
            verdict.instead,
        )
