"""Summing and unmasking 100 updates of a million parameters, each in a process of its own so that
memory counts.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from msgspec import structs

from benchmarks.figure import Figure
from learning.architectures import ARCHITECTURES
from sec_agg.aggregation import read_vectors
from sec_agg.summing import sum_buckets
from shared.round.fixed_point import decode, encode
from shared.round.masking import SEALED_BYTES, mask, new_seed, unmask
from shared.round.payloads import MaskedUpdate
from shared.round.plan import RoundPlan

UPDATES, PARAMETERS, TIMES = 100, 1_000_000, 5
SETTINGS = RoundPlan(
    "bench",
    "animal",
    1,
    "0" * 64,
    "bench",
    PARAMETERS,
    "secure",
    1,
    32,
    0.01,
    None,
    1.0,
    4096,
    1024,
    2,
    "",
    "fedavg",
    1.0,
)


def figures() -> list[Figure]:
    """Measure both servers' halves of the sum, and the size of an upload."""
    with TemporaryDirectory() as folder:
        vector = np.random.default_rng(0).integers(0, 2**32, SETTINGS.vector_size, dtype="<u4")
        for number in range(UPDATES):
            update = MaskedUpdate(
                "animal", 1, "0" * 64, f"device-{number}", bytes(SEALED_BYTES), vector
            )
            (Path(folder) / f"{number:03d}").write_bytes(update.to_bytes())
        summed, unmasked = _measured("sum", folder), _measured("unmask", folder)
    model_mb = 4 * PARAMETERS / 1e6
    limit_mb = 150 + 2 * model_mb
    return [
        Figure(
            "aggregator: sum 100 updates x 1 M parameters, one core",
            f"{summed['gb_per_s']:.1f} GB/s",
            ">= 2 GB/s",
            summed["gb_per_s"] >= 2,
        ),
        Figure(
            "aggregator: peak memory of that process",
            f"{summed['peak_mb']:.0f} MB",
            f"<= {limit_mb:.0f} MB",
            summed["peak_mb"] <= limit_mb,
        ),
        Figure(
            "main server: unmask 100 masks x 1 M parameters, one core",
            f"{unmasked['gb_per_s']:.1f} GB/s",
            ">= 2 GB/s",
            unmasked["gb_per_s"] >= 2,
        ),
        Figure(
            "main server: peak memory of that process, decoding too",
            f"{unmasked['peak_mb']:.0f} MB",
            f"<= {limit_mb:.0f} MB",
            unmasked["peak_mb"] <= limit_mb,
        ),
        *(_upload(name) for name in ARCHITECTURES),
    ]


def _upload(name: str) -> Figure:
    settings = structs.replace(SETTINGS, size=ARCHITECTURES[name].size)
    delta = np.zeros(settings.size, np.float32)
    masked = mask(encode(delta, 200, settings, np.random.default_rng(0)), new_seed(), b"bench")
    size = len(
        MaskedUpdate("animal", 1, "0" * 64, "device-1", bytes(SEALED_BYTES), masked).to_bytes()
    )
    limit = 4 * settings.vector_size + 4096
    return Figure(f"upload of {name}", f"{size:,} bytes", f"<= {limit:,} bytes", size <= limit)


def _measured(what: str, folder: str) -> dict[str, float]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.aggregation", what, folder],
        capture_output=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(run.stdout)
    return measured


def _sum(folder: Path) -> float:
    files = sorted(folder.iterdir())
    begun = time.perf_counter()
    vectors = read_vectors(files, SETTINGS.vector_size)
    sum_buckets(vectors, [0] * len(files))
    return time.perf_counter() - begun


def _unmask(folder: Path) -> float:
    settings, seeds = SETTINGS, [new_seed() for _ in range(UPDATES)]
    encoded = encode(np.zeros(PARAMETERS, np.float32), 200, settings, np.random.default_rng(0))
    total = np.frombuffer((folder / "000").read_bytes()[-encoded.nbytes :], "<u4").copy()
    total[:] = encoded
    for seed in seeds:  # masks on, uncounted; then off again
        total += mask(np.zeros_like(total), seed, b"bench")
    begun = time.perf_counter()
    for seed in seeds:
        unmask(total, seed, b"bench")
    seconds = time.perf_counter() - begun
    if decode(total, settings).weight != 200:
        raise AssertionError("the masks did not cancel")
    return seconds


def _main() -> None:
    work = {"sum": _sum, "unmask": _unmask}[sys.argv[1]]
    seconds = sorted(work(Path(sys.argv[2])) for _ in range(TIMES))[TIMES // 2]
    gigabytes = UPDATES * 4 * PARAMETERS / 1e9
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(json.dumps({"gb_per_s": gigabytes / seconds, "peak_mb": peak_mb}))


if __name__ == "__main__":
    _main()
