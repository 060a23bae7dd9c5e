"""What a doorbell learns from its owner: real photos, seen by devices that have known drawn
pictures alone.

Everything goes over HTTP to real processes, as an owner and the operators would do it: three rounds
on the drawn pictures, rings with unseen photos; then 60 photos on each device are rung and
labelled, three more rounds, and the same unseen photos again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from benchmarks.figure import Figure
from benchmarks.learning import PHOTOS
from benchmarks.services import services
from dataset import folders
from dataset.porch import drawing as porch

DETECTORS, CLIENTS = ("animal", "vehicle"), ("client_1", "client_2")
LABELLED, UNSEEN, ROUNDS, POINTS = 60, 40, 3, 15.0


def figures() -> list[Figure]:
    """Measure before and after; say so where the photos are missing."""
    if not PHOTOS.is_dir():
        return [Figure("learning from the owner", "no photos beside the project")]
    with TemporaryDirectory() as folder:
        home, data = Path(folder) / "home", Path(folder) / "pictures"
        porch.write_default(data)
        for detector in set(porch.DETECTORS) - set(DETECTORS):
            shutil.rmtree(data / detector)
        variables = {
            "DOORBELL_HOME": str(home),
            "DOORBELL_DATA": str(data),
            "DOORBELL_WAIT_FOR_WORK": "no",
        }
        with services(
            home, variables, "main server", "aggregator", "device 1", "device 2"
        ) as addresses:
            _rounds(addresses)
            before = _accuracy(addresses["device 1"])
            for client, name in zip(CLIENTS, ("device 1", "device 2"), strict=True):
                _label(addresses[name], client)
            _rounds(addresses)
            after = _accuracy(addresses["device 1"])
    gain = 100 * (after - before)
    what = f"unseen photos, before / after {LABELLED} labels per device and {ROUNDS} rounds"
    return [
        Figure(
            what,
            f"{before:.1%} / {after:.1%}, {gain:+.1f}",
            f">= {POINTS:.0f} points",
            gain >= POINTS,
        )
    ]


def _rounds(addresses: dict[str, str]) -> None:
    for _ in range(ROUNDS):
        for name in ("device 1", "device 2"):
            _post(addresses[name], "/modeltrain")
            _post(addresses[name], "/sendmodel")
        _post(addresses["aggregator"], "/aggregate_models")
        _post(addresses["aggregator"], "/send_model_secagg")
        _post(addresses["main server"], "/send_model_clients")


def _label(address: str, client: str) -> None:
    """Ring with photos of training splits, half of them of each kind, and say what they show."""
    for detector in DETECTORS:
        for photo in _photos(detector, client, "train", True, LABELLED // len(DETECTORS)):
            event = _ring(address, photo)["event"]
            _post(address, f"/label?event={event}&shows={detector}")


def _accuracy(address: str) -> float:
    """Return how often a verdict about unseen photos is right; both classes of both detectors count
    alike.
    """
    right = []
    for detector in DETECTORS:
        for client in CLIENTS:
            for shows in (True, False):
                for photo in _photos(detector, client, "test", shows, UNSEEN // len(CLIENTS)):
                    right.append(_ring(address, photo)["answers"][detector]["verdict"] == shows)
    return sum(right) / len(right)


def _photos(detector: str, client: str, split: str, shows: bool, count: int) -> Iterator[bytes]:
    names = list(folders.names(PHOTOS, detector, client, split, shows))
    return (
        (PHOTOS / name).read_bytes()
        for name in random.Random(0).sample(names, min(count, len(names)))
    )


def _ring(address: str, photo: bytes) -> dict[str, dict[str, dict[str, bool]]]:
    answer = requests.post(
        f"{address}/ring",
        data=photo,
        timeout=60,
        headers={"Content-Type": "image/png", "Accept": "application/json"},
    )
    answer.raise_for_status()
    found: dict[str, dict[str, dict[str, bool]]] = answer.json()
    return found


def _post(address: str, path: str) -> None:
    requests.post(f"{address}{path}", timeout=600).raise_for_status()
