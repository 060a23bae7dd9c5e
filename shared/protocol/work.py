"""Waiting for work: what a device or the aggregator asks of the main server, and what it is told to
do (docs/reference/protocol.md, the long poll).

A caller says what it has; the answer is what is missing. Nothing is remembered between two calls.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, TypeVar

from msgspec import Meta

from shared.messages import (
    MAX_NUMBER,
    Count,
    Message,
    Name,
    RoundNumber,
    Version,
    convert,
)
from shared.protocol.announcement import MAX_DETECTORS, Address

MAX_WAIT_S: Final = 55.0
"""Longest long poll: many proxies close a connection that is silent for a minute."""

MAX_PAUSE_S: Final = 600.0
"""Longest pause that the main server may send a caller away for."""

MAX_DETAIL_CHARS: Final = 300
"""Longest sentence about a failure on a device."""

WaitS = Annotated[float, Meta(ge=0, le=MAX_WAIT_S)]


# What a device says of itself.


class Score(Message, frozen=True):
    """How a version does on a device's validation pictures: a share of so many."""

    noun: ClassVar[str] = "score"

    version: Version
    accuracy: Annotated[float, Meta(ge=0, le=1)]
    pictures: Count


class Failure(Message, frozen=True):
    """What went wrong on a device in a round, in one sentence."""

    noun: ClassVar[str] = "failure"

    round: Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
    said: Annotated[str, Meta(max_length=MAX_DETAIL_CHARS)]


class DetectorStatus(Message, frozen=True):
    """What a device has of one detector.

    Attributes:
        trained_round: The last round that it trained.
        sent_round: The last round that it sent an update for.
        held: The version of the global model that it answers with.
        score: Its newest score.
        setback: Its last failure.
        refused: A version that it cannot use.
    """

    noun: ClassVar[str] = "status of a detector"

    trained_round: RoundNumber | None
    sent_round: RoundNumber | None
    held: Version | None
    score: Score | None
    # "setback" and "said" are the names on the wire since the first version.
    setback: Failure | None
    refused: Version | None


class DeviceWaits(Message, frozen=True):
    """A device asks for work.

    Attributes:
        address: Where it is reached.
        wait_s: How long the main server may keep the request while there is no work, in seconds.
        detectors: Detector to what the device has of it.
    """

    noun: ClassVar[str] = "request for work"

    address: Address
    wait_s: WaitS
    detectors: Annotated[dict[Name, DetectorStatus], Meta(max_length=MAX_DETECTORS)]


class AggregatorWaits(Message, frozen=True):
    """The aggregator asks for work; `wait_s` is as for a device."""

    noun: ClassVar[str] = "request for work"

    wait_s: WaitS


# What the main server answers.


class Task(Message, frozen=True, forbid_unknown_fields=False, tag_field="do"):
    """Something to do for one detector; `do` says what."""

    noun: ClassVar[str] = "task"

    detector: Name


class Install(Task, frozen=True, tag="install"):
    """A device is to fetch a version of the global model."""

    version: Version


class Train(Task, frozen=True, tag="train"):
    """A device is to take part in a round."""

    round: RoundNumber


class AddUp(Task, frozen=True, tag="aggregate"):
    """The aggregator is to add up a round and hand the sum over."""

    round: RoundNumber


class Work(Message, frozen=True, forbid_unknown_fields=False):
    """What the main server answers.

    Attributes:
        tasks: What to do, in this order.
        again_s: Seconds after which to come back, where the main server has no room to wait.
    """

    noun: ClassVar[str] = "list of tasks"

    tasks: tuple[Install | Train | AddUp, ...]
    again_s: Annotated[float, Meta(ge=0, le=MAX_PAUSE_S)]


class DeviceWork(Work, frozen=True):
    """What the main server answers a device; `name` is what the federation calls it now."""

    name: Name


W = TypeVar("W", bound=Work)
_KNOWN: Final = [kind.__struct_config__.tag for kind in (Install, Train, AddUp)]


def known_work(kind: type[W], answer: object) -> W:
    """Return the work in an answer, without tasks of a kind that only newer versions know.

    Args:
        kind: `Work`, or `DeviceWork`.
        answer: Decoded JSON.

    Raises:
        InvalidMessage: It is anything else.
    """
    if not isinstance(answer, dict) or not isinstance(tasks := answer.get("tasks"), list):
        return convert(kind, answer)
    # The main server may be newer than its devices: what they do not know is left to others.
    return convert(kind, answer | {"tasks": [task for task in tasks if _is_known(task)]})


def _is_known(task: Any) -> bool:
    """Return whether a task is to be parsed: what is no task at all is refused, not left out."""
    return not isinstance(task, dict) or "do" not in task or task["do"] in _KNOWN
