"""The demonstration as a person runs it: on ports 8000 to 8003, to its end, and stopped by Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from federation.preflight import NotReady, check_disk, check_pictures

PROJECT = Path(__file__).resolve().parents[2]
PORTS = (8000, 8001, 8002, 8003)


@pytest.fixture
def home(tmp_path: Path, machine_cache: Path) -> Path:
    (tmp_path / "cache").symlink_to(machine_cache)
    return tmp_path


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "federation", "demo", *arguments]


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "DOORBELL_HOME": str(home), "DOORBELL_EPOCHS": "2", "COLUMNS": "200"}


def _run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments),
        cwd=PROJECT,
        env=_environment(home),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _listening() -> list[int]:
    taken = []
    for port in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                taken.append(port)
    return taken


def _left_over(home: Path) -> list[str]:
    """Return the processes that still work for this home."""
    found = []
    for process in psutil.process_iter(["pid", "status", "cmdline"]):
        try:
            mine = process.environ().get("DOORBELL_HOME", "").startswith(str(home))
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if mine and process.status() != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"]))
    return found


@pytest.mark.parametrize(
    ("topology", "architecture"),
    [
        ("secure", "efficientnet-lite0-head"),
        pytest.param("direct", "porch-cnn", marks=pytest.mark.long),
    ],
)
def test_the_demonstration_ends_by_itself_with_a_table_and_a_chart(
    topology: str, architecture: str, home: Path, pictures: Path
) -> None:
    run = _run(
        home,
        "--exit",
        "--rounds",
        "1",
        "--data",
        str(pictures),
        "--topology",
        topology,
        "--architecture",
        architecture,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Accuracy on the test pictures of all devices together" in run.stdout
    assert all(detector in run.stdout for detector in ("face", "animal"))
    assert (home / "demo" / "rounds.png").read_bytes().startswith(b"\x89PNG")
    assert _listening() == [] and _left_over(home) == []


@pytest.fixture
def staying(home: Path, pictures: Path) -> Iterator[subprocess.Popen[str]]:
    """A demonstration that has done its round and stays up."""
    process = subprocess.Popen(
        _command("--rounds", "1", "--data", str(pictures), "--architecture", "porch-cnn"),
        cwd=PROJECT,
        env=_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - scripts in the background ignore it
    )
    yield process
    if process.poll() is None:
        process.kill()


@pytest.mark.long
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything(
    sig: signal.Signals, staying: subprocess.Popen[str], home: Path
) -> None:
    lines = []
    for line in staying.stdout or ():
        lines.append(line)
        if "Ctrl-C stops everything" in line:
            break
    assert any("http://localhost:8003/" in line for line in lines), "".join(lines)
    assert _listening() == list(PORTS)
    assert all(requests.get(f"http://localhost:{port}/", timeout=5).ok for port in PORTS)
    os.kill(staying.pid, sig)
    assert staying.wait(60) == 0
    assert _listening() == [] and _left_over(home) == []


def test_ctrl_c_in_the_middle_of_a_round_stops_everything(
    staying: subprocess.Popen[str], home: Path
) -> None:
    deadline = time.monotonic() + 60
    while _listening() != list(PORTS) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    os.kill(staying.pid, signal.SIGINT)
    assert staying.wait(60) == 130
    assert _listening() == [] and _left_over(home) == []


def test_a_busy_port_is_named_before_anything_is_started(home: Path, pictures: Path) -> None:
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", 8002))
        squatter.listen()
        run = _run(home, "--exit", "--data", str(pictures))
    assert run.returncode == 1
    assert run.stderr.startswith(
        "Port 8002 is in use, and the device 2 needs it. Nothing was started."
    )
    assert not (home / "demo").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "wrong"])
def test_a_folder_that_cannot_be_used_is_named_before_anything_is_started(
    kind: str, home: Path
) -> None:
    folder = home / "mine"
    if kind != "missing":
        folder.mkdir()
    if kind == "wrong":
        (folder / "holiday.jpg").write_bytes(b"not a layout")
    run = _run(home, "--exit", "--data", str(folder))
    assert (
        run.returncode == 1 and str(folder) in run.stderr and "Nothing was started." in run.stderr
    )
    assert len(run.stderr.strip().splitlines()) == 1


def test_a_folder_of_one_client_is_named(
    tmp_path: Path, draw_pictures: Callable[..., None]
) -> None:
    draw_pictures(tmp_path, "face", "client_1", 1)
    with pytest.raises(NotReady, match="pictures of client_1 and of client_2"):
        check_pictures(tmp_path, ("client_1", "client_2"))


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="MB free, and this needs"):
        check_disk(tmp_path, needed_bytes=1 << 60)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotReady, match="cannot be written"):
        check_disk(tmp_path / "file" / "home")


def test_an_unknown_architecture_is_named(home: Path) -> None:
    run = _run(home, "--exit", "--architecture", "resnet-50")
    assert run.returncode == 1 and "resnet-50" in run.stderr and "porch-cnn" in run.stderr
