"""How long the demonstration takes, from the command to the exit code."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.figure import Figure


def figures() -> list[Figure]:
    """Run the demonstration once; needs ports 8000 to 8003."""
    begun = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "federation", "demo", "--exit"], capture_output=True, check=False
    )
    seconds = time.perf_counter() - begun
    measured = (
        f"{seconds:.0f} s" if run.returncode == 0 else run.stderr.decode().strip().splitlines()[-1]
    )
    return [
        Figure(
            "make demo EXIT=1, after installation",
            measured,
            "<= 90 s",
            run.returncode == 0 and seconds <= 90,
        )
    ]
