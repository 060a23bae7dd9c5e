"""How long a device takes to join: keys, code, both proofs, over HTTP to a main server under
gunicorn.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figure import Figure
from benchmarks.services import services
from device.context import open_enrolment
from device.settings import DeviceSettings

DEVICES = 20


def figures() -> list[Figure]:
    """Let devices join one after the other, each with a new key."""
    seconds = []
    with TemporaryDirectory() as folder, services(Path(folder), {}, "main server") as at:
        environ = {"DOORBELL_HOME": folder, "DOORBELL_MAIN_URL": at["main server"]}
        for number in range(1, DEVICES + 1):
            begun = time.perf_counter()
            open_enrolment(DeviceSettings.read(number, environ)).main()
            seconds.append(time.perf_counter() - begun)
    median, slowest = statistics.median(seconds), max(seconds)
    return [
        Figure(
            f"a device joins, median (slowest) of {DEVICES}",
            f"{median:.3f} s ({slowest:.3f} s)",
            "<= 1 s",
            slowest <= 1,
        )
    ]
