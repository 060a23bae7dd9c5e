"""What a strategy keeps belongs to a version: stored with it, restored by a rollback, never pruned
before it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from learning.server_state import ServerState
from learning.strategies.fedavgm import FedAvgM
from main_server.models.pruning import prune
from main_server.models.registry import load_state
from main_server.models.rollback import roll_back
from main_server.store.records import Version
from main_server.store.versions import newest_version
from shared.round.fixed_point import Mean
from tests.conftest import Federation, Vector
from tests.main_store import read
from tests.updates import plain_update


@pytest.fixture
def momentum(make_federation: Callable[..., Federation], tmp_path: Path) -> Federation:
    """A federation in the direct topology, whose server has momentum."""
    return make_federation(tmp_path, topology="direct", strategy="fedavgm(momentum=0.5)")


def play_round(federation: Federation, delta: Vector) -> Version:
    """Let two devices send the same delta; return the version that comes of it."""
    for device in ("a", "b"):
        body = plain_update(delta, 10, federation.announce(device), device).to_bytes()
        federation.device(device).post("http://main/cmodel", body)
    federation.step("main", "aggregate_models")
    return newest(federation)


def newest(federation: Federation) -> Version:
    version = read(federation.main.store, newest_version, "package")
    assert version is not None
    return version


def test_momentum_goes_on_from_version_to_version(momentum: Federation) -> None:
    momentum.announce("a")
    start = momentum.params()
    expected = ServerState(start)
    for delta in [momentum.delta() for _ in range(3)]:
        version = play_round(momentum, delta)
        expected = FedAvgM(momentum=0.5).step(expected, [Mean(delta, 20, 0)], 1.0)
        state = load_state(momentum.main, version.version)
        np.testing.assert_allclose(state.params, expected.params, atol=1e-6)
        np.testing.assert_allclose(state.arrays["momentum"], expected.arrays["momentum"], atol=1e-6)


def test_rollback_restores_the_state_of_the_version(momentum: Federation) -> None:
    first = play_round(momentum, momentum.delta())
    second = play_round(momentum, momentum.delta())
    assert first.state is not None and first.state != second.state
    roll_back(momentum.main, first.version)
    again = newest(momentum)
    assert again.round > second.round
    assert again.state == first.state
    before, after = (load_state(momentum.main, each.version) for each in (first, again))
    np.testing.assert_array_equal(after.params, before.params)
    np.testing.assert_array_equal(after.arrays["momentum"], before.arrays["momentum"])


def test_state_is_kept_as_long_as_its_version(momentum: Federation) -> None:
    version = play_round(momentum, momentum.delta())
    prune(momentum.main, grace_s=0.0)
    assert load_state(momentum.main, version.version).arrays.keys() == {"momentum"}


def test_fedavg_stores_no_state(federation: Federation) -> None:
    federation.announce("a")
    assert newest(federation).state is None


def test_plan_names_the_strategy(momentum: Federation) -> None:
    assert momentum.announce("a").strategy == "fedavgm(momentum=0.5)"
