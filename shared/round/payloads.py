"""The two payloads of a round: updates and the aggregate, read strictly into frozen dataclasses.

    doorbell-update/1     a device's update: tensor `masked` U32[d + 2],
                          or `delta` F32[d] in the direct topology
    doorbell-aggregate/1  the aggregator's sum: tensor `sum` U32[d + 2],
                          devices and sealed seeds in the metadata

The third container, the model, is `learning/model.py`: the aggregator never reads one.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidMessage
from shared.names import checked_name, checked_version
from shared.round.container import malformed, pack, parse_integer, unpack
from shared.round.masking import SEALED_BYTES
from shared.round.plan import EXTRA_COORDINATES

UPDATE = "doorbell-update/1"
AGGREGATE = "doorbell-aggregate/1"


@dataclass(frozen=True, eq=False)
class MaskedUpdate:
    """What a device sends to the aggregator: `masked` is uint32[d + 2], `sealed_seed` is opaque
    there.
    """

    detector: str
    round: int
    base_version: str
    device: str
    sealed_seed: bytes
    masked: NDArray[np.uint32]

    def to_bytes(self) -> bytes:
        """Return the container; `parse_masked_update` is the inverse."""
        metadata = _round_metadata(self) | {
            "device": self.device,
            "sealed_seed": _to_base64(self.sealed_seed),
        }
        return pack(UPDATE, metadata, {"masked": self.masked})


@dataclass(frozen=True, eq=False)
class PlainUpdate:
    """What a device sends to the main server in the direct topology: `delta` is float32[d], weight
    in pictures.
    """

    detector: str
    round: int
    base_version: str
    device: str
    weight: int
    delta: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Return the container; `parse_plain_update` is the inverse."""
        metadata = _round_metadata(self) | {"device": self.device, "weight": str(self.weight)}
        return pack(UPDATE, metadata, {"delta": self.delta})


@dataclass(frozen=True, eq=False)
class Aggregate:
    """The sum over a cohort, uint32[d + 2], still masked, with each device's sealed seed."""

    detector: str
    round: int
    base_version: str
    sealed_seeds: Mapping[str, bytes]
    sum: NDArray[np.uint32]

    def to_bytes(self) -> bytes:
        """Return the container; `parse_aggregate` is the inverse."""
        seeds = [
            [device, _to_base64(sealed)] for device, sealed in sorted(self.sealed_seeds.items())
        ]
        return pack(
            AGGREGATE,
            _round_metadata(self) | {"sealed_seeds": json.dumps(seeds)},
            {"sum": self.sum},
        )


def parse_masked_update(data: bytes) -> MaskedUpdate:
    """Return the masked update in `data`.

    Raises:
        InvalidMessage: It is anything else.
    """
    metadata, tensors = unpack(data, UPDATE)
    masked = _only_vector(tensors, "masked", "<u4")
    if masked.size <= EXTRA_COORDINATES:
        raise malformed()
    seed = _from_base64(metadata.get("sealed_seed"))
    return MaskedUpdate(
        *_round_of(metadata), checked_name(metadata.get("device"), "device"), seed, masked
    )


def parse_plain_update(data: bytes) -> PlainUpdate:
    """Return the plain update in `data`; its delta is finite.

    Raises:
        InvalidMessage: It is anything else.
    """
    metadata, tensors = unpack(data, UPDATE)
    delta = _only_vector(tensors, "delta", "<f4")
    weight = parse_integer(metadata.get("weight"))
    if weight < 1 or not np.isfinite(delta).all():
        raise InvalidMessage("This update has no weight, or a value that is not finite.")
    return PlainUpdate(
        *_round_of(metadata), checked_name(metadata.get("device"), "device"), weight, delta
    )


def parse_aggregate(data: bytes) -> Aggregate:
    """Return the aggregate in `data`; each device is named once.

    Raises:
        InvalidMessage: It is anything else.
    """
    metadata, tensors = unpack(data, AGGREGATE)
    total = _only_vector(tensors, "sum", "<u4")
    if total.size <= EXTRA_COORDINATES:
        raise malformed()
    try:
        pairs = json.loads(metadata.get("sealed_seeds", ""))
        seeds = {checked_name(device, "device"): _from_base64(sealed) for device, sealed in pairs}
    except (ValueError, TypeError, RecursionError) as error:
        raise malformed() from error
    if len(seeds) != len(pairs):
        raise InvalidMessage(
            "This aggregate names a device twice.", kept="The global model is as it was."
        )
    return Aggregate(*_round_of(metadata), seeds, total)


def _only_vector(tensors: dict[str, NDArray[Any]], name: str, dtype: str) -> NDArray[Any]:
    if set(tensors) != {name} or tensors[name].ndim != 1 or tensors[name].dtype != np.dtype(dtype):
        raise malformed()
    return tensors[name]


def _round_metadata(payload: MaskedUpdate | PlainUpdate | Aggregate) -> dict[str, str]:
    return {
        "detector": payload.detector,
        "round": str(payload.round),
        "base_version": payload.base_version,
    }


def _round_of(metadata: dict[str, str]) -> tuple[str, int, str]:
    detector = checked_name(metadata.get("detector"), "detector")
    return (
        detector,
        parse_integer(metadata.get("round")),
        checked_version(metadata.get("base_version")),
    )


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(value: object) -> bytes:
    try:
        sealed = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError) as error:
        raise malformed() from error
    if len(sealed) != SEALED_BYTES:
        raise malformed()
    return sealed
