"""A round, as functions that anybody can call: no store, no HTTP, no files, no clock.

    client_update   a device trains from the global model                  on the device
    share           its delta becomes the update that leaves the device    on the device
    sum_buckets     masked updates are added up, unread                    sec_agg/summing.py
    mean_of_sum     the masks come off the sum, which becomes a mean       on the main server
    server_update   the strategy takes a step                              on the main server

The services' verbs, the benchmarks and the tests call the same functions; a device's training child
trains by the learner alone, and `local_result` takes up what it kept. In the secure topology
nothing but the masked vector and the sealed seed ever leaves a device; the seed itself is forgotten
when `share` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from learning.architectures import Params, architecture
from learning.finite import all_finite
from learning.server_state import ServerState
from learning.strategies import parse_strategy
from shared.errors import InvalidMessage
from shared.names import MAIN_SERVER
from shared.round.fixed_point import Mean, decode, encode
from shared.round.masking import mask, new_seed, seal, unmask
from shared.round.payloads import MaskedUpdate, PlainUpdate
from shared.round.plan import LocalWork, RoundPlan


class Examples(Protocol):
    """One split of a device's pictures, ready for the learner."""

    @property
    def labels(self) -> NDArray[np.uint8]:
        """uint8[n], 1 where the picture shows the object."""


class Learner(Protocol):
    """What trains; the only framework in a round hides behind it."""

    def train(
        self,
        params: Params,
        train: Any,
        valid: Any,
        work: LocalWork,
        seed: int,
        on_progress: Callable[[Any], None],
    ) -> tuple[Params, tuple[Any, ...]]:
        """Return the trained params and one entry per epoch."""


@dataclass(frozen=True, eq=False)
class LocalResult:
    """What a device has after its local training; it stays on the device.

    Attributes:
        delta: float32[d], trained params minus the round's base.
        weight: Number of training pictures.
        params: The trained params.
        history: One entry per epoch.
    """

    delta: NDArray[np.float32]
    weight: int
    params: Params
    history: tuple[Any, ...] = ()


def client_update(
    base: Params,
    train: Examples,
    valid: Examples,
    plan: RoundPlan,
    learner: Learner,
    seed: int,
    on_progress: Callable[[Any], None] = lambda _: None,
) -> LocalResult:
    """Train on a device's own pictures, from the global model.

    Args:
        base: Params of the round's base version.
        train: The pictures to learn from.
        valid: The pictures to measure each epoch by.
        plan: The round's plan; its local work is done.
        learner: Trains.
        seed: Decides the order of the pictures and their augmentation.
        on_progress: Called after each batch.
    """
    params, history = learner.train(base, train, valid, plan.work, seed, on_progress)
    return local_result(base, params, len(train.labels), plan, history)


def local_result(
    base: Params,
    trained: Params,
    weight: int,
    plan: RoundPlan,
    history: tuple[Any, ...] = (),
) -> LocalResult:
    """Return the result of a training whose params were kept: `delta = trained - base`."""
    spec = architecture(plan.architecture)
    delta = spec.flatten(trained) - spec.flatten(base)
    return LocalResult(delta, weight, trained, history)


def clip(delta: NDArray[np.float32], clipping_norm: float | None) -> NDArray[np.float32]:
    """Return `delta` scaled down to an L2 norm of at most `clipping_norm`.

    It is unchanged if it is shorter, or if there is no norm. McMahan et al., "Learning
    differentially private recurrent language models" (2018), section 3.

    Raises:
        InvalidMessage: A value is not finite.
    """
    if not all_finite(delta):
        raise InvalidMessage("This delta cannot be sent: a value is not finite.")
    if clipping_norm is None:
        return delta
    norm = float(np.linalg.norm(delta.astype(np.float64)))
    if norm <= clipping_norm:
        return delta
    return delta * np.float32(clipping_norm / norm)


def share(
    result: LocalResult, plan: RoundPlan, device: str, rng: np.random.Generator
) -> MaskedUpdate | PlainUpdate:
    """Return the update that leaves the device: clipped, and masked for the secure aggregator.

    In the direct topology the plan names the main server as its receiver, and the update is plain.

    Args:
        result: What the training came to.
        plan: The round's plan.
        device: The device's name, bound into the mask.
        rng: Source of the stochastic rounding; nothing secret depends on it.
    """
    delta = clip(result.delta, plan.clipping_norm)
    of_round = (plan.detector, plan.round, plan.base_version, device)
    if plan.receiver == MAIN_SERVER:
        return PlainUpdate(*of_round, min(result.weight, plan.weight_cap), delta)
    context = plan.context(device)
    seed = new_seed()
    masked = mask(encode(delta, result.weight, plan, rng), seed, context)
    return MaskedUpdate(*of_round, seal(seed, plan.sealing_key_bytes, context), masked)


def mean_of_sum(total: NDArray[np.uint32], seeds: Mapping[str, bytes], plan: RoundPlan) -> Mean:
    """Take every mask off a sum, and decode it to the cohort's weighted mean.

    Args:
        total: uint32[d + 2], the sum of the cohort's masked vectors; left as it is.
        seeds: Device to seed, opened, of the whole cohort.
        plan: The round's plan.

    Raises:
        InvalidMessage: What is left is no sum of an honest cohort.
    """
    unmasked = total.copy()
    for device, seed in seeds.items():
        unmask(unmasked, seed, plan.context(device))
    return decode(unmasked, plan, len(seeds))


def server_update(state: ServerState, means: Sequence[Mean], plan: RoundPlan) -> ServerState:
    """Let the plan's strategy take its step.

    Args:
        state: The state of the round's base version.
        means: One without buckets; in the direct topology one per device.
        plan: The round's plan, with the strategy and the server's step size.

    Returns:
        The state of the next version.

    Raises:
        InvalidMessage: The step leads to a value that is not finite; nothing was changed.
    """
    stepped = parse_strategy(plan.strategy).step(state, means, plan.server_learning_rate)
    if not all_finite(stepped.params, *stepped.arrays.values()):
        raise InvalidMessage(
            "The mean of this cohort is not finite.", kept="The global model is as it was."
        )
    return stepped
