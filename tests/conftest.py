"""A federation in one process: the real apps, joined by a transport that knows them by host name."""

from __future__ import annotations

import contextlib
import io
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import urllib3
from flask import Flask
from numpy.typing import NDArray
from requests.adapters import BaseAdapter

import main_server.app
import sec_agg.app
from device.update import masked_update
from main_server.context import MainServer
from main_server.members import member_of
from main_server.model_registry import load_model
from sec_agg.aggregation import Aggregator
from sec_agg.roster import Roster
from sec_agg.store import Store
from shared.architectures import architecture
from shared.blobs import BlobStore
from shared.http_client import HttpClient, Peer, Reply
from shared.identity import Identity
from shared.membership import MAIN_SERVER, Role
from shared.round_settings import RoundSettings, parse_round_settings
from shared.settings import AggregatorSettings, MainSettings
from shared.signing import Verified
from shared.trust import Caller, Standing

MAIN, AGGREGATOR = "http://main", "http://aggregator"
NAMES = {"main": MAIN_SERVER, "aggregator": "secure-aggregator"}
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
        headers = {"Host": host} | dict(request.headers) | {"Content-Length": str(len(body))}
        answer = self.apps[host].test_client().open(f"/{path}", method=request.method, data=body, headers=headers)
        response = requests.Response()
        response.status_code, response.url = answer.status_code, str(request.url)
        response.headers.update(dict(answer.headers))
        response.raw = urllib3.HTTPResponse(io.BytesIO(answer.data), answer.headers, preload_content=False)
        return response

    def close(self) -> None:
        """Nothing is kept open."""

    def sent(self, address: str) -> list[bytes]:
        """Return the bodies that went to "host/path", in order."""
        return [body for where, body in self.log if where == address]

    def client(self, identity: Identity | None = None, **headers: str) -> HttpClient:
        """Return a client of its own for one service, which signs with its key; without one, for an operator."""
        session = requests.Session()
        session.mount("http://", self)
        session.headers.update(headers)
        return HttpClient(identity, session=session, sleep=lambda _: None)


@dataclass
class Sender:
    """A service that sends signed messages: its key, and its own client."""

    identity: Identity
    http: HttpClient
    main_public_key: bytes | None = None

    def to(self, url: str) -> Peer:
        """Return whom an address belongs to; the main server must sign its answers."""
        host = url.removeprefix("http://").partition("/")[0]
        return Peer(NAMES.get(host, host), f"http://{host}", self.main_public_key if host == "main" else None)

    def get(self, url: str) -> Reply:
        return self.http.get(url, self.to(url))

    def post_json(self, url: str, message: object) -> Reply:
        return self.http.post_json(url, message, self.to(url))

    def post(self, url: str, container: bytes, headers: dict[str, str] | None = None) -> Reply:
        return self.http.post(url, container, self.to(url), headers)


@dataclass
class Federation:
    """A main server and an aggregator as apps, second handles on their state, and what devices do.

    `http` is the operator's: it signs nothing, and sits on the services' own machine.
    """

    folder: Path
    network: Network
    settings: MainSettings
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    senders: dict[str, Sender] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = self.network.client(Host="localhost")

    def start(self, **changed: Any) -> None:
        """(Re)start both services over what lies in their folders, with other settings if so wished."""
        self.settings = MainSettings(**(vars(self.settings) | changed))
        codes = self.settings.folder
        mine = AggregatorSettings(self.folder / "aggregator", MAIN, 64, None, codes)
        identity = Identity.open(self.settings.folder / "identity.key")
        main_http = self.network.client(identity)
        self.network.apps["main"] = main_server.app.create_app(self.settings, main_http)
        self.main = MainServer.open(self.settings, main_http)
        self.as_main = Sender(identity, main_http)
        standing = self.standing("secure-aggregator", "secure-aggregator", mine.folder)
        self.network.apps["aggregator"] = sec_agg.app.create_app(mine, standing.http)
        roster = Roster(standing, standing.http)
        blobs = BlobStore(mine.folder / "blobs")
        self.aggregator = Aggregator(Store(mine.folder), blobs, standing.http, standing, roster)
        self.as_aggregator = Sender(standing.identity, standing.http, standing.main().public_key)

    def standing(self, role: Role, name: str, folder: Path, join_code: str | None = None) -> Standing:
        """Return the place of a service with a key of its own; it joins by the code left on the main server's disk."""
        identity = Identity.open(folder / "identity.key")
        http = self.network.client(identity)
        return Standing(identity, role, name, folder, MAIN, http, join_code, self.settings.folder)

    def device(self, name: str) -> Sender:
        """Return a device that has joined; it shares key and place with the app of the same name, if there is one."""
        if name not in self.senders:
            standing = self.standing("device", name, self.folder / "devices" / name)
            self.senders[name] = Sender(standing.identity, standing.http, standing.main().public_key)
        return self.senders[name]

    def caller(self, name: str) -> Caller:
        """Return a device that has joined as the gate hands it to a verb."""
        key_id = self.device(name).identity.key_id
        member = member_of(self.main, key_id)
        assert member is not None
        return Caller(member, Verified(key_id, b"", b"", {}))

    def announce(self, device: str, detector: str = "package") -> RoundSettings:
        """Announce a device and return the open round of the detector."""
        message = {"address": f"http://{device}", "detectors": {detector: None}}
        reply = self.device(device).post_json(f"{MAIN}/clientstatus", message)
        assert reply.json["name"] == device
        return parse_round_settings(reply.json["rounds"][detector])

    def upload(self, device: str, delta: Vector, weight: int = 10, detector: str = "package") -> bytes:
        """Announce, mask and send as a device does; return what was sent."""
        current = self.announce(device, detector)
        body = masked_update(delta, weight, current, device, self.rng).to_bytes()
        self.device(device).post(f"{AGGREGATOR}/cmodel", body)
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
        settings = MainSettings.read({"DOORBELL_HOME": str(folder)})
        federation = Federation(folder, Network(), settings)
        federation.start(**changed)
        return federation

    return make


@pytest.fixture
def federation(make_federation: Callable[..., Federation], tmp_path: Path) -> Federation:
    return make_federation(tmp_path)
