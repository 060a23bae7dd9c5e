"""What processes do: stay responsive, survive the loss of a child, leave no orphan, start by every
documented way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.e2e.conftest import Federation, MakeFederation

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def busy(
    make_cold_federation: MakeFederation,
    tmp_path_factory: pytest.TempPathFactory,
    draw_pictures: Any,
) -> Federation:
    """A main server and one device whose training takes a while."""
    root = tmp_path_factory.mktemp("many-pictures")
    draw_pictures(root, "face", "client_1", 60)
    return make_cold_federation(
        "main",
        "device1",
        DOORBELL_DATA=str(root),
        DOORBELL_EPOCHS="15",
        DOORBELL_ARCHITECTURE="porch-cnn",
    )


def _trainer(federation: Federation) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        health = requests.get(federation.url("device1", "/healthz"), timeout=5).json()
        if "epoch" in health["doing"] and health["trainer_pid"]:
            return psutil.Process(health["trainer_pid"])
        time.sleep(0.05)
    raise AssertionError("no training is under way")


def _gone(process: psutil.Process) -> bool:
    try:
        process.wait(10)
    except psutil.TimeoutExpired:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


def _train_in_background(
    federation: Federation,
) -> tuple[threading.Thread, list[requests.Response]]:
    answers: list[requests.Response] = []

    def train() -> None:
        with contextlib.suppress(
            requests.ConnectionError
        ):  # the service may be killed under the request
            answers.append(federation.step("device1", "/modeltrain"))

    thread = threading.Thread(target=train)
    thread.start()
    return thread, answers


def test_page_and_health_answer_while_a_training_runs_and_a_second_one_is_refused(
    busy: Federation,
) -> None:
    thread, answers = _train_in_background(busy)
    child = _trainer(busy)
    page = busy.step("device1", "/", accept="text/html")
    assert page.status_code == 200 and "training face, epoch" in page.text
    assert page.elapsed.total_seconds() < 2
    assert "This device is busy" in busy.refused("device1", "/modeltrain")
    child.kill()
    thread.join(60)
    assert answers[0].status_code == 500
    assert "was killed by SIGKILL" in answers[0].text and "kept" in answers[0].text

    # The next training gets a fresh child, and the service was never gone.
    thread, answers = _train_in_background(busy)
    assert _trainer(busy).pid != child.pid
    thread.join(300)
    assert answers[0].status_code == 200, answers[0].text


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_the_training_child_goes_with_its_service(busy: Federation, sig: signal.Signals) -> None:
    thread, _ = _train_in_background(busy)
    child = _trainer(busy)
    workers = psutil.Process(busy.processes["device1"].pid).children()
    if sig == signal.SIGKILL:
        for worker in workers:
            worker.kill()
    busy.stop("device1", sig=sig)
    assert _gone(child)
    thread.join(60)
    busy.start("device1")
    assert "device-1" in busy.done("device1", "/healthz")


def test_no_web_process_loads_tensorflow(busy: Federation) -> None:
    for service in busy.processes.values():
        for process in psutil.Process(service.pid).children():
            maps = {Path(file.path).name for file in process.memory_maps()}
            assert not any("tensorflow" in name for name in maps)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [("main_server", []), ("sec_agg", []), ("device", ["--id", "2"]), ("device", ["--id", "7"])],
)
def test_python_dash_m_starts_a_service(
    module: str, arguments: list[str], tmp_path: Path, busy: Federation
) -> None:
    port = busy.ports["aggregator"]
    command = [sys.executable, "-m", module, *arguments, "--bind", f"localhost:{port}"]
    environment = {
        **os.environ,
        "DOORBELL_HOME": str(tmp_path),
        "DOORBELL_DATA": str(tmp_path / "none"),
    }
    process = subprocess.Popen(
        command, cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                health = requests.get(f"http://localhost:{port}/healthz", timeout=2).json()
                break
            except requests.RequestException:
                time.sleep(0.05)
        assert health["status"] == "ok"
        if module == "device":
            assert health["device"] == f"device-{arguments[1]}"
    finally:
        process.terminate()
        process.wait(30)


def test_a_bad_setting_is_named_before_the_service_starts(tmp_path: Path) -> None:
    environment = {**os.environ, "DOORBELL_HOME": str(tmp_path), "DOORBELL_MIN_COHORT": "1"}
    command = [sys.executable, "-c", "import wsgi3"]
    run = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode != 0 and "DOORBELL_MIN_COHORT" in run.stderr


def test_a_checkout_may_lie_in_a_folder_with_a_percent_sign(tmp_path: Path) -> None:
    home = tmp_path / "50% off"
    for package in ("shared", "sec_agg"):
        shutil.copytree(
            PROJECT / package, home / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    command = [sys.executable, "-c", "from sec_agg.app import create_app; create_app()"]
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOORBELL_", "PYTHONPATH"))
    }
    run = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert (home / "var" / "secure-aggregator" / "state.sqlite3").exists()
