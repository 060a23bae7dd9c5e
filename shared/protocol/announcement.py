"""What a device says of itself and where it is reached."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from shared.messages import Message, Name, RoundNumber, matching

MAX_DETECTORS: Final = 64
"""A device takes part in so many detectors at most: each costs the main server a model."""

Address = Annotated[str, matching(r'https?://[!"$->A-\[\]-~]{1,248}')]
"""Without `?` and `#`, behind which the path of a message would be lost, and without `@`: no
password travels.
"""


class Announcement(Message, frozen=True, forbid_unknown_fields=False):
    """A device says that it is there (step 2 of docs/reference/protocol.md).

    Attributes:
        address: Where it is reached.
        detectors: Detector to the last round that it trained, or None.
    """

    noun: ClassVar[str] = "status of a device"

    address: Address
    detectors: Annotated[dict[Name, RoundNumber | None], Meta(max_length=MAX_DETECTORS)]
