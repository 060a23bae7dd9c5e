"""The rows of a device's memory, as `store.py` keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """A version of a detector's global model that the device has; `round` made it."""

    detector: str
    version: str
    round: int


@dataclass(frozen=True)
class Score:
    """What a version answered on the validation pictures here.

    Attributes:
        version: Which.
        detector: Whose.
        round: Which made it.
        accuracy: From 0 to 1; None if it was not measured.
        pictures: On so many pictures.
        said: Why it was not measured, else None.
        threshold: From which score on its verdict is yes; None if none was chosen.
    """

    version: str
    detector: str
    round: int
    accuracy: float | None
    pictures: int
    said: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Setback:
    """The last thing that went wrong with a detector, and the round it was for."""

    detector: str
    round: int
    said: str


@dataclass(frozen=True)
class Errand:
    """The last training by the schedule.

    Attributes:
        detector: Whose.
        day: The last day on which a set time was kept, "2026-05-09", or empty.
        pictures: Number of training pictures when it, or a training after it, was begun.
        after: While it is not done: the id of the newest training when it was begun; else None.
    """

    detector: str
    day: str
    pictures: int
    after: int | None


@dataclass(frozen=True)
class Measurement:
    """The last comparison of a detector's local and global model on the test split.

    Attributes:
        detector: Whose models.
        local_model: Digest of the local model's container.
        trained_round: The local model was trained for this round.
        version: Of the global model.
        global_round: The global model is that of this round.
        report: Digest of what was found, JSON; see `device.evaluation.metrics.report`.
        plot: Digest of the plot, PNG; empty until somebody looked at it.
        measured_at: Seconds since the epoch.
        told: 1 once the main server has the numbers, else 0.
    """

    detector: str
    local_model: str
    trained_round: int
    version: str
    global_round: int
    report: str
    plot: str
    measured_at: float
    told: int = 0


@dataclass(frozen=True)
class Training:
    """One finished training.

    Attributes:
        id: Grows with time.
        detector: Whose model.
        round: For which round.
        base_version: From which global model.
        local_model: Digest of the trained model's container.
        plot: Digest of the plot, PNG; empty until somebody looked at it.
        weight: Number of training pictures.
        history: Per epoch: loss, accuracy, val_loss, val_accuracy, seconds.
        finished_at: Seconds since the epoch.
        update: Digest of the update made of it, if one was made.
        sent: 1 once the update was accepted, else 0.
        pictures: Number of picture files that the device had, training split.
    """

    id: int
    detector: str
    round: int
    base_version: str
    local_model: str
    plot: str
    weight: int
    history: list[dict[str, float]]
    finished_at: float
    update: str | None
    sent: int
    pictures: int
