"""A model's manifest: what the main server signs, and a device checks before it installs anything."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Protocol

from shared.errors import Forbidden
from shared.security.identity import Identity, verify

HEADER = "Doorbell-Manifest"
_CONTEXT = b"doorbell-manifest/1"
_MAX_CHARS = 2048


class Model(Protocol):
    """What a manifest says of a model; `learning.model.Model` is one."""

    @property
    def detector(self) -> str:
        """Whose model."""

    @property
    def parent(self) -> str | None:
        """Version that it was made from."""

    @property
    def architecture(self) -> str:
        """Name of its architecture."""

    @property
    def round(self) -> int:
        """Number of the round that made it."""


@dataclass(frozen=True)
class Manifest:
    """What a version is: whose, which, made from what, by which round (0: by none), when (seconds
    since the epoch).
    """

    federation: str
    detector: str
    version: str
    parent: str | None
    architecture: str
    round: int
    time: float

    @classmethod
    def of(cls, federation: str, model: Model, data: bytes, now: float) -> Manifest:
        """Return the manifest of a model and its container's bytes."""
        version = hashlib.sha256(data).hexdigest()
        return cls(
            federation, model.detector, version, model.parent, model.architecture, model.round, now
        )

    def signed(self, main: Identity) -> str:
        """Return the header field: the manifest and the main server's signature, both in base64."""
        data = json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()
        return ".".join(
            base64.b64encode(part).decode() for part in (data, main.sign(_CONTEXT + data))
        )


def check_manifest(header: str | None, main_public_key: bytes, model: Model, data: bytes) -> None:
    """Check that the main server vouches for just this model.

    Args:
        header: What came with the model.
        main_public_key: 32 bytes.
        model: The model.
        data: Its container.

    Raises:
        Forbidden: It does not.
    """
    try:
        encoded, signature = (
            base64.b64decode(part, validate=True) for part in (header or "")[:_MAX_CHARS].split(".")
        )
        vouched = verify(main_public_key, signature, _CONTEXT + encoded)
        manifest = Manifest(**json.loads(encoded)) if vouched else None
    except (ValueError, TypeError):
        manifest = None
    if manifest is None or manifest != Manifest.of(manifest.federation, model, data, manifest.time):
        raise Forbidden(
            "This model's manifest is not the main server's word for it.",
            kept="The model held is as it was.",
            todo="Fetch the model from the main server itself.",
            slug="manifest-invalid",
        )
