"""One federated round, from the first picture to the better global model. Read this first.

Everything is done by the same HTTP steps that a person would do with curl or the buttons on the
pages; this module only says in which order, and on which server.
docs/reference/protocol.md has the same steps with the messages behind them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from shared.errors import DoorbellError, PeerUnreachable
from shared.round.plan import Topology
from shared.telemetry.logs import checked_id, id_header, request_id, under


@dataclass(frozen=True)
class Addresses:
    """Where the services are, and the token of their operator where they ask for one."""

    main: str = "http://localhost:8000"
    aggregator: str = "http://localhost:8003"
    devices: tuple[str, ...] = ("http://localhost:8001", "http://localhost:8002")
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Step:
    """One step as it was done: which server did what, what it said, and how long it took."""

    server: str
    path: str
    said: str
    detectors: dict[str, Any]
    seconds: float


class StepRefused(DoorbellError):
    """A server did not do a step."""

    slug = "step-refused"


def run_round(
    at: Addresses,
    topology: Topology,
    detector: str | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
) -> list[Step]:
    """Run one round and return its steps in order.

    Args:
        at: Where the services are.
        topology: "secure": masked updates to the aggregator. "direct": plain updates to the main
            server.
        detector: One detector, or None for all.
        on_step: Told of every step as it is done.

    Raises:
        StepRefused: A server refused a step; the message is its own.
        PeerUnreachable: A server did not answer.
    """
    steps: list[Step] = []
    name = checked_id(request_id())  # the round goes by one id in every service's log

    def on(servers: tuple[str, ...], path: str) -> None:
        """Do one step on these servers at the same time."""

        def do(server: str) -> Step:
            with under(name):
                return do_step(server, path, detector, at.token)

        with ThreadPoolExecutor(len(servers)) as pool:
            for step in pool.map(do, servers):
                steps.append(step)
                on_step(step)

    # 1  Each device trains the newest global model on its own pictures.
    on(at.devices, "/modeltrain")
    # 2  It tells the main server that it is ready,
    on(at.devices, "/sendstatus")
    # 3 and sends what it learned: params trained minus params given, masked in the secure topology.
    on(at.devices, "/sendmodel")
    if topology == "secure":
        # 4  The aggregator adds up what it cannot read,
        on((at.aggregator,), "/aggregate_models")
        # 5  and hands the sum to the main server, which unmasks it and steps the global model.
        on((at.aggregator,), "/send_model_secagg")
    else:
        # 4 Without an aggregator, the main server averages the plain updates and steps the global
        # model.
        on((at.main,), "/aggregate_models")
    # 6  The new global model goes to every device,
    on((at.main,), "/send_model_clients")
    # 7  which measures it beside its own.
    on(at.devices, "/performance")
    return steps


def do_step(server: str, path: str, detector: str | None = None, token: str | None = None) -> Step:
    """Do one step on one server, as a person would, and return what it answered.

    Raises:
        StepRefused: It refused; the message is its own.
        PeerUnreachable: It did not answer.
    """
    begun = time.monotonic()
    answer = ask("POST", server, path, token, {"detector": detector} if detector else None)
    return Step(server, path, answer["said"], answer.get("detectors", {}), time.monotonic() - begun)


def ask(
    method: str,
    server: str,
    path: str,
    token: str | None = None,
    params: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Ask a server what its operator may ask, and return its JSON; raises as `do_step` does."""
    headers = (
        id_header()
        | {"Accept": "application/json"}
        | ({"Authorization": f"Bearer {token}"} if token else {})
    )
    try:
        response = requests.request(
            method, server + path, params=params, headers=headers, timeout=(5, 3600)
        )
        answer = response.json()
    except requests.RequestException as error:
        raise PeerUnreachable(f"{server} did not answer {path}.", todo="Is it running?") from error
    if not response.ok:
        raise StepRefused(f"{server}{path}: {answer['detail']}", kept="")
    return dict(answer)
