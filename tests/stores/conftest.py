"""The stores of all services, over SQLite and over PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import device.store.store
import main_server.store.store
import sec_agg.store.store
from shared.round.plan import RoundPlan


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test of a store on both databases."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def open_store(tmp_path: Path, database_url: str | None) -> Iterator[Callable[..., Any]]:
    """Return a function that opens a store over this test's folder and database."""
    opened = []

    def make(kind: Any) -> Any:
        opened.append(kind(tmp_path, database_url))
        return opened[-1]

    yield make
    for store in opened:
        store.database.close()


@pytest.fixture
def main_store(open_store: Callable[..., Any]) -> main_server.store.store.Store:
    store: main_server.store.store.Store = open_store(main_server.store.store.Store.open)
    return store


@pytest.fixture
def aggregator_store(open_store: Callable[..., Any]) -> sec_agg.store.store.Store:
    store: sec_agg.store.store.Store = open_store(sec_agg.store.store.Store)
    return store


@pytest.fixture
def device_store(open_store: Callable[..., Any]) -> device.store.store.DeviceStore:
    store: device.store.store.DeviceStore = open_store(device.store.store.DeviceStore)
    return store


@pytest.fixture
def round_of() -> Callable[..., RoundPlan]:
    """Return a maker of the settings of small rounds of the detector "person"."""
    usual: dict[str, Any] = {
        "federation": "doorbell",
        "detector": "person",
        "round": 1,
        "base_version": "0" * 64,
        "architecture": "porch-cnn",
        "size": 3,
        "topology": "secure",
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 0.01,
        "clipping_norm": None,
        "value_range": 1.0,
        "weight_cap": 100,
        "cohort_cap": 3,
        "min_cohort": 2,
        "strategy": "fedavg",
        "server_learning_rate": 1.0,
        "sealing_key": "",
    }
    return lambda number=1, **changes: RoundPlan(**(usual | {"round": number} | changes))


@pytest.fixture
def training_values() -> dict[str, object]:
    """What a device notes of a training of the detector "person"."""
    history = [
        {"loss": 0.5, "accuracy": 0.75, "val_loss": 0.6, "val_accuracy": 0.7, "seconds": 0.1}
    ]
    return {
        "detector": "person",
        "round": 1,
        "base_version": "0" * 64,
        "local_model": "1" * 64,
        "plot": "2" * 64,
        "weight": 20,
        "history": history,
        "finished_at": 1_800_000_000.25,
        "pictures": 20,
    }
