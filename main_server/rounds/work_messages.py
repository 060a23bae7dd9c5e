"""What is asked for work, and answered, strictly checked: the messages of `work.py`, and their
schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from main_server.members.devices import ADDRESS, MAX_DETECTORS, checked_round_number
from main_server.store.records import Status
from shared.errors import InvalidMessage
from shared.names import checked_version
from shared.web.openapi import NAME_TEXT, STRING, VERSION_TEXT, as_json, record, table

# Below the 60 seconds after which proxies usually close an idle connection.
MAX_WAIT_S = 55.0
MAX_SAID_CHARS = 300


def members(message: object, names: set[str]) -> Mapping[str, Any]:
    """Return a message that has just these members.

    Raises:
        InvalidMessage: It has others, or is none.
    """
    if not isinstance(message, Mapping) or set(message) != names:
        raise InvalidMessage(
            "This does not ask for work.", todo="Run the same version of every service."
        )
    return message


def wait_s_of(value: object) -> float:
    """Return how long a caller wants to wait, in seconds.

    Raises:
        InvalidMessage: That is no time, or too long.
    """
    if type(value) not in (int, float) or not 0 <= value <= MAX_WAIT_S:  # type: ignore[operator]
        raise InvalidMessage(f"wait_s must be between 0 and {MAX_WAIT_S:g}.")
    return float(value)  # type: ignore[arg-type]


def status_of(value: object) -> Status:
    """Return what a device says of one detector.

    Raises:
        InvalidMessage: It says something else.
    """
    said = members(value, set(Status.__dataclass_fields__))
    held, score, setback, refused = (said[name] for name in ("held", "score", "setback", "refused"))
    return Status(
        checked_round_number(said["trained_round"]),
        checked_round_number(said["sent_round"]),
        None if held is None else checked_version(held),
        None if score is None else _score(score),
        None if setback is None else _setback(setback),
        None if refused is None else checked_version(refused),
    )


def _score(value: object) -> tuple[str, float, int]:
    said = members(value, {"version", "accuracy", "pictures"})
    accuracy, pictures = said["accuracy"], said["pictures"]
    if type(accuracy) not in (int, float) or not 0 <= accuracy <= 1:
        raise InvalidMessage("accuracy must be between 0 and 1.")
    if type(pictures) is not int or not 0 < pictures < 2**31:
        raise InvalidMessage("pictures must be a positive integer.")
    return checked_version(said["version"]), float(accuracy), pictures


def _setback(value: object) -> tuple[int, str]:
    said = members(value, {"round", "said"})
    number, why = said["round"], said["said"]
    if (
        type(number) is not int
        or not 0 <= number < 2**31
        or not isinstance(why, str)
        or len(why) > MAX_SAID_CHARS
    ):
        raise InvalidMessage("setback must be a round number and one sentence.")
    # The operator reads it in logs and on pages: control characters could forge lines there.
    return number, "".join(char if char.isprintable() else " " for char in why)


_ROUND = {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1}
_SCORE = {
    **record(
        version=VERSION_TEXT,
        accuracy={"type": "number", "minimum": 0, "maximum": 1},
        pictures={"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    ),
    "additionalProperties": False,
}
_SETBACK = {
    **record(
        round={"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        said={**STRING, "maxLength": MAX_SAID_CHARS},
    ),
    "additionalProperties": False,
}
_STATUS = {
    **record(
        trained_round=_ROUND,
        sent_round=_ROUND,
        held={"anyOf": [VERSION_TEXT, {"type": "null"}]},
        score={"anyOf": [_SCORE, {"type": "null"}]},
        setback={"anyOf": [_SETBACK, {"type": "null"}]},
        refused={"anyOf": [VERSION_TEXT, {"type": "null"}]},
    ),
    "additionalProperties": False,
}
_WAIT = {"type": "number", "minimum": 0, "maximum": MAX_WAIT_S}
_OF_DEVICE = {
    **record(
        address=ADDRESS, wait_s=_WAIT, detectors={**table(_STATUS), "maxProperties": MAX_DETECTORS}
    ),
    "additionalProperties": False,
}
_OF_AGGREGATOR = {**record(wait_s=_WAIT), "additionalProperties": False}
_TASK = record(do={"enum": ["install", "train", "aggregate"]}, detector=NAME_TEXT)
ASKING = as_json({"oneOf": [_OF_DEVICE, _OF_AGGREGATOR]})
WORK = as_json(record(tasks={"type": "array", "items": _TASK}, again_s={"type": "number"}))
