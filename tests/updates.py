"""Updates of devices that have a delta and did not have to train for it."""

from __future__ import annotations

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from learning.round import LocalResult, share
from shared.round.payloads import MaskedUpdate, PlainUpdate
from shared.round.plan import RoundPlan


def masked_update(
    delta: NDArray[np.float32], weight: int, plan: RoundPlan, device: str, rng: np.random.Generator
) -> MaskedUpdate:
    """Return a device's masked update of a secure round; each call masks afresh."""
    update = share(LocalResult(delta, weight, {}), plan, device, rng)
    assert isinstance(update, MaskedUpdate)
    return update


def plain_update(
    delta: NDArray[np.float32], weight: int, plan: RoundPlan, device: str
) -> PlainUpdate:
    """Return a device's plain update, whatever the plan's topology."""
    direct = structs.replace(plan, topology="direct", sealing_key="")
    update = share(LocalResult(delta, weight, {}), direct, device, np.random.default_rng(0))
    assert isinstance(update, PlainUpdate)
    return update
