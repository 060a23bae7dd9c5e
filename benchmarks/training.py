"""Training and whole rounds against pure Keras, and the training child's memory over many trainings."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
import requests

from benchmarks.figure import Figure
from benchmarks.pure_fit import seconds as pure_fit_seconds
from benchmarks.services import services
from dataset import porch
from device.trainer import Trainer
from federation.round import Addresses, run_round
from shared.architectures import architecture
from shared.containers import Model

DETECTOR = "animal"
WARM, TIMES, TRAININGS = 2, 7, 200


def figures() -> list[Figure]:
    """Measure on drawn pictures: 200 to train on, per device."""
    with TemporaryDirectory() as folder:
        home, data = Path(folder), Path(folder) / "pictures"
        porch.write_default(data)
        fits = pure_fit_seconds(data, DETECTOR, epochs=1)
        return [*_rounds(home, data, fits), *_first_training(home, data), *_child(home, data, fits[0])]


def _rounds(home: Path, data: Path, fits: list[float]) -> list[Figure]:
    variables = {"DOORBELL_DATA": str(data), "DOORBELL_ARCHITECTURE": "porch-cnn", "DOORBELL_EPOCHS": "1"}
    everybody = ("main server", "aggregator", "device 1", "device 2")
    with services(home / "rounds", variables, *everybody) as at:
        addresses = Addresses(at["main server"], at["aggregator"], (at["device 1"], at["device 2"]))
        times = []
        for _ in range(WARM + TIMES):
            begun = time.perf_counter()
            run_round(addresses, "secure", DETECTOR)
            times.append(time.perf_counter() - begun)
    fit, median = sum(fits), statistics.median(times[WARM:])
    limit = 1.3 * fit + 0.3
    return [
        Figure("pure fit of both devices, 200 pictures each, 1 epoch", f"{fit:.2f} s"),
        Figure("warm round over HTTP, all seven steps, same work", f"{median:.2f} s ({median / fit:.2f} x fit)",
               f"<= 1.3 x fit + 0.3 s = {limit:.2f} s", median <= limit),
    ]  # fmt: skip


def _first_training(home: Path, data: Path) -> list[Figure]:
    with services(home / "first", {"DOORBELL_DATA": str(data)}, "main server", "device 1") as at:
        begun = time.perf_counter()
        requests.post(f"{at['device 1']}/modeltrain?detector={DETECTOR}", timeout=120).raise_for_status()
        first = time.perf_counter() - begun
    what = "first training in a fresh service, body exported and 240 pictures embedded"
    return [Figure(what, f"{first:.1f} s", "<= 12 s", first <= 12)]


def _child(home: Path, data: Path, fit: float) -> list[Figure]:
    spec = architecture("porch-cnn")
    folder = home / "child"
    folder.mkdir()
    base = folder / "base.safetensors"
    base.write_bytes(Model(DETECTOR, 0, None, spec.name, spec.initial(np.random.default_rng(0))).to_bytes())
    trainer, times, resident = Trainer(max_mb=1 << 20), [], []
    try:
        for _ in range(TRAININGS):
            begun = time.perf_counter()
            trainer.run(_job(folder, data, base))
            times.append(time.perf_counter() - begun)
            resident.append(psutil.Process(trainer.pid).memory_info().rss / 1e6)
    finally:
        trainer.close()
    warm, limit = statistics.median(times[WARM : WARM + TIMES]), 1.1 * fit + 0.1
    tenth, last = max(resident[8:11]), max(resident[-3:])
    growth = last / tenth - 1
    return [
        Figure("training again in the warm child", f"{warm:.2f} s ({warm / fit:.2f} x fit)",
               f"<= 1.1 x fit + 0.1 s = {limit:.2f} s", warm <= limit),
        Figure(f"child's memory over {TRAININGS} trainings, after the tenth",
               f"{tenth:.0f} to {last:.0f} MB ({growth:+.1%})", "<= +5 %", growth <= 0.05),
    ]  # fmt: skip


def _job(folder: Path, data: Path, base: Path) -> dict[str, Any]:
    work = {"epochs": 1, "batch_size": architecture("porch-cnn").work.batch_size, "learning_rate": 0.02}
    return {
        "do": "train", "detector": DETECTOR, "client": "client_1", "data": str(data), "cache": str(folder / "cache"),
        "machine_cache": str(folder / "cache"), "model": str(base), "round": 1, "base_version": "0" * 64,
        "work": work, "seed": 0, "local_model": str(folder / "local.safetensors"), "plot": str(folder / "plot.png"),
    }  # fmt: skip
