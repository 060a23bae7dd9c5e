"""A round, as the main server tells the parties of it, and as the aggregator closes it
(docs/reference/protocol.md, steps 2, 6 and 7).

Updates and sums are containers (`shared/round/payloads.py`); these are the messages around them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from shared.messages import Count, Message, Name, RoundNumber
from shared.protocol.answers import Said
from shared.round.plan import RoundPlan


class OpenRounds(Message, frozen=True, forbid_unknown_fields=False):
    """The main server's answer to an announcement.

    Attributes:
        name: What the federation calls the device now.
        rounds: Detector to the plan of its open round.
    """

    noun: ClassVar[str] = "list of open rounds"

    name: Name
    rounds: dict[Name, RoundPlan]


class RoundDescription(Message, frozen=True, forbid_unknown_fields=False):
    """The open round of a detector, and the devices that take part in it."""

    noun: ClassVar[str] = "description of a round"

    round: RoundPlan
    devices: tuple[Name, ...]


_SealedSeed = Annotated[
    Any,
    Meta(
        description="A seed that does not open is named in the answer.",
        extra_json_schema={"contentEncoding": "base64"},
    ),
]


class SealedSeeds(Message, frozen=True, forbid_unknown_fields=False):
    """The aggregator asks which seeds open, before it freezes a cohort.

    Attributes:
        detector: Whose round.
        round: Which round.
        sealed_seeds: Device to its sealed seed in base64. One that is anything else came from that
            device, and must not spoil the others': it is refused by itself.
    """

    noun: ClassVar[str] = "list of sealed seeds"

    detector: Name
    round: RoundNumber
    sealed_seeds: dict[Name, _SealedSeed]


class RefusedSeeds(Message, frozen=True, forbid_unknown_fields=False):
    """Device to why its sealed seed is refused; the seeds of all others open."""

    noun: ClassVar[str] = "list of refused seeds"

    refused: dict[Name, str]


class Finished(Said, frozen=True):
    """The main server took a step.

    Attributes:
        round: The round that is finished.
        devices: Whose updates are in it.
        clamped: Number of coordinates that did not fit into the value range.
    """

    noun: ClassVar[str] = "result of a round"

    round: Count
    devices: tuple[Name, ...]
    clamped: Annotated[int, Meta(ge=0)]
