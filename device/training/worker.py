"""The training child: `python -m device.training.worker`. The only process of the project that
imports TensorFlow.

It reads jobs from standard input, one JSON object a line, and writes events as lines of JSON:
`progress` any number of times, then `result` or `error`. The line `{"do": "cancel"}` ends the
training that is going on, with an error. It ends itself when standard input closes, in the middle
of a job too.

    train   params + pictures → trained params, history, plot
    score   several models side by side on one split of one or several clients; `brief`: their
            accuracy alone; `plot`: of two, "local" and "global", a full report and a plot as well
    export  a model as a file for others: `form` is one of `device.training.conversion.FORMS`
    answer  what rings need that are answered by an `architecture`, once per machine
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from shared.errors import Cancelled, CannotTrain, DoorbellError

Emit = Callable[[dict[str, Any]], None]


def main() -> None:
    """Do jobs until standard input closes."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the web process, which then closes our input
    wire = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not into the conversation
    emit: Emit = lambda message: print(json.dumps(message), file=wire, flush=True)  # noqa: E731 - the wire
    cancelled = threading.Event()
    jobs = _listen(cancelled)
    bench = _Bench()
    while True:
        job = jobs.get()
        cancelled.clear()
        emit(_do(bench, job, emit, cancelled))


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
    bench: _Bench, job: dict[str, Any], emit: Emit, cancelled: threading.Event
) -> dict[str, Any]:
    def tell(progress: dict[str, Any]) -> None:
        if cancelled.is_set():
            raise Cancelled
        emit({"progress": progress})

    verbs = {
        "train": bench.train,
        "score": bench.score,
        "export": bench.export,
        "answer": bench.answer,
    }
    try:
        result = verbs[job["do"]](job, tell)
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras", "tf2onnx", "onnx"):
            raise
        return {"error": CannotTrain.slug, "happened": "", "kept": "", "todo": ""}
    except DoorbellError as error:
        return {
            "error": error.slug,
            "happened": error.happened,
            "kept": error.kept,
            "todo": error.todo,
        }
    except (
        Exception
    ) as error:  # whatever a framework throws must become a sentence, and the child goes on
        traceback.print_exc()
        happened = f"The training gave up: {type(error).__name__}."
        todo = "The device's log says more; try again."
        return {
            "error": "training-failed",
            "happened": happened,
            "kept": "What was stored is kept.",
            "todo": todo,
        }
    return {"result": result, "resident_mb": psutil.Process().memory_info().rss / 1e6}


class _Bench:
    """What stays warm between jobs: compiled models and the loaded body."""

    def __init__(self) -> None:
        self._learners: dict[str, Any] = {}
        self._pictures: Any = None

    def train(self, job: dict[str, Any], on_progress: Emit) -> dict[str, Any]:
        """Train, write the trained model and the plot, and return weight, history, what was left
        out or repeats.
        """
        from device.evaluation.plot import training_plot  # noqa: PLC0415 - matplotlib, too, is loaded on the first job alone
        from learning.model import Model, parse_model  # noqa: PLC0415
        from shared.round.plan import LocalWork  # noqa: PLC0415

        base = parse_model(Path(job["model"]).read_bytes())
        train, left_out = self._examples(job, base.architecture, job["client"], "train")
        valid, _ = self._examples(job, base.architecture, job["client"], "valid")
        learner = self._learner(base.architecture)
        params, history = learner.train(
            base.params,
            train,
            valid,
            LocalWork(**job["work"]),
            job["seed"],
            lambda p: on_progress(asdict(p)),
        )
        local = Model(base.detector, job["round"], job["base_version"], base.architecture, params)
        Path(job["local_model"]).write_bytes(local.to_bytes())
        epochs = [asdict(epoch) for epoch in history]
        Path(job["plot"]).write_bytes(training_plot(job["detector"], epochs))
        repeated = self._pictures.repeated(Path(job["data"]), job["detector"], job["client"])
        return {
            "weight": len(train.labels),
            "history": epochs,
            "left_out": left_out,
            "repeated": repeated,
        }

    def score(self, job: dict[str, Any], _on_progress: Emit) -> dict[str, Any]:
        """Score several models on one split, of one client or of several together.

        Raises:
            TrainingFailed: What a model answers is no number.
        """
        import numpy as np  # noqa: PLC0415

        from learning.finite import all_finite  # noqa: PLC0415
        from learning.model import parse_model  # noqa: PLC0415
        from shared.errors import TrainingFailed  # noqa: PLC0415

        results, answers, files = {}, {}, []
        for name, path in job["models"].items():
            model = parse_model(Path(path).read_bytes())
            parts = [
                self._examples(job, model.architecture, client, job["split"])[0]
                for client in job["clients"]
            ]
            learner = self._learner(model.architecture)
            scores = np.concatenate([learner.scores(model.params, part.inputs) for part in parts])
            if not all_finite(scores):
                raise TrainingFailed(
                    "What the model answers is no number.", kept="What was stored is kept."
                )
            labels = np.concatenate([part.labels for part in parts])
            results[name] = (
                self._accuracy(job, labels, scores)
                if job.get("brief")
                else self._measure(labels, scores)
            )
            if "plot" in job:
                answers[name] = scores
                files.append([file for part in parts for file in part.files])
        if any(
            others != files[0] for others in files
        ):  # a change between two models is no difference of theirs
            raise TrainingFailed(
                "The pictures changed while they were measured.", todo="Measure again."
            )
        report = {"report": self._report(job, labels, answers, files[0])} if answers else {}
        return {"models": results} | report

    def export(self, job: dict[str, Any], _on_progress: Emit) -> dict[str, Any]:
        """Write a model to the file `to`, and return what `device.training.conversion` says of it."""
        from device.training.conversion import convert  # noqa: PLC0415 - imports TensorFlow
        from learning.model import parse_model  # noqa: PLC0415 - as the other jobs do

        pixels = Path(job["pixels"]) if "pixels" in job else None
        return convert(
            parse_model(Path(job["model"]).read_bytes()), job["form"], Path(job["to"]), pixels
        )

    def answer(self, job: dict[str, Any], _on_progress: Emit) -> dict[str, Any]:
        """Make what an architecture needs to answer rings, if this machine does not have it."""
        from device.training.conversion import ensure_answering  # noqa: PLC0415 - imports TensorFlow
        from learning.architectures import architecture  # noqa: PLC0415 - as the other jobs do

        ensure_answering(Path(job["machine_cache"]), architecture(job["architecture"]))
        return {}

    @staticmethod
    def _accuracy(job: dict[str, Any], labels: Any, scores: Any) -> dict[str, Any]:
        from device.vision.threshold import threshold_for  # noqa: PLC0415

        told: dict[str, Any] = {
            "pictures": len(labels),
            "accuracy": float(((scores >= 0.5) == labels).mean()),
        }
        if "false_alarms" in job:
            told["threshold"] = threshold_for(labels, scores, job["false_alarms"])
        return told

    @staticmethod
    def _measure(labels: Any, scores: Any) -> dict[str, Any]:
        from device.evaluation.metrics import measure  # noqa: PLC0415 - scikit-learn takes a second to load

        return measure(labels, scores)

    @staticmethod
    def _report(
        job: dict[str, Any], labels: Any, answers: Any, files: list[tuple[Path, str]]
    ) -> dict[str, Any]:
        """Compare two models in full, draw that, and name the files of mistakes, relative to their
        split.
        """
        from device.evaluation.metrics import report  # noqa: PLC0415
        from device.evaluation.plot import comparison_plot  # noqa: PLC0415

        found = report(labels, answers)
        Path(job["plot"]).write_bytes(comparison_plot(job["detector"], found))
        for model in found["models"].values():
            for mistake in model["mistakes"]:
                path, content_id = files[mistake.pop("index")]
                mistake |= {"file": "/".join(path.parts[3:]), "content_id": content_id}
        return found

    def _learner(self, name: str) -> Any:
        from device.training.training import Learner  # noqa: PLC0415 - imports TensorFlow
        from learning.architectures import architecture  # noqa: PLC0415

        if name not in self._learners:
            self._learners[name] = Learner(architecture(name))
        return self._learners[name]

    def _examples(
        self, job: dict[str, Any], name: str, client: str, split: str
    ) -> tuple[Any, dict[str, int]]:
        from device.training.examples import Pictures  # noqa: PLC0415
        from learning.architectures import architecture  # noqa: PLC0415

        if self._pictures is None:
            self._pictures = Pictures(Path(job["cache"]), Path(job["machine_cache"]))
        loaded: tuple[Any, dict[str, int]] = self._pictures.load(
            architecture(name), Path(job["data"]), job["detector"], client, split
        )
        return loaded


if __name__ == "__main__":
    main()
