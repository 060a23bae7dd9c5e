"""Devices that call: a run of rounds without a request to any device, one of them killed in the
middle.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Federation, MakeFederation

PROJECT = Path(__file__).resolve().parents[2]


def rows(federation: Federation, number: int, query: str) -> list[tuple[Any, ...]]:
    path = federation.home / "devices" / f"device-{number}" / "state.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return list(database.execute(query))


def until(true: Callable[[], object], federation: Federation, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "\n".join(
            federation.log(name)[-2000:] for name in federation.processes
        )
        time.sleep(0.1)


@pytest.mark.slow
def test_devices_take_part_in_a_run_by_themselves_and_one_that_is_killed_goes_on(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(
        "main", "device1", "device2", DOORBELL_TOPOLOGY="direct", DOORBELL_ARCHITECTURE="porch-cnn"
    )

    def held(number: int) -> int:
        (newest,) = rows(
            federation, number, "SELECT max(round) FROM models WHERE detector = 'face'"
        )
        return int(newest[0] or 0)

    until(lambda: "device-2" in federation.done("main", "/status"), federation)
    answer = federation.step("main", "/run?detector=face&rounds=3", "POST")
    assert answer.status_code == 200, answer.text
    until(lambda: held(1) >= 1, federation)
    federation.stop("device1", sig=signal.SIGKILL)
    federation.start("device1")
    until(lambda: held(1) >= 3 and held(2) >= 3, federation)
    for number in (1, 2):
        trained = rows(
            federation,
            number,
            "SELECT round, sent FROM trainings WHERE detector = 'face' ORDER BY round",
        )
        assert {round_number for round_number, sent in trained if sent} >= {1, 2, 3}
        assert rows(
            federation, number, "SELECT count(*) FROM scores WHERE accuracy IS NOT NULL"
        ) == [(4,)]
    assert "Traceback" not in federation.log("device2")


@pytest.mark.slow
def test_push_to_a_device_that_never_trained_is_answered_in_time(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(
        "main", "device1", "device2", "aggregator", DOORBELL_WAIT_FOR_WORK="no"
    )
    for device in ("device1", "device2"):
        federation.done(device, "/modeltrain?detector=face")
        federation.done(device, "/sendmodel?detector=face")
    federation.done("aggregator", "/aggregate_models?detector=face")
    federation.done("aggregator", "/send_model_secagg?detector=face")
    federation.stop("device1", sig=signal.SIGKILL)
    federation.start("device1")
    begun = time.monotonic()
    assert "delivered to device-1, device-2" in federation.done(
        "main", "/send_model_clients?detector=face"
    )
    assert time.monotonic() - begun < 20
    score = rows(
        federation,
        1,
        "SELECT pictures FROM scores JOIN models USING (version) WHERE scores.round = 1",
    )
    assert score == [(16,)]
    health = requests.get(federation.url("device1", "/healthz"), timeout=5).json()
    assert health["trainer_pid"]


@pytest.mark.slow
def test_second_copy_of_a_device_is_refused(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = make_federation("main", "device1", DOORBELL_WAIT_FOR_WORK="no")
    command = [sys.executable, "-m", "device", "--id", "1", "--bind", "localhost:0"]
    run = subprocess.run(
        command,
        cwd=PROJECT,
        env=federation.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode != 0
    assert "device-1 runs already, as process " in run.stderr
    assert str(federation.home / "devices" / "device-1") in run.stderr
    assert "Traceback" not in run.stderr
    assert "device-1" in federation.done("device1", "/healthz")
