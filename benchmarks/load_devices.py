"""The load test's devices: a process with many of them, which join, mask an update each, and send
it when told to.

Such a device is a key pair and a body; nothing is learned. All that a real device does before it
sends is done before the clock starts. What is timed is what it cannot do earlier: sign, send, and
read the answer.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import numpy as np
import requests
from numpy.typing import NDArray

from shared.names import MAIN_SERVER
from shared.protocol.joining import Admission
from shared.round.fixed_point import encode
from shared.round.plan import RoundPlan, parse_round_plan
from shared.security.identity import Identity
from shared.security.joining import JoinCode, Membership, join_request
from shared.security.signing import sign_request
from shared.transport.http_client import CONTAINER_TYPE, HttpClient, Peer
from tests.updates import masked_update

DETECTOR = "animal"
REPEAT_EVERY = 20
"""Every so many devices send the same bytes once more, as one does that never got its answer."""

_HEADERS = {"Content-Type": CONTAINER_TYPE}


@dataclass(frozen=True)
class Federation:
    """Where the two servers are, and a join code that is good for every device."""

    main_url: str
    aggregator_url: str
    code: JoinCode


@dataclass(frozen=True)
class Prepared:
    """What the devices of one process are about to send: the sum of it, encoded and as floats, and
    its weight.
    """

    encoded: NDArray[np.uint32]
    weighted: NDArray[np.float64]
    weight: int


@dataclass(frozen=True)
class Sent:
    """One upload: when it began and ended, in seconds of a clock that all processes share, and the
    answer's status.
    """

    begun: float
    ended: float
    status: int


@dataclass(frozen=True)
class _Upload:
    identity: Identity
    body: bytes


class Joined:
    """A device that has joined the federation.

    Args:
        federation: Which.
        name: What it is to be called.
        session: Its connections, which devices of one process may share.
    """

    def __init__(self, federation: Federation, name: str, session: requests.Session) -> None:
        self.name, self.identity = name, Identity.from_private(secrets.token_bytes(32))
        self._http = HttpClient(self.identity, session=session)
        request = join_request(federation.code, name, "device", self.identity)
        answer = self._http.post_json(f"{federation.main_url}/join", request).read(Admission)
        key = Membership.accept(federation.code, request, answer).main_public_key
        self._main = Peer(MAIN_SERVER, federation.main_url, key)

    def announce(self) -> RoundPlan:
        """Announce the device, and return the settings of the open round."""
        message = {"address": "http://localhost:9", "detectors": {DETECTOR: None}}
        answer = self._http.post_json(f"{self._main.url}/clientstatus", message, self._main).json
        return parse_round_plan(answer["rounds"][DETECTOR])

    def model(self, version: str) -> bytes:
        """Fetch a version of the global model."""
        return self._http.get(f"{self._main.url}/model/{version}", self._main).body


def run(pipe: Connection, federation: Federation, numbers: range, connections: int) -> None:
    """Be the devices of one process.

    Args:
        pipe: Takes `Prepared`, then gives the sign to start, then takes a list of `Sent` and the
            CPU seconds it took.
        federation: Which they join.
        numbers: Theirs.
        connections: How many of them send at a time.
    """
    prepared, uploads = _prepare(federation, numbers)
    uploads += uploads[::REPEAT_EVERY]
    order = np.random.default_rng(numbers.start).permutation(len(uploads))
    waiting = iter([uploads[position] for position in order])
    pipe.send(prepared)
    pipe.recv()
    cpu = time.process_time()
    with ThreadPoolExecutor(connections) as pool:
        done = list(
            pool.map(lambda _: _send(federation.aggregator_url, waiting), range(connections))
        )
    pipe.send(([sent for part in done for sent in part], time.process_time() - cpu))


def _prepare(federation: Federation, numbers: range) -> tuple[Prepared, list[_Upload]]:
    """Let the devices join and announce themselves, and mask and seal an update each."""
    session, uploads = requests.Session(), []
    encoded, weighted, weights = np.zeros(0, "<u4"), np.zeros(0), 0
    for number in numbers:
        device = Joined(federation, f"device-{number}", session)
        settings = device.announce()
        weight = 1 + number % 400
        delta = np.random.default_rng(number).standard_normal(
            settings.size, np.float32
        ) * np.float32(0.01)
        update = masked_update(delta, weight, settings, device.name, np.random.default_rng(number))
        uploads.append(_Upload(device.identity, update.to_bytes()))
        alone = encode(
            delta, weight, settings, np.random.default_rng(number)
        )  # the same: its rounding is the same
        encoded = encoded + alone if encoded.size else alone
        weighted = (
            weighted + delta * np.float64(weight) if weighted.size else delta * np.float64(weight)
        )
        weights += weight
    return Prepared(encoded, weighted, weights), uploads


def _send(aggregator_url: str, waiting: Iterator[_Upload]) -> list[Sent]:
    """Send what is waiting, one after the other over one connection."""
    connection, done, url = (
        HTTPConnection(urlsplit(aggregator_url).netloc),
        [],
        f"{aggregator_url}/cmodel",
    )
    for upload in waiting:
        begun = time.perf_counter()
        signature = sign_request(
            "POST", url, _HEADERS, upload.body, upload.identity, "secure-aggregator", time.time()
        )
        connection.request("POST", "/cmodel", upload.body, _HEADERS | signature)
        with connection.getresponse() as answer:
            answer.read()
        done.append(Sent(begun, time.perf_counter(), answer.status))
    connection.close()
    return done
