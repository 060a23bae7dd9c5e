"""A federation in one process: the real apps, joined by a transport that knows them by host name."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from flask import Flask
from numpy.typing import NDArray
from requests.adapters import BaseAdapter

import main_server.app
import sec_agg.app
from device.update import masked_update
from main_server.context import MainServer
from main_server.model_registry import load_model
from sec_agg.aggregation import Aggregator
from sec_agg.store import Store
from shared.architectures import architecture
from shared.blobs import BlobStore
from shared.http_client import HttpClient, Reply
from shared.round_settings import RoundSettings, parse_round_settings
from shared.settings import AggregatorSettings, MainSettings

MAIN, AGGREGATOR = "http://main", "http://aggregator"
Vector = NDArray[np.float32]


class Network(BaseAdapter):
    """Takes requests to the app of that host; a host that is unknown or in `down` does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.apps: dict[str, Flask] = {}
        self.down: set[str] = set()
        self.log: list[tuple[str, bytes]] = []

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        host, _, path = str(request.url).removeprefix("http://").partition("/")
        if host in self.down or host not in self.apps:
            raise requests.ConnectionError(f"nobody at {host}")
        body = request.body or b""
        self.log.append((f"{host}/{path}", body))
        headers = dict(request.headers) | {"Content-Length": str(len(body))}
        answer = self.apps[host].test_client().open(f"/{path}", method=request.method, data=body, headers=headers)
        response = requests.Response()
        response.status_code, response._content, response.url = answer.status_code, answer.data, str(request.url)
        response.headers.update(dict(answer.headers))
        return response

    def close(self) -> None:
        """Nothing is kept open."""

    def sent(self, address: str) -> list[bytes]:
        """Return the bodies that went to "host/path", in order."""
        return [body for where, body in self.log if where == address]


@dataclass
class Federation:
    """A main server and an aggregator as apps, second handles on their state, and what devices do."""

    folder: Path
    network: Network
    http: HttpClient
    settings: MainSettings
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def start(self, **changed: Any) -> None:
        """(Re)start both services over what lies in their folders, with other settings if so wished."""
        self.settings = MainSettings(**(vars(self.settings) | changed))
        mine = AggregatorSettings(self.folder / "aggregator", MAIN, 64)
        self.network.apps["main"] = main_server.app.create_app(self.settings, self.http)
        self.network.apps["aggregator"] = sec_agg.app.create_app(mine, self.http)
        self.main = MainServer.open(self.settings, self.http)
        self.aggregator = Aggregator(Store(mine.folder), BlobStore(mine.folder / "blobs"), self.http, MAIN)

    def announce(self, device: str, detector: str = "package") -> RoundSettings:
        """Announce a device and return the open round of the detector."""
        message = {"device": device, "address": f"http://{device}", "detectors": {detector: None}}
        reply = self.http.post_json(f"{MAIN}/clientstatus", message)
        return parse_round_settings(reply.json["rounds"][detector])

    def upload(self, device: str, delta: Vector, weight: int = 10, detector: str = "package") -> bytes:
        """Announce, mask and send as a device does; return what was sent."""
        current = self.announce(device, detector)
        body = masked_update(delta, weight, current, device, self.rng).to_bytes()
        self.http.post(f"{AGGREGATOR}/cmodel", body)
        return body

    def delta(self, scale: float = 0.01) -> Vector:
        """Draw a delta of the round's length."""
        return self.rng.normal(0, scale, 82_049).astype(np.float32)

    def step(self, host: str, path: str, detector: str = "package") -> Mapping[str, Any]:
        """Do an operator's step for one detector, and return its figures; raises as `HttpClient` does."""
        reply: Reply = self.http.post(f"http://{host}/{path}?detector={detector}", b"")
        return dict(reply.json["detectors"][detector])

    def params(self, detector: str = "package") -> Vector:
        """Return the params of the newest published model, flat."""
        newest = self.main.store.newest_version(detector)
        assert newest is not None
        return architecture(newest.architecture).flatten(load_model(self.main, newest.version).params)

    def remembered(self, service: str) -> list[str]:
        """Return all that a service's database holds ("main-server" or "aggregator"), as SQL."""
        with contextlib.closing(sqlite3.connect(self.folder / service / "state.sqlite3")) as database:
            return list(database.iterdump())


@pytest.fixture
def make_federation() -> Callable[..., Federation]:
    """Return a maker of federations: a folder, and settings that differ from the default."""

    def make(folder: Path, **changed: Any) -> Federation:
        network, session = Network(), requests.Session()
        session.mount("http://", network)
        http = HttpClient(session=session, sleep=lambda _: None)
        settings = MainSettings.read({"DOORBELL_HOME": str(folder)})
        federation = Federation(folder, network, http, settings)
        federation.start(**changed)
        return federation

    return make


@pytest.fixture
def federation(make_federation: Callable[..., Federation], tmp_path: Path) -> Federation:
    return make_federation(tmp_path)
