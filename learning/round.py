"""From a trained model to what leaves the device: delta, clip, encode, mask, seal. Pure functions.

`delta = trained_params - global_params`. In the secure topology nothing else than the masked vector
and the sealed seed ever leaves; the seed itself is forgotten when `masked_update` returns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.architectures import Architecture, Params
from shared.round.fixed_point import encode
from shared.round.masking import mask, new_seed, seal
from shared.round.payloads import MaskedUpdate, PlainUpdate
from shared.round.plan import RoundPlan


def delta_of(architecture: Architecture, trained: Params, base: Params) -> NDArray[np.float32]:
    """Return trained minus base, flattened: float32[d]."""
    return architecture.flatten(trained) - architecture.flatten(base)


def clip(delta: NDArray[np.float32], clipping_norm: float | None) -> NDArray[np.float32]:
    """Return `delta` scaled down to an L2 norm of at most `clipping_norm`; unchanged if it is
    shorter, or no norm.

    McMahan et al., "Learning differentially private recurrent language models" (2018), section 3.
    """
    norm = float(np.linalg.norm(delta.astype(np.float64)))
    if clipping_norm is None or norm <= clipping_norm:
        return delta
    return delta * np.float32(clipping_norm / norm)


def masked_update(
    delta: NDArray[np.float32],
    weight: int,
    settings: RoundPlan,
    device: str,
    rng: np.random.Generator,
) -> MaskedUpdate:
    """Return the masked update of one device; each call masks afresh.

    Args:
        delta: float32[d].
        weight: Number of training pictures.
        settings: The round's settings.
        device: The device's name, bound into the mask.
        rng: Source of the stochastic rounding.
    """
    encoded = encode(clip(delta, settings.clipping_norm), weight, settings, rng)
    seed, context = new_seed(), settings.context(device)
    sealed = seal(seed, settings.sealing_key_bytes, context)
    masked = mask(encoded, seed, context)
    return MaskedUpdate(
        settings.detector, settings.round, settings.base_version, device, sealed, masked
    )


def plain_update(
    delta: NDArray[np.float32], weight: int, settings: RoundPlan, device: str
) -> PlainUpdate:
    """Return the plain update of one device, clipped; only the direct topology sends it."""
    clipped = clip(delta, settings.clipping_norm)
    return PlainUpdate(
        settings.detector,
        settings.round,
        settings.base_version,
        device,
        min(weight, settings.weight_cap),
        clipped,
    )
