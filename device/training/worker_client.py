"""The web process's handle on the training child: starts it, gives it jobs, hears its progress,
replaces it.

The child (`device/training/worker.py`) is the only process in the house with TensorFlow. It is
started afresh, never forked from the web process, at the first training; stays warm between rounds;
and goes when this process goes, however that ends, because its standard input closes. Jobs
(`device/training/jobs.py`) and events are lines of JSON; params lie in files.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess  # nosec B404
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, TypeVar, cast

import msgspec

from device.training.jobs import Activity, Job, progress_in, result_of, to_line
from shared.errors import (
    Cancelled,
    CannotTrain,
    DatasetError,
    DoorbellError,
    OutOfOrder,
    TrainingFailed,
)

_CHILD = (sys.executable, "-m", "device.training.worker")
_ERRORS: dict[str, type[DoorbellError]] = {
    DatasetError.slug: DatasetError,
    TrainingFailed.slug: TrainingFailed,
}
_OWN_WORDS = {kind.slug: kind for kind in (Cancelled, CannotTrain)}
_PATIENCE_S = 10.0
_CANCEL_S = 3.0
_CANCEL = '{"do": "cancel"}\n'

R = TypeVar("R")


class Busy(OutOfOrder):
    """The training child has another job: nothing is wrong, and the same will work in a moment."""


class ChildDied(TrainingFailed):
    """The training child was killed, or ended by itself."""


class Trainer:
    """One training child, one job at a time; `progress` may be read from any thread.

    Args:
        max_mb: Resident size past which the child is replaced after a job, in MB.
        command: What to start; tests may start something else.
        log: Where the child's complaints go; to this process's standard error without it.
    """

    def __init__(
        self, max_mb: int = 2048, command: Sequence[str] = _CHILD, log: IO[bytes] | None = None
    ) -> None:
        self._max_mb = max_mb
        self._command = command
        self._log = log
        self._busy = threading.Lock()
        self._writing = threading.Lock()
        self._cancelled = False
        self._child: subprocess.Popen[str] | None = None
        self._progress: Activity | None = None

    @property
    def progress(self) -> Activity | None:
        """The child's job and how far it is; None while it has no job."""
        return self._progress

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None if there is none."""
        if self._child is None or self._child.poll() is not None:
            return None
        return self._child.pid

    def run(self, job: Job[R]) -> R:
        """Have the child do a job, and return its result.

        If the child is busy with a short job, such as a score, its end is waited for.

        Args:
            job: One of `device.training.jobs`.

        Raises:
            Busy: It is busy with another.
            Cancelled: By `cancel`.
            DatasetError: The pictures cannot be learned from.
            ChildDied: It was killed, or ended by itself.
            TrainingFailed: It gave up, or ran out of memory.
        """
        self._take()
        try:
            self._cancelled = False
            self._progress = Activity(job)
            return self._converse(job)
        finally:
            self._progress = None
            self._busy.release()

    def cancel(self) -> str:
        """End the job that is being done, and return what it was; a child that does not listen is
        killed.

        Raises:
            OutOfOrder: There is none.
        """
        child = self._child
        progress = self._progress
        if child is None or progress is None:
            raise OutOfOrder("Nothing is being trained.")
        self._cancelled = True
        with suppress(BrokenPipeError):
            self._write(child.stdin, _CANCEL)
        # A child inside a kernel of TensorFlow cannot listen; after so long it is killed.
        deadline = time.monotonic() + _CANCEL_S
        while self._cancelled and self._progress is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        if self._cancelled and self._progress is not None:
            child.kill()
        return describe(progress)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _take(self) -> None:
        """Take the child for one job."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self._busy.acquire(timeout=0.05):
            progress = self._progress
            # None: the other job has just begun, or is just done.
            waits = progress is None or progress.job.is_short
            if not waits or time.monotonic() > deadline:
                raise Busy(
                    f"This device is busy: {describe(self._progress)}.",
                    todo="Wait until that is done, then try again.",
                )

    def _converse(self, job: Job[R]) -> R:
        child = self._sent(to_line(job))
        for line in child.stdout or ():
            try:
                message = json.loads(line)
                if "result" in message:
                    result = result_of(job, message["result"])
                    self._replace_if_large(message["resident_mb"])
                    return result
                if "progress" in message:
                    self._progress = Activity(job, progress_in(message["progress"]))
                    continue
            except (ValueError, msgspec.ValidationError):
                # Cut short, or none of ours: what follows would be taken for the next job's answer.
                child.kill()
                break
            raise _error_in(message)
        died = self._died(child)
        raise Cancelled if self._cancelled else died

    def _sent(self, line: str) -> subprocess.Popen[str]:
        """Send a job, and return the child that has it."""
        child = self._started()
        try:
            self._write(child.stdin, line)
        except BrokenPipeError:  # it died while it was idle: a fresh one can do the job
            self.close()
            child = self._started()
            self._write(child.stdin, line)
        return child

    def _write(self, pipe: IO[str] | None, line: str) -> None:
        if pipe is None:
            raise BrokenPipeError
        # `cancel` writes from another thread than `run`: two lines must not be mixed.
        with self._writing:
            pipe.write(line)
            pipe.flush()

    def _started(self) -> subprocess.Popen[str]:
        if self.pid is None:
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
            self._child = subprocess.Popen(  # nosec B603 # a fixed command, no shell
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                env=environment,
            )
        return cast(subprocess.Popen[str], self._child)

    def _replace_if_large(self, resident_mb: float) -> None:
        if resident_mb > self._max_mb:
            self.close()

    def _died(self, child: subprocess.Popen[str]) -> ChildDied:
        code = child.wait()
        self.close()
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
        return ChildDied(
            f"The training process {how}.",
            kept="The models and earlier trainings are kept, and this device goes on.",
            todo="Train again; if it happens again, the machine may be short of memory.",
        )


def describe(activity: Activity | None) -> str:
    """Return what a device is doing, in words."""
    if activity is None:
        return "idle"
    at = activity.progress
    if at is None:
        return activity.job.beginning
    where = f"epoch {at.epoch} of {at.epochs}, batch {at.batch} of {at.batches}"
    return f"{activity.job.title}, {where}"


def progress_of(activity: Activity | None) -> dict[str, Any] | None:
    """Return how far a device is: `words` for people, and `value` from 0 to 1, or None while that
    is not known.
    """
    if activity is None:
        return None
    at = activity.progress
    if at is None:
        return {"words": describe(activity), "value": None}
    words = f"{describe(activity)}: loss {at.loss:.3f}, accuracy {at.accuracy:.1%}"
    words += f", about {math.ceil(at.seconds_left)} s left"
    value = (at.epoch - 1 + at.batch / at.batches) / at.epochs
    return {"words": words, "value": round(value, 4)}


def _error_in(message: Mapping[str, Any]) -> DoorbellError:
    slug = message["error"]
    if slug in _OWN_WORDS:
        return _OWN_WORDS[slug]()
    kind = _ERRORS.get(slug, TrainingFailed)
    return kind(message["happened"], kept=message["kept"], todo=message["todo"])
