"""A new global model on trial: asked once, in force once it has answered, and the one from before
until then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from device.context import Device
from device.rounds import model_trial, participation
from device.rounds.model_trial import NoAnswer
from device.store.records import GlobalModel
from device.training.jobs import Folders, Measure, Train
from device.training.results import Score as JobScore
from device.training.results import Scores
from device.training.worker_client import Busy, ChildDied
from learning.model import Model, version_of
from shared.errors import CannotTrain, DatasetError, InvalidMessage, OutOfOrder, TrainingFailed

Pushed = Callable[..., Model]


@pytest.fixture
def installed(
    federation: Any, doorbell: Device, add_pictures: Any, pushed: Pushed, vouched: Any
) -> Any:
    """Return a function that installs a model on a device with validation pictures, and returns its
    version.
    """
    add_pictures(doorbell, "valid")

    def install(**changed: Any) -> str:
        model = pushed(federation, **changed)
        participation.install(doorbell, model.to_bytes(), vouched(federation, model))
        return version_of(model.to_bytes())

    return install


def scored(doorbell: Device) -> list[str]:
    """Return the versions that the child was asked to score, in order."""
    jobs = [job for job in doorbell.trainer.jobs if isinstance(job, Measure)]
    assert all((job.split, job.clients) == ("valid", ("client_1",)) for job in jobs)
    return [job.models["candidate"].name for job in jobs]


def test_model_that_answers_is_in_force_with_its_score(doorbell: Device, installed: Any) -> None:
    version = installed(round=3)
    assert doorbell.store.models.active("package").version == version
    score = doorbell.store.models.newest_score("package")
    assert (score.version, score.accuracy, score.pictures, score.said) == (version, 0.75, 4, None)
    assert doorbell.store.models.candidate("package") is None
    assert scored(doorbell) == [version]


def test_version_is_asked_once_however_often_it_comes(
    federation: Any, doorbell: Device, installed: Any
) -> None:
    version = installed(round=3)
    assert installed(round=3) == version
    assert scored(doorbell) == [version]
    base = federation.announce("device-1").base_version
    with pytest.raises(OutOfOrder):
        model_trial.fetch(doorbell, "package", base)
    assert scored(doorbell) == [version]


def test_version_pushed_and_fetched_at_the_same_time_is_asked_once(
    federation: Any, doorbell: Device, add_pictures: Any
) -> None:
    add_pictures(doorbell, "valid")
    version, start = federation.announce("device-1").base_version, threading.Barrier(4)
    run, failed = doorbell.trainer.run, []

    def slowly(job: Any) -> Any:
        threading.Event().wait(0.2)
        return run(job)

    doorbell.trainer.run = slowly  # type: ignore[method-assign]

    def fetch() -> None:
        start.wait()
        try:
            model_trial.fetch(doorbell, "package", version)
        except Exception as error:  # handed to the test
            failed.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert scored(doorbell) == [version]
    assert doorbell.store.models.active("package").version == version


def test_version_in_force_does_not_wait_and_one_that_waits_does_so_once(doorbell: Device) -> None:
    held, newer = GlobalModel("package", "a" * 64, 3), GlobalModel("package", "b" * 64, 4)
    doorbell.store.models.activate(held)
    assert doorbell.store.models.propose(held) is None
    assert doorbell.store.models.candidate("package") is None
    assert doorbell.store.models.propose(newer) is doorbell.store.models.propose(newer) is None
    assert doorbell.store.models.candidate("package") == newer
    assert doorbell.store.models.propose(GlobalModel("package", "c" * 64, 3)) == newer
    assert not doorbell.store.models.activate(GlobalModel("package", "c" * 64, 2))
    assert doorbell.store.models.active("package") == held
    assert doorbell.store.models.candidates() == ("package",)


@pytest.mark.parametrize(
    "errors",
    [
        [TrainingFailed("What the model answers is no number.")],
        [ChildDied("Killed."), ChildDied("Killed again.")],
    ],
    ids=["no number", "child died twice"],
)
def test_model_that_does_not_answer_is_turned_down_and_the_one_before_stays(
    doorbell: Device, installed: Any, errors: list[Exception]
) -> None:
    before = installed(round=3)
    doorbell.trainer.errors["measure"] = list(errors)
    with pytest.raises(
        InvalidMessage, match=r"of round 4 does not answer.*The model of round 3 stays in force"
    ):
        installed(round=4)
    assert doorbell.trainer.errors["measure"] == []
    assert doorbell.store.models.active("package").version == before
    assert doorbell.store.models.candidate("package") is None
    setback = doorbell.store.failures.latest("package")
    assert setback.round == 4
    assert str(errors[-1].happened) in setback.said  # type: ignore[attr-defined]
    assert doorbell.store.models.rejected("package") not in (None, before)
    assert doorbell.store.models.newest_score("package").version == before


def test_accuracy_that_is_no_number_is_no_answer(doorbell: Device, installed: Any) -> None:
    doorbell.trainer.accuracy = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(NoAnswer, match="No model is in force yet"):
        installed(round=4)
    assert doorbell.store.models.active("package") is None


def test_child_that_dies_once_is_replaced_and_the_model_asked_again(
    doorbell: Device, installed: Any
) -> None:
    doorbell.trainer.errors["measure"] = [ChildDied("Killed.")]
    version = installed(round=4)
    assert doorbell.store.models.active("package").version == version
    assert scored(doorbell) == [version, version]
    assert doorbell.store.failures.latest("package") is None


def test_model_that_answers_later_is_not_refused_any_more(doorbell: Device, installed: Any) -> None:
    doorbell.trainer.errors["measure"] = [TrainingFailed("No.")]
    with pytest.raises(NoAnswer):
        installed(round=4)
    version = installed(round=4)
    assert doorbell.store.models.rejected("package") is None
    assert doorbell.store.models.newest_score("package").version == version


def test_push_of_a_model_that_does_not_answer_gets_a_problem(
    federation: Any, doorbell: Device, pushed: Pushed, push: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(*_: object) -> None:
        raise TrainingFailed("What the model answers is no number.")

    monkeypatch.setattr(model_trial, "_ask", no_answer)
    with pytest.raises(
        InvalidMessage, match="of round 2 does not answer the validation pictures here"
    ):
        push(federation, pushed(federation, round=2))


def test_without_validation_pictures_a_model_is_in_force_without_a_score_and_no_child_is_started(
    federation: Any, doorbell: Device, pushed: Pushed, push: Any
) -> None:
    said = push(federation, pushed(federation, round=2))
    assert (
        "is installed without a score: There are no validation pictures of one class or both."
        in said
    )
    held = doorbell.store.models.active("package")
    assert (held.round, doorbell.store.models.newest_score("package")) == (2, None)
    assert "no validation pictures" in doorbell.store.models.score(held.version).said
    assert doorbell.store.models.rejected("package") is None
    assert doorbell.trainer.jobs == []


def test_validation_pictures_that_cannot_be_used_give_no_score(
    doorbell: Device, installed: Any
) -> None:
    doorbell.trainer.errors["measure"] = [DatasetError("The folder has no usable picture.")]
    version = installed(round=2)
    assert doorbell.store.models.active("package").version == version
    assert "no usable picture" in doorbell.store.models.score(version).said
    assert doorbell.store.failures.latest("package") is None


def test_device_without_tensorflow_takes_a_model_without_a_score(
    doorbell: Device, installed: Any
) -> None:
    doorbell.trainer.errors["measure"] = [CannotTrain()]
    version = installed(round=2)
    assert doorbell.store.models.active("package").version == version
    assert "TensorFlow is not installed here" in doorbell.store.models.score(version).said
    assert doorbell.store.failures.latest("package") is None


def test_threshold_of_a_model_is_kept_with_its_score(doorbell: Device, installed: Any) -> None:
    doorbell.trainer.threshold = 0.25
    version = installed(round=2)
    assert doorbell.store.models.score(version).threshold == 0.25
    assert doorbell.trainer.jobs[-1].false_alarms == 0.05
    assert {
        held.version: threshold for held, threshold in doorbell.store.models.all_active().items()
    } == {version: 0.25}


def test_model_that_comes_while_the_child_trains_waits_and_is_in_force_after_the_training(
    federation: Any, doorbell: Device, installed: Any, pushed: Pushed, vouched: Any
) -> None:
    before, model = installed(round=3), pushed(federation, round=4)
    doorbell.trainer.errors["measure"] = [
        Busy("This device is busy: training package, reading the pictures.")
    ]
    done = participation.install(doorbell, model.to_bytes(), vouched(federation, model))
    assert "is kept. This device is busy: training package" in done.said
    assert "Once it has answered the validation pictures, it is in force." in done.said
    assert doorbell.store.models.active("package").version == before
    assert doorbell.store.models.candidate("package").version == version_of(model.to_bytes())
    with pytest.raises(OutOfOrder, match="round 3 is older than the one of round 4"):
        installed(round=3, parent=before)
    model_trial.settle_all(doorbell)
    assert doorbell.store.models.active("package").version == version_of(model.to_bytes())


def test_waiting_model_is_settled_before_the_next_training_and_what_comes_meanwhile_after_it(
    federation: Any, doorbell: Device, add_pictures: Any, pushed: Pushed, vouched: Any
) -> None:
    add_pictures(doorbell, "valid")
    participation.train(doorbell, "package")
    run, later = doorbell.trainer.run, pushed(federation, round=7)

    def pushed_meanwhile(job: Any) -> Any:
        if isinstance(job, Train):
            model_trial.propose(doorbell, later.to_bytes(), vouched(federation, later))
        return run(job)

    doorbell.trainer.run = pushed_meanwhile  # type: ignore[method-assign]
    participation.train(doorbell, "package")
    assert doorbell.store.models.active("package").round == 7
    doorbell.trainer.run = run  # type: ignore[method-assign]
    newest = pushed(federation, round=8)
    model_trial.propose(doorbell, newest.to_bytes(), vouched(federation, newest))
    federation.network.down = {"main"}
    with pytest.raises(Exception, match="not heard of a round for the model it holds"):
        participation.train(doorbell, "package")
    assert doorbell.store.models.active("package").round == 8


def test_base_that_does_not_answer_is_not_trained_from(
    federation: Any, doorbell: Device, add_pictures: Any
) -> None:
    add_pictures(doorbell, "valid")
    doorbell.trainer.errors["measure"] = [TrainingFailed("No number.")]
    with pytest.raises(NoAnswer):
        participation.train(doorbell, "package")
    assert [type(job) for job in doorbell.trainer.jobs] == [Measure]
    assert doorbell.store.trainings.newest("package") is None
    assert doorbell.store.failures.latest("package").round == 0


def test_training_fetches_asks_and_trains_in_this_order(
    doorbell: Device, add_pictures: Any
) -> None:
    add_pictures(doorbell, "valid")
    add_pictures(doorbell, "train", 3)
    participation.train(doorbell, "package")
    participation.train(doorbell, "package")
    assert [type(job) for job in doorbell.trainer.jobs] == [Measure, Train, Train]
    assert doorbell.store.trainings.newest("package").pictures == 6


def test_device_that_was_killed_before_the_answer_settles_when_it_is_back(
    federation: Any,
    doorbell: Device,
    add_pictures: Any,
    make_device: Any,
    pushed: Pushed,
    vouched: Any,
) -> None:
    add_pictures(doorbell, "valid")
    model = pushed(federation, round=4)
    model_trial.propose(doorbell, model.to_bytes(), vouched(federation, model))
    again = make_device(federation)
    model_trial.settle_all(again)
    assert again.store.models.active("package").version == version_of(model.to_bytes())
    assert again.store.models.newest_score("package").accuracy == 0.75


@pytest.mark.heavy
def test_score_of_a_model_with_overflowing_params_is_refused_by_the_real_child(
    tmp_path: Any,
) -> None:
    from device.training.worker import Bench  # noqa: PLC0415

    class Learner:
        def scores(self, _params: Any, inputs: Any) -> Any:
            return np.full(len(inputs), np.nan, np.float32)

    class Part:
        inputs, labels = np.zeros((4, 2)), np.array([0, 0, 1, 1], np.uint8)

    bench: Any = Bench()
    bench._learner, bench._examples = lambda _: Learner(), lambda *_: (Part(), {})
    from learning.architectures import architecture  # noqa: PLC0415

    spec = architecture("efficientnet-lite0-head")
    path = tmp_path / "model"
    path.write_bytes(
        Model("package", 1, None, spec.name, spec.initial(np.random.default_rng(0))).to_bytes()
    )
    job = Measure(
        detector="package",
        folders=Folders(data=tmp_path, cache=tmp_path, machine_cache=tmp_path),
        clients=("client_1",),
        split="valid",
        models={"candidate": path},
    )
    with pytest.raises(TrainingFailed, match="is no number"):
        bench.measure(job)
    Learner.scores = lambda *_: np.array([0.1, 0.5, 0.5, 0.4], np.float32)  # type: ignore[method-assign]
    assert bench.measure(job) == Scores({"candidate": JobScore(pictures=4, accuracy=0.5)})
