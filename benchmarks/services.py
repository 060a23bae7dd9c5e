"""Real gunicorn processes for the benchmarks: started on free ports, stopped at the end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

PROJECT = Path(__file__).resolve().parent.parent
APPS = {
    "main server": "wsgi3:app",
    "aggregator": "wsgi4:app",
    "device 1": "wsgi1:app",
    "device 2": "wsgi2:app",
}


@contextmanager
def services(home: Path, variables: dict[str, str], *names: str) -> Iterator[dict[str, str]]:
    """Run some services, and yield the address of each."""
    addresses = {name: f"http://localhost:{free_port()}" for name in APPS}
    shared = {
        "DOORBELL_HOME": str(home),
        "DOORBELL_MAIN_URL": addresses["main server"],
        "DOORBELL_AGGREGATOR_URL": addresses["aggregator"],
    }
    processes = []
    try:
        for name in names:
            own = {"DOORBELL_DEVICE_URL": addresses[name]} if name.startswith("device") else {}
            processes.append(
                start(name, addresses[name], {**os.environ, **shared, **own, **variables})
            )
        yield {name: addresses[name] for name in names}
    finally:
        stop(processes)


def stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Stop services, and wait until they are gone."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(30)


def start(
    name: str, address: str, environment: dict[str, str], app: str | None = None
) -> subprocess.Popen[bytes]:
    """Start one service, of its own app unless another is named, and wait for its first healthy
    answer.
    """
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    bind = address.removeprefix("http://")
    process = subprocess.Popen(
        [gunicorn, "--bind", bind, app or APPS[name]],
        cwd=PROJECT,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if requests.get(f"{address}/healthz", timeout=5).ok:
                return process
        except requests.RequestException:
            time.sleep(0.01)
    raise TimeoutError(f"{name} did not start")


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a service: all its processes, pages that they share counted
    once.
    """
    return float(sum(member.memory_full_info().pss for member in tree(process.pid))) / 1e6


def loads_tensorflow(process: subprocess.Popen[bytes]) -> bool:
    """Return whether any process of a service has TensorFlow in its memory."""
    return any(
        "tensorflow" in Path(file.path).name
        for member in tree(process.pid)
        for file in member.memory_maps()
    )


def cpu_seconds(members: list[psutil.Process]) -> float:
    """Return the CPU time that some processes have used, in user mode and in the kernel."""
    return float(
        sum(times.user + times.system for times in (member.cpu_times() for member in members))
    )


def tree(pid: int) -> list[psutil.Process]:
    """Return a service's processes: gunicorn's master and its workers."""
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
