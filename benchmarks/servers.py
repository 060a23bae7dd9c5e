"""How fast the two servers start, and how much memory they live in."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import services
from benchmarks.figure import Figure

STARTS = 5


def figures() -> list[Figure]:
    """Start each server some times and measure."""
    return [figure for name in ("main server", "aggregator") for figure in _server(name)]


def _server(name: str) -> list[Figure]:
    seconds, resident, tensorflow = [], 0.0, False
    with TemporaryDirectory() as folder:
        for number in range(STARTS):
            address = f"http://localhost:{services.free_port()}"
            environment = {**os.environ, "DOORBELL_HOME": str(Path(folder) / str(number))}
            begun = time.perf_counter()
            process = services.start(name, address, environment)
            seconds.append(time.perf_counter() - begun)
            resident = max(resident, services.resident_mb(process))
            tensorflow |= services.loads_tensorflow(process)
            process.terminate()
            process.wait(30)
    median = statistics.median(seconds)
    return [
        Figure(
            f"{name}: from start to first answer, median of {STARTS}",
            f"{median:.2f} s",
            "<= 1.5 s",
            median <= 1.5,
        ),
        Figure(
            f"{name}: resident, all its processes",
            f"{resident:.0f} MB",
            "<= 120 MB",
            resident <= 120,
        ),
        Figure(
            f"{name}: TensorFlow in memory", "yes" if tensorflow else "no", "no", not tensorflow
        ),
    ]
