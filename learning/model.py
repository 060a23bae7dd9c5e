"""The model container, `doorbell-model/1`: one version of a detector's global or local model.

Its tensors are the architecture's params by name. A version's name is the SHA-256 of its bytes, so
whoever holds a version can check it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from learning.architectures import Params, architecture
from shared.errors import InvalidMessage
from shared.names import checked_name, checked_version
from shared.round.container import pack, parse_integer, unpack

MODEL = "doorbell-model/1"


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
        return pack(MODEL, metadata, self.params)


def version_of(model: bytes) -> str:
    """Return the version of a model: the SHA-256 of its container, in hexadecimal."""
    return hashlib.sha256(model).hexdigest()


def parse_model(data: bytes) -> Model:
    """Return the model in `data`; the inverse of `Model.to_bytes`.

    Its params are finite and have exactly the shapes of its architecture.

    Raises:
        InvalidMessage: It is anything else.
        NotFound: Its architecture is unknown here.
    """
    metadata, tensors = unpack(data, MODEL)
    name = checked_name(metadata.get("architecture"), "architecture")
    expected = {spec.name: spec.shape for spec in architecture(name).specs}
    if {key: value.shape for key, value in tensors.items()} != expected:
        raise InvalidMessage(
            f"This model does not have the parameters of {name}.",
            kept="The model held is as it was.",
        )
    floats = all(value.dtype == np.dtype("<f4") for value in tensors.values())
    if not floats or not all(np.isfinite(value).all() for value in tensors.values()):
        raise InvalidMessage(
            "This model holds a value that is not finite.", kept="The model held is as it was."
        )
    parent = metadata.get("parent") or None
    return Model(
        checked_name(metadata.get("detector"), "detector"),
        parse_integer(metadata.get("round")),
        None if parent is None else checked_version(parent),
        name,
        {key: tensors[key] for key in expected},
    )
