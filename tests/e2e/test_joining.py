"""Joining from another machine, as a person does it: with the command line and an environment
variable.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Federation, MakeFederation

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def main_machine(make_federation: MakeFederation) -> Federation:
    """A main server and an aggregator; no device runs on their machine."""
    return make_federation("main", "aggregator", DOORBELL_ARCHITECTURE="porch-cnn")


@pytest.fixture
def other_machine(main_machine: Federation, make_federation: MakeFederation) -> Callable[..., Any]:
    """Return a maker of devices that share nothing with the main server's machine but the network."""

    def make(**variables: str) -> Any:
        return make_federation(
            "device1",
            DOORBELL_MAIN_URL=main_machine.url("main"),
            DOORBELL_AGGREGATOR_URL=main_machine.url("aggregator"),
            **variables,
        )

    return make


def _federation(machine: Federation, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "federation", *words]
    environment = machine.environment | {"COLUMNS": "200"}
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_device_joins_by_a_code_that_is_good_once(
    main_machine: Federation, other_machine: Callable[..., Any]
) -> None:
    stranger = other_machine(DOORBELL_DEVICE_NAME="stranger")
    refused = stranger.step("device1", "/modeltrain?detector=face")
    assert refused.status_code == 403
    assert "has not joined" in refused.text and "python -m federation invite" in refused.text

    invited = _federation(main_machine, "invite")
    code = invited.stdout.strip()
    assert invited.returncode == 0 and code.startswith("doorbell-")
    porch = other_machine(DOORBELL_DEVICE_NAME="porch", DOORBELL_JOIN_CODE=code)
    porch.done("device1", "/modeltrain?detector=face")
    porch.done("device1", "/sendmodel?detector=face")

    late = other_machine(DOORBELL_DEVICE_NAME="late", DOORBELL_JOIN_CODE=code)
    again = late.step("device1", "/sendstatus")
    assert again.status_code == 403 and "used up or has expired" in again.text

    listing = _federation(main_machine, "devices").stdout
    assert "porch" in listing and "secure-aggregator" in listing and "stranger" not in listing
    for machine in (main_machine, stranger, porch, late):
        for service in machine.processes:
            assert code not in machine.log(service)


def test_the_aggregator_gets_a_new_key_and_goes_on(main_machine: Federation) -> None:
    key = main_machine.home / "secure-aggregator" / "identity.key"
    assert main_machine.step("aggregator", "/aggregate_models?detector=face").status_code in (
        200,
        409,
    )
    before = key.read_bytes()
    main_machine.stop("aggregator")
    command = [sys.executable, "-m", "sec_agg", "--new-key"]
    run = subprocess.run(
        command,
        cwd=PROJECT,
        env=main_machine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0 and "secure-aggregator has a new key" in run.stdout, run.stderr
    assert key.read_bytes() != before
    main_machine.start("aggregator")
    assert main_machine.step("aggregator", "/aggregate_models?detector=face").status_code in (
        200,
        409,
    )


def test_a_member_is_renamed_gets_a_new_key_and_is_shut_out(
    main_machine: Federation, other_machine: Callable[..., Any]
) -> None:
    code = _federation(main_machine, "invite").stdout.strip()
    gate = other_machine(DOORBELL_DEVICE_NAME="gate", DOORBELL_JOIN_CODE=code)
    gate.done("device1", "/modeltrain?detector=face")
    assert _federation(main_machine, "rename", "gate", "garden").returncode == 0
    gate.done("device1", "/modeltrain?detector=face")
    gate.done("device1", "/sendmodel?detector=face")
    assert json.loads(gate.step("device1", "/healthz").text)["device"] == "garden"

    folder = gate.home / "devices" / "gate"
    before = (folder / "identity.key").read_bytes()
    gate.stop("device1")
    environment = gate.environment | {"DOORBELL_DEVICE_URL": gate.url("device1")}
    command = [sys.executable, "-m", "device", "--id", "1", "--new-key"]
    run = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0 and "has a new key" in run.stdout, run.stderr
    assert (folder / "identity.key").read_bytes() != before
    gate.start("device1")
    gate.done("device1", "/sendstatus")

    assert _federation(main_machine, "revoke", "garden", "--reason", "stolen.").returncode == 0
    refused = gate.step("device1", "/sendstatus")
    assert refused.status_code == 403 and "garden was revoked: stolen." in refused.text
    unknown = _federation(main_machine, "revoke", "nobody")
    assert unknown.returncode == 1 and "Nobody called nobody" in unknown.stderr
