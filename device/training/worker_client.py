"""The web process's handle on the training child: starts it, gives it jobs, hears its progress,
replaces it.

The child (`device/training/worker.py`) is the only process in the house with TensorFlow. It is
started afresh, never forked from the web process, at the first training; stays warm between rounds;
and goes when this process goes, however that ends, because its standard input closes. Jobs and
events are lines of JSON; params lie in files.
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
from typing import IO, Any, cast

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
_DOING = {
    "train": "training",
    "score": "measuring",
    "export": "exporting",
    "answer": "preparing to answer rings about",
}
_SHORT_JOBS = {"score", "export", "answer"}
_PATIENCE_S = 10.0
_CANCEL_S = 3.0
_WRITING = threading.Lock()


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
        self._max_mb, self._command, self._log = max_mb, command, log
        self._busy = threading.Lock()
        self._cancelled = False
        self._child: subprocess.Popen[str] | None = None
        self._progress: Mapping[str, Any] | None = None

    @property
    def progress(self) -> Mapping[str, Any] | None:
        """What the child is doing: detector, epoch, batch, loss, ...; None while it has no job."""
        return self._progress

    @property
    def pid(self) -> int | None:
        """Process id of the child, or None if there is none."""
        return None if self._child is None or self._child.poll() is not None else self._child.pid

    def run(self, job: Mapping[str, object]) -> dict[str, Any]:
        """Have the child do a job, and return its result; the end of a short job, such as a score,
        is waited for.

        Args:
            job: `do` names it; the rest are its arguments. See `device/training/worker.py`.

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
            self._progress = {"do": job["do"], "detector": job["detector"]}
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
        child, progress = self._child, self._progress
        if child is None or progress is None:
            raise OutOfOrder("Nothing is being trained.")
        self._cancelled = True
        with suppress(BrokenPipeError):
            _write_line(child.stdin, {"do": "cancel"})
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
            progress = self._progress or {"do": "score"}  # just begun, or just done
            if progress["do"] not in _SHORT_JOBS or time.monotonic() > deadline:
                raise Busy(
                    f"This device is busy: {describe(self._progress)}.",
                    todo="Wait until that is done, then try again.",
                )

    def _converse(self, job: Mapping[str, object]) -> dict[str, Any]:
        child = self._started()
        try:
            _write_line(child.stdin, job)
        except BrokenPipeError:  # it died while it was idle: a fresh one can do the job
            self.close()
            child = self._started()
            _write_line(child.stdin, job)
        for line in child.stdout or ():
            try:
                message = json.loads(line)
            except (
                ValueError
            ):  # cut short, or none of ours: what follows would be taken for the next job's answer
                child.kill()
                break
            if "progress" in message:
                self._progress = {"do": job["do"], "detector": job["detector"]} | message[
                    "progress"
                ]
            elif message.get("error") in _OWN_WORDS:
                raise _OWN_WORDS[message["error"]]
            elif "error" in message:
                kind = _ERRORS.get(message["error"], TrainingFailed)
                raise kind(message["happened"], kept=message["kept"], todo=message["todo"])
            else:
                self._replace_if_large(message["resident_mb"])
                return dict(message["result"])
        died = self._died(child)
        raise Cancelled if self._cancelled else died

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


def describe(progress: Mapping[str, Any] | None) -> str:
    """Return what a device is doing, in words."""
    if progress is None:
        return "idle"
    doing = {
        "train": "training",
        "score": "measuring",
        "export": "exporting",
        "answer": "preparing",
    }.get(progress["do"], progress["do"])
    if progress["do"] in ("export", "answer"):
        return f"{doing} {progress['detector']}"
    if "epoch" not in progress:
        return f"{doing} {progress['detector']}, reading the pictures"
    return (
        f"{doing} {progress['detector']}, epoch {progress['epoch']} of {progress['epochs']}, "
        f"batch {progress['batch']} of {progress['batches']}"
    )


def progress_of(progress: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return how far a device is: `words` for people, and `value` from 0 to 1, or None while that
    is not known.
    """
    if progress is None:
        return None
    if "epoch" not in progress:
        return {"words": describe(progress), "value": None}
    words = (
        f"{describe(progress)}: loss {progress['loss']:.3f}, accuracy {progress['accuracy']:.1%}"
    )
    words += f", about {math.ceil(progress['seconds_left'])} s left"
    value = (progress["epoch"] - 1 + progress["batch"] / progress["batches"]) / progress["epochs"]
    return {"words": words, "value": round(value, 4)}


def _write_line(pipe: IO[str] | None, message: Mapping[str, object]) -> None:
    if pipe is None:
        raise BrokenPipeError
    with _WRITING:
        pipe.write(json.dumps(message) + "\n")
        pipe.flush()
