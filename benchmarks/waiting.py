"""What waiting for work costs and how soon work is noticed; and how soon a service that was killed
answers again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import requests

from benchmarks import services
from benchmarks.figure import Figure
from dataset.porch import drawing as porch

DETECTOR = "animal"
IDLE_S = 120.0
TIMES = 5


def figures() -> list[Figure]:
    """Let two devices wait, give them work, and kill every service once."""
    with TemporaryDirectory() as folder:
        home, data = Path(folder) / "home", Path(folder) / "pictures"
        porch.write_default(data)
        return [*_waiting(home, data), *_recovery(home, data)]


def _waiting(home: Path, data: Path) -> list[Figure]:
    log = home.with_name("requests.log")
    variables = {"DOORBELL_DATA": str(data), "DOORBELL_EPOCHS": "1"}
    variables["GUNICORN_CMD_ARGS"] = f"--access-logfile {log} --access-logformat '%(m)s %(U)s'"
    with services.services(home, variables, "main server") as main:
        variables["GUNICORN_CMD_ARGS"] = ""
        variables["DOORBELL_MAIN_URL"] = main["main server"]
        devices = ("aggregator", "device 1", "device 2")
        with services.services(home, variables, *devices):
            _until(lambda: len(_asked(log)) >= len(devices))
            time.sleep(1)
            before = len(_asked(log))
            time.sleep(IDLE_S)
            rate = (len(_asked(log)) - before) / len(devices) / IDLE_S * 25
            noticed = [_noticed(main["main server"], log) for _ in range(TIMES)]
    slowest = max(noticed)
    return [
        Figure(
            f"requests of one who waits, in 25 s, over {IDLE_S:.0f} s",
            f"{rate:.2f}",
            "<= 1",
            rate <= 1,
        ),
        Figure(
            f"new work is noticed after, slowest of {TIMES}",
            f"{slowest:.2f} s",
            "<= 1 s",
            slowest <= 1,
        ),
    ]


def _noticed(main: str, log: Path) -> float:
    """Return the seconds from a run's start to the first request by which a device takes it up."""
    before = len(log.read_text().splitlines())
    begun = time.perf_counter()
    requests.post(
        f"{main}/run", params={"rounds": 1, "detector": DETECTOR}, timeout=30
    ).raise_for_status()
    _until(
        lambda: any(
            "/clientstatus" in line or "/model/" in line
            for line in log.read_text().splitlines()[before:]
        )
    )
    noticed = time.perf_counter() - begun
    _until(lambda: _state(main) != "running", 300)
    time.sleep(2)
    return noticed


def _state(main: str) -> str:
    detectors = requests.get(f"{main}/status", timeout=30).json()["detectors"]
    return next(str(each["run"]["state"]) for each in detectors if each["detector"] == DETECTOR)


def _recovery(home: Path, data: Path) -> list[Figure]:
    found = []
    for name in services.APPS:
        address = f"http://localhost:{services.free_port()}"
        environment = {**os.environ, "DOORBELL_HOME": str(home), "DOORBELL_DATA": str(data)}
        for member in services.tree(services.start(name, address, environment).pid):
            member.kill()
        psutil.wait_procs(psutil.Process().children(), 5)
        begun = time.perf_counter()
        process = services.start(name, address, environment)
        seconds = time.perf_counter() - begun
        services.stop([process])
        found.append(
            Figure(
                f"{name}: answers again after a kill", f"{seconds:.2f} s", "<= 3 s", seconds <= 3
            )
        )
    return found


def _asked(log: Path) -> list[str]:
    return (
        [line for line in log.read_text().splitlines() if "/work" in line] if log.exists() else []
    )


def _until(holds: Callable[[], bool], patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("what was waited for did not come")
        time.sleep(0.01)
