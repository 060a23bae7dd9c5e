"""A week of watching in minutes: a visitor a minute, by a clock of its own. What does it leave on
the disk, in memory?

The device's watch is shown drawn pictures with the times that they would have had, so it finds the
motion itself, and what it rings for is answered by four models, kept, and forgotten as ever; every
hour by that clock its owner opens the page and old events are tidied away. Pictures are small on
some days and large on others: of the two limits, on days and on megabytes, each is the first to be
reached at times.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import psutil

from benchmarks.figure import Figure
from benchmarks.services import PROJECT
from benchmarks.swap import two_rounds
from dataset.porch import drawing as porch
from device.bell.ring import forget_old, ring
from device.bell.routes import add_doorbell
from device.camera.camera import Frame, NoPicture
from device.camera.motion import Watch
from device.context import Device
from device.settings import DeviceSettings
from shared.web.app import make_app

DAYS, A_DAY, KEEP_DAYS, KEEP_MB = 7, 1440, 2.0, 100.0
QUALITY = (70, 70, 70, 70, 95, 95, 70)
"""Of each day's pictures; the small ones of two days are fewer megabytes than may be kept, the
large ones more.
"""

GROWS = 1.05


def figures() -> list[Figure]:
    """Bring four models into force, and watch for a week in a process of its own."""
    with TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        variables, _, _ = two_rounds(home, Path(folder) / "pictures")
        variables |= {
            "DOORBELL_HOME": str(home),
            "DOORBELL_KEEP_DAYS": str(KEEP_DAYS),
            "DOORBELL_KEEP_MB": str(KEEP_MB),
        }
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.week"],
            cwd=PROJECT,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            check=True,
        )
        return _told(json.loads(done.stdout), time.perf_counter() - begun)


def _told(days: list[dict[str, float]], seconds: float) -> list[Figure]:
    second, last, rung, wanted = days[1], days[-1], sum(day["rung"] for day in days), DAYS * A_DAY
    size, age, database = (
        max(day[what] for day in days) for what in ("folder_mb", "oldest_days", "database_mb")
    )
    full = sum(day["folder_mb"] > 0.99 * KEEP_MB for day in days)
    aged = sum(day["oldest_days"] > 0.99 * KEEP_DAYS for day in days)
    grown = last["rss_mb"] / second["rss_mb"]
    return [
        Figure(
            "visits rung for and answered",
            f"{rung} in {seconds:.0f} s",
            str(wanted),
            rung == wanted,
        ),
        Figure(
            "pictures at most; days that ended within 1 % of that",
            f"{size:.1f} MB; {full}",
            f"<= {KEEP_MB:.0f} MB; >= 1",
            size <= KEEP_MB and full >= 1,
        ),
        Figure(
            "oldest event at most; days that ended within 1 % of that",
            f"{age:.3f} days; {aged}",
            f"<= {KEEP_DAYS:.0f} days; >= 1",
            age <= KEEP_DAYS and aged >= 1,
        ),
        Figure(
            "database with its log: at most, at the end",
            f"{database:.1f} MB, {last['database_mb']:.1f} MB",
        ),
        Figure(
            "resident: second day, last day",
            f"{second['rss_mb']:.0f}, {last['rss_mb']:.0f} MB, {grown - 1:+.1%}",
            f"<= {GROWS - 1:+.0%}",
            grown <= GROWS,
        ),
        Figure(
            "a ring: first day, last day", f"{days[0]['ring_ms']:.1f} ms, {last['ring_ms']:.1f} ms"
        ),
    ]


class Door:
    """A camera's pictures of the week, each at its time: four a minute, three with a visitor; then
    `stop` is set.
    """

    def __init__(self, stop: threading.Event) -> None:
        self.began = self.now = time.time()
        self._stop, self._frames = stop, self._week()

    def snapshot(self, max_age_s: float = 1.0, timeout_s: float = 2.0, after: float = 0.0) -> Frame:
        """Return the next picture."""
        frame = next(self._frames, None)
        if frame is None:
            self._stop.set()
            raise NoPicture("The week is over.", kept="")
        self.now = frame.at
        return frame

    def _week(self) -> Iterator[Frame]:
        pictures = {quality: _pictures(quality) for quality in set(QUALITY)}
        for minute in range(DAYS * A_DAY):
            for number, jpeg in enumerate(pictures[QUALITY[minute // A_DAY]]):
                yield Frame(jpeg, self.began + 60 * minute + number / 5)


def _pictures(quality: int) -> list[bytes]:
    """Return a quiet porch, and three pictures of somebody walking; JPEGs of 640 x 360."""
    rng = np.random.default_rng(0)
    quiet, pictures = (
        cv2.resize(porch.draw("face", False, 1, "train", 0, size_px=640), (640, 360))[..., ::-1],
        [],
    )
    for step in (None, 120, 200, 280):
        picture = np.clip(quiet + rng.normal(0, 2, quiet.shape), 0, 255).astype(np.uint8)
        if step is not None:
            cv2.rectangle(picture, (step, 120), (step + 60, 330), (30, 40, 60), -1)
        pictures.append(
            bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1])
        )
    return pictures


def _main() -> None:
    """Watch for a week, and print what each day left."""
    stop, days, times = threading.Event(), [], []
    door, settings = Door(stop), DeviceSettings.read(1)
    app = make_app("Week", PROJECT / "device" / "templates", dict, dict, 1 << 24)
    logging.disable(logging.INFO)
    bell = add_doorbell(app, replace(Device.open(settings), clock=lambda: door.now), None)

    def visited(frame: Frame) -> None:
        begun = time.perf_counter()
        event, _ = ring(bell, "motion", frame.jpeg)
        if len(event.answers) == len(porch.DETECTORS):
            times.append(time.perf_counter() - begun)
        minute = int((frame.at - door.began) // 60) + 1
        if minute % 60 == 0:
            app.test_client().get("/events", headers={"Host": "localhost"})
            forget_old(bell)
            bell.events.sweep(time.time() - 3600)
        if minute % A_DAY == 0:
            days.append(day(frame.at))
            times.clear()

    def day(now: float) -> dict[str, Any]:
        oldest = bell.events.next_after(0)
        events, database = (
            sum(path.stat().st_size for path in settings.folder.glob(which)) / 1e6
            for which in ("events/*", "state.sqlite3*")
        )
        return {
            "rung": len(times),
            "folder_mb": events,
            "oldest_days": (now - oldest.at) / 86400 if oldest else 0.0,
            "database_mb": database,
            "rss_mb": psutil.Process().memory_info().rss / 1e6,
            "ring_ms": 1e3 * float(np.mean(times)),
        }

    Watch(door, visited).run(stop)
    print(json.dumps(days))


if __name__ == "__main__":
    _main()
