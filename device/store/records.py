"""The rows that the device's repositories give and take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GlobalModel:
    """A version of a detector's global model.

    Attributes:
        detector: The detector.
        version: The model, 64 hexadecimal digits.
        round: The round that made it.
    """

    detector: str
    version: str
    round: int


@dataclass(frozen=True)
class Score:
    """How a version did on the validation pictures here.

    Attributes:
        version: The model.
        detector: Its detector.
        round: The round that made it.
        accuracy: From 0 to 1; None if it was not measured.
        pictures: Number of validation pictures.
        said: Why it was not measured, else None.
        threshold: The lowest score with a positive verdict; None if none was chosen.
    """

    version: str
    detector: str
    round: int
    accuracy: float | None
    pictures: int
    said: str | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Failure:
    """The last failure of a detector.

    Attributes:
        detector: The detector.
        round: The round that it was for.
        said: What failed, one or more sentences.
    """

    detector: str
    round: int
    said: str


@dataclass(frozen=True)
class ScheduledTraining:
    """The last training that the schedule asked for.

    Attributes:
        detector: The detector.
        day: The last day on which the time of day asked for one, "2026-05-09", or empty.
        pictures: Number of training pictures when it, or a training after it, was begun.
        after: While it is not done: id of the newest training when it was begun; else None.
    """

    detector: str
    day: str
    pictures: int
    after: int | None


@dataclass(frozen=True)
class Evaluation:
    """The last comparison of a detector's local and global model on the test split.

    Attributes:
        detector: The detector.
        local_model: Digest of the local model's container.
        trained_round: The round that the local model was trained for.
        version: The global model.
        global_round: The round that made the global model.
        report: Digest of the figures, JSON; see `device.evaluation.metrics.report`.
        plot: Digest of the plot, PNG; empty until somebody looked at it.
        measured_at: Seconds since the epoch.
        told: 1 once the main server has the figures, else 0.
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
        detector: The detector.
        round: The round that it was for.
        base_version: The global model that it began with.
        local_model: Digest of the trained model's container.
        plot: Digest of the plot, PNG; empty until somebody looked at it.
        weight: Number of training pictures that were used.
        history: Per epoch: loss, accuracy, val_loss, val_accuracy, seconds.
        finished_at: Seconds since the epoch.
        update: Digest of the update made of it, if one was made.
        sent: 1 once the update was accepted, else 0.
        pictures: Number of picture files in the training split.
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
