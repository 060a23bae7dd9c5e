"""One device, one process: the second is refused at start, whoever is killed gives the folder back."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from device.app import create_app
from device.single_instance import claim_folder
from shared.errors import SettingsError
from shared.web.background import start_background

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from device.single_instance import claim_folder
give_back = claim_folder("device-1", Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
give_back()
print("given back", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "device-1")],
        cwd=ROOT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_process_is_refused_with_folder_and_process_id(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        time.sleep(seconds)

    with pytest.raises(SettingsError) as refused:
        claim_folder("device-1", tmp_path / "device-1", patience_s=0.3, sleep=sleep)
    assert refused.value.happened.startswith(f"device-1 runs already, as process {holder.pid}: ")
    assert str(tmp_path / "device-1") in refused.value.happened
    assert 2 <= len(waited) <= 5


def test_process_that_is_killed_gives_the_folder_back(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGKILL)
    claim_folder("device-1", tmp_path / "device-1", patience_s=5.0)()


def test_process_that_is_about_to_end_is_waited_for(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    def sleep(_: float) -> None:
        assert holder.stdin and holder.stdout
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "given back\n"

    claim_folder("device-1", tmp_path / "device-1", patience_s=10.0, sleep=sleep)()


def test_one_process_claims_a_folder_once_and_again_when_it_has_given_it_back(
    tmp_path: Path,
) -> None:
    give_back = claim_folder("device-1", tmp_path / "a", patience_s=0.0)
    with pytest.raises(SettingsError, match=f"as process {os.getpid()}"):
        claim_folder("device-1", tmp_path / "a", patience_s=0.0)
    claim_folder("device-2", tmp_path / "b", patience_s=0.0)()
    give_back()
    give_back()
    claim_folder("device-1", tmp_path / "a", patience_s=0.0)()


def test_worker_that_is_told_to_end_gives_the_folder_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOORBELL_HOME", str(tmp_path))
    monkeypatch.setenv("DOORBELL_WAIT_FOR_WORK", "no")
    stop = start_background(create_app(1), 1)
    with (tmp_path / "devices" / "device-1" / ".running").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        stop.set()
        deadline = time.monotonic() + 20
        while not _is_free(file):
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.heavy
def test_service_that_cannot_start_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOORBELL_TRAIN_AT", "noon")
    process = _serve(tmp_path, 0)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "DOORBELL_TRAIN_AT cannot be 'noon'" in said and "Traceback" not in said


def _is_free(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _serve(home: Path, port: int, *more: str) -> subprocess.Popen[str]:
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    command = [gunicorn, "--bind", f"localhost:{port}", *more, "device.app:create_app(1)"]
    environment = {**os.environ, "DOORBELL_HOME": str(home), "DOORBELL_WAIT_FOR_WORK": "no"}
    environment.pop("WEB_CONCURRENCY", None)
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _holder_of(home: Path) -> int:
    path, deadline = home / "devices" / "device-1" / ".running", time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(path.read_text())


@pytest.mark.slow
def test_second_service_ends_with_a_sentence_and_a_restarted_worker_does_not(
    tmp_path: Path,
) -> None:
    first = _serve(tmp_path, 0)
    try:
        worker = _holder_of(tmp_path)
        second = _serve(tmp_path, 0)
        _, said = second.communicate(timeout=60)
        assert second.returncode != 0
        assert f"device-1 runs already, as process {worker}: " in said
        assert "Traceback" not in said
        psutil.Process(worker).kill()
        psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], timeout=10)
        deadline = time.monotonic() + 60
        while (replaced := _holder_of(tmp_path)) == worker:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.send_signal(signal.SIGHUP)  # the new worker is there before the old one is gone
        while _holder_of(tmp_path) == replaced:
            assert time.monotonic() < deadline and first.poll() is None
            time.sleep(0.05)
    finally:
        first.terminate()
        first.wait(30)
        if first.stdout and first.stderr:
            first.stdout.close()
            first.stderr.close()
