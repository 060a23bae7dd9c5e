"""Federations that are stopped anywhere and go on: four services, the undisturbed run, and what
comes out of it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import requests

from learning.architectures import architecture
from learning.model import parse_model
from tests.warm.services import Nursery

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
APPS = {
    "main": "wsgi3:app",
    "aggregator": "wsgi4:app",
    "device1": "wsgi1:app",
    "device2": "wsgi2:app",
}
FOLDERS = {
    "main": "main-server",
    "aggregator": "secure-aggregator",
    "device1": "devices/device-1",
    "device2": "devices/device-2",
}
DETECTOR = "face"
PICTURES = {"client_1": 8, "client_2": 5}
"""Per class; different numbers, so that an update that is lost or counted twice changes the mean.
"""

ROUND = {
    "announce-2": ("device2", "/sendstatus"),
    "train-2": ("device2", "/modeltrain"),
    "announce-1": ("device1", "/sendstatus"),
    "train-1": ("device1", "/modeltrain"),
    "ready-1": ("device1", "/sendstatus"),
    "ready-2": ("device2", "/sendstatus"),
    "send-1": ("device1", "/sendmodel"),
    "send-2": ("device2", "/sendmodel"),
    "add-up": ("aggregator", "/aggregate_models"),
    "hand-over": ("aggregator", "/send_model_secagg"),
    "deliver": ("main", "/send_model_clients"),
    "measure-1": ("device1", "/performance"),
}
"""A round's steps. Who announces itself before it has joined joins."""
RUN_ROUNDS = 2
_FINISHED = """
    SELECT version, round FROM versions WHERE detector = ?1
    AND round = (SELECT max(round) FROM versions WHERE detector = ?1)
    AND (SELECT state FROM runs WHERE detector = ?1) = 'finished'
    AND (SELECT count(*) FROM participations WHERE detector = ?1 AND delivered = version) = 2
"""
DIRECT = {name: step for name, step in ROUND.items() if name != "hand-over"} | {
    "add-up": ("main", "/aggregate_models")
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-kill",
        action="store_true",
        help="kill every service in every step, not a few of them",
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say how many cases ended well, where every case was asked for."""
    if config.getoption("every_kill", False) and not config.getoption("collectonly"):
        ended = [
            report.outcome
            for kind in ("passed", "failed", "error")
            for report in terminalreporter.stats.get(kind, [])
            if "test_killed_there" in report.nodeid
            and (report.when == "call" or report.outcome == "failed")
        ]
        terminalreporter.ensure_newline()
        terminalreporter.write_line(
            f"{ended.count('passed')} of {len(ended)} cases end with the identical model"
        )


@dataclass
class Federation:
    """Four services over one folder; `home` and the ports stay the same, whatever state is put into
    the folder.
    """

    home: Path
    nursery: Nursery
    variables: dict[str, str]
    ports: dict[str, int]
    groups: dict[str, int] = field(default_factory=dict)

    def url(self, service: str) -> str:
        return f"http://localhost:{self.ports[service]}"

    def begin(self, *services: str, **variables: str) -> None:
        """Start services at the same time."""
        for service in services:
            self.launch(service, **variables)
        for service in services:
            self.await_health(service)

    def launch(self, service: str, **variables: str) -> None:
        """Start a service, and do not wait for it."""
        bind = f"localhost:{self.ports[service]}"
        addresses = {
            "MAIN": self.url("main"),
            "AGGREGATOR": self.url("aggregator"),
            "DEVICE": self.url(service),
        }
        environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "DOORBELL_HOME": str(self.home),
            **{f"DOORBELL_{name}_URL": url for name, url in addresses.items()},
            "KILL_APP": APPS[service],
            **self.variables,
            **variables,
        }
        self.home.mkdir(parents=True, exist_ok=True)
        arguments = ["--bind", bind, "--timeout", "600", "--pythonpath", str(HERE), "fragile:app"]
        self.groups[service] = self.nursery.start(arguments, environment, self.log(service))

    def await_health(self, service: str) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.members(service):
            try:
                if requests.get(f"{self.url(service)}/healthz", timeout=5).ok:
                    return
            except requests.RequestException:
                time.sleep(0.01)
        raise AssertionError(f"{service} did not start:\n{self.logs()}")

    def await_death(self, service: str) -> None:
        """Wait until nothing is left of a service."""
        deadline = time.monotonic() + 10
        while self.members(service):
            assert time.monotonic() < deadline, f"something of {service} is left"
            time.sleep(0.01)
        del self.groups[service]

    def members(self, service: str) -> list[psutil.Process]:
        """Return the processes of a service that live: gunicorn's master, its workers, and the
        training child.
        """
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getpgid(pid) == self.groups[service]:
                    process = psutil.Process(
                        pid
                    )  # a zombie with threads still has its sockets open
                    alive = process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
                    found += [process] if alive else []
        return found

    def step(self, service: str, path: str) -> requests.Response | None:
        """Do a step as its operator does, and return the answer, or None if there was none."""
        try:
            headers = {"Accept": "application/json"}
            return requests.post(
                f"{self.url(service)}{path}?detector={DETECTOR}", headers=headers, timeout=120
            )
        except requests.ConnectionError:
            return None

    def done(self, service: str, path: str) -> dict[str, Any]:
        """Do a step that must be done, and return its figures."""
        answer = self.step(service, path)
        assert answer is not None, f"{service}{path}: no answer\n{self.logs()}"
        assert answer.status_code == 200, (
            f"{service}{path}: {answer.status_code} {answer.text}\n{self.logs()}"
        )
        return dict(answer.json()["detectors"][DETECTOR])

    def end(self) -> None:
        """Kill every service that is up."""
        for group in self.groups.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for service in tuple(self.groups):
            self.await_death(service)

    def put(self, state: Path | None) -> None:
        """Put a copy of a state into the folder, or nothing; the services must be down."""
        shutil.rmtree(self.home, ignore_errors=True)
        if state is not None:
            shutil.copytree(state, self.home)

    def forget(self, service: str) -> None:
        """Remove all that a service keeps; it must be down."""
        shutil.rmtree(self.home / FOLDERS[service])

    def log(self, service: str) -> Path:
        return self.home / f"{service}.log"

    def logs(self) -> str:
        """Return the end of what each service said."""
        paths = sorted(self.home.glob("*.log"))
        return "\n".join(
            f"--- {path.stem}\n{path.read_text(errors='replace')[-3000:]}" for path in paths
        )


@dataclass(frozen=True)
class Outcome:
    """What a round came to, read from the disks of all services.

    Attributes:
        version: The version that the devices were given.
        params: The bytes of all its params.
        rounds: Number, state and cohort of each round at the main server, as far as this one.
        counted: The devices in each sum at the aggregator, by round.
        sums: How many different sums the aggregator ever made, one for each round.
        trained: The models on each device: the global ones that it held, and those that it trained.
    """

    version: str
    params: bytes
    rounds: list[tuple[Any, ...]]
    counted: list[tuple[Any, ...]]
    sums: int
    trained: dict[str, frozenset[str]]


def outcome(federation: Federation, delivered: dict[str, Any]) -> Outcome:
    """Return what the round came to, once it is delivered; every blob must be whole."""
    blobs = {service: federation.home / folder / "blobs" for service, folder in FOLDERS.items()}
    for folder in blobs.values():
        for path in folder.glob("[0-9a-f]*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, (
                f"{path.name} is not whole"
            )
    assert delivered["delivered"] == ["device-1", "device-2"]
    model = parse_model((blobs["main"] / delivered["version"]).read_bytes())
    rounds = _rows(
        federation,
        "main",
        "SELECT round, state, cohort FROM rounds WHERE detector = ? ORDER BY round",
    )
    assert {state for number, state, _ in rounds if number > delivered["round"]} <= {"open"}
    counted = _rows(
        federation,
        "aggregator",
        "SELECT round, device FROM updates WHERE detector = ? AND in_cohort ORDER BY round, device",
    )
    return Outcome(
        version=delivered["version"],
        params=architecture(model.architecture).flatten(model.params).tobytes(),
        rounds=[
            (number, state, cohort)
            for number, state, cohort in rounds
            if number <= delivered["round"]
        ],
        counted=counted,
        sums=len(_containers(blobs["aggregator"], b"doorbell-aggregate/1")),
        trained={
            name: _containers(blobs[name], b"doorbell-model/1") for name in ("device1", "device2")
        },
    )


def _rows(federation: Federation, service: str, query: str) -> list[tuple[Any, ...]]:
    path = federation.home / FOLDERS[service] / "state.sqlite3"
    if not path.exists():  # an aggregator, in the direct topology
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return list(database.execute(query, (DETECTOR,)))


def _containers(folder: Path, kind: bytes) -> frozenset[str]:
    return frozenset(
        path.name for path in folder.glob("[0-9a-f]*") if kind in path.read_bytes()[:4096]
    )


@dataclass
class Undisturbed:
    """Rounds in which nobody is killed: the state before each step, and what each round came to.

    Attributes:
        federation: Where they are run, and where each case is run from one of the states.
        folder: Where the states are kept.
        topology: "secure" or "direct".
    """

    federation: Federation
    folder: Path
    topology: str
    outcomes: dict[int, Outcome] = field(default_factory=dict)

    @property
    def steps(self) -> dict[str, tuple[str, str]]:
        """The steps of a round, in their order: name to service and path."""
        return DIRECT if self.topology == "direct" else ROUND

    @property
    def services(self) -> list[str]:
        """Who takes part."""
        return [service for service in APPS if self.topology == "secure" or service != "aggregator"]

    def put(self, number: int, step: str) -> None:
        """Put the state before a step of a round into the federation's folder; the services must be
        down.
        """
        self.outcome(number)
        self.federation.variables["DOORBELL_TOPOLOGY"] = self.topology
        self.federation.put(self._state(number, step))

    def outcome(self, number: int) -> Outcome:
        """Return what a round comes to if nobody is killed."""
        if number not in self.outcomes:
            self.outcomes[number] = self._run(number)
        return self.outcomes[number]

    def finish(self, after: str) -> Outcome:
        """Do the steps that come after one, as far as the delivery, and return what the round comes
        to.
        """
        names = list(self.steps)
        for name in names[names.index(after) + 1 : names.index("deliver")]:
            self.federation.done(*self.steps[name])
        return outcome(self.federation, self.federation.done(*self.steps["deliver"]))

    def _run(self, number: int) -> Outcome:
        """Run a round on the state that the one before has left, and keep a copy of the state
        before each step.

        A copy is what the disks would hold if all services were killed between two steps.
        """
        if number > 1:
            self.put(number - 1, "measure-1")
        else:
            self.federation.variables["DOORBELL_TOPOLOGY"] = self.topology
            self.federation.put(None)
        self.federation.begin(
            *self.services, WARM_TRAINERS=""
        )  # each device with a training child of its own
        for name, step in self.steps.items():
            shutil.copytree(
                self.federation.home,
                self._state(number, name),
                ignore=shutil.ignore_patterns("*.log"),
            )
            if name == "measure-1":
                break
            figures = self.federation.done(*step)
        result = outcome(self.federation, figures)
        self.federation.end()
        return result

    def _state(self, number: int, step: str) -> Path:
        return self.folder / f"{self.topology}-{number}-{step}"


@dataclass
class ByThemselves:
    """A run of rounds in which nobody presses a button but the one that starts it.

    Attributes:
        federation: Where it is run.
        folder: Where the state is kept that it begins with: all have joined, and no round was run.
    """

    federation: Federation
    folder: Path

    @functools.cached_property
    def expected(self) -> tuple[Outcome, list[tuple[Any, ...]]]:
        """What it comes to if nobody is killed."""
        self.federation.put(None)
        self.federation.variables["DOORBELL_TOPOLOGY"] = "secure"
        self.federation.begin(*APPS, KILL_BACKGROUND="")
        self._wait(
            lambda: (
                len(self._main_rows("SELECT 1 FROM participations WHERE detector = ?"))
                == len(PICTURES)
            )
        )
        self.federation.end()
        shutil.copytree(self.federation.home, self.folder)
        return self.run()

    def run(self, victim: str = "", **fragile: str) -> tuple[Outcome, list[tuple[Any, ...]]]:
        """Start everybody and the run, start the victim again when it has died, and return what the
        run comes to.

        Returns:
            What its last round came to, with all rounds before it; and what became of each version.
        """
        federation = self.federation
        federation.variables["DOORBELL_TOPOLOGY"] = "secure"
        federation.put(self.folder)
        for service in APPS:
            federation.launch(service, KILL_BACKGROUND="", **(fragile if service == victim else {}))
        started = False

        def is_done() -> bool:
            nonlocal started
            if victim and not federation.members(victim):
                federation.begin(victim, KILL_BACKGROUND="")
            started = started or self._start()
            return started and bool(self._main_rows(_FINISHED))

        self._wait(is_done)
        version, number = self._main_rows(_FINISHED)[0]
        result = outcome(
            federation, {"delivered": ["device-1", "device-2"], "version": version, "round": number}
        )
        gates = self._main_rows(
            "SELECT round, version, gate, said FROM versions WHERE detector = ? ORDER BY round"
        )
        federation.end()
        return result, gates

    def _start(self) -> bool:
        """Start the run as an operator does who does not know whether he has; return whether
        anybody answered.
        """
        try:
            rounds: dict[str, str | int] = {"detector": DETECTOR, "rounds": RUN_ROUNDS}
            answer = requests.post(f"{self.federation.url('main')}/run", params=rounds, timeout=10)
        except requests.ConnectionError:
            return False
        assert answer.status_code in (200, 409), answer.text
        return True

    def _main_rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return _rows(self.federation, "main", query)
        except sqlite3.OperationalError:  # nobody has it open yet
            return []

    def _wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 150
        while not done():
            assert time.monotonic() < deadline, self.federation.logs()
            time.sleep(0.05)


@pytest.fixture(scope="session")
def by_themselves(
    undisturbed: Callable[[str], Undisturbed], tmp_path_factory: pytest.TempPathFactory
) -> ByThemselves:
    """Rounds that run by themselves, in the federation in which all other cases are run."""
    return ByThemselves(undisturbed("secure").federation, tmp_path_factory.mktemp("run") / "joined")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures for both devices: a bright disc is the object, a dark square is not."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(5)
    for client, count in PICTURES.items():
        for split in ("train", "valid", "test"):
            for name in (DETECTOR, f"not_{DETECTOR}"):
                folder = root / DETECTOR / client / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    picture = rng.integers(90, 150, (64, 64, 3), dtype=np.uint8)
                    x, y = (int(value) for value in rng.integers(18, 46, 2))
                    if name == DETECTOR:
                        cv2.circle(picture, (x, y), 14, (40, 220, 240), -1)
                    else:
                        cv2.rectangle(picture, (x - 10, y - 10), (x + 10, y + 10), (90, 30, 20), -1)
                    cv2.imwrite(str(folder / f"{index:04d}.png"), picture)
    return root


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, pictures: Path, nursery: Nursery
) -> Iterator[Callable[[str], Undisturbed]]:
    """Return a function that gives the undisturbed run in a topology; each is made once."""
    folder, runs = tmp_path_factory.mktemp("kill"), dict[str, Undisturbed]()
    variables = {
        "DOORBELL_DATA": str(pictures),
        "DOORBELL_CACHE": str(folder / "cache"),
        "DOORBELL_ARCHITECTURE": "porch-cnn",
        "DOORBELL_EPOCHS": "3",
        "DOORBELL_BATCH_SIZE": "4",
        "WARM_TRAINERS": nursery.trainers.listening(),
    }
    federation = Federation(folder / "home", nursery, variables, _free_ports())

    def run(topology: str) -> Undisturbed:
        if topology not in runs:
            runs[topology] = Undisturbed(federation, folder / "states", topology)
        return runs[topology]

    yield run
    federation.end()


def _free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:  # all at once, so that no two are the same
        probes = {name: stack.enter_context(socket.socket()) for name in APPS}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
