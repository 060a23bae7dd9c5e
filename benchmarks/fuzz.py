"""50,000 hostile inputs to every container decoder: only typed errors, and memory bounded by the
input.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from benchmarks.aggregation import SETTINGS
from benchmarks.figure import Figure
from learning.architectures import DEFAULT, architecture
from learning.model import Model, parse_model
from shared.errors import DoorbellError
from shared.round.masking import SEALED_BYTES
from shared.round.payloads import (
    Aggregate,
    MaskedUpdate,
    PlainUpdate,
    parse_aggregate,
    parse_masked_update,
    parse_plain_update,
)

INPUTS = 50_000
ROOM_BYTES = 256 << 10  # for the parsed header and the error, whatever the input
_WORDS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"0",
    b"9" * 20,
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"U32",
    b"F32",
    b"shape",
    b"dtype",
    b"data_offsets",
    b"__metadata__",
    b"\xff",
    b"\x00",
    b"\\u0000",
]


def figures() -> list[Figure]:
    """Feed every decoder its share."""
    decoders = _decoders()
    each = INPUTS // len(decoders)
    begun = time.perf_counter()
    untyped = greedy = 0
    tracemalloc.start()
    for name, (valid, parse) in decoders.items():
        rng = np.random.default_rng(list(name.encode()))
        for _ in range(each):
            data = _hostile(valid, rng)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                parse(data)
            except DoorbellError:
                pass
            except Exception:  # the very thing that is counted
                untyped += 1
            greedy += tracemalloc.get_traced_memory()[1] - before > 8 * len(data) + ROOM_BYTES
    tracemalloc.stop()
    what = f"{each * len(decoders):,} hostile inputs to {len(decoders)} decoders"
    seconds = time.perf_counter() - begun
    return [
        Figure(
            f"{what}: errors that are not typed",
            f"{untyped} (in {seconds:.0f} s)",
            "0",
            untyped == 0,
        ),
        Figure("  of which took more than 8 x their size + 256 KB", str(greedy), "0", greedy == 0),
    ]


def _hostile(valid: bytes, rng: np.random.Generator) -> bytes:
    """Return a valid container with some of its first bytes changed, words put in, or its end cut
    off.
    """
    data = bytearray(valid)
    reach = min(len(data), 8 + int.from_bytes(valid[:8], "little"))
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, reach))
        kind = int(rng.integers(0, 4))
        if kind == 0:
            data[at] = int(rng.integers(0, 256))
        elif kind == 1:
            data[at : at + 1] = _WORDS[int(rng.integers(0, len(_WORDS)))]
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 16))]
        else:
            data[:8] = int(rng.integers(0, 2**63)).to_bytes(8, "little")
    return bytes(data[: int(rng.integers(0, len(data) + 1))] if rng.random() < 0.2 else data)


def _decoders() -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    vector, version = np.arange(64, dtype="<u4"), SETTINGS.base_version
    seeds = {"device-1": bytes(SEALED_BYTES), "device-2": bytes(SEALED_BYTES)}
    spec = architecture(DEFAULT)
    model = Model("animal", 1, version, spec.name, spec.initial(np.random.default_rng(0)))
    masked = MaskedUpdate("animal", 1, version, "device-1", bytes(SEALED_BYTES), vector)
    plain = PlainUpdate("animal", 1, version, "device-1", 9, vector.astype("<f4"))
    return {
        "masked": (masked.to_bytes(), parse_masked_update),
        "plain": (plain.to_bytes(), parse_plain_update),
        "aggregate": (Aggregate("animal", 1, version, seeds, vector).to_bytes(), parse_aggregate),
        "model": (model.to_bytes(), parse_model),
    }
