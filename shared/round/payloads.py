"""The three payloads of the protocol: safetensors files with string metadata, read strictly into
frozen dataclasses.

    doorbell-update/1      a device's update: tensor `masked` U32[d+2], or `delta` F32[d] in the
    direct topology doorbell-aggregate/1   the aggregator's sum: tensor `sum` U32[d+2], devices and
    sealed seeds in the metadata doorbell-model/1       a model: F32 tensors by name; its version is
    the SHA-256 of the bytes

Every party reads them, so nothing is allocated from a number that a peer wrote: a header is
accepted only if it describes exactly the bytes that follow it, and arrays are views on the bytes
received.
Format: https://huggingface.co/docs/safetensors (an 8-byte length, a JSON header, the data).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.architectures import Params, architecture
from shared.errors import InvalidMessage
from shared.names import checked_name, checked_version
from shared.round.fixed_point import EXTRA_COORDINATES
from shared.round.masking import SEALED_BYTES

UPDATE, AGGREGATE, MODEL = "doorbell-update/1", "doorbell-aggregate/1", "doorbell-model/1"
MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 1024

_DTYPES: dict[str, str] = {"U32": "<u4", "F32": "<f4"}
_CODES: dict[np.dtype[Any], str] = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


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
        return _pack(UPDATE, metadata, {"masked": self.masked})


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
        return _pack(UPDATE, metadata, {"delta": self.delta})


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
        return _pack(
            AGGREGATE,
            _round_metadata(self) | {"sealed_seeds": json.dumps(seeds)},
            {"sum": self.sum},
        )


@dataclass(frozen=True, eq=False)
class Model:
    """One version of a model. `parent` is None for version 0; `round` made it (0 for version 0)."""

    detector: str
    round: int
    parent: str | None
    architecture: str
    params: Params

    def to_bytes(self) -> bytes:
        """Return the container; `parse_model` is the inverse."""
        metadata = {
            "detector": self.detector,
            "round": str(self.round),
            "parent": self.parent or "",
            "architecture": self.architecture,
        }
        return _pack(MODEL, metadata, self.params)


def version_of(model: bytes) -> str:
    """Return the version of a model: the SHA-256 of its container, in hexadecimal."""
    return hashlib.sha256(model).hexdigest()


def parse_masked_update(data: bytes) -> MaskedUpdate:
    """Return the masked update in `data`.

    Raises:
        InvalidMessage: It is anything else.
    """
    metadata, tensors = _unpack(data, UPDATE)
    masked = _only_vector(tensors, "masked", "<u4")
    if masked.size <= EXTRA_COORDINATES:
        raise _malformed()
    seed = _from_base64(metadata.get("sealed_seed"))
    return MaskedUpdate(
        *_round_of(metadata), checked_name(metadata.get("device"), "device"), seed, masked
    )


def parse_plain_update(data: bytes) -> PlainUpdate:
    """Return the plain update in `data`; its delta is finite.

    Raises:
        InvalidMessage: It is anything else.
    """
    metadata, tensors = _unpack(data, UPDATE)
    delta = _only_vector(tensors, "delta", "<f4")
    weight = _integer(metadata.get("weight"))
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
    metadata, tensors = _unpack(data, AGGREGATE)
    total = _only_vector(tensors, "sum", "<u4")
    if total.size <= EXTRA_COORDINATES:
        raise _malformed()
    try:
        pairs = json.loads(metadata.get("sealed_seeds", ""))
        seeds = {checked_name(device, "device"): _from_base64(sealed) for device, sealed in pairs}
    except (ValueError, TypeError, RecursionError) as error:
        raise _malformed() from error
    if len(seeds) != len(pairs):
        raise InvalidMessage(
            "This aggregate names a device twice.", kept="The global model is as it was."
        )
    return Aggregate(*_round_of(metadata), seeds, total)


def parse_model(data: bytes) -> Model:
    """Return the model in `data`; its params are finite and have exactly the shapes of its
    architecture.

    Raises:
        InvalidMessage: It is anything else.
        NotFound: Its architecture is unknown here.
    """
    metadata, tensors = _unpack(data, MODEL)
    name = checked_name(metadata.get("architecture"), "architecture")
    expected = {spec.name: spec.shape for spec in architecture(name).specs}
    if {key: value.shape for key, value in tensors.items()} != expected:
        raise InvalidMessage(
            f"This model does not have the parameters of {name}.",
            kept="The model held is as it was.",
        )
    if not all(
        value.dtype == np.dtype("<f4") and np.isfinite(value).all() for value in tensors.values()
    ):
        raise InvalidMessage(
            "This model holds a value that is not finite.", kept="The model held is as it was."
        )
    parent = metadata.get("parent") or None
    return Model(
        checked_name(metadata.get("detector"), "detector"),
        _integer(metadata.get("round")),
        None if parent is None else checked_version(parent),
        name,
        {key: tensors[key] for key in expected},
    )


def _pack(kind: str, metadata: dict[str, str], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the container; its members stand in one order, so equal payloads are equal bytes (and
    one version).
    """
    header: dict[str, object] = {
        "__metadata__": dict(sorted(({"format": kind} | metadata).items()))
    }
    parts, position = [], 0
    for name, value in sorted(tensors.items()):
        parts.append(value.tobytes())
        end = position + value.nbytes
        header[name] = {
            "dtype": _CODES[value.dtype],
            "shape": value.shape,
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _unpack(data: bytes, kind: str) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Return metadata and tensors of a container whose header describes exactly the bytes that
    follow it.
    """
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise _malformed()
    try:
        header = json.loads(
            str(data[8 : 8 + length], "utf-8"), object_pairs_hook=_without_repetition
        )
        metadata = header.pop("__metadata__")
        strings = all(isinstance(value, str) for value in metadata.values())
        if not strings or metadata["format"] != kind or not 1 <= len(header) <= MAX_TENSORS:
            raise _malformed()
        entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
        return metadata, _views(memoryview(data)[8 + length :], entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _malformed() from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _malformed()
    return members


def _views(body: memoryview, entries: list[tuple[str, dict[str, Any]]]) -> dict[str, NDArray[Any]]:
    tensors, position = {}, 0
    for name, entry in entries:
        shape, (start, end) = entry["shape"], entry["data_offsets"]
        whole = all(type(n) is int and 0 <= n <= len(body) for n in [*shape, start, end])
        if (
            not whole
            or len(shape) > 8
            or start != position
            or end > len(body)
            or end - start != 4 * math.prod(shape)
        ):
            raise _malformed()
        tensors[name] = np.frombuffer(body[start:end], _DTYPES[entry["dtype"]]).reshape(shape)
        position = end
    if position != len(body):
        raise _malformed()
    return tensors


def _only_vector(tensors: dict[str, NDArray[Any]], name: str, dtype: str) -> NDArray[Any]:
    if set(tensors) != {name} or tensors[name].ndim != 1 or tensors[name].dtype != np.dtype(dtype):
        raise _malformed()
    return tensors[name]


def _round_metadata(payload: MaskedUpdate | PlainUpdate | Aggregate) -> dict[str, str]:
    return {
        "detector": payload.detector,
        "round": str(payload.round),
        "base_version": payload.base_version,
    }


def _round_of(metadata: dict[str, str]) -> tuple[str, int, str]:
    detector = checked_name(metadata.get("detector"), "detector")
    return detector, _integer(metadata.get("round")), checked_version(metadata.get("base_version"))


def _integer(value: str | None) -> int:
    if value is None or not value.isascii() or not value.isdecimal() or len(value) > 10:
        raise _malformed()
    return int(value)


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(value: object) -> bytes:
    try:
        sealed = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError) as error:
        raise _malformed() from error
    if len(sealed) != SEALED_BYTES:
        raise _malformed()
    return sealed


def _malformed() -> InvalidMessage:
    return InvalidMessage(
        "These bytes are not a container of this protocol.",
        todo="Run the same version of every service.",
    )
