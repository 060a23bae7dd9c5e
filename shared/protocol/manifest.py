"""What the main server signs of a model (`shared/security/manifest.py` signs and checks it)."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar

from msgspec import Meta

from shared.messages import MAX_NUMBER, Message, Name, Version


class Manifest(Message, frozen=True):
    """What a version of a model is.

    Attributes:
        federation: Whose.
        detector: What the model tells apart.
        version: SHA-256 of its container.
        parent: The version that it was made from, or None.
        architecture: Name of its architecture.
        round: Number of the round that made it; 0: none did.
        time: When, in seconds since the epoch.
    """

    noun: ClassVar[str] = "manifest"

    federation: Name
    detector: Name
    version: Version
    parent: Version | None
    architecture: Name
    round: Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
    time: float

    def canonical(self) -> bytes:
        """Return the bytes that are signed: JSON with sorted names and without spaces."""
        # Not msgspec's writer: signatures of earlier versions are over Python's form of a float.
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()
