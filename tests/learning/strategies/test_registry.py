"""Strategies by name: every one that is registered can be named, and nothing else can."""

from __future__ import annotations

import re

import numpy as np
import pytest

from learning.server_state import ServerState
from learning.strategies import STRATEGIES, parse_strategy
from learning.strategies.fedavg import FedAvg
from learning.strategies.fedavgm import FedAvgM
from shared.errors import InvalidMessage
from shared.round.fixed_point import Mean


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_steps_under_its_own_name(name: str) -> None:
    strategy = parse_strategy(name)
    assert strategy == STRATEGIES[name]()
    state = strategy.step(ServerState(np.zeros(3, np.float32)), [Mean(np.ones(3, "f4"), 1, 0)], 1.0)
    assert state.strategy == name
    assert state.params.shape == (3,) and state.params.dtype == np.float32


def test_name_alone_has_its_defaults_and_empty_brackets_change_nothing() -> None:
    assert parse_strategy("fedavg") == parse_strategy("fedavg()") == FedAvg()


def test_parameter_is_read_with_or_without_spaces() -> None:
    assert parse_strategy("fedavgm(momentum = 0.5)") == FedAvgM(momentum=0.5)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("fedsgd", "no strategy called 'fedsgd'"),
        ("", "no strategy called ''"),
        ("fedavg(", "no strategy called"),
        ("fedavg(beta=1)", "has no parameter 'beta'"),
        ("fedavgm(momentum=1)", "momentum=1 is not a number between 0.0 and 0.999"),
        ("fedavgm(momentum=nan)", "momentum=nan is not a number"),
        ("fedavgm(momentum=.5,momentum=.6)", "given twice"),
    ],
)
def test_what_names_no_strategy_is_refused_with_the_choices(text: str, refused: str) -> None:
    with pytest.raises(InvalidMessage, match=re.escape(refused)):
        parse_strategy(text)
