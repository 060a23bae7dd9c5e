"""Local training: numpy's gradient, the same bits twice, and nothing left over from the training
before.
"""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import tensorflow as tf
from sklearn.metrics import log_loss

from device.training.training import MOMENTUM, Examples, Learner, Progress, augment
from learning.architectures import ARCHITECTURES, Params
from shared.errors import TrainingFailed
from shared.round.plan import LocalWork

pytestmark = pytest.mark.heavy  # imports TensorFlow

HEAD, PORCH = ARCHITECTURES["efficientnet-lite0-head"], ARCHITECTURES["porch-cnn"]
EACH = pytest.mark.parametrize("learner", ["head", "porch"], indirect=True)
WORK = LocalWork(epochs=2, batch_size=8, learning_rate=0.01)


@pytest.fixture(scope="module")
def learners() -> dict[str, Learner]:
    return {"head": Learner(HEAD), "porch": Learner(PORCH)}


@pytest.fixture
def learner(request, learners) -> Learner:
    return learners[request.param]


@pytest.fixture
def head(learners) -> Learner:
    return learners["head"]


@pytest.fixture(scope="module")
def swallowing() -> Learner:
    """Stands for a processor where max(nan, 0) is 0: what is not finite never comes out of the
    hidden layer.
    """
    learner = Learner(HEAD)
    hidden = learner._model.get_layer("hidden")
    hidden.activation = lambda x: tf.where((x > 0) & tf.math.is_finite(x), x, tf.zeros_like(x))
    return learner


def features(count: int, seed: int = 0) -> Examples:
    """Features like the body's, with a direction in them that gives the label away."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.uint8)
    inputs = rng.gamma(0.3, 1.4, (count, 1280)).astype(np.float32)
    inputs[:, :100] += labels[:, None]
    return Examples(inputs, labels)


def scenes(count: int, seed: int = 0) -> Examples:
    """Noise with or without a bright square somewhere."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype(np.uint8)
    inputs = rng.integers(0, 120, (count, 64, 64, 3), dtype=np.uint8)
    for row in np.flatnonzero(labels):
        top, left = rng.integers(4, 40, 2)
        inputs[row, top : top + 20, left : left + 20] += 120
    return Examples(inputs, labels)


def examples_for(learner: Learner, count: int, seed: int = 0) -> Examples:
    return (features if learner._architecture is HEAD else scenes)(count, seed)


def version_0(learner: Learner) -> Params:
    return learner._architecture.initial(np.random.default_rng(9))


def train(learner: Learner, count: int = 20, work: LocalWork = WORK, seed: int = 1, data: int = 0):
    params, valid = version_0(learner), examples_for(learner, 10, 7)
    return learner.train(
        params, examples_for(learner, count, data), valid, work, seed, lambda _: None
    )


def same(one: Params, other: Params) -> bool:
    return all(one[name].tobytes() == other[name].tobytes() for name in one | other)


def gradient(params: Params, examples: Examples, decay: float) -> Params:
    """The head's gradient, by hand."""
    x, y = examples.inputs.astype(np.float64), examples.labels[:, None]
    hidden = np.maximum(x @ params["hidden/kernel"] + params["hidden/bias"], 0)
    logits = hidden @ params["logit/kernel"] + params["logit/bias"]
    error = (1 / (1 + np.exp(-logits)) - y) / len(y)
    back = (error @ params["logit/kernel"].T) * (hidden > 0)
    return {
        "hidden/kernel": x.T @ back + decay * params["hidden/kernel"],
        "hidden/bias": back.sum(0),
        "logit/kernel": hidden.T @ error + decay * params["logit/kernel"],
        "logit/bias": error.sum(0),
    }


def test_steps_are_those_of_momentum_descent_on_the_decayed_loss(head) -> None:
    data, work = features(12), LocalWork(epochs=3, batch_size=12, learning_rate=0.02)
    expected = {name: value.astype(np.float64) for name, value in version_0(head).items()}
    velocity = {name: np.zeros(value.shape) for name, value in expected.items()}
    for _ in range(work.epochs):
        slope = gradient(expected, data, HEAD.weight_decay)
        for name, step in velocity.items():
            velocity[name] = MOMENTUM * step - work.learning_rate * slope[name]
        expected = {name: value + velocity[name] for name, value in expected.items()}
    trained, _ = head.train(version_0(head), data, data, work, 0, lambda _: None)
    for name, value in expected.items():
        np.testing.assert_allclose(trained[name], value, rtol=1e-4, atol=1e-5)


@EACH
def test_training_twice_gives_the_same_bits(learner) -> None:
    first, history = train(learner)
    again, history_again = train(learner)
    assert same(first, again)
    assert [(e.loss, e.val_loss) for e in history] == [(e.loss, e.val_loss) for e in history_again]


@EACH
def test_fresh_learner_gives_the_same_bits_as_a_used_one(learner) -> None:
    train(learner, data=3)
    assert same(train(learner)[0], train(Learner(learner._architecture))[0])


@EACH
@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"data": 1}, {"work": LocalWork(2, 4, 0.01)}], ids=str
)
def test_seed_pictures_and_work_each_matter(learner, change) -> None:
    assert not same(train(learner)[0], train(learner, **change)[0])


@EACH
def test_params_given_are_left_as_they_are(learner) -> None:
    params = version_0(learner)
    learner.train(
        params, examples_for(learner, 8), examples_for(learner, 4), WORK, 0, lambda _: None
    )
    assert same(params, version_0(learner))


@EACH
def test_other_numbers_of_pictures_do_not_trace_again(learner) -> None:
    for count in (3, 8, 13):
        train(learner, count)
        learner.scores(version_0(learner), examples_for(learner, count + 70).inputs)
    traced = [
        f.experimental_get_tracing_count()
        for f in (learner._step, learner._measure, learner._logits)
    ]
    assert traced == [1, 1, 1]


@EACH
def test_what_can_be_learned_is_learned(learner) -> None:
    trained, history = train(learner, 120, LocalWork(epochs=6, batch_size=8, learning_rate=0.01))
    test = examples_for(learner, 60, 99)
    assert ((learner.scores(trained, test.inputs) > 0.5) == test.labels).mean() > 0.9
    assert history[-1].loss < history[0].loss


@EACH
def test_history_measures_the_validation_split_with_the_trained_params(learner) -> None:
    trained, history = train(learner)
    valid = examples_for(learner, 10, 7)
    scores = learner.scores(trained, valid.inputs)
    assert history[-1].val_loss == pytest.approx(log_loss(valid.labels, scores), rel=1e-4)
    assert history[-1].val_accuracy == pytest.approx(((scores > 0.5) == valid.labels).mean())
    assert len(history) == WORK.epochs
    assert all(epoch.seconds > 0 for epoch in history)


def test_training_loss_of_an_epoch_is_the_mean_over_its_pictures(head) -> None:
    data = features(7)
    scores = head.scores(version_0(head), data.inputs)
    _, (epoch,) = head.train(version_0(head), data, data, LocalWork(1, 4, 1e-9), 0, lambda _: None)
    assert epoch.loss == pytest.approx(log_loss(data.labels, scores), rel=1e-4)
    assert epoch.accuracy == pytest.approx(((scores > 0.5) == data.labels).mean())


def test_progress_counts_every_batch(head) -> None:
    seen: list[Progress] = []
    data = features(10)
    _, history = head.train(version_0(head), data, data, LocalWork(2, 4, 0.01), 0, seen.append)
    assert [(p.epoch, p.batch) for p in seen] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert {(p.epochs, p.batches) for p in seen} == {(2, 3)}
    assert [seen[2].loss, seen[5].loss] == [epoch.loss for epoch in history]


def test_scores_are_probabilities_however_sure_the_model_is(head) -> None:
    sure = {name: value * 1000 for name, value in version_0(head).items()}
    scores = head.scores(sure, features(130).inputs)
    assert scores.shape == (130,)
    assert scores.dtype == np.float32
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_no_picture_has_no_score(head) -> None:
    assert head.scores(version_0(head), np.empty((0, 1280), np.float32)).shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_loss_that_is_no_number_is_a_failed_training(head, value) -> None:
    data = features(8)
    data.inputs[3, 5] = value
    with pytest.raises(
        TrainingFailed, match=r"diverged in epoch 1.*kept.*learning rate below 0\.01"
    ):
        head.train(version_0(head), data, features(4), WORK, 0, lambda _: None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("split", ["training", "validation"])
def test_inputs_that_are_not_finite_are_refused_where_the_network_hides_them(
    swallowing, split, value
) -> None:
    data = {"training": features(8), "validation": features(8)}
    data[split].inputs[3, 5] = value
    with pytest.raises(
        TrainingFailed, match=f"in epoch 1: the inputs of the {split} split are not finite"
    ):
        swallowing.train(
            version_0(swallowing), data["training"], data["validation"], WORK, 0, lambda _: None
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_params_that_are_not_finite_are_not_trained_from(swallowing, value) -> None:
    params = version_0(swallowing)
    params["hidden/kernel"][3, 5] = value
    with pytest.raises(TrainingFailed, match="in epoch 1: the params to start from are not finite"):
        swallowing.train(params, features(8), features(4), WORK, 0, lambda _: None)


def test_what_is_not_finite_gets_no_score(swallowing) -> None:
    params, inputs = version_0(swallowing), features(4).inputs
    spoilt = inputs.copy()
    spoilt[1, 7] = np.nan
    with pytest.raises(TrainingFailed, match="its params or its inputs are not finite"):
        swallowing.scores(params, spoilt)
    with pytest.raises(TrainingFailed, match="its params or its inputs are not finite"):
        swallowing.scores(params | {"hidden/bias": np.full(64, np.inf, np.float32)}, inputs)


def test_answer_that_is_infinite_is_no_score(head) -> None:
    params = version_0(head) | {"hidden/bias": np.ones(64, np.float32)}
    params["logit/kernel"] = np.full((64, 1), 1e38, np.float32)
    params["hidden/kernel"][:] = 0
    with pytest.raises(TrainingFailed, match="What the model answers is no number"):
        head.scores(params, np.zeros((2, 1280), np.float32))


def test_validation_loss_that_is_not_finite_is_a_failed_training(head) -> None:
    params = version_0(head) | {"logit/kernel": np.full((64, 1), 10, np.float32)}
    params["hidden/kernel"][0] = 100
    train, valid = features(8), features(4)
    train.inputs[:, 0], valid.inputs[:, 0] = 0, 1e38  # finite, but one product alone overflows
    with pytest.raises(
        TrainingFailed, match="diverged in epoch 1: its validation loss is not finite"
    ):
        head.train(params, train, valid, WORK, 0, lambda _: None)


def test_params_that_are_no_numbers_do_not_leave_the_training(head) -> None:
    params = version_0(head) | {
        "hidden/bias": np.ones(64, np.float32),
        "logit/kernel": np.full((64, 1), 10, np.float32),
    }
    params["hidden/kernel"][0] = 0
    data = Examples(np.zeros((8, 1280), np.float32), np.zeros(8, np.uint8))
    data.inputs[:, 0] = 1e38  # the loss does not see it, its gradient overflows
    with pytest.raises(TrainingFailed, match="diverged"):
        head.train(params, data, features(4), LocalWork(1, 8, 1.0), 0, lambda _: None)


def test_params_are_looked_at_after_each_epoch_where_the_loss_hides_them(swallowing) -> None:
    params = version_0(swallowing) | {"logit/kernel": np.full((64, 1), 10, np.float32)}
    params["hidden/kernel"][0] = 0
    params["hidden/bias"][:] = 1
    data = Examples(np.zeros((8, 1280), np.float32), np.zeros(8, np.uint8))
    data.inputs[:, 0] = 1e38
    with pytest.raises(TrainingFailed, match="diverged in epoch 1: its params are not finite"):
        swallowing.train(params, data, features(4), LocalWork(3, 8, 1.0), 0, lambda _: None)


def test_training_after_a_failed_one_is_as_if_it_had_not_been(head) -> None:
    before, _ = train(head)
    test_loss_that_is_no_number_is_a_failed_training(head, np.nan)
    assert same(before, train(head)[0])


@pytest.mark.parametrize(
    ("train_count", "valid_count", "split"), [(0, 4, "training"), (4, 0, "validation")]
)
def test_empty_split_is_named(head, train_count, valid_count, split) -> None:
    with pytest.raises(TrainingFailed, match=f"no {split} pictures"):
        head.train(
            version_0(head), features(train_count), features(valid_count), WORK, 0, lambda _: None
        )


def test_memory_does_not_grow_with_trainings(head) -> None:
    resident = []
    for number in range(80):
        train(head, 20 + number % 7, LocalWork(1, 8, 0.01))
        resident.append(psutil.Process().memory_info().rss)
    assert resident[-1] <= 1.05 * resident[9]


def test_augmented_pictures_keep_shape_range_and_subject() -> None:
    inputs = scenes(40).inputs.astype(np.float32)
    varied = augment(inputs, np.random.default_rng(0))
    assert varied.shape == inputs.shape
    assert varied.min() >= 0
    assert varied.max() <= 255
    contrast = varied.max((1, 2, 3)) / inputs.max((1, 2, 3))
    assert 0.79 <= contrast.min() < 0.95
    assert 1.05 < contrast.max() <= 1.21


def test_augmentation_mirrors_and_shifts_a_few_pixels() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None], (200, 64, 64, 3)).copy()
    varied = augment(ramp, np.random.default_rng(0))
    mirrored = varied[:, 32, 40, 0] < varied[:, 32, 20, 0]
    assert 0.35 < mirrored.mean() < 0.65
    slope = np.abs(varied[:, 32, 40, 0] - varied[:, 32, 20, 0]) / 20
    centre = (varied[:, 32, 31, 0] + varied[:, 32, 32, 0]) / 2 / slope
    assert set(np.round(centre - 31.5).astype(int)) == set(range(-4, 5))
