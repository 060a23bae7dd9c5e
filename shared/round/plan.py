"""What one round asks of everybody: made by the main server when it opens the round, read by all
parties.

The plan travels as one frozen object, so no party can mix the plans of two rounds. It holds
everything that the round's result depends on, the server's step included.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

from shared.errors import InvalidMessage
from shared.names import AGGREGATOR, MAIN_SERVER, checked_name, checked_version

Topology = Literal["secure", "direct"]
MAX_COORDINATES = 2**28
MAX_VALUE_RANGE = 1e9
EXTRA_COORDINATES = 2
"""Two more coordinates follow the delta: the weight, and how many coordinates were clamped."""


def vector_size(size: int) -> int:
    """Return the length of a masked vector of `size` coordinates."""
    return size + EXTRA_COORDINATES


_STRATEGY = re.compile(r"[a-z0-9_]{1,32}(\([a-z0-9_=.,+-]{0,160}\))?")
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


@dataclass(frozen=True)
class RoundPlan:
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

    federation: str
    detector: str
    round: int
    base_version: str
    architecture: str
    size: int
    topology: Topology
    epochs: int
    batch_size: int
    learning_rate: float
    clipping_norm: float | None
    value_range: float
    weight_cap: int
    cohort_cap: int
    min_cohort: int
    sealing_key: str
    strategy: str
    server_learning_rate: float

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
        """Return what binds a mask and its sealed seed to this device, round, version and format."""
        parts = [
            "doorbell-update/1",
            self.federation,
            self.detector,
            self.round,
            self.base_version,
            device,
        ]
        return json.dumps(parts, separators=(",", ":")).encode()

    def to_json(self) -> dict[str, object]:
        """Return the form that travels."""
        return asdict(self)


_RANGES: dict[str, tuple[float, float]] = {
    "round": (1, 2**31),
    "size": (1, MAX_COORDINATES),
    "epochs": (1, 100),
    "batch_size": (1, 1024),
    "learning_rate": (1e-9, 1.0),
    "clipping_norm": (1e-9, 1e9),
    "value_range": (1e-9, MAX_VALUE_RANGE),
    "weight_cap": (1, 2**20),
    "cohort_cap": (2, 2**20),
    "min_cohort": (2, 2**20),
    "server_learning_rate": (1e-9, 10.0),
}
_FRACTIONS = {"learning_rate", "clipping_norm", "value_range", "server_learning_rate"}


def _number(name: str, value: object) -> float:
    low, high = _RANGES[name]
    kinds = (int, float) if name in _FRACTIONS else (int,)
    if isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise InvalidMessage(
        f"The round plan hold no usable {name}.", todo=f"It lies between {low} and {high}."
    )


def _base64(value: object) -> str:
    try:
        if (
            isinstance(value, str)
            and len(value) <= 4096
            and base64.b64decode(value, validate=True) is not None
        ):
            return value
    except ValueError:
        pass
    raise InvalidMessage("The round plan hold no usable sealing_key.")


def _strategy(value: object) -> str:
    """Return the text that names a strategy; what it means is known where the step is made."""
    if isinstance(value, str) and _STRATEGY.fullmatch(value):
        return value
    raise InvalidMessage("The round plan holds no usable strategy.")


def parse_stored_plan(text: str) -> RoundPlan:
    """Return the plan in a service's own database, which an earlier version may have written."""
    return parse_round_plan({**_ADDED, **json.loads(text)})


def parse_round_plan(message: object) -> RoundPlan:
    """Return the round plan in a decoded JSON message.

    Raises:
        InvalidMessage: A member is missing, unknown, of the wrong type or out of range, or sums
            could wrap.
    """
    names = {field.name for field in fields(RoundPlan)}
    if not isinstance(message, Mapping) or set(message) != names:
        raise InvalidMessage(
            "These are not round plan.", todo="Run the same version of every service."
        )
    optional = {"clipping_norm"} if message["clipping_norm"] is None else set()
    checked: dict[str, object] = {n: _number(n, message[n]) for n in _RANGES if n not in optional}
    checked |= dict.fromkeys(optional)
    checked |= {n: checked_name(message[n], n) for n in ("federation", "detector", "architecture")}
    checked["base_version"] = checked_version(message["base_version"])
    checked["sealing_key"] = _base64(message["sealing_key"])
    checked["topology"] = message["topology"]
    checked["strategy"] = _strategy(message["strategy"])
    if message["topology"] not in ("secure", "direct"):
        raise InvalidMessage(
            "The round plan name an unknown topology.", todo="It is 'secure' or 'direct'."
        )
    plan = RoundPlan(**checked)  # type: ignore[arg-type]  # each member was checked above
    if plan.size * plan.cohort_cap >= 2**32 or plan.weight_cap * plan.cohort_cap >= 2**31:
        raise InvalidMessage(
            "With these round plan a sum could wrap around.", todo="Lower the cohort_cap."
        )
    return plan
