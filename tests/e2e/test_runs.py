"""Rounds that run by themselves over real processes, each of which is killed once; and the commands
that steer them.
"""

from __future__ import annotations

import json
import signal
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
ROUNDS = 5


def status(federation: Federation) -> dict[str, Any]:
    return dict(requests.get(federation.url("main", "/status"), timeout=30).json())


def face(federation: Federation) -> dict[str, Any]:
    return next(each for each in status(federation)["detectors"] if each["detector"] == "face")


def rounds_done(federation: Federation) -> int:
    return int(face(federation)["run"]["done"])


def until(true: Callable[[], object], federation: Federation, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "\n".join(
            federation.log(name)[-2000:] for name in federation.processes
        )
        time.sleep(0.1)


def command(federation: Federation, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `python -m federation` against the main server."""
    line = [sys.executable, "-m", "federation", *arguments, "--main", federation.url("main")]
    return subprocess.run(
        line,
        cwd=PROJECT,
        env=federation.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.fixture(scope="module")
def federation(make_federation: MakeFederation) -> Federation:
    """Four services that have just been started; both devices wait for work."""
    federation = make_federation(DOORBELL_MAX_REGRESSION="1")
    until(
        lambda: [each["state"] for each in status(federation)["devices"]] == ["online", "online"],
        federation,
    )
    return federation


@pytest.mark.slow
def test_run_goes_on_through_the_death_of_every_service(federation: Federation) -> None:
    begun = federation.step("main", f"/run?detector=face&rounds={ROUNDS}", "POST")
    assert begun.status_code == 200, begun.text
    for done, service in enumerate(("main", "aggregator", "device1", "device2"), 1):
        until(lambda: rounds_done(federation) >= done, federation)  # noqa: B023 - it is asked within the loop
        federation.stop(service, sig=signal.SIGKILL)
        federation.start(service)
    until(lambda: face(federation)["run"]["state"] == "finished", federation)
    now = face(federation)
    assert (now["run"]["done"], now["round"]["state"]) == (ROUNDS, "published")
    assert sorted(version["round"] for version in now["versions"]) == list(range(ROUNDS + 1)), (
        "each round made one version"
    )
    assert now["round"]["cohort"] == ["device-1", "device-2"]
    for service in federation.processes:
        assert "[round-face-1]" in federation.log(service), "one id leads through all four logs"


@pytest.mark.slow
def test_commands_show_and_steer_what_happens(federation: Federation) -> None:
    run = command(federation, "run", "--rounds", "1", "--detector", "animal")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "A run of 1 rounds has begun with round 1." in run.stdout
    assert "Round 1 is published: 2 devices are in it." in run.stdout
    shown = json.loads(command(federation, "status", "--json").stdout)
    newest = next(each for each in shown["detectors"] if each["detector"] == "animal")["versions"][
        0
    ]
    assert newest["gate"] in ("passed", "rejected") and newest["score"]["pictures"] == 32
    assert "device-1" in command(federation, "status").stdout
    assert newest["version"][:12] in command(federation, "models").stdout

    again = command(federation, "run", "--rounds", "0")
    assert again.returncode == 1 and "A run has from 1 to" in again.stderr
    first = next(
        v
        for each in shown["detectors"]
        if each["detector"] == "animal"
        for v in each["versions"]
        if v["round"] == 0
    )
    back = command(federation, "rollback", first["version"][:12])
    assert back.returncode == 0 and "is active again, as that of round" in back.stdout, back.stderr
    pinned = command(federation, "pin", first["version"][:12])
    assert pinned.returncode == 0 and "animal is pinned" in pinned.stdout, pinned.stderr
    refused = command(federation, "run", "--rounds", "1", "--detector", "animal")
    assert refused.returncode == 1 and "animal is pinned" in refused.stderr
    assert command(federation, "unpin", "animal").returncode == 0

    assert (
        command(federation, "run", "--rounds", "100", "--detector", "animal", "--leave").returncode
        == 0
    )
    stopped = command(federation, "stop", "--detector", "animal")
    assert stopped.returncode == 0 and "What was sent is kept" in stopped.stdout
    assert command(federation, "resume", "--detector", "animal", "--leave").returncode == 0
    assert command(federation, "stop", "--detector", "animal").returncode == 0


def test_command_that_finds_no_main_server_says_so(federation: Federation) -> None:
    line = [sys.executable, "-m", "federation", "status", "--main", "http://localhost:1"]
    run = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 1
    assert (
        run.stderr
        == "http://localhost:1 did not answer. Nothing was changed. Is the main server running there?\n"
    )
