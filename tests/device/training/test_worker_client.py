"""The trainer with real child processes: a small script that speaks the training child's language,
and the child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import psutil
import pytest

from device.rounds import model_trial
from device.training import worker_client as trainer_module
from device.training.jobs import (
    Activity,
    Folders,
    Job,
    Measure,
    PrepareRings,
    Train,
    job_of,
    to_line,
)
from device.training.results import Progress
from device.training.worker_client import Busy, ChildDied, Trainer, describe, progress_of
from device.vision.predictor import active_models, open_predictor
from device.vision.threshold import threshold_for
from learning.architectures import PORCH_CNN
from learning.model import Model
from shared.errors import Cancelled, CannotTrain, DatasetError, OutOfOrder, TrainingFailed
from shared.round.plan import LocalWork

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = Folders(data=Path("data"), cache=Path("cache"), machine_cache=Path("machine"))


class Echo(msgspec.Struct, frozen=True):
    """What the script answers."""

    pid: int
    echo: int | str | None


class Scripted(Job[Echo], frozen=True, kw_only=True, tag="train"):
    """A job for the script: what it is to do besides answering."""

    result = Echo
    is_short = False

    script: dict[str, Any]

    @property
    def title(self) -> str:
        return f"training {self.detector}"


class ScriptedScore(Scripted, frozen=True, kw_only=True, tag="measure"):
    """The same, which others wait for."""

    is_short = True

    @property
    def title(self) -> str:
        return f"measuring {self.detector}"


class Unknown(Scripted, frozen=True, kw_only=True, tag="no such verb"):
    """A job that the training child does not know."""


def scripted(**script: Any) -> Scripted:
    return Scripted(detector="package", folders=FOLDERS, script=script)


def training() -> Train:
    return Train(
        detector="package",
        folders=FOLDERS,
        client="client_1",
        model=Path("/nowhere"),
        round=1,
        base_version="0" * 64,
        work=LocalWork(1, 16, 0.1),
        seed=0,
        local_model=Path("local"),
    )


def measuring(folder: Path) -> Measure:
    return Measure(
        detector="package",
        folders=Folders(data=folder, cache=folder / "cache", machine_cache=folder / "cache"),
        clients=("client_1",),
        split="valid",
        models={"candidate": folder / "model"},
    )


def at(epoch: int, epochs: int, batch: int, batches: int) -> Progress:
    return Progress(epoch, epochs, batch, batches, loss=0.5, accuracy=0.25)


CHILD = """
    import json, os, signal, sys, time
    from pathlib import Path

    def say(message):
        print(json.dumps(message), flush=True)

    def progress(epoch, epochs, batch, batches):
        counts = {"epoch": epoch, "epochs": epochs, "batch": batch, "batches": batches}
        return counts | {"loss": 0.5, "accuracy": 0.25}

    for line in sys.stdin:
        told = json.loads(line)
        if told["do"] == "cancel":
            continue
        job = told["script"]
        if "wait_for" in job:
            say({"progress": progress(2, 3, 4, 5)})
            while not Path(job["wait_for"]).exists():
                time.sleep(0.01)
        if "patient" in job:
            say({"progress": progress(1, 2, 1, 4)})
            while json.loads(sys.stdin.readline())["do"] != "cancel":
                pass
            say({"error": "cancelled", "happened": "", "kept": "", "todo": ""})
            continue
        if "signal" in job:
            os.kill(os.getpid(), job["signal"])
        if "exit" in job:
            sys.exit(job["exit"])
        if "raw" in job:
            sys.stdout.write(job["raw"])
            sys.stdout.flush()
        if "cut_short" in job:
            sys.stdout.write('{"resu')
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if "error" in job:
            say({"error": job["error"], "happened": "It went wrong.", "kept": "All.", "todo": "Again."})
        else:
            say({"result": {"pid": os.getpid(), "echo": job.get("echo")}, "resident_mb": job.get("resident_mb", 10)})
"""


@pytest.fixture
def make_trainer(tmp_path: Path) -> Iterator[Callable[..., Trainer]]:
    script, made = tmp_path / "child.py", []
    script.write_text(textwrap.dedent(CHILD))

    def make(**options: Any) -> Trainer:
        made.append(Trainer(**({"command": (sys.executable, "-S", str(script))} | options)))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()


@pytest.fixture
def trainer(make_trainer: Callable[..., Trainer]) -> Trainer:
    return make_trainer()


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # handed to the test
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_job_comes_through_the_wire_as_it_was_with_names_that_are_no_text() -> None:
    job = msgspec.structs.replace(training(), model=Path(os.fsdecode(b"/pictures/caf\xe9")))
    line = to_line(job)
    assert line.count("\n") == 1 and line.endswith("\n")
    assert job_of(json.loads(line)) == job


@pytest.mark.parametrize("left_out", ["do", "detector", "folders", "client", "seed"])
def test_job_that_lacks_a_field_is_refused(left_out: str) -> None:
    message = json.loads(to_line(training()))
    del message[left_out]
    with pytest.raises(msgspec.ValidationError, match="missing required field"):
        job_of(message)


def test_child_is_started_at_the_first_job_and_stays(trainer: Trainer) -> None:
    assert trainer.pid is None
    first, second = trainer.run(scripted(echo=1)), trainer.run(scripted(echo=2))
    assert (first.echo, second.echo) == (1, 2)
    assert first.pid == second.pid == trainer.pid != os.getpid()


def test_progress_is_visible_while_the_job_runs_and_gone_after(
    trainer: Trainer, tmp_path: Path
) -> None:
    assert trainer.progress is None
    thread, outcome = in_background(lambda: trainer.run(scripted(wait_for=str(tmp_path / "go"))))
    until(lambda: trainer.progress is not None and trainer.progress.progress)
    assert trainer.progress is not None
    assert trainer.progress.progress == at(2, 3, 4, 5)
    assert describe(trainer.progress) == "training package, epoch 2 of 3, batch 4 of 5"
    (tmp_path / "go").touch()
    thread.join()
    assert outcome[0].echo is None
    assert trainer.progress is None
    assert describe(None) == "idle"
    assert describe(Activity(measuring(tmp_path))) == "measuring package, reading the pictures"
    rings = PrepareRings(detector="package", folders=FOLDERS, architecture="porch-cnn")
    assert describe(Activity(rings)) == (
        "exporting the network of porch-cnn that answers package rings"
    )


def test_second_job_while_busy_is_out_of_order_and_the_first_goes_on(
    trainer: Trainer, tmp_path: Path
) -> None:
    thread, outcome = in_background(
        lambda: trainer.run(scripted(wait_for=str(tmp_path / "go"), echo="first"))
    )
    until(lambda: trainer.progress is not None and trainer.progress.progress)
    begun = time.monotonic()
    with pytest.raises(Busy, match="busy: training package, epoch 2 of 3") as busy:
        trainer.run(scripted())
    assert time.monotonic() - begun < 2
    assert isinstance(busy.value, OutOfOrder)
    (tmp_path / "go").touch()
    thread.join()
    assert outcome[0].echo == "first"
    assert trainer.run(scripted(echo="next")).echo == "next"


def test_second_job_waits_for_the_end_of_a_score_but_not_for_ever(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = ScriptedScore(
        detector="package", folders=FOLDERS, script={"wait_for": str(tmp_path / "go")}
    )
    thread, first = in_background(lambda: trainer.run(score))
    until(lambda: trainer.progress is not None)
    monkeypatch.setattr(trainer_module, "_PATIENCE_S", 0.2)
    with pytest.raises(Busy, match="busy: measuring package"):
        trainer.run(scripted())
    monkeypatch.setattr(trainer_module, "_PATIENCE_S", 20.0)
    other, second = in_background(lambda: trainer.run(scripted(echo="next")))
    time.sleep(0.3)
    assert second == []
    (tmp_path / "go").touch()
    thread.join()
    other.join()
    assert (first[0].echo, second[0].echo) == (None, "next")


def test_cancelled_training_ends_at_once_and_leaves_the_child_warm(trainer: Trainer) -> None:
    thread, outcome = in_background(lambda: trainer.run(scripted(patient=True)))
    until(lambda: trainer.progress is not None and trainer.progress.progress)
    warm = trainer.pid
    assert trainer.cancel() == "training package, epoch 1 of 2, batch 1 of 4"
    thread.join()
    assert isinstance(outcome[0], Cancelled) and trainer.progress is None
    assert trainer.run(scripted()).pid == warm


def test_child_that_does_not_listen_is_killed_and_that_is_no_failure(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "_CANCEL_S", 0.2)
    thread, outcome = in_background(lambda: trainer.run(scripted(wait_for=str(tmp_path / "never"))))
    until(lambda: trainer.progress is not None and trainer.progress.progress)
    killed = trainer.pid
    trainer.cancel()
    thread.join()
    assert isinstance(outcome[0], Cancelled)
    assert trainer.run(scripted()).pid != killed


def test_device_without_tensorflow_says_so(tmp_path: Path) -> None:
    program = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "
    program += "from device.training.worker import main; main()"
    folder = tmp_path / "package" / "client_1" / "valid"
    for name in ("package", "not_package"):
        (folder / name).mkdir(parents=True)
        cv2.imwrite(str(folder / name / "1.png"), np.zeros((8, 8, 3), np.uint8))
    model = Model(
        "package", 1, "0" * 64, PORCH_CNN.name, PORCH_CNN.initial(np.random.default_rng(0))
    )
    (tmp_path / "model").write_bytes(model.to_bytes())
    trainer = Trainer(command=(sys.executable, "-c", program))
    try:
        with pytest.raises(CannotTrain, match="TensorFlow is not installed here"):
            trainer.run(measuring(tmp_path))
    finally:
        trainer.close()


def test_there_is_nothing_to_cancel_on_an_idle_device(trainer: Trainer) -> None:
    for _ in range(2):
        with pytest.raises(OutOfOrder, match="Nothing is being trained"):
            trainer.cancel()
        trainer.run(scripted())


def test_progress_in_words_and_as_a_share() -> None:
    progress = Progress(
        epoch=2,
        epochs=4,
        batch=5,
        batches=10,
        loss=0.25,
        accuracy=0.875,
        seconds_left=3.2,
    )
    assert progress_of(Activity(training(), progress)) == {
        "words": "training package, epoch 2 of 4, batch 5 of 10: loss 0.250, accuracy 87.5%, about 4 s left",
        "value": 0.375,
    }
    assert progress_of(Activity(training())) == {
        "words": "training package, reading the pictures",
        "value": None,
    }
    assert progress_of(None) is None


def test_child_killed_in_the_middle_fails_the_job_and_the_next_works(
    trainer: Trainer, tmp_path: Path
) -> None:
    thread, outcome = in_background(lambda: trainer.run(scripted(wait_for=str(tmp_path / "never"))))
    until(lambda: trainer.progress is not None and trainer.progress.progress)
    killed = trainer.pid
    os.kill(killed, signal.SIGKILL)
    thread.join()
    assert isinstance(outcome[0], ChildDied)
    assert "killed by SIGKILL" in str(outcome[0])
    assert trainer.progress is None
    assert trainer.run(scripted(echo=2)).echo == 2
    assert trainer.pid != killed


def test_child_that_ends_by_itself_fails_the_job_with_its_exit_code(trainer: Trainer) -> None:
    with pytest.raises(ChildDied, match="ended with exit code 3"):
        trainer.run(scripted(exit=3))
    assert trainer.run(scripted(echo=2)).echo == 2


def test_child_that_died_while_idle_is_replaced_silently(trainer: Trainer) -> None:
    first = trainer.run(scripted()).pid
    os.kill(first, signal.SIGKILL)
    until(lambda: trainer.pid is None)
    assert trainer.run(scripted()).pid != first


def test_child_found_dead_only_when_written_to_is_replaced_silently(trainer: Trainer) -> None:
    class LooksTooEarly(Trainer):
        """Takes its child for alive, as if it died just after the look."""

        pid = property(lambda self: self._child and self._child.pid)  # type: ignore[assignment]

    late = LooksTooEarly(command=trainer._command)
    first = late.run(scripted()).pid
    os.kill(first, signal.SIGKILL)
    until(lambda: psutil.Process(first).status() == psutil.STATUS_ZOMBIE)
    second = late.run(scripted(echo=1))
    late.close()
    assert second.echo == 1
    assert second.pid != first


def test_child_above_its_size_is_replaced_after_its_job(
    make_trainer: Callable[..., Trainer],
) -> None:
    trainer = make_trainer(max_mb=100)
    kept = trainer.run(scripted(resident_mb=100)).pid
    large = trainer.run(scripted(resident_mb=100.1, echo="done"))
    assert (large.pid, large.echo) == (kept, "done")
    assert trainer.pid is None
    assert not psutil.pid_exists(kept)
    assert trainer.run(scripted()).pid != kept


@pytest.mark.parametrize(
    ("slug", "kind"),
    [
        ("dataset", DatasetError),
        ("training-failed", TrainingFailed),
        ("invalid-message", TrainingFailed),
    ],
)
def test_errors_of_the_child_become_the_right_type_and_it_stays(
    trainer: Trainer, slug: str, kind: type[Exception]
) -> None:
    before = trainer.run(scripted()).pid
    with pytest.raises(kind, match=r"It went wrong\. All\. Again\.") as said:
        trainer.run(scripted(error=slug))
    assert not isinstance(said.value, ChildDied)
    assert trainer.run(scripted(echo=2)) == Echo(pid=before, echo=2)


def test_child_killed_in_the_middle_of_a_line_fails_the_job(trainer: Trainer) -> None:
    with pytest.raises(TrainingFailed, match="killed by SIGKILL"):
        trainer.run(scripted(cut_short=True))
    assert trainer.run(scripted(echo=2)).echo == 2


def test_next_job_never_hears_what_was_left_of_the_one_before(trainer: Trainer) -> None:
    with pytest.raises(TrainingFailed):
        trainer.run(scripted(raw="a library says hello\n", echo="old"))
    assert trainer.run(scripted(echo="new")).echo == "new"


def test_closing_ends_the_child_and_the_next_job_starts_another(trainer: Trainer) -> None:
    first = trainer.run(scripted()).pid
    trainer.close()
    trainer.close()
    assert not psutil.pid_exists(first)
    assert trainer.run(scripted()).pid != first


@pytest.fixture(scope="module")
def real() -> Iterator[Trainer]:
    """The training child itself, one for all tests that do not end it."""
    with open(os.devnull, "wb") as log:  # noqa: PTH123 - a device, not a file
        made = Trainer(log=log)
        yield made
        made.close()


@pytest.mark.heavy
def test_real_child_turns_any_failure_into_a_sentence_and_goes_on(real: Trainer) -> None:
    with pytest.raises(TrainingFailed, match="The training gave up: ValidationError"):
        real.run(Unknown(detector="package", folders=FOLDERS, script={}))
    first = real.pid
    with pytest.raises(TrainingFailed):
        real.run(training())
    assert real.pid == first is not None


@pytest.mark.slow
def test_real_child_chooses_the_threshold_by_the_validation_pictures_for_the_share_that_was_stated(
    real: Trainer, federation: Any, make_device: Any, pushed: Any, vouched: Any
) -> None:
    doorbell = replace(make_device(federation, 1, DOORBELL_FALSE_ALARMS="0.25"), trainer=real)
    rng, shown = np.random.default_rng(3), dict[str, list[tuple[int, bytes]]]()
    for split in ("train", "valid"):
        for label, name in enumerate(("not_package", "package")):
            folder = doorbell.settings.data / "package" / doorbell.settings.client / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                coarse = rng.integers(0, 256, (int(rng.integers(2, 9)), 6, 3), dtype=np.uint8)
                picture = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_NEAREST)
                cv2.imwrite(str(folder / f"{number}.png"), picture)
                shown.setdefault(split, []).append((label, (folder / f"{number}.png").read_bytes()))
    params = PORCH_CNN.initial(rng)
    params["logit/kernel"] *= 3  # or all scores were near one half
    model = pushed(federation, architecture=PORCH_CNN.name, params=params)
    model_trial.install(doorbell, model.to_bytes(), vouched(federation, model))
    ((held, chosen),) = active_models(doorbell).items()
    real.run(
        PrepareRings(detector="package", folders=doorbell.folders, architecture=PORCH_CNN.name)
    )
    predictor = open_predictor(doorbell, lambda: {held: chosen})

    def threshold(split: str, false_alarms: float) -> float:
        labels = np.array([label for label, _ in shown[split]], np.uint8)
        scores = np.array(
            [predictor.predict(picture)["package"].score for _, picture in shown[split]], np.float32
        )
        found = threshold_for(labels, scores, false_alarms)
        assert found is not None
        return found

    assert chosen == pytest.approx(threshold("valid", 0.25), abs=1e-5)
    others = [
        threshold("train", 0.25),
        threshold("valid", 0.0),
        threshold("valid", 0.05),
        threshold("valid", 0.5),
        0.5,
    ]
    assert min(abs(chosen - other) for other in others) > 0.01, (
        "no other split and no other share leads there"
    )


@pytest.mark.heavy
def test_real_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(
        textwrap.dedent("""
            import time
            from pathlib import Path
            from device.training.jobs import Folders, PrepareRings
            from device.training.worker_client import Trainer
            from shared.errors import DoorbellError

            trainer = Trainer()
            folders = Folders(data=Path("a"), cache=Path("b"), machine_cache=Path("c"))
            job = PrepareRings(detector="package", folders=folders, architecture="unheard-of")
            try:
                trainer.run(job)
            except DoorbellError:
                print(trainer.pid, flush=True)
            time.sleep(60)
        """)
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(parent)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as started:
        assert started.stdout is not None
        child = psutil.Process(int(started.stdout.readline()))
        assert child.is_running()
        started.send_signal(signal.SIGKILL)
        started.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.heavy
def test_real_child_ends_when_its_input_closes_and_ignores_ctrl_c() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "device.training.worker"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps({"do": "no such verb"}) + "\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["error"] == "training-failed"
        child.send_signal(signal.SIGINT)
        child.stdin.write(json.dumps({"do": "no such verb"}) + "\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["error"] == "training-failed"
        child.stdin.close()
        assert child.wait(timeout=20) == 0
