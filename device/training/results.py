"""What the training child answers, and how far it is: the results of `device.training.jobs`."""

from __future__ import annotations

from typing import Any

import msgspec


class Epoch(msgspec.Struct, frozen=True):
    """What one pass over the training pictures came to; losses in nats, accuracies from 0 to 1."""

    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


class Progress(msgspec.Struct, frozen=True):
    """Where a training is.

    Attributes:
        epoch: Number of the epoch, from 1.
        epochs: How many there are.
        batch: Number of the batch, from 1.
        batches: How many an epoch has.
        loss: Mean over this epoch so far, in nats.
        accuracy: The same, from 0 to 1.
        history: The epochs that are done.
        seconds_left: A guess from the pace so far.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    accuracy: float
    history: tuple[Epoch, ...] = ()
    seconds_left: float = 0.0


class Trained(msgspec.Struct, frozen=True):
    """What a training came to.

    Attributes:
        weight: Number of training pictures.
        history: One entry for each epoch.
        left_out: Reason to how many picture files could not be used.
        repeated: Test pictures that are trained on as well: "train/a/1.jpg = test/a/7.jpg".
    """

    weight: int
    history: tuple[Epoch, ...]
    left_out: dict[str, int]
    repeated: tuple[str, ...]


class Score(msgspec.Struct, frozen=True):
    """How a model did on a split.

    Attributes:
        pictures: On so many pictures.
        accuracy: From 0 to 1, at a threshold of 0.5.
        threshold: What was chosen for its verdicts; None if nothing was asked or could be chosen.
    """

    pictures: int
    accuracy: float
    threshold: float | None = None


class Metrics(msgspec.Struct, frozen=True):
    """The metrics of one model on a split, at a threshold of 0.5.

    `confusion` is [[true negatives, false positives], [false negatives, true positives]];
    `roc_auc` is None where one class is missing.
    """

    pictures: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    roc_auc: float | None
    confusion: list[list[int]]


class Scores(msgspec.Struct, frozen=True):
    """Model name to its score."""

    models: dict[str, Score]


class Comparison(msgspec.Struct, frozen=True):
    """Two models side by side.

    Attributes:
        models: "local" and "global" to their metrics.
        report: As `device.evaluation.metrics.report` makes it; mistakes name their files.
    """

    models: dict[str, Metrics]
    report: dict[str, Any]


class Exported(msgspec.Struct, frozen=True):
    """What a written Keras file answers for the pictures that came with the job; else nothing."""

    scores: tuple[float, ...] = ()


class Ready(msgspec.Struct, frozen=True):
    """What rings need is on this machine."""
