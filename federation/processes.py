"""Starting the four services of the Procfile and stopping them again, leaving no process behind."""

from __future__ import annotations

import os
import signal
import subprocess  # nosec B404
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

from federation.preflight import NotReady

PROCFILE = Path(__file__).with_name("Procfile")
PORTS = {"main server": 8000, "device 1": 8001, "device 2": 8002, "secure aggregator": 8003}
_START_S, _STOP_S = 30.0, 15.0


def command() -> list[str]:
    """Return the command that runs the package's own Procfile, in the folder where this process was
    started.

    The Procfile beside `pyproject.toml` starts the same services; this one needs no checkout.
    """
    return [sys.executable, "-m", "honcho", "-f", str(PROCFILE), "-d", os.curdir, "start"]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for the services: this one's, the interpreter's programs first, and
    `variables`.
    """
    programs = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHON": sys.executable,
        "PYTHONUNBUFFERED": "1",
        "PORT": str(PORTS["main server"]),
        **variables,
    }


@contextmanager
def running(variables: Mapping[str, str], log: Path) -> Iterator[None]:
    """Run the services while the block runs, with what they print in `log`.

    Raises:
        NotReady: One of them did not answer in time; the log's end is in the message.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        honcho = subprocess.Popen(  # nosec B603 # a fixed command, no shell
            command(),
            env=environment(variables),
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        for service, port in PORTS.items():
            _wait_until_healthy(service, f"http://localhost:{port}/healthz", honcho, log)
        yield
    finally:
        _stop(honcho)


def _wait_until_healthy(service: str, url: str, honcho: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while honcho.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    last_lines = " / ".join(log.read_text(errors="replace").splitlines()[-3:])
    raise NotReady(f"The {service} did not start.", f"Its log, {log}, ends with: {last_lines}")


def _stop(honcho: subprocess.Popen[bytes]) -> None:
    honcho.send_signal(signal.SIGTERM)
    try:
        honcho.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(honcho.pid, signal.SIGKILL)
        honcho.wait()
