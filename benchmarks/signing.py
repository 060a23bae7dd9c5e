"""What signed requests cost beside sending them."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figure import Figure
from shared.security.identity import Identity
from shared.security.signing import (
    Receiver,
    sign_request,
    sign_response,
    verify_request,
    verify_response,
)
from shared.storage.nonces import Nonces
from shared.transport.http_client import CONTAINER_TYPE

REPEATS = 50
BODY = bytes(4_000_000)
HEADERS = {"Content-Type": CONTAINER_TYPE}


def figures() -> list[Figure]:
    """Sign and verify on one core and measure."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        device, main = Identity.open(folder / "device.key"), Identity.open(folder / "main.key")
        receiver = Receiver("main", {device.key_id: device.public}.get, Nonces(folder))

        def request(body: bytes, answered: bool) -> None:
            asked = sign_request(
                "POST", "http://localhost:8000/cmodel", HEADERS, body, device, "main", time.time()
            )
            verified = verify_request(
                "POST", "/cmodel", HEADERS | asked, lambda: body, receiver, time.time()
            )
            if answered:
                answer = sign_response(200, HEADERS, b"{}", verified, main, time.time())
                verify_response(200, HEADERS | answer, b"{}", asked, main.public)

        large = _median_ms(lambda: request(BODY, answered=False))
        small = _median_ms(lambda: request(b"{}", answered=True))
        nonces = iter(range(REPEATS + 1))
        spent = _median_ms(
            lambda: receiver.nonces.spend(
                "key", str(next(nonces)), int(time.time()) + 600, time.time()
            )
        )
    hashed = _median_ms(lambda: hashlib.sha256(BODY).digest())
    return [
        Figure(
            f"Sign and verify a request of 4 MB, median of {REPEATS}",
            f"{large:.1f} ms",
            "<= 15 ms",
            large <= 15,
        ),
        Figure(
            "  of which SHA-256, at both ends",
            f"{2 * hashed:.1f} ms, {len(BODY) / hashed / 1e6:.1f} GB/s",
        ),
        Figure(
            "Sign and verify a small request and its answer",
            f"{small:.1f} ms",
            "<= 5 ms",
            small <= 5,
        ),
        Figure("  of which spending the nonce", f"{spent:.3f} ms", "<= 1 ms", spent <= 1),
    ]


def _median_ms(work: Callable[[], object]) -> float:
    seconds = []
    work()
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds) * 1000
