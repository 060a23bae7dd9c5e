"""A model is swapped under rings: whatever comes meanwhile is answered, and every answer is one
version's own.

Two rounds give every detector two versions. Then 50 rings a second come, each at its time whether
the ones before are answered or not, from a process of its own, while the main server goes back and
forth between the versions and the device fetches, tries and puts in force what it is given. A score
depends on picture and params alone, and going back is a new version with known params: so what each
version has to answer is known from two rings before.
"""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests

from benchmarks.figure import Figure
from benchmarks.ring import HEIGHT, WIDTH, _percentiles, _photo
from benchmarks.services import PROJECT, services
from dataset.porch import drawing as porch

RINGS_PER_S, PACE_PER_S, SECONDS, CONNECTIONS = 50.0, 51.0, 25.0, 12
LEAST_SWAPS, PAUSE_S = 8, 0.4
JSON = {"Accept": "application/json"}

Told = dict[str, tuple[float, float]]
"""Score and threshold of every version of one detector."""


def figures() -> list[Figure]:
    """Train twice, then ring while the versions change places."""
    with TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        variables, picture, versions = two_rounds(home, Path(folder) / "pictures")
        variables |= {"DOORBELL_WAIT_FOR_WORK": "yes", "DOORBELL_KEEP_MB": "100"}
        with services(home, variables, "main server", "device 1") as addresses:
            answered, seconds = _storm(addresses, picture, versions)
    return _told(answered, seconds, versions)


def _told(
    answered: list[tuple[float, int, dict[str, Any]]], seconds: float, versions: dict[str, Told]
) -> list[Figure]:
    (median, p99), rate = _percentiles([late for late, _, _ in answered]), len(answered) / seconds
    failed = sum(status != HTTPStatus.OK for _, status, _ in answered)
    mixed = sum(
        status == HTTPStatus.OK and not _is_one(answers, versions)
        for _, status, answers in answered
    )
    seen = {
        (name, found["version"]) for _, _, answers in answered for name, found in answers.items()
    }
    swaps = len(seen) - len(versions)
    return [
        Figure(
            f"rings, {WIDTH} x {HEIGHT}, while models are swapped",
            f"{len(answered)}, {rate:.1f} a second",
            f">= {RINGS_PER_S:.0f} a second",
            rate >= RINGS_PER_S,
        ),
        Figure(
            "swaps that answers show, of four detectors",
            str(swaps),
            f">= {LEAST_SWAPS}",
            swaps >= LEAST_SWAPS,
        ),
        Figure(
            "answers that failed, that were mixed",
            f"{failed}, {mixed}",
            "0, 0",
            not failed and not mixed,
        ),
        Figure(
            "from when a ring was due to its answer: median, p99", f"{median:.1f} ms, {p99:.1f} ms"
        ),
    ]


def _is_one(answers: dict[str, Any], versions: dict[str, Told]) -> bool:
    """Return whether every detector answered, and each as the version that it names has to."""
    return answers.keys() == versions.keys() and all(
        versions[name].get(found["version"]) == (found["score"], found["threshold"])
        and found["verdict"] == (found["score"] >= found["threshold"])
        for name, found in answers.items()
    )


def two_rounds(home: Path, data: Path) -> tuple[dict[str, str], bytes, dict[str, Told]]:
    """Train and send twice with two devices, in the direct topology.

    Returns:
        With which settings; a picture; what two versions of every detector answer to it, the one in
        force last.
    """
    porch.write_default(data, sizes={"train": 40, "valid": 20, "test": 2})
    picture, versions = _photo(data), {detector: Told() for detector in porch.DETECTORS}
    variables = {
        "DOORBELL_DATA": str(data),
        "DOORBELL_TOPOLOGY": "direct",
        "DOORBELL_WAIT_FOR_WORK": "no",
    }
    variables |= {
        "DOORBELL_ARCHITECTURE": "efficientnet-lite0-head",
        "DOORBELL_MAX_REGRESSION": "1",
    }
    with services(home, variables, "main server", "device 1", "device 2") as addresses:
        main, first, second = (addresses[name] for name in ("main server", "device 1", "device 2"))
        for _ in range(2):
            for address, step in itertools.product((first, second), ("modeltrain", "sendmodel")):
                requests.post(f"{address}/{step}", timeout=600).raise_for_status()
            for step in ("aggregate_models", "send_model_clients"):
                requests.post(f"{main}/{step}", timeout=600).raise_for_status()
            for detector, found in ring(first, picture).items():
                versions[detector][found["version"]] = (found["score"], found["threshold"])
    if any(len(set(told.values())) != 2 for told in versions.values()):
        raise RuntimeError("Two rounds did not give every detector two versions that differ.")
    return variables, picture, versions


def ring(address: str, picture: bytes) -> dict[str, Any]:
    """Ring once, and return the answers."""
    answer = requests.post(
        f"{address}/ring", picture, headers=JSON | {"Content-Type": "image/jpeg"}, timeout=60
    )
    answer.raise_for_status()
    answers: dict[str, Any] = answer.json()["answers"]
    return answers


def _storm(
    addresses: dict[str, str], picture: bytes, versions: dict[str, Told]
) -> tuple[list[Any], float]:
    ring(addresses["device 1"], picture)  # the first one loads
    roots = {detector: itertools.cycle(list(told.items())) for detector, told in versions.items()}
    command = [
        sys.executable,
        "-m",
        "benchmarks.swap",
        addresses["device 1"].removeprefix("http://"),
    ]
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as load:
        swapping = threading.Thread(
            target=_swap, args=(load, addresses["main server"], roots, versions)
        )
        swapping.start()
        out, _ = load.communicate(picture)
        swapping.join()
    answered, seconds = json.loads(out)
    return answered, seconds


def _swap(
    load: subprocess.Popen[bytes], main: str, roots: dict[str, Any], versions: dict[str, Told]
) -> None:
    """Go back and forth until the rings end, and note what each new version has to answer."""
    for detector in itertools.cycle(versions):
        if load.poll() is not None:
            return
        root, answer = next(roots[detector])
        back = requests.post(f"{main}/rollback", params={"version": root}, headers=JSON, timeout=60)
        back.raise_for_status()
        versions[detector][back.json()["version"]] = answer
        time.sleep(PAUSE_S)


def _load(host: str, picture: bytes) -> None:
    """Ring at an even pace, and print what came: [[seconds since it was due, status, answers],
    ...], seconds in all.
    """
    numbers, answered, begun = itertools.count(), [], time.perf_counter() + 0.5

    def one_connection() -> None:
        connection = http.client.HTTPConnection(host, timeout=60)
        while (number := next(numbers)) < PACE_PER_S * SECONDS:
            due, status, answers = begun + number / PACE_PER_S, 0, {}
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                connection.request("POST", "/ring", picture, JSON | {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                status, body = response.status, response.read()
                answers = json.loads(body)["answers"] if status == HTTPStatus.OK else {}
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it again
            answered.append((time.perf_counter() - due, status, answers))

    threads = [threading.Thread(target=one_connection) for _ in range(CONNECTIONS)]
    for verb in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            verb(thread)
    print(json.dumps([answered, time.perf_counter() - begun]))


if __name__ == "__main__":
    _load(sys.argv[1], sys.stdin.buffer.read())
