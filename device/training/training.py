"""Local training: from a global model's params to this device's own. The device's training child
runs it.

One compiled step of stochastic gradient descent with momentum serves every training of an
architecture, whatever the number of pictures: the first dimension of its input is left open, so
nothing is traced twice, and nothing that
`Model.fit` would build per call (data adapters, callbacks) is left behind. Params, pictures, work
and seed decide the result bit for bit on one machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from device.training.models import get_params, set_params
from device.training.results import Epoch, Progress
from learning.architectures import Architecture, Params
from learning.finite import all_finite
from shared.errors import TrainingFailed
from shared.round.plan import LocalWork

MOMENTUM: Final = 0.9
EVALUATION_BATCH: Final = 64
MAX_SHIFT_PX: Final = 4
MAX_BRIGHTNESS_CHANGE: Final = 0.2

Inputs = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Examples:
    """One split, ready for the model.

    Attributes:
        inputs: float32[n, 1280] features, or uint8[n, px, px, 3] RGB for an architecture without a
            body.
        labels: uint8[n], 1 where the picture shows what is to be detected and 0 elsewhere.
        files: Of each picture its file, relative to the data set's folder, and the SHA-256 of its
            bytes.
    """

    inputs: Inputs
    labels: NDArray[np.uint8]
    files: tuple[tuple[Path, str], ...] = ()


@dataclass
class _Tally:
    """Sums over the pictures seen so far."""

    loss: float = 0.0
    correct: float = 0.0
    count: int = 0

    def add(self, sums: NDArray[np.float32], count: int) -> None:
        self.loss += float(sums[0])
        self.correct += float(sums[1])
        self.count += count

    def means(self) -> tuple[float, float]:
        return self.loss / self.count, self.correct / self.count


class Learner:
    """Keeps the compiled model of one architecture warm; one per process, used from one thread."""

    def __init__(self, architecture: Architecture) -> None:
        tf.config.experimental.enable_op_determinism()
        self._architecture = architecture
        self._model = architecture.build()
        self._optimizer = keras.optimizers.SGD(momentum=MOMENTUM)
        self._optimizer.build(self._model.trainable_variables)
        signature = (
            tf.TensorSpec((None, *self._model.input_shape[1:]), tf.float32),
            tf.TensorSpec((None,), tf.float32),
        )
        self._step = tf.function(self._learn, input_signature=signature, autograph=False)
        self._measure = tf.function(self._sums, input_signature=signature, autograph=False)
        self._logits = tf.function(self._forward, input_signature=signature[:1], autograph=False)

    def train(
        self,
        params: Params,
        train: Examples,
        valid: Examples,
        work: LocalWork,
        seed: int,
        on_progress: Callable[[Progress], None],
    ) -> tuple[Params, tuple[Epoch, ...]]:
        """Train from params on a device's pictures; the optimizer starts afresh.

        Args:
            params: The global model's params; left as they are.
            train: The pictures to learn from, at least one.
            valid: The pictures to measure each epoch by, at least one.
            work: Epochs, batch size and learning rate.
            seed: Decides the order of the pictures and their augmentation.
            on_progress: Called after each batch, in this thread; what it raises ends the training.

        Returns:
            The trained params, and one `Epoch` for each pass.

        Raises:
            TrainingFailed: A split is empty; or inputs, params or a loss are not finite, before or
                after an epoch.
        """
        _require_examples(train, valid)
        for what, arrays in (
            ("the inputs of the training split are", [train.inputs]),
            ("the inputs of the validation split are", [valid.inputs]),
            ("the params to start from are", params.values()),
        ):
            if not all_finite(*arrays):
                raise _diverged(work, 1, what)
        self._reset(params, work.learning_rate)
        rng = np.random.default_rng(seed)
        trained = params
        history: list[Epoch] = []
        begun = time.perf_counter()

        def tell(progress: Progress) -> None:
            done = (progress.epoch - 1 + progress.batch / progress.batches) / progress.epochs
            left = (time.perf_counter() - begun) * (1 - done) / done
            on_progress(
                msgspec.structs.replace(progress, history=tuple(history), seconds_left=left)
            )

        for epoch in range(1, work.epochs + 1):
            started = time.perf_counter()
            loss, accuracy = self._pass(train, work, epoch, rng, tell)
            val_loss, val_accuracy = self._evaluate(valid)
            # A loss may miss params that are not finite, where a kernel takes NaN for 0: so both
            # are asked.
            trained = get_params(self._model, self._architecture)
            if not all_finite(*trained.values()):
                raise _diverged(work, epoch, "its params are")
            if not math.isfinite(val_loss):
                raise _diverged(work, epoch, "its validation loss is")
            history.append(
                Epoch(loss, accuracy, val_loss, val_accuracy, time.perf_counter() - started)
            )
        return trained, tuple(history)

    def scores(self, params: Params, inputs: Inputs) -> NDArray[np.float32]:
        """Return the probability, float32[n] from 0 to 1, that each picture shows what is to be
        detected.

        Raises:
            TrainingFailed: The inputs, the params or what the model answers are not finite.
        """
        if not all_finite(inputs, *params.values()):
            raise _no_number("The model cannot be scored: its params or its inputs are not finite.")
        set_params(self._model, self._architecture, params)
        batches = [self._logits(_floats(inputs[rows])).numpy() for rows in _slices(len(inputs))]
        logits = np.concatenate([np.empty(0, np.float32), *batches])
        if not all_finite(logits):  # asked here, because a sigmoid turns infinity into 0 or 1
            raise _no_number("What the model answers is no number.")
        scores: NDArray[np.float32] = np.exp(-np.logaddexp(0, -logits), dtype=np.float32)
        return scores

    def _pass(
        self,
        train: Examples,
        work: LocalWork,
        epoch: int,
        rng: np.random.Generator,
        on_progress: Callable[[Progress], None],
    ) -> tuple[float, float]:
        order = rng.permutation(len(train.labels))
        batches = math.ceil(len(order) / work.batch_size)
        tally = _Tally()
        for batch in range(batches):
            rows = order[batch * work.batch_size : (batch + 1) * work.batch_size]
            inputs = _floats(train.inputs[rows])
            if self._architecture.is_augmented:
                inputs = augment(inputs, rng)
            tally.add(self._step(inputs, _floats(train.labels[rows])).numpy(), len(rows))
            if not math.isfinite(tally.loss):
                raise _diverged(work, epoch, "its loss is")
            on_progress(Progress(epoch, work.epochs, batch + 1, batches, *tally.means()))
        return tally.means()

    def _evaluate(self, examples: Examples) -> tuple[float, float]:
        tally = _Tally()
        for rows in _slices(len(examples.labels)):
            labels = _floats(examples.labels[rows])
            tally.add(self._measure(_floats(examples.inputs[rows]), labels).numpy(), len(labels))
        return tally.means()

    def _reset(self, params: Params, learning_rate: float) -> None:
        set_params(self._model, self._architecture, params)
        for variable in self._optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        self._optimizer.learning_rate.assign(learning_rate)

    def _forward(self, inputs: Any) -> Any:
        return tf.squeeze(self._model(inputs, training=False), axis=-1)

    def _sums(self, inputs: Any, labels: Any) -> Any:
        """Return [sum of the losses, number of correct answers]."""
        logits = self._forward(inputs)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        correct = tf.equal(logits > 0, labels > 0.5)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(correct, tf.float32))])

    def _learn(self, inputs: Any, labels: Any) -> Any:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            sums = self._sums(inputs, labels)
            kernels = [
                variable.value for variable in variables if variable.path.endswith("/kernel")
            ]
            decay = self._architecture.weight_decay * tf.add_n(
                [tf.nn.l2_loss(kernel) for kernel in kernels]
            )
            objective = sums[0] / tf.cast(tf.size(labels), tf.float32) + decay
        gradients = tape.gradient(objective, [variable.value for variable in variables])
        self._optimizer.apply(gradients, variables)
        return sums


def augment(inputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Vary pictures as a porch does: mirrored or not, a few pixels off, in brighter or dimmer
    light.

    Args:
        inputs: float32[n, px, px, 3] from 0 to 255.
        rng: Decides every variation.

    Returns:
        A new array of the same shape and range; what a shift uncovers repeats the picture's edge.
    """
    px, margin = inputs.shape[1], MAX_SHIFT_PX
    padded = np.pad(inputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    tops, lefts = rng.integers(0, 2 * margin + 1, (2, len(inputs)))
    mirrored = rng.random(len(inputs)) < 0.5
    gains = rng.uniform(1 - MAX_BRIGHTNESS_CHANGE, 1 + MAX_BRIGHTNESS_CHANGE, len(inputs))
    varied = np.empty_like(inputs)
    for row, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        shifted = padded[row, top : top + px, left : left + px]
        varied[row] = (shifted[:, ::-1] if mirrored[row] else shifted) * gains[row]
    return np.clip(varied, 0, 255)


def _floats(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _slices(count: int) -> Iterator[slice]:
    return (slice(start, start + EVALUATION_BATCH) for start in range(0, count, EVALUATION_BATCH))


def _require_examples(train: Examples, valid: Examples) -> None:
    for split, examples in (("training", train), ("validation", valid)):
        if len(examples.labels) == 0:
            raise TrainingFailed(
                f"There are no {split} pictures.",
                kept="The model from before was kept.",
                todo=f"Add pictures to the {split} split and train again.",
            )


def _diverged(work: LocalWork, epoch: int, what: str) -> TrainingFailed:
    return TrainingFailed(
        f"The training diverged in epoch {epoch}: {what} not finite.",
        kept="The model from before was kept.",
        todo=(
            f"Train again with a learning rate below {work.learning_rate:g}, and look for damaged"
            " pictures."
        ),
    )


def _no_number(happened: str) -> TrainingFailed:
    return TrainingFailed(happened, kept="What was stored is kept.")
