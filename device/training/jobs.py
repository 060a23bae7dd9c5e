"""What the training child is asked to do, and what it answers: one declaration per job.

A device's web process makes a job, `device/training/worker_client.py` sends it, and
`device/training/worker.py` does it. Both sides read and write the same declarations, so a field
that one of them lacks is an error before any work begins. On the wire a job is one line of JSON,
whose
`do` names its type.

Nothing here imports a machine-learning framework.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from device.settings import DeviceSettings
from device.training.results import Comparison, Exported, Progress, Ready, Scores, Trained
from shared.round.plan import LocalWork

R = TypeVar("R")


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """Where pictures are, and where what is derived from them is kept.

    Attributes:
        data: The data set: `<detector>/<client>/<split>/<class>/`.
        cache: The device's own folder for decoded pictures and features.
        machine_cache: Exported networks, shared by every device on the machine.
    """

    data: Path
    cache: Path
    machine_cache: Path


def folders_of(settings: DeviceSettings) -> Folders:
    """Return the folders that a device's jobs work with."""
    return Folders(
        data=settings.data,
        cache=settings.folder / "pictures-cache",
        machine_cache=settings.cache,
    )


# --- jobs


class Job(msgspec.Struct, Generic[R], frozen=True, kw_only=True, tag_field="do"):
    """What every job says.

    Attributes:
        detector: Whose model it is about.
        folders: Where pictures and caches are.
        result: What the child answers.
        is_short: Whether another job may wait for the end of this one.
    """

    result: ClassVar[Any]
    is_short: ClassVar[bool] = True

    detector: str
    folders: Folders

    @property
    def title(self) -> str:
        """What the child is doing, in words."""
        raise NotImplementedError

    @property
    def beginning(self) -> str:
        """The same, while there is no progress to show yet."""
        return self.title


class _ReadsPictures(Job[R], Generic[R], frozen=True, kw_only=True):
    """A job that begins by reading a split."""

    @property
    def beginning(self) -> str:
        """What it is doing at first."""
        return f"{self.title}, reading the pictures"


class Train(_ReadsPictures[Trained], frozen=True, kw_only=True, tag="train"):
    """Train a model on the pictures of one client.

    Attributes:
        client: Whose pictures.
        model: The container to start from.
        round: For which round.
        base_version: Version of that container.
        work: Epochs, batch size and learning rate.
        seed: Decides the order of the pictures and their augmentation.
        local_model: The trained model is written here.
    """

    result = Trained
    is_short = False

    client: str
    model: Path
    round: int
    base_version: str
    work: LocalWork
    seed: int
    local_model: Path

    @property
    def title(self) -> str:
        """What the child is doing, in words."""
        return f"training {self.detector}"


class Measure(_ReadsPictures[Scores], frozen=True, kw_only=True, tag="measure"):
    """Score models on one split, of one client or of several together.

    Attributes:
        clients: Whose pictures.
        split: Which.
        models: Name to container.
        false_alarms: Share of negatives that may trigger, 0 to 1: a threshold is chosen for it.
    """

    result = Scores

    clients: tuple[str, ...]
    split: str
    models: dict[str, Path]
    false_alarms: float | None = None

    @property
    def title(self) -> str:
        """What the child is doing, in words."""
        return f"measuring {self.detector}"


class Compare(_ReadsPictures[Comparison], frozen=True, kw_only=True, tag="compare"):
    """Compare the local and the global model on one client's split.

    Attributes:
        client: Whose pictures.
        split: Which.
        models: "local" and "global" to their containers.
    """

    result = Comparison

    client: str
    split: str
    models: dict[str, Path]

    @property
    def title(self) -> str:
        """What the child is doing, in words."""
        return f"measuring {self.detector}"


class Export(Job[Exported], frozen=True, kw_only=True, tag="export"):
    """Write a model as a file for others.

    Attributes:
        form: One of `device.training.conversion.FORMS`.
        model: The container.
        to: The file; its folder is there.
        pixels: A .npy file, float32[n, px, px, 3], that the written Keras file is to answer.
    """

    result = Exported

    form: str
    model: Path
    to: Path
    pixels: Path | None = None

    @property
    def title(self) -> str:
        """What the child is doing, in words."""
        return f"exporting {self.detector} as {self.form}"


class PrepareRings(Job[Ready], frozen=True, kw_only=True, tag="prepare_rings"):
    """Export the network that answers rings for an architecture, once per machine."""

    result = Ready

    architecture: str

    @property
    def title(self) -> str:
        """What the child is doing, in words."""
        return f"exporting the network of {self.architecture} that answers {self.detector} rings"


AnyJob = Train | Measure | Compare | Export | PrepareRings


class Activity(msgspec.Struct, frozen=True):
    """What the training child is doing: its job, and how far a training is."""

    job: Job[Any]
    progress: Progress | None = None


# --- on the wire


def to_line(message: object) -> str:
    """Return a message as one line of JSON, paths as text.

    The standard library writes it, since a file's name may hold bytes that are no UTF-8.
    """
    return json.dumps(msgspec.to_builtins(message, enc_hook=_text)) + "\n"


def job_of(message: Mapping[str, Any]) -> AnyJob:
    """Return the job in a message.

    Raises:
        msgspec.ValidationError: It is none, or lacks a field.
    """
    job: AnyJob = msgspec.convert(message, AnyJob, dec_hook=_path)
    return job


def result_of(job: Job[R], message: object) -> R:
    """Return the result of a job in a message.

    Raises:
        msgspec.ValidationError: It is none of this job.
    """
    result: R = msgspec.convert(message, job.result)
    return result


def progress_in(message: object) -> Progress:
    """Return the progress in a message.

    Raises:
        msgspec.ValidationError: It is none.
    """
    return msgspec.convert(message, Progress)


def _text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"no field of a job is a {type(value)}")


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(f"no field of a job is a {kind}")
