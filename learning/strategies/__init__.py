"""Server strategies: how the global model takes a step from the means of a round.

One strategy is one file in this folder, and one line in `STRATEGIES`. A federation names its
strategy as `fedavg` or `fedavgm(momentum=0.5)`; the name travels in the round plan, so every party
knows what a round's update is used for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, fields
from types import MappingProxyType
from typing import Any, Final

from learning.strategies.fedavg import FedAvg
from learning.strategies.fedavgm import FedAvgM
from learning.strategies.strategy import Strategy
from shared.errors import InvalidMessage

STRATEGIES: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "fedavg": FedAvg,
        "fedavgm": FedAvgM,
    }
)
DEFAULT: Final = "fedavg"

_CALL = re.compile(r"([a-z0-9_]+)(?:\((.*)\))?")


def parse_strategy(text: str) -> Strategy:
    """Return the strategy that a plan or a setting names.

    Args:
        text: A name, or a name and arguments: "fedavgm(momentum=0.5)".

    Raises:
        InvalidMessage: There is no such strategy or parameter, or a value is out of its range.
    """
    call = _CALL.fullmatch(text.replace(" ", ""))
    if call is None or call[1] not in STRATEGIES:
        raise InvalidMessage(
            f"There is no strategy called {text!r}.",
            todo=f"Choose one of: {', '.join(STRATEGIES)}.",
        )
    strategy = STRATEGIES[call[1]]
    known = {each.name: each for each in fields(strategy)}
    given: dict[str, float] = {}
    for part in (call[2] or "").split(",") if call[2] else ():
        name, _, value = part.partition("=")
        if name not in known or name in given:
            raise InvalidMessage(
                f"{call[1]} has no parameter {name!r}, or it is given twice.",
                todo=f"Its parameters: {', '.join(known) or 'none'}.",
            )
        given[name] = _number(known[name], value)
    chosen: Strategy = strategy(**given)
    return chosen


def _number(parameter: Field[float], text: str) -> float:
    low, high = parameter.metadata["bounds"]
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise InvalidMessage(
            f"{parameter.name}={text} is not a number between {low} and {high}.",
            todo=f"Its default is {parameter.default}.",
        )
    return value
