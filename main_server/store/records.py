"""Records of the main server's store: devices, participations, rounds and versions."""

from __future__ import annotations

from dataclasses import dataclass

from main_server.store.states import OPEN
from shared.round.plan import RoundPlan

PENDING, PASSED, REJECTED, UNCHECKED = "pending", "passed", "rejected", "unchecked"


@dataclass(frozen=True)
class Device:
    """A device that announced itself; `last_seen` is seconds since the epoch; `waiting` if it asks
    for work itself.
    """

    name: str
    address: str
    last_seen: float
    waiting: bool = False


@dataclass(frozen=True)
class Participation:
    """One device's part in one detector.

    Attributes:
        device: Its name.
        detector: What it takes part in.
        trained_round: The last round that it trained.
        delivered: The version that it was last given.
        setback_round: The last round in which something went wrong there, and `setback`: what.
    """

    device: str
    detector: str
    trained_round: int | None
    delivered: str | None
    setback_round: int | None = None
    setback: str | None = None


@dataclass(frozen=True)
class Status:
    """What a device says of one detector when it asks for work; `refused` is a version that did not
    answer there.
    """

    trained_round: int | None
    sent_round: int | None
    held: str | None
    score: tuple[str, float, int] | None
    setback: tuple[int, str] | None
    refused: str | None = None


@dataclass(frozen=True)
class Round:
    """One round; all times are seconds since the epoch.

    Attributes:
        plan: What it asks of everybody.
        state: See `states.py`.
        cohort: Who is in it.
        aggregate: Digest of what it was made from.
        clamped: Number of coordinates that did not fit into the value range.
        opened_at: When it was opened.
        asked_at: When a run asked the devices to train for it.
        due_at: From when on it is to be summed, by decision of the run.
        closed_at: When it left the state open.
        bytes_up: What was received while it was the newest: its sum, or plain updates; and
            `bytes_down`: what was given out, in models.
    """

    plan: RoundPlan
    state: str
    cohort: tuple[str, ...] = ()
    aggregate: str | None = None
    clamped: int = 0
    opened_at: float = 0.0
    asked_at: float | None = None
    due_at: float | None = None
    closed_at: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0

    @property
    def is_requested(self) -> bool:
        """Whether it is open, and a run has asked the devices to train for it."""
        return self.state == OPEN and self.asked_at is not None


@dataclass(frozen=True)
class Version:
    """One version of a detector's global model.

    Attributes:
        version: SHA-256 of its container.
        detector: Whose model.
        round: Number of the round that made it, or under which it was put back into force; 0 for
            the first.
        architecture: Name of the architecture.
        manifest: The main server's signed word for it.
        parent: The version that it came of.
        made_at: When, in seconds since the epoch.
        released_at: Since when devices are given it, or None.
        gate: "pending", "passed", "rejected" or "unchecked".
        said: Why.
        forgotten: Whether its parameters are not kept any more.
        accuracy: How often it tells devices' validation pictures apart rightly, the mean weighted
            by pictures; None if no device has said so. It stays when the scores that it is made of
            go.
        state: Digest of the strategy's arrays that belong to it, or None where it has none.
        scored_by: How many devices have, and `scored_pictures`: of how many pictures.
    """

    version: str
    detector: str
    round: int
    architecture: str
    manifest: str
    parent: str | None
    made_at: float
    released_at: float | None = None
    gate: str = UNCHECKED
    said: str = ""
    forgotten: bool = False
    accuracy: float | None = None
    scored_by: int = 0
    scored_pictures: int = 0
    state: str | None = None
