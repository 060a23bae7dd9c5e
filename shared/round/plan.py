"""What one round asks of everybody: the main server makes the plan, and all parties read it.

The plan travels as one frozen object, so no party can mix the plans of two rounds. It holds
everything that the round's result depends on, the server's step included.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from shared.errors import InvalidMessage
from shared.messages import Message, Name, Version, convert, matching
from shared.names import AGGREGATOR, MAIN_SERVER

Topology = Literal["secure", "direct"]
MAX_COORDINATES = 2**28
"""Largest model: its vector is 1 GiB, and with a cohort of two its clamp count stays below 2^32."""

MAX_VALUE_RANGE = 1e9
"""Largest magnitude of a coordinate; rounds whose values are clamped double theirs up to it."""

EXTRA_COORDINATES = 2
"""Two more coordinates follow the delta: the weight, and how many coordinates were clamped."""


def vector_size(size: int) -> int:
    """Return the length of a masked vector of `size` coordinates."""
    return size + EXTRA_COORDINATES


_LEAST = 1e-9  # a rate or a norm below it would lose all digits in float32
_STRATEGY = r"[a-z0-9_]{1,32}(\([a-z0-9_=.,+-]{0,160}\))?"
# An HPKE public key of the hybrid suite has 1216 bytes; empty in the direct topology.
_Base64 = Annotated[
    str,
    matching(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
    Meta(max_length=4096),
]
_ADDED: Mapping[str, object] = {"strategy": "fedavg", "server_learning_rate": 1.0}
"""Members that plans of earlier versions lack, with what was done then."""


@dataclass(frozen=True)
class LocalWork:
    """How a device trains in one round.

    Attributes:
        epochs: Passes over the device's training pictures, 1 to 100.
        batch_size: Pictures per optimizer step, 1 to 1024.
        learning_rate: Step size of the local optimizer, above 0 and at most 1.
    """

    epochs: int
    batch_size: int
    learning_rate: float


class RoundPlan(Message, frozen=True):
    """One round of one detector, step by step the same for every device.

    Attributes:
        federation: Name of the federation; part of the context of every mask.
        detector: What the model tells apart.
        round: Number of the round, from 1.
        base_version: Version of the global model that the round starts from.
        architecture: Name of the model's architecture.
        size: Number d of trainable parameters.
        topology: "secure" (masked updates to the aggregator) or "direct" (plain updates to the main
            server).
        epochs: See `LocalWork`.
        batch_size: See `LocalWork`.
        learning_rate: See `LocalWork`.
        clipping_norm: Largest L2 norm of a delta, or None for no clipping.
        value_range: Largest magnitude of one coordinate of a delta; larger ones are clamped and
            counted.
        weight_cap: Largest weight (number of training pictures) that a device may claim.
        cohort_cap: Largest number of devices in the cohort.
        min_cohort: Smallest number of devices whose sum may be taken.
        sealing_key: The main server's HPKE public key, base64; empty in the direct topology.
        strategy: What the server makes of the means: "fedavg", "fedavgm(momentum=0.9)".
        server_learning_rate: The server's step size, above 0 and at most 10.
    """

    noun: ClassVar[str] = "round plan"

    federation: Name
    detector: Name
    round: Annotated[int, Meta(ge=1, le=2**31)]
    base_version: Version
    architecture: Name
    size: Annotated[int, Meta(ge=1, le=MAX_COORDINATES)]
    topology: Topology
    epochs: Annotated[int, Meta(ge=1, le=100)]
    batch_size: Annotated[int, Meta(ge=1, le=1024)]
    learning_rate: Annotated[float, Meta(ge=_LEAST, le=1.0)]
    clipping_norm: Annotated[float, Meta(ge=_LEAST, le=1e9)] | None
    value_range: Annotated[float, Meta(ge=_LEAST, le=MAX_VALUE_RANGE)]
    weight_cap: Annotated[int, Meta(ge=1, le=2**20)]
    cohort_cap: Annotated[int, Meta(ge=2, le=2**20)]
    min_cohort: Annotated[int, Meta(ge=2, le=2**20)]
    sealing_key: _Base64
    strategy: Annotated[str, matching(_STRATEGY)]
    server_learning_rate: Annotated[float, Meta(ge=_LEAST, le=10.0)]

    def __post_init__(self) -> None:
        """Refuse a plan whose sums could wrap around, as a sum is taken modulo 2^32.

        Raises:
            InvalidMessage: The number of clamped coordinates might need more than 32 bits, or the
                sum of the weights more than 31.
        """
        # Each device adds at most one to the clamp count for each coordinate, and its weight.
        clamped = self.size * self.cohort_cap
        weights = self.weight_cap * self.cohort_cap
        if clamped >= 2**32 or weights >= 2**31:
            raise InvalidMessage(
                "With this round plan a sum could wrap around.", todo="Lower the cohort_cap."
            )

    @property
    def vector_size(self) -> int:
        """Length of a masked vector: the d coordinates and what follows them."""
        return vector_size(self.size)

    @property
    def receiver(self) -> str:
        """Who takes the devices' updates: the aggregator, or the main server (direct topology)."""
        return AGGREGATOR if self.topology == "secure" else MAIN_SERVER

    @property
    def work(self) -> LocalWork:
        """The part that the training needs."""
        return LocalWork(self.epochs, self.batch_size, self.learning_rate)

    @property
    def sealing_key_bytes(self) -> bytes:
        """The main server's HPKE public key."""
        return base64.b64decode(self.sealing_key)

    def context(self, device: str) -> bytes:
        """Return what a mask and its sealed seed are bound to: device, round, version, format."""
        parts = [
            "doorbell-update/1",
            self.federation,
            self.detector,
            self.round,
            self.base_version,
            device,
        ]
        return json.dumps(parts, separators=(",", ":")).encode()


def parse_stored_plan(text: str) -> RoundPlan:
    """Return the plan in a service's own database, which an earlier version may have written."""
    return parse_round_plan({**_ADDED, **json.loads(text)})


def parse_round_plan(message: object) -> RoundPlan:
    """Return the round plan in a decoded JSON message.

    Raises:
        InvalidMessage: A member is missing, unknown, of the wrong type or out of range, or sums
            could wrap.
    """
    return convert(RoundPlan, message)
