"""One round of very many devices: signed uploads to an aggregator under gunicorn, the sum, the new
model.

The devices (`benchmarks/load_devices.py`) are real in all but the training: each has its own key,
joins, announces itself, and masks and seals its update. They run in few processes on the same
machine as the servers, so the figures are those of a machine that does both.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import requests

from benchmarks import services
from benchmarks.figure import Figure
from benchmarks.load_devices import DETECTOR, Federation, Joined, Prepared, Sent, run
from benchmarks.wide_model import ARCHITECTURES, WIDE
from learning import architectures
from learning.architectures import DEFAULT, architecture
from learning.model import parse_model
from learning.round import server_update
from learning.server_state import ServerState
from main_server.context import MainServer
from main_server.members.members import DEVICE, invite
from main_server.settings import MainSettings
from shared.round.fixed_point import decode, scale_of
from shared.round.plan import RoundPlan

WORKERS = 2
"""Of the aggregator: one for each core of a machine of two, since a process runs Python on one of
them at a time.
"""

CLIENTS, CONNECTIONS = 2, 8
"""Processes full of devices, and in each so many that send at the same time."""

SAMPLE_S, PSS_EVERY = 0.05, 10


@dataclass(frozen=True)
class Case:
    """One round: how many devices, of which architecture, by which app of the main server; what is
    to be reached.
    """

    devices: int
    architecture: str
    app: str
    uploads_per_s: float | None = None
    resident_mb: float | None = None


CASES = (
    Case(1000, DEFAULT, "wsgi3:app", 150, 250),
    Case(200, WIDE.name, "benchmarks.wide_model:main_server()"),
)


@dataclass
class Memory:
    """The largest memory of a service in bytes, summed over its processes; PSS counts shared pages
    once.
    """

    rss: int = 0
    pss: int = 0


def figures() -> list[Figure]:
    """Run a round of each case and measure."""
    with patch.object(architectures, "ARCHITECTURES", ARCHITECTURES):
        return [figure for case in CASES for figure in _round(case)]


def _round(case: Case) -> list[Figure]:
    with TemporaryDirectory() as folder, _servers(case, Path(folder)) as (federation, aggregator):
        session = requests.Session()
        onlooker = Joined(federation, "onlooker", session)
        settings = onlooker.announce()
        base = onlooker.model(settings.base_version)
        with _watched(aggregator) as memory:
            before = services.cpu_seconds(aggregator)
            prepared, sent, client_cpu = _uploads(case, federation)
            cpu = services.cpu_seconds(aggregator) - before
            summed = _step(f"{federation.aggregator_url}/aggregate_models")
            handed = _step(f"{federation.aggregator_url}/send_model_secagg")
        model = onlooker.model(onlooker.announce().base_version)
    return [
        *_speed(case, settings, sent, cpu, client_cpu),
        *_space(case, memory),
        _sums(summed[0], handed[0]),
        _counted(case, sent, summed[1]["devices"], handed[1]["said"]),
        *_exact(case.devices, settings, prepared, base, model),
    ]


@contextmanager
def _servers(case: Case, folder: Path) -> Iterator[tuple[Federation, list[psutil.Process]]]:
    """Run both servers; yield where they are, with a join code for every device, and the
    aggregator.
    """
    main_url, aggregator_url = (f"http://localhost:{services.free_port()}" for _ in range(2))
    variables = {
        "DOORBELL_HOME": str(folder),
        "DOORBELL_MAIN_URL": main_url,
        "DOORBELL_ARCHITECTURE": case.architecture,
        "DOORBELL_COHORT_CAP": "1024",
    }
    mine = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOORBELL_", "DATABASE_URL"))
    }
    environment, running = mine | variables, []  # no database, bucket or token of a real federation
    try:
        running.append(
            services.start(
                "main server", main_url, environment | {"WEB_CONCURRENCY": "1"}, case.app
            )
        )
        workers = {"WEB_CONCURRENCY": str(WORKERS)}
        running.append(services.start("aggregator", aggregator_url, environment | workers))
        server = MainServer.open(MainSettings.read(environment))
        code = invite(server, DEVICE, uses=case.devices + 1, hours=1)
        yield Federation(main_url, aggregator_url, code), services.tree(running[1].pid)
    finally:
        services.stop(running)


def _uploads(case: Case, federation: Federation) -> tuple[list[Prepared], list[Sent], float]:
    """Let every device prepare its update, then let all send; return what they sent, and their
    processes' CPU time.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for client in range(CLIENTS):
            here, there = context.Pipe()
            numbers = range(client + 1, case.devices + 1, CLIENTS)
            process = context.Process(
                target=run, args=(there, federation, numbers, CONNECTIONS), daemon=True
            )
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        prepared = [pipe.recv() for pipe in pipes]
        for pipe in pipes:
            pipe.send("go")
        done = [pipe.recv() for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return prepared, [sent for part, _ in done for sent in part], sum(cpu for _, cpu in done)


@contextmanager
def _watched(tree: list[psutil.Process]) -> Iterator[Memory]:
    """Watch the memory of a service while the block runs."""
    memory, over = Memory(), threading.Event()

    def watch() -> None:
        for turn in itertools.count():
            memory.rss = max(memory.rss, sum(process.memory_info().rss for process in tree))
            if turn % PSS_EVERY == 0:  # takes longer
                memory.pss = max(
                    memory.pss, sum(process.memory_full_info().pss for process in tree)
                )
            if over.wait(SAMPLE_S):
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield memory
    finally:
        over.set()
        watching.join()


def _step(url: str) -> tuple[float, dict[str, Any]]:
    """Press one of the operator's buttons; return how many seconds it took, and the answer for the
    detector.
    """
    begun = time.perf_counter()
    answer = requests.post(url, headers={"Accept": "application/json"}, timeout=600)
    seconds = time.perf_counter() - begun
    answer.raise_for_status()
    return seconds, answer.json()["detectors"][DETECTOR]


def _speed(
    case: Case, settings: RoundPlan, sent: list[Sent], cpu: float, client_cpu: float
) -> list[Figure]:
    seconds = max(one.ended for one in sent) - min(one.begun for one in sent)
    rate = case.devices / seconds
    latencies = sorted(1000 * (one.ended - one.begun) for one in sent)
    p50, p99 = (latencies[len(latencies) * percent // 100] for percent in (50, 99))
    target, reached = (
        ("", None) if case.uploads_per_s is None else _at_least(rate, case.uploads_per_s)
    )
    megabytes = 4 * settings.size / 1e6
    how = f"{WORKERS} workers, {CLIENTS * CONNECTIONS} connections"
    each = [f"{1000 * took / len(sent):.1f}" for took in (cpu, client_cpu)]
    return [
        Figure(
            f"{case.devices:,} devices x {megabytes:.2f} MB: {how}",
            f"{rate:.0f} uploads/s",
            target,
            reached,
        ),
        Figure("  one upload: p50 and p99", f"{p50:.0f} ms and {p99:.0f} ms"),
        Figure(
            "  one upload: CPU of the aggregator, and of the devices",
            f"{each[0]} ms and {each[1]} ms",
        ),
    ]


def _at_least(rate: float, target: float) -> tuple[str, bool]:
    return f">= {target:.0f} uploads/s", rate >= target


def _space(case: Case, memory: Memory) -> list[Figure]:
    rss, pss, most = memory.rss / 1e6, memory.pss / 1e6, case.resident_mb
    target, reached = ("", None) if most is None else (f"<= {most:.0f} MB", rss <= most)
    return [
        Figure(
            "  aggregator: peak resident, summed over its processes",
            f"{rss:.0f} MB",
            target,
            reached,
        ),
        Figure("  the same, shared pages counted once (PSS)", f"{pss:.0f} MB"),
    ]


def _sums(summing: float, handing: float) -> Figure:
    measured = f"{summing:.2f} s + {handing:.2f} s"
    return Figure(
        "  /aggregate_models + /send_model_secagg", measured, "<= 3 s", summing + handing <= 3
    )


def _counted(case: Case, sent: list[Sent], devices: list[str], said: str) -> Figure:
    """Tell whether every upload was accepted, and every device counted once by both servers,
    whoever sent twice too.
    """
    accepted = sum(one.status == 200 for one in sent)
    expected = {f"device-{number}" for number in range(1, case.devices + 1)}
    right = accepted == len(sent) and set(devices) == expected and len(devices) == case.devices
    right = right and f"took a step from {case.devices} devices' updates" in said
    what = f"  counted, of {accepted:,} of {len(sent):,} uploads accepted"
    return Figure(what, f"{len(devices):,} devices", f"{case.devices:,}, each once", right)


def _exact(
    devices: int, settings: RoundPlan, prepared: list[Prepared], base: bytes, model: bytes
) -> list[Figure]:
    """Compare the published model with the one that the devices' updates must give."""
    spec = architecture(settings.architecture)
    before, after = (spec.flatten(parse_model(data).params) for data in (base, model))
    total = np.sum([part.encoded for part in prepared], axis=0, dtype="<u4")
    stepped = server_update(ServerState(before), [decode(total, settings)], settings)
    same = np.array_equal(stepped.params, after)
    weight = sum(part.weight for part in prepared)
    mean = np.sum([part.weighted for part in prepared], axis=0) / weight
    error = float(np.abs(before + mean - after).max())
    limit = devices / (scale_of(settings) * weight) + float(np.spacing(np.abs(after).max()))
    return [
        Figure(
            "  the model is, bit for bit, what the updates make it",
            "yes" if same else "no",
            "yes",
            same,
        ),
        Figure(
            "  largest error of the mean, beside floats",
            f"{error:.1e}",
            f"<= {limit:.1e}",
            error <= limit,
        ),
    ]
