"""What several tests of `shared` start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from shared.round.plan import RoundPlan

settings.register_profile("unhurried", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("unhurried")

RoundSettingsFactory = Callable[..., RoundPlan]


@pytest.fixture(scope="session")
def round_settings() -> RoundSettingsFactory:
    """A factory: `round_settings(size=4)` is a small valid round but for the members given."""
    usual: dict[str, Any] = {
        "federation": "doorbell",
        "detector": "person",
        "round": 3,
        "base_version": "0123456789abcdef" * 4,
        "architecture": "porch-cnn",
        "size": 3,
        "topology": "secure",
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.01,
        "clipping_norm": None,
        "value_range": 1.0,
        "weight_cap": 100,
        "cohort_cap": 8,
        "min_cohort": 2,
        "strategy": "fedavg",
        "server_learning_rate": 1.0,
        "sealing_key": "",
    }
    return lambda **changes: RoundPlan(**(usual | changes))
