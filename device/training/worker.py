"""The training child: `python -m device.training.worker`. The only process of the project that
imports TensorFlow.

It reads jobs (`device/training/jobs.py`) from standard input, one JSON object a line, and writes
events as lines of JSON: `progress` any number of times, then `result` or `error`. The line `{"do":
"cancel"}` ends the training that is going on, with an error. It ends itself when standard input
closes, in the middle of a job too.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import psutil

from device.training.jobs import (
    AnyJob,
    Compare,
    Export,
    Folders,
    Job,
    Measure,
    PrepareRings,
    Train,
    job_of,
    to_line,
)
from device.training.results import (
    Comparison,
    Exported,
    Metrics,
    Progress,
    Ready,
    Score,
    Scores,
    Trained,
)
from learning.finite import all_finite
from learning.model import Model, parse_model
from shared.errors import Cancelled, CannotTrain, DoorbellError, TrainingFailed

Emit = Callable[[dict[str, Any]], None]
Tell = Callable[[Progress], None]
_FRAMEWORKS = ("tensorflow", "keras", "tf2onnx", "onnx")


def main() -> None:
    """Do jobs until standard input closes."""
    # Ctrl-C is for the web process, which then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the conversation

    def emit(message: dict[str, Any]) -> None:
        wire.write(to_line(message))
        wire.flush()

    cancelled = threading.Event()
    jobs = _listen(cancelled)
    bench = Bench()
    while True:
        message = jobs.get()
        cancelled.clear()
        emit(_do(bench, message, emit, cancelled))


def _listen(cancelled: threading.Event) -> queue.Queue[dict[str, Any]]:
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            job = json.loads(line)
            if job["do"] == "cancel":
                cancelled.set()
            else:
                jobs.put(job)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return jobs


def _do(
    bench: Bench, message: dict[str, Any], emit: Emit, cancelled: threading.Event
) -> dict[str, Any]:
    def tell(progress: Progress) -> None:
        if cancelled.is_set():
            raise Cancelled
        emit({"progress": progress})

    try:
        result = bench.do(job_of(message), tell)
    except ModuleNotFoundError as error:
        if error.name not in _FRAMEWORKS:
            raise
        return _error(CannotTrain())
    except DoorbellError as error:
        return _error(error)
    except Exception as error:
        # Whatever a framework throws must become a sentence, and the child goes on.
        traceback.print_exc()
        return _error(
            TrainingFailed(
                f"The training gave up: {type(error).__name__}.",
                kept="What was stored is kept.",
                todo="The device's log says more; try again.",
            )
        )
    return {"result": result, "resident_mb": psutil.Process().memory_info().rss / 1e6}


def _error(error: DoorbellError) -> dict[str, Any]:
    return {
        "error": error.slug,
        "happened": error.happened,
        "kept": error.kept,
        "todo": error.todo,
    }


class Bench:
    """What stays warm between jobs: compiled models and the loaded body.

    Frameworks are imported by the first job that needs them: a child is there in a moment, and a
    job that fails before it needs one does not wait for it.
    """

    def __init__(self) -> None:
        self._learners: dict[str, Any] = {}
        self._pictures: Any = None

    def do(self, job: AnyJob, tell: Tell) -> object:
        """Do a job and return its result."""
        match job:
            case Train():
                return self.train(job, tell)
            case Measure():
                return self.measure(job)
            case Compare():
                return self.compare(job)
            case Export():
                return self.export(job)
            case PrepareRings():
                return self.prepare_rings(job)

    def train(self, job: Train, tell: Tell) -> Trained:
        """Train, and write the trained model."""
        base = parse_model(job.model.read_bytes())
        train, left_out = self._examples(job, base.architecture, job.client, "train")
        valid, _ = self._examples(job, base.architecture, job.client, "valid")
        learner = self._learner(base.architecture)
        params, history = learner.train(base.params, train, valid, job.work, job.seed, tell)
        local = Model(base.detector, job.round, job.base_version, base.architecture, params)
        job.local_model.write_bytes(local.to_bytes())
        repeated = self._pictures.repeated(job.folders.data, job.detector, job.client)
        return Trained(len(train.labels), tuple(history), left_out, tuple(repeated))

    def measure(self, job: Measure) -> Scores:
        """Score several models on one split, of one client or of several together.

        Raises:
            TrainingFailed: A score is not finite.
        """
        import numpy as np  # noqa: PLC0415

        from device.vision.threshold import threshold_for  # noqa: PLC0415

        results: dict[str, Score] = {}
        for name, path in job.models.items():
            model = parse_model(path.read_bytes())
            parts = [
                self._examples(job, model.architecture, client, job.split)[0]
                for client in job.clients
            ]
            scores = np.concatenate([self._scores(model, part) for part in parts])
            labels = np.concatenate([part.labels for part in parts])
            accuracy = float(((scores >= 0.5) == labels).mean())
            threshold = None
            if job.false_alarms is not None:
                threshold = threshold_for(labels, scores, job.false_alarms)
            results[name] = Score(len(labels), accuracy, threshold)
        return Scores(results)

    def compare(self, job: Compare) -> Comparison:
        """Compare two models in full, and name the files of mistakes, relative to their split.

        Raises:
            TrainingFailed: A score is not finite; or the pictures changed between the two models.
        """
        from device.evaluation.metrics import measure, report  # noqa: PLC0415

        models = {name: parse_model(path.read_bytes()) for name, path in job.models.items()}
        parts = {
            kind: self._examples(job, kind, job.client, job.split)[0]
            for kind in {model.architecture for model in models.values()}
        }
        answers = {
            name: self._scores(model, parts[model.architecture]) for name, model in models.items()
        }
        part, *others = parts.values()
        # The split is read once for each architecture. A picture that changed in between would be
        # taken for a difference between the models.
        if any(other.files != part.files for other in others):
            raise TrainingFailed(
                "The pictures changed while they were measured.", todo="Measure again."
            )
        metrics = {
            name: Metrics(**measure(part.labels, scores)) for name, scores in answers.items()
        }
        found = report(part.labels, answers)
        for examined in found["models"].values():
            for mistake in examined["mistakes"]:
                path, content_id = part.files[mistake.pop("index")]
                mistake["file"] = "/".join(path.parts[3:])
                mistake["content_id"] = content_id
        return Comparison(metrics, found)

    def export(self, job: Export) -> Exported:
        """Write a model to the file `to`, and say what it answers for the job's pixels."""
        from device.training.conversion import convert  # noqa: PLC0415 - imports TensorFlow

        model = parse_model(job.model.read_bytes())
        return Exported(convert(model, job.form, job.to, job.pixels))

    def prepare_rings(self, job: PrepareRings) -> Ready:
        """Make what an architecture needs to answer rings, if this machine does not have it."""
        from device.training.conversion import ensure_answering  # noqa: PLC0415 - imports TensorFlow
        from learning.architectures import architecture  # noqa: PLC0415

        ensure_answering(job.folders.machine_cache, architecture(job.architecture))
        return Ready()

    def _scores(self, model: Model, part: Any) -> Any:
        scores = self._learner(model.architecture).scores(model.params, part.inputs)
        if not all_finite(scores):
            raise TrainingFailed(
                "What the model answers is no number.", kept="What was stored is kept."
            )
        return scores

    def _learner(self, name: str) -> Any:
        from device.training.training import Learner  # noqa: PLC0415 - imports TensorFlow
        from learning.architectures import architecture  # noqa: PLC0415

        if name not in self._learners:
            self._learners[name] = Learner(architecture(name))
        return self._learners[name]

    def _examples(
        self, job: Job[Any], name: str, client: str, split: str
    ) -> tuple[Any, dict[str, int]]:
        from device.training.examples import Pictures  # noqa: PLC0415
        from learning.architectures import architecture  # noqa: PLC0415

        folders: Folders = job.folders
        if self._pictures is None:
            self._pictures = Pictures(folders.cache, folders.machine_cache)
        loaded: tuple[Any, dict[str, int]] = self._pictures.load(
            architecture(name), folders.data, job.detector, client, split
        )
        return loaded


if __name__ == "__main__":
    main()
