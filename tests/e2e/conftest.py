"""Real gunicorn processes on free ports, real pictures on disk."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import psutil
import pytest
import requests

from tests.ports import free_port
from tests.warm.services import Nursery

PROJECT = Path(__file__).resolve().parents[2]
SERVICES = {
    "main": "wsgi3:app",
    "device1": "wsgi1:app",
    "device2": "wsgi2:app",
    "aggregator": "wsgi4:app",
}


def _free_ports() -> dict[str, int]:
    return {name: free_port() for name in SERVICES}


@dataclass
class Federation:
    """Four services under gunicorn, each started by the command that the first tutorial gives, or born in a
    nursery.

    Attributes:
        home: Where they keep everything, and their logs.
        variables: Added to the environment.
        nursery: Where they are born, with training children that have imported TensorFlow; None for
            the command.
        ports: Where each listens, or would.
        processes: The masters of those that were started.
    """

    home: Path
    variables: dict[str, str]
    nursery: Nursery | None = None
    ports: dict[str, int] = field(default_factory=_free_ports)
    processes: dict[str, psutil.Process] = field(default_factory=dict)

    def url(self, service: str, path: str = "") -> str:
        return f"http://localhost:{self.ports[service]}{path}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DOORBELL_HOME": str(self.home),
            "DOORBELL_MAIN_URL": self.url("main"),
            "DOORBELL_AGGREGATOR_URL": self.url("aggregator"),
            **self.variables,
        }

    def start(self, service: str) -> None:
        """Start one service, and wait until it answers."""
        arguments = [
            "--bind",
            f"localhost:{self.ports[service]}",
            "--timeout",
            "600",
            SERVICES[service],
        ]
        environment = self.environment
        if service.startswith("device"):
            environment["DOORBELL_DEVICE_URL"] = self.url(service)
        self.home.mkdir(parents=True, exist_ok=True)
        self.processes[service] = self._born(service, arguments, environment)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and lives(self.processes[service]):
            try:
                if requests.get(self.url(service, "/healthz"), timeout=2).ok:
                    return
            except requests.RequestException:
                time.sleep(0.05)
        raise AssertionError(f"{service} did not start:\n{self.log(service)}")

    def _born(
        self, service: str, arguments: list[str], environment: dict[str, str]
    ) -> psutil.Process:
        log = self.home / f"{service}.log"
        if self.nursery is not None:
            if service.startswith("device"):
                environment["WARM_TRAINERS"] = self.nursery.trainers.listening()
            return psutil.Process(self.nursery.start(arguments, environment, log))
        command = [str(Path(sys.executable).with_name("gunicorn")), *arguments]
        with log.open("ab") as output:
            return psutil.Popen(
                command,
                cwd=PROJECT,
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def log(self, service: str) -> str:
        return (self.home / f"{service}.log").read_text(errors="replace")

    def step(
        self, service: str, path: str, method: str = "GET", accept: str = "*/*"
    ) -> requests.Response:
        return requests.request(
            method, self.url(service, path), headers={"Accept": accept}, timeout=300
        )

    def done(self, service: str, path: str, method: str = "GET") -> str:
        """Do a step that must work, and return its sentences."""
        response = self.step(service, path, method)
        assert response.status_code == 200, (
            f"{service}{path}: {response.status_code} {response.text}"
        )
        return response.text

    def refused(self, service: str, path: str) -> str:
        """Do a step that must be refused as out of order, and return its sentences."""
        response = self.step(service, path)
        assert response.status_code == 409, (
            f"{service}{path}: {response.status_code} {response.text}"
        )
        return response.text

    def stop(self, *services: str, sig: int = signal.SIGTERM) -> None:
        """Stop services, and wait until they and what they started are gone."""
        processes = [self.processes.pop(service) for service in services]
        alive = [process for process in processes if lives(process)]
        children = [child for process in alive for child in process.children(recursive=True)]
        for process in alive:
            process.send_signal(sig)
        for process in processes:
            process.wait(30)
        psutil.wait_procs(children, timeout=15)

    def kill(self) -> None:
        """End all services and what they started, at once: nothing is to be learned from how they
        would go.
        """
        alive = [process for process in self.processes.values() if lives(process)]
        everything = [
            one for process in alive for one in (*process.children(recursive=True), process)
        ]
        for one in everything:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        for process in self.processes.values():
            process.wait(30)
        psutil.wait_procs(everything, timeout=15)
        self.processes.clear()


def lives(process: psutil.Process) -> bool:
    """Return whether a process is there, and not only waited for."""
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


class MakeFederation(Protocol):
    """Makes a federation of some services, or all, with more variables."""

    def __call__(self, *services: str, **variables: str) -> Federation: ...


@pytest.fixture(scope="session")
def draw_pictures() -> Callable[..., None]:
    """Lay out small coloured pictures for one client: a bright disc is the object, a dark square is
    not.
    """

    def draw(root: Path, detector: str, client: str, count: int = 8) -> None:
        rng = np.random.default_rng([*detector.encode(), *client.encode()])
        for split in ("train", "valid", "test"):
            for positive in (True, False):
                folder = (
                    root / detector / client / split / (detector if positive else f"not_{detector}")
                )
                folder.mkdir(parents=True)
                for index in range(count):
                    picture = rng.integers(90, 150, (64, 64, 3), dtype=np.uint8)
                    x, y = (int(value) for value in rng.integers(18, 46, 2))
                    if positive:
                        cv2.circle(picture, (x, y), 14, (40, 220, 240), -1)
                    else:
                        cv2.rectangle(picture, (x - 10, y - 10), (x + 10, y + 10), (90, 30, 20), -1)
                    cv2.imwrite(str(folder / f"{index:04d}.png"), picture)

    return draw


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory, draw_pictures: Callable[..., None]) -> Path:
    """Two detectors that both devices have, and one, parcel, that device 2 lacks."""
    root = tmp_path_factory.mktemp("pictures")
    for client in ("client_1", "client_2"):
        draw_pictures(root, "face", client)
        draw_pictures(root, "animal", client)
    draw_pictures(root, "parcel", "client_1")
    return root


@contextlib.contextmanager
def _maker(
    new_home: Callable[[str], Path], variables: dict[str, str], nursery: Nursery | None
) -> Iterator[MakeFederation]:
    made: list[Federation] = []

    def make(*services: str, **more: str) -> Federation:
        federation = Federation(new_home("home"), variables | more, nursery)
        made.append(federation)
        for service in services or SERVICES:
            federation.start(service)
        return federation

    yield make
    for federation in made:
        federation.kill()


@pytest.fixture(scope="session")
def variables(pictures: Path, machine_cache: Path) -> dict[str, str]:
    """What every federation is started with."""
    return {
        "DOORBELL_DATA": str(pictures),
        "DOORBELL_CACHE": str(machine_cache),
        "DOORBELL_EPOCHS": "2",
    }


@pytest.fixture(scope="module")
def make_federation(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str], nursery: Nursery
) -> Iterator[MakeFederation]:
    """Return a function that makes a federation with more variables; stops them all at the end."""
    with _maker(tmp_path_factory.mktemp, variables, nursery) as make:
        yield make


@pytest.fixture(scope="module")
def make_cold_federation(
    tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]
) -> Iterator[MakeFederation]:
    """The same, and each service and training child is started by the command that people and
    services give.
    """
    with _maker(tmp_path_factory.mktemp, variables, None) as make:
        yield make
