"""Training and whole rounds against pure Keras, and the training child's memory over many
trainings.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import requests

from benchmarks.figure import Figure
from benchmarks.pure_fit import PureFit
from benchmarks.services import services
from dataset.porch import drawing as porch
from device.training.jobs import Folders, Train
from device.training.worker_client import Trainer
from federation.round import Addresses, Step, run_round
from learning.architectures import architecture
from learning.model import Model

DETECTOR = "animal"
WARM = 2
TIMES = 7
TRAININGS = 200
EVERYBODY = ("main server", "aggregator", "device 1", "device 2")
OVERHEAD_S = 0.25
STEPS = {"/sendmodel": 30, "/performance": 60}
"""What a device does besides training, and how long it may take, in ms."""


def figures() -> list[Figure]:
    """Measure on drawn pictures: 200 to train on, per device."""
    with TemporaryDirectory() as folder:
        home, data = Path(folder), Path(folder) / "pictures"
        porch.write_default(data)
        with PureFit(data, DETECTOR) as fit:
            return [
                *_rounds(home, data, fit),
                *_steps(home, data),
                *_first_training(home, data),
                *_child(home, data, fit),
            ]


def _rounds(home: Path, data: Path, fit: PureFit) -> list[Figure]:
    variables = {
        "DOORBELL_DATA": str(data),
        "DOORBELL_ARCHITECTURE": "porch-cnn",
        "DOORBELL_EPOCHS": "1",
    }
    with services(home / "rounds", variables, *EVERYBODY) as at:
        addresses = _addresses(at)
        pairs = _in_turn(
            lambda: fit.seconds("client_1") + fit.seconds("client_2"),
            lambda: _seconds(lambda: run_round(addresses, "secure", DETECTOR)),
        )
    return [
        Figure(
            "pure fit of both devices, 200 pictures each, 1 epoch", f"{_median(pairs, 0):.2f} s"
        ),
        _overhead(pairs),
    ]


def _steps(home: Path, data: Path) -> list[Figure]:
    """Time what a device does besides training, in warm rounds of the default architecture."""
    seconds: dict[str, list[float]] = {path: [] for path in STEPS}

    def note(step: Step) -> None:
        if step.path in seconds:
            seconds[step.path].append(step.seconds)

    variables = {"DOORBELL_DATA": str(data), "DOORBELL_EPOCHS": "1"}
    with services(home / "steps", variables, *EVERYBODY) as at:
        addresses = _addresses(at)
        for _ in range(WARM):
            run_round(addresses, "secure", DETECTOR)
        for _ in range(TIMES):
            run_round(addresses, "secure", DETECTOR, note)
    figures = []
    for path, target_ms in STEPS.items():
        median_ms = 1000 * statistics.median(seconds[path])
        what = f"{path} of one detector, both devices at once"
        target = f"<= {target_ms} ms"
        figures.append(Figure(what, f"{median_ms:.0f} ms", target, median_ms <= target_ms))
    return figures


def _addresses(at: dict[str, str]) -> Addresses:
    return Addresses(at["main server"], at["aggregator"], (at["device 1"], at["device 2"]))


def _first_training(home: Path, data: Path) -> list[Figure]:
    with services(home / "first", {"DOORBELL_DATA": str(data)}, "main server", "device 1") as at:
        address = f"{at['device 1']}/modeltrain?detector={DETECTOR}"
        first = _seconds(lambda: requests.post(address, timeout=120).raise_for_status())
    what = "first training in a fresh service, body exported too"
    return [Figure(what, f"{first:.1f} s", "<= 12 s", first <= 12)]


def _child(home: Path, data: Path, fit: PureFit) -> list[Figure]:
    spec = architecture("porch-cnn")
    folder = home / "child"
    folder.mkdir()
    base = folder / "base.safetensors"
    base.write_bytes(
        Model(DETECTOR, 0, None, spec.name, spec.initial(np.random.default_rng(0))).to_bytes()
    )
    job = _job(folder, data, base)
    trainer = Trainer(max_mb=1 << 20)
    resident = []
    try:
        pairs = _in_turn(
            lambda: fit.seconds("client_1"), lambda: _seconds(lambda: trainer.run(job))
        )
        for _ in range(TRAININGS - WARM - TIMES):
            trainer.run(job)
            resident.append(psutil.Process(trainer.pid).memory_info().rss / 1e6)
    finally:
        trainer.close()
    tenth, last = resident[0], max(resident[-3:])
    growth = last / tenth - 1
    return [
        _against_fit("training again in the warm child", pairs, 1.1, 0.1),
        Figure(
            f"child's memory over {TRAININGS} trainings, after the tenth",
            f"{tenth:.0f} to {last:.0f} MB ({growth:+.1%})",
            "<= +5 %",
            growth <= 0.05,
        ),
    ]


def _overhead(pairs: list[tuple[float, float]]) -> Figure:
    fit = _median(pairs, 0)
    ours = _median(pairs, 1)
    what = "warm round over HTTP, all seven steps, same work: seconds on top of the fit"
    value = f"{ours - fit:.2f} s ({ours:.2f} s in all)"
    return Figure(what, value, f"<= {OVERHEAD_S} s", ours - fit <= OVERHEAD_S)


def _against_fit(
    what: str, pairs: list[tuple[float, float]], factor: float, more_s: float
) -> Figure:
    """Compare the medians of both columns, measured in turn."""
    fit, ours = _median(pairs, 0), _median(pairs, 1)
    limit = factor * fit + more_s
    target = f"<= {factor} x fit + {more_s} s = {limit:.2f} s"
    return Figure(what, f"{ours:.2f} s ({ours / fit:.2f} x fit)", target, ours <= limit)


def _in_turn(first: Callable[[], float], second: Callable[[], float]) -> list[tuple[float, float]]:
    return [(first(), second()) for _ in range(WARM + TIMES)][WARM:]


def _median(pairs: list[tuple[float, float]], column: int) -> float:
    return statistics.median(pair[column] for pair in pairs)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _job(folder: Path, data: Path, base: Path) -> Train:
    spec = architecture("porch-cnn")
    return Train(
        detector=DETECTOR,
        folders=Folders(data=data, cache=folder / "cache", machine_cache=folder / "cache"),
        client="client_1",
        model=base,
        round=1,
        base_version="0" * 64,
        work=replace(spec.work, epochs=1),
        seed=0,
        local_model=folder / "local.safetensors",
    )
