"""The gate and the way back: what devices say of a new version decides whether it stays in force.

After installing a version each device reports how often it tells its own validation pictures apart
rightly. If the mean, weighted by pictures, over the devices that reported both the version and its
parent falls by more than
`max_regression`, the version is rejected and its parent's params are in force again. Going back is
a new version with old params and a higher round number, so whoever holds a model can go by one
rule: numbers only grow.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from main_server.context import MainServer
from main_server.members.device_status import is_online
from main_server.models.registry import republish
from main_server.rounds.rounds import check_not_pinned
from main_server.store.records import PASSED, PENDING, REJECTED, UNCHECKED, Version
from main_server.store.runs import RUNNING, STOPPED, Score
from shared.errors import InvalidMessage, NotFound, OutOfOrder
from shared.names import checked_name
from shared.web.steps import Done

_ROUNDING = 1e-9
_BEGINNING = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True)
class Comparison:
    """Two versions on the same devices' validation pictures; accuracies are weighted means."""

    before: float
    after: float
    devices: int
    pictures: int

    @classmethod
    def of(cls, parent: Sequence[Score], version: Sequence[Score]) -> Comparison | None:
        """Compare over the devices that reported both; None if there is none."""
        earlier = {score.device: score for score in parent}
        asked = [score for score in version if score.pictures and score.device in earlier]
        both = [
            (earlier[score.device].accuracy, score)
            for score in asked
            if earlier[score.device].pictures
        ]
        pictures = sum(score.pictures for _, score in both)
        if not pictures:
            return None
        before = sum(accuracy * score.pictures for accuracy, score in both) / pictures
        after = sum(score.accuracy * score.pictures for _, score in both) / pictures
        return cls(before, after, len(both), pictures)

    def __str__(self) -> str:
        return (
            f"{self.before:.1%} before, {self.after:.1%} after, on {self.pictures} validation pictures of "
            f"{self.devices} device{'s' if self.devices > 1 else ''}"
        )


def judge(server: MainServer, version: Version) -> bool:
    """Close the gate of a version if it can be closed now; return whether it is closed."""
    if version.gate != PENDING:
        return True
    now, newest = server.clock(), server.store.newest_version(version.detector)
    if newest is not None and newest.version != version.version:
        said = f"The version of round {newest.round} came before the devices had answered."
        return server.store.judge(version, UNCHECKED, said, now)
    if version.detector in server.store.pins():
        return server.store.judge(version, UNCHECKED, f"{version.detector} was pinned to it.", now)
    scores = server.store.scores(version.version)
    if version.released_at is None or (
        _awaited(server, version, scores, now)
        and abs(now - version.released_at) < server.settings.gate_deadline_s
    ):
        return False
    return server.store.judge(version, *_verdict(server, version, scores))


def roll_back(server: MainServer, version: str) -> Done:
    """Put an earlier version in force again, and give it to the devices.

    Args:
        server: The main server.
        version: Its name, or the beginning of it, at least 6 digits.

    Raises:
        InvalidMessage: That is no beginning of a version's name.
        NotFound: There is no such version, or more than one, or its parameters are not kept any
            more.
        OutOfOrder: It is in force already, or the detector is pinned.
    """
    source = _find(server, version)
    check_not_pinned(server, source.detector)
    return _roll_back(server, source)


def _roll_back(server: MainServer, source: Version) -> Done:
    newest = server.store.newest_version(source.detector)
    if newest is not None and newest.version == source.version:
        raise OutOfOrder(
            f"That version of {source.detector} is in force already.", kept="Nothing was changed."
        )
    if source.architecture != server.settings.architecture:
        raise OutOfOrder(
            f"That version is a {source.architecture}, and this federation learns {server.settings.architecture} now.",
            kept="Nothing was changed.",
            todo=f"Start the main server with DOORBELL_ARCHITECTURE={source.architecture}, then try again.",
        )
    again = _again(server, source, f"The params of round {source.round} again, by the operator.")
    said = f"The {source.detector} model of round {source.round} is in force again, as that of round {again.round}."
    if not server.store.put_in_force(again, server.clock(), said):
        raise OutOfOrder(
            f"A newer {source.detector} model came meanwhile.",
            kept="It is in force.",
            todo="Try again.",
        )
    return Done(said, {"version": again.version, "round": again.round})


def pin(server: MainServer, version: str) -> Done:
    """Keep a detector at one version: rolled back to if need be; no round changes it until it is
    unpinned.

    Raises:
        InvalidMessage, NotFound: There is no such version; see `roll_back`.
    """
    source = _find(server, version)
    newest = server.store.newest_version(source.detector)
    if newest is None or newest.version != source.version:
        _roll_back(server, source)
        newest = server.store.newest_version(source.detector) or source
    now = server.clock()
    server.store.pin(source.detector, newest.version, now)
    server.store.release(newest.version, now)
    for run in server.store.runs():
        if run.detector == source.detector and run.state == RUNNING:
            server.store.move_run(run, STOPPED, f"{source.detector} is pinned.", now)
    said = f"{source.detector} is pinned to the model of round {newest.round}: no round changes it until it is unpinned."
    return Done(said, {"version": newest.version, "round": newest.round})


def unpin(server: MainServer, detector: str) -> Done:
    """Let rounds change a detector's model again.

    Raises:
        OutOfOrder: It is not pinned.
    """
    if checked_name(detector, "detector") not in server.store.pins():
        raise OutOfOrder(f"{detector} is not pinned.", kept="Nothing was changed.")
    server.store.pin(detector, None, server.clock())
    return Done(f"{detector} is not pinned any more: rounds change its model again.")


def _awaited(server: MainServer, version: Version, scores: Sequence[Score], now: float) -> bool:
    """Return whether somebody who is there has not reported yet; with nobody there, somebody may
    still come.
    """
    there = {device.name for device in server.store.devices() if is_online(device, now)}
    expected = there & {part.device for part in server.store.participations(version.detector)}
    return not expected or not expected <= {score.device for score in scores}


def _verdict(
    server: MainServer, version: Version, scores: Sequence[Score]
) -> tuple[str, str, float, Version | None]:
    """Return what becomes of a version, why, when, and what is in force instead."""
    now, parent = server.clock(), server.store.version(version.parent or "")
    comparison = Comparison.of(server.store.scores(version.parent or ""), scores)
    if parent is None or comparison is None:
        return (
            UNCHECKED,
            "No device reported an accuracy both for it and for the version before.",
            now,
            None,
        )
    if comparison.before - comparison.after <= server.settings.max_regression + _ROUNDING:
        return PASSED, f"{comparison}.", now, None
    instead = _again(
        server,
        parent,
        f"The params of round {parent.round} again: round {version.round} was rejected.",
    )
    said = f"{comparison}. The model of round {parent.round} is in force again, as that of {instead.round}."
    return REJECTED, said, now, instead


def _again(server: MainServer, source: Version, said: str) -> Version:
    """Return a new version with the params of an earlier one, newer than every round and version
    there is.
    """
    newest, version = (
        server.store.newest_round(source.detector),
        server.store.newest_version(source.detector),
    )
    number = max((version.round if version else 0) + 1, newest.settings.round if newest else 0)
    return republish(server, source, number, said)


def _find(server: MainServer, version: str) -> Version:
    if not _BEGINNING.fullmatch(version):
        raise InvalidMessage(
            "A version is named by the first of its hexadecimal digits, at least 6.",
            todo="python -m federation models lists them.",
        )
    found = server.store.find_versions(version)
    if len(found) != 1:
        raise NotFound(
            f"{'More than one version begins' if found else 'No version begins'} with {version}.",
            todo="python -m federation models lists them.",
        )
    return found[0]
