"""How fast a ring is answered: over HTTP, with a 1280 x 720 JPEG and four detectors; idle, and
while a training runs.

The device is a real gunicorn process, held to one core with its training child; the same models
answer the same picture through Keras' `predict` beside it, in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import psutil
import requests

from benchmarks.figure import Figure
from benchmarks.services import services
from dataset import folders
from dataset.decoding import decode
from dataset.porch import drawing as porch
from device.store.store import DeviceStore
from device.training.backbone import build_body
from device.training.checkpoint import load_efficientnet_lite0
from learning.architectures import EFFICIENTNET_LITE0_HEAD
from learning.model import parse_model
from shared.storage.blobs import BlobStore

RINGS, WIDTH, HEIGHT = 200, 1280, 720
MEDIAN_MS, P99_MS, SLOWER, TIMES_FASTER = 25.0, 60.0, 3.0, 10.0


def figures() -> list[Figure]:
    """Train once, so that models are in force, and ring."""
    with TemporaryDirectory() as folder:
        home, data = Path(folder) / "home", Path(folder) / "pictures"
        porch.write_default(data)
        picture = _photo(data)
        variables = {
            "DOORBELL_HOME": str(home),
            "DOORBELL_DATA": str(data),
            "DOORBELL_WAIT_FOR_WORK": "no",
        }
        variables |= {"DOORBELL_ARCHITECTURE": "efficientnet-lite0-head"}
        with services(home, variables, "main server", "device 1") as addresses:
            address = addresses["device 1"]
            requests.post(f"{address}/modeltrain", timeout=600).raise_for_status()
            _hold_to_one_core(address)
            idle, busy = _rings(address, picture), _rings_while_training(address, picture)
            keras_ms = _keras_ms(home, picture)
        return _told(idle, busy, keras_ms)


def _told(idle: list[float], busy: list[float], keras_ms: float) -> list[Figure]:
    (median, p99), (busy_median, busy_p99) = _percentiles(idle), _percentiles(busy)
    return [
        Figure(
            "a ring, warm, one core: median",
            f"{median:.1f} ms",
            f"<= {MEDIAN_MS:.0f} ms",
            median <= MEDIAN_MS,
        ),
        Figure(
            "a ring, warm, one core: p99", f"{p99:.1f} ms", f"<= {P99_MS:.0f} ms", p99 <= P99_MS
        ),
        Figure(
            "while a training runs: median, p99",
            f"{busy_median:.1f} ms, {busy_p99:.1f} ms",
            f"<= {SLOWER * MEDIAN_MS:.0f} ms, {SLOWER * P99_MS:.0f} ms",
            busy_median <= SLOWER * MEDIAN_MS and busy_p99 <= SLOWER * P99_MS,
        ),
        Figure(
            "the same picture and models through Keras predict",
            f"{keras_ms:.0f} ms, {keras_ms / median:.1f} x",
            f">= {TIMES_FASTER:.0f} x",
            keras_ms >= TIMES_FASTER * median,
        ),
    ]


def _percentiles(times: list[float]) -> tuple[float, float]:
    return 1e3 * statistics.median(times), 1e3 * sorted(times)[len(times) * 99 // 100]


def _rings(address: str, picture: bytes, count: int = RINGS) -> list[float]:
    session, times = requests.Session(), []
    for _ in range(count + 10):
        begun = time.perf_counter()
        answer = session.post(
            f"{address}/ring",
            data=picture,
            headers={"Content-Type": "image/jpeg", "Accept": "application/json"},
            timeout=60,
        )
        times.append(time.perf_counter() - begun)
        answer.raise_for_status()
        if len(answer.json()["answers"]) != len(porch.DETECTORS):
            raise RuntimeError("A ring was not answered by every detector.")
    return times[10:]  # the first ones load


def _rings_while_training(address: str, picture: bytes) -> list[float]:
    ended, times, failures = threading.Event(), [], []

    def train() -> None:
        while not ended.is_set() and not failures:
            answer = requests.post(f"{address}/modeltrain", timeout=600)
            if not answer.ok:
                failures.append(answer.text)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        while len(times) < RINGS:
            times += _rings(address, picture, 20)
    finally:
        ended.set()
        thread.join()
    if failures:
        raise RuntimeError(f"The training that was to run meanwhile failed: {failures[0]}")
    return times


def _hold_to_one_core(address: str) -> None:
    device = psutil.Process(
        requests.get(f"{address}/healthz", timeout=10).json()["trainer_pid"]
    ).parents()[:2]
    for process in {one for parent in device for one in (parent, *parent.children(recursive=True))}:
        if "gunicorn" in " ".join(process.cmdline()) or "training_child" in " ".join(
            process.cmdline()
        ):
            process.cpu_affinity([psutil.Process().cpu_affinity()[-1]])


def _photo(data: Path) -> bytes:
    name = folders.names(data, porch.DETECTORS[0], "client_1", "test", True)[0]
    pixels = cv2.resize(
        cv2.imread(str(data / name)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
    )
    noise = np.random.default_rng(0).normal(0, 6, pixels.shape)
    grainy = np.clip(pixels + noise, 0, 255).astype(np.uint8)  # a camera's picture is never smooth
    return bytes(cv2.imencode(".jpg", grainy, [cv2.IMWRITE_JPEG_QUALITY, 88])[1])


def _keras_ms(home: Path, picture: bytes) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ring", str(home)],
        input=picture,
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def _main(home: Path) -> None:
    """Print the median milliseconds of decoding a picture and asking all models, each through
    Keras' `predict`.
    """
    import keras  # noqa: PLC0415 - this process is the only one of the benchmark that loads it

    from device.training.models import set_params  # noqa: PLC0415 - it loads Keras as well

    psutil.Process().cpu_affinity([psutil.Process().cpu_affinity()[-1]])
    folder, body, heads = home / "devices" / "device-1", build_body(load_efficientnet_lite0()), []
    for held in DeviceStore(folder).models.all_active():
        heads.append(EFFICIENTNET_LITE0_HEAD.build())
        params = parse_model(BlobStore(folder / "blobs").get(held.version)).params
        set_params(heads[-1], EFFICIENTNET_LITE0_HEAD, params)
    models = [keras.Model(body.input, head(body.output)) for head in heads]
    picture, times = sys.stdin.buffer.read(), []
    for _ in range(12):
        begun = time.perf_counter()
        pixels = decode(picture, EFFICIENTNET_LITE0_HEAD.input_px)[np.newaxis].astype(np.float32)
        for model in models:
            model.predict(pixels, verbose=0)
        times.append(time.perf_counter() - begun)
    print(json.dumps(1e3 * statistics.median(times[2:])))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
