"""Containers: safetensors files with string metadata, written in one way and read strictly.

Every party reads containers that others wrote, so nothing is allocated from a number in a header:
a header is accepted only if it describes exactly the bytes that follow it, and arrays are views on
the bytes received. Format: https://huggingface.co/docs/safetensors (an 8-byte length, a JSON
header, the data).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidMessage

MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 1024
MAX_DIMENSIONS = 8

_DTYPES: dict[str, str] = {"U32": "<u4", "F32": "<f4"}
_CODES: dict[np.dtype[Any], str] = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


def pack(kind: str, metadata: dict[str, str], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the container of some tensors.

    Members stand in one order, so equal payloads are equal bytes, and have one digest.

    Args:
        kind: The format's name and version, "doorbell-model/1".
        metadata: Strings only, as safetensors has it.
        tensors: Arrays of uint32 or float32, little-endian.
    """
    named = sorted(({"format": kind} | metadata).items())
    header: dict[str, object] = {"__metadata__": dict(named)}
    parts: list[bytes] = []
    position = 0
    for name, value in sorted(tensors.items()):
        end = position + value.nbytes
        header[name] = {
            "dtype": _CODES[value.dtype],
            "shape": value.shape,
            "data_offsets": [position, end],
        }
        parts.append(value.tobytes())
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def unpack(data: bytes, kind: str) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Return metadata and tensors of a container; the inverse of `pack`.

    Raises:
        InvalidMessage: It is of another kind, or its header does not describe exactly the bytes
            that follow it.
    """
    length = int.from_bytes(data[:8], "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise malformed()
    try:
        header = json.loads(
            str(data[8 : 8 + length], "utf-8"), object_pairs_hook=_without_repetition
        )
        metadata = header.pop("__metadata__")
        strings = all(isinstance(value, str) for value in metadata.values())
        if not strings or metadata["format"] != kind or not 1 <= len(header) <= MAX_TENSORS:
            raise malformed()
        entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
        return metadata, _views(memoryview(data)[8 + length :], entries)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise malformed() from error


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise malformed()
    return members


def _views(body: memoryview, entries: list[tuple[str, dict[str, Any]]]) -> dict[str, NDArray[Any]]:
    """Return the tensors as views on `body`; they must tile it without a gap or an overlap."""
    tensors: dict[str, NDArray[Any]] = {}
    position = 0
    for name, entry in entries:
        shape = entry["shape"]
        start, end = entry["data_offsets"]
        # No dimension may exceed the bytes that are here, so the product below stays small.
        within = all(type(n) is int and 0 <= n <= len(body) for n in [*shape, start, end])
        if not within or len(shape) > MAX_DIMENSIONS:
            raise malformed()
        if start != position or end - start != 4 * math.prod(shape):
            raise malformed()
        tensors[name] = np.frombuffer(body[start:end], _DTYPES[entry["dtype"]]).reshape(shape)
        position = end
    if position != len(body):
        raise malformed()
    return tensors


def parse_integer(value: str | None) -> int:
    """Return the number in a metadata string: decimal digits, at most 10 of them.

    Raises:
        InvalidMessage: It holds anything else.
    """
    if value is None or not value.isascii() or not value.isdecimal() or len(value) > 10:
        raise malformed()
    return int(value)


def malformed() -> InvalidMessage:
    """Return the error for bytes that no service of this version writes."""
    return InvalidMessage(
        "These bytes are not a container of this protocol.",
        todo="Run the same version of every service.",
    )
