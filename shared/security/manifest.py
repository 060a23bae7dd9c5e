"""A model's manifest: signed by the main server, checked by a device before it installs."""

from __future__ import annotations

import base64
import hashlib
from typing import Protocol

from shared.errors import Forbidden, InvalidMessage
from shared.messages import decode
from shared.protocol.manifest import Manifest
from shared.security.identity import Identity, verify

HEADER = "Doorbell-Manifest"
# In front of what is signed: no other signature of the main server passes for a manifest.
_CONTEXT = b"doorbell-manifest/1"
_MAX_CHARS = 2048  # a manifest has fewer than 1000


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


def manifest_of(federation: str, model: Model, data: bytes, now: float) -> Manifest:
    """Return the manifest of a model.

    Args:
        federation: Whose.
        model: The model.
        data: Its container's bytes.
        now: Seconds since the epoch.
    """
    return Manifest(
        federation=federation,
        detector=model.detector,
        version=hashlib.sha256(data).hexdigest(),
        parent=model.parent,
        architecture=model.architecture,
        round=model.round,
        time=now,
    )


def signed_manifest(manifest: Manifest, main: Identity) -> str:
    """Return the header field: the manifest and the main server's signature, both in base64."""
    data = manifest.canonical()
    parts = (data, main.sign(_CONTEXT + data))
    return ".".join(base64.b64encode(part).decode() for part in parts)


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
    manifest = _vouched(header, main_public_key)
    # Compared as a whole: its version is the hash of just these bytes.
    if manifest is None or manifest != manifest_of(manifest.federation, model, data, manifest.time):
        raise Forbidden(
            "This model's manifest is not the main server's word for it.",
            kept="The model held is as it was.",
            todo="Fetch the model from the main server itself.",
            slug="manifest-invalid",
        )


def _vouched(header: str | None, main_public_key: bytes) -> Manifest | None:
    """Return the manifest in a header field that the main server signed, or None."""
    # Cut before anything is decoded: the header is a peer's.
    parts = (header or "")[:_MAX_CHARS].split(".")
    try:
        encoded, signature = (base64.b64decode(part, validate=True) for part in parts)
    except ValueError:
        return None
    if not verify(main_public_key, signature, _CONTEXT + encoded):
        return None
    try:
        return decode(Manifest, encoded)
    except InvalidMessage:
        return None
