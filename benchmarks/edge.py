"""A device that looks and answers, of `requirements-edge.txt` alone: how fast it starts, how much
memory it lives in.

The set-up is that of docs/tutorials/doorbell-on-a-raspberry-pi.md: an environment of its own, the
frozen body copied, an invitation, detectors by name, no pictures. The main server and a
device with TensorFlow, whose answers it has to repeat, run beside it.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests

from benchmarks.figure import Figure
from benchmarks.services import (
    PROJECT,
    free_port,
    loads_tensorflow,
    resident_mb,
    services,
    stop,
    tree,
)
from benchmarks.swap import ring, two_rounds
from dataset.porch import drawing as porch

STARTS, RINGS, START_S, RESIDENT_MB, PATIENCE_S = 5, 50, 2.0, 250.0, 60.0


def figures() -> list[Figure]:
    """Install it, let it follow two rounds, and measure."""
    with TemporaryDirectory() as folder:
        python, home, edge = (
            _environment(Path(folder) / "venv"),
            Path(folder) / "home",
            Path(folder) / "edge",
        )
        variables, picture, _ = two_rounds(home, Path(folder) / "pictures")
        (edge / "cache").mkdir(parents=True)
        for body in (home / "cache").glob("efficientnet-lite0-*.tflite"):
            shutil.copy(body, edge / "cache")
        with services(home, variables, "main server", "device 1") as addresses:
            environment = _settings(home, edge, addresses["main server"])
            wanted = _facts(ring(addresses["device 1"], picture))
            with _device(python, environment):
                _follow(environment["DOORBELL_DEVICE_URL"], picture, wanted)
            return _measured(python, environment, picture, wanted)


def _measured(
    python: Path, environment: dict[str, str], picture: bytes, wanted: dict[str, Any]
) -> list[Figure]:
    starts = []
    for _ in range(STARTS):
        with _device(python, environment) as (process, seconds):
            starts.append(seconds)
            if len(starts) == STARTS:
                answers = [
                    _facts(ring(environment["DOORBELL_DEVICE_URL"], picture)) for _ in range(RINGS)
                ]
                alone, summed = (
                    resident_mb(process),
                    sum(one.memory_info().rss for one in tree(process.pid)) / 1e6,
                )
                tensorflow = loads_tensorflow(process) or _has(python, "tensorflow", "keras")
    alike, median = answers.count(wanted), statistics.median(starts)
    return [
        Figure(
            f"from start to first answer, median of {STARTS}",
            f"{median:.2f} s",
            f"<= {START_S:.0f} s",
            median <= START_S,
        ),
        Figure(
            f"resident after {RINGS} rings; shared pages counted twice",
            f"{alone:.0f} MB; {summed:.0f} MB",
            f"<= {RESIDENT_MB:.0f} MB",
            summed <= RESIDENT_MB,
        ),
        Figure(
            "answers equal to those of a device with TensorFlow",
            f"{alike} of {RINGS}",
            f"{RINGS}",
            alike == RINGS,
        ),
        Figure(
            "TensorFlow installed or in memory", "yes" if tensorflow else "no", "no", not tensorflow
        ),
    ]


def _environment(folder: Path) -> Path:
    """Make an environment of the edge requirements alone, and return its Python."""
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", PROJECT / "requirements-edge.txt"], check=True)
    return folder / "bin" / "python"


def _settings(home: Path, edge: Path, main: str) -> dict[str, str]:
    """Return what the device's owner writes down, an invitation among it."""
    invite = [sys.executable, "-m", "federation", "invite"]
    inviting = os.environ | {"DOORBELL_HOME": str(home)}
    code = subprocess.run(
        invite, cwd=PROJECT, env=inviting, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return os.environ | {
        "DOORBELL_HOME": str(edge),
        "DOORBELL_DEVICE_NAME": "edge",
        "DOORBELL_DEVICE_URL": f"http://localhost:{free_port()}",
        "DOORBELL_MAIN_URL": main,
        "DOORBELL_JOIN_CODE": code.strip(),
        "DOORBELL_DETECTORS": ",".join(porch.DETECTORS),
    }


@contextmanager
def _device(
    python: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """Run the device as its unit does; yield its process and the seconds until it answered."""
    address = environment["DOORBELL_DEVICE_URL"]
    command = [
        python.with_name("gunicorn"),
        "--bind",
        address.removeprefix("http://"),
        "--workers",
        "1",
    ]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--timeout", "600", "wsgi1:app"],
        cwd=PROJECT,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _answers(address):
            if time.perf_counter() - begun > PATIENCE_S:
                raise TimeoutError("The device without TensorFlow did not start.")
            time.sleep(0.01)
        yield process, time.perf_counter() - begun
    finally:
        stop([process])


def _answers(address: str) -> bool:
    try:
        return requests.get(f"{address}/healthz", timeout=5).ok
    except requests.RequestException:
        return False


def _has(python: Path, *modules: str) -> bool:
    """Return whether an environment has one of these modules."""
    look = "import importlib.util, sys; sys.exit(any(map(importlib.util.find_spec, sys.argv[1:])))"
    return subprocess.run([python, "-c", look, *modules], check=False).returncode != 0


def _follow(address: str, picture: bytes, wanted: dict[str, Any]) -> None:
    """Wait until the versions that are to answer are in force."""
    until, found = time.monotonic() + PATIENCE_S, dict[str, Any]()
    while {name: version for name, (version, _) in found.items()} != {
        name: one for name, (one, _) in wanted.items()
    }:
        if time.monotonic() > until:
            raise TimeoutError("The device without TensorFlow did not follow the rounds.")
        time.sleep(0.2)
        found = _facts(ring(address, picture))


def _facts(answers: dict[str, Any]) -> dict[str, Any]:
    """Return what must be alike: versions and scores; the threshold goes by the pictures that a
    device has.
    """
    return {name: (answer["version"], answer["score"]) for name, answer in answers.items()}
