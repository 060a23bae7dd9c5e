"""Real services under gunicorn, members that misbehave, and a signer of its own that can sign
anything badly.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import os
import secrets
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import psutil
import pytest

from device.store.store import DeviceStore
from main_server.store.publication import revoke
from main_server.store.store import Store
from shared.protocol.joining import Role
from shared.round.payloads import MaskedUpdate
from shared.round.plan import RoundPlan, parse_round_plan
from shared.security.identity import Identity
from shared.security.joining import JoinCode, join_request
from shared.transport.http_client import CONTAINER_TYPE
from tests.main_store import write
from tests.security import aftermath
from tests.updates import masked_update
from tests.warm.services import Nursery

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = f"operators-only-{secrets.token_hex(16)}"
SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=()",
}
_APPS = {
    "main": "wsgi3:app",
    "aggregator": "wsgi4:app",
    "device1": "wsgi1:app",
    "device2": "wsgi2:app",
    "guarded": "wsgi3:app",
}
_FOLDERS = {
    "main": "home/main-server",
    "aggregator": "home/secure-aggregator",
    "device1": "home/devices/device-1",
    "device2": "home/devices/device-2",
    "guarded": "guarded/main-server",
}
_AUDIENCES = {
    "main": "main-server",
    "guarded": "main-server",
    "aggregator": "secure-aggregator",
    "device1": "device-1",
    "device2": "device-2",
}
_FLOOD = 600 << 20
_BOMB = 300 << 20


@dataclass(frozen=True)
class Message:
    """A request, byte for byte: what is in `fields` goes out as it is, twice if it is there twice."""

    service: str
    method: str
    path: str
    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()

    def but(self, **changes: Any) -> Message:
        return replace(self, **changes)

    def with_field(self, name: str, value: str) -> Message:
        """Return it with one field replaced, or added."""
        kept = tuple((n, v) for n, v in self.fields if n.lower() != name.lower())
        return replace(self, fields=(*kept, (name, value)))

    def without(self, *names: str) -> Message:
        return replace(self, fields=tuple((n, v) for n, v in self.fields if n.lower() not in names))

    def value(self, name: str) -> str:
        return next(v for n, v in self.fields if n.lower() == name)


@dataclass(frozen=True)
class Answer:
    """What came back; `kind` is the end of the problem type, "http" for Flask's own, "server" for
    gunicorn's.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        if not self.headers.get("content-type", "").startswith("application/problem+json"):
            return (
                "answer"
                if self.status < 400 or "x-content-type-options" in self.headers
                else "server"
            )
        kind = str(json.loads(self.body)["type"])
        return "http" if kind == "about:blank" else kind.rpartition(":")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @classmethod
    def read(cls, response: http.client.HTTPResponse) -> Answer:
        headers = {name.lower(): value for name, value in response.getheaders()}
        return cls(response.status, headers, response.read())


@dataclass(frozen=True)
class Member:
    """Somebody with a key: joined or not, honest or not."""

    name: str
    identity: Identity = field(
        default_factory=lambda: Identity.from_private(secrets.token_bytes(32))
    )


class _Trap(BaseHTTPRequestHandler):
    """A device's address that answers badly: /ok, /redirect, /bomb, /endless and so on."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        self.seen.append(f"{self.command} {self.path}")
        how = self.path.split("/")[1]
        self.close_connection = True
        with suppress(OSError):
            getattr(self, f"_{how.replace('-', '_')}", self._ok)()

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content_Type": "application/json",
            "Content_Length": str(len(body)),
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _ok(self) -> None:
        self._answer(200, b'{"said": "thank you"}')

    def _redirect(self) -> None:
        port = self.server.server_address[1]
        self._answer(302, b"", Location=f"http://127.0.0.1:{port}/internal/aggmodel")

    def _bomb(self) -> None:
        self._answer(200, gzip.compress(bytes(_BOMB), 9), Content_Encoding="gzip")

    def _deep(self) -> None:
        self._answer(400, b"[" * 200_000)

    def _chatty(self) -> None:
        words = "<script>alert(1)</script>" + "x" * 2_000_000
        self._answer(
            409, json.dumps({"detail": words}).encode(), Content_Type="application/problem+json"
        )

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        for _ in range(_FLOOD >> 20):
            self.wfile.write(bytes(1 << 20))

    def _huge_header(self) -> None:
        self._answer(200, b"{}", X_Long="x" * (1 << 20))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Came(BytesIO):
    """What came over a socket; answers are read from it one after another."""

    def makefile(self, _mode: str) -> _Came:
        return self

    def close(self) -> None:
        """Stay open for the next answer."""


@dataclass
class Field:
    """The services, the members, and what may be done with them."""

    folder: Path
    trap_port: int
    trap_log: list[str]
    nursery: Nursery
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, psutil.Process] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    rounds: dict[str, RoundPlan] = field(default_factory=dict)
    sent: dict[str, bytes] = field(default_factory=dict)
    answers: list[tuple[str, int]] = field(default_factory=list)
    token: str = TOKEN
    audiences: Mapping[str, str] = field(default_factory=lambda: _AUDIENCES)

    # -- services
    # ---------------------------------------------------------------------------------------------------

    def home(self, service: str) -> Path:
        """Return a service's own folder."""
        return self.folder / _FOLDERS[service]

    def start(self, service: str, workers: int = 1, **variables: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.ports[service] = probe.getsockname()[1]
        home = self.folder / ("guarded" if service == "guarded" else "home")
        home.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "DOORBELL_HOME": str(home),
            "DOORBELL_DATA": str(self.folder / "pictures"),
            "DOORBELL_CACHE": str(self.folder / "cache"),
            "DOORBELL_ARCHITECTURE": "porch-cnn",
            "DOORBELL_WAIT_FOR_WORK": "no",
            "DOORBELL_MAIN_URL": f"http://localhost:{self.ports.get('main', self.ports[service])}",
            "DOORBELL_AGGREGATOR_URL": f"http://localhost:{self.ports.get('aggregator', 1)}",
            "DOORBELL_DEVICE_URL": f"http://localhost:{self.ports[service]}",
            **variables,
        }
        if service.startswith("device"):
            environment["WARM_TRAINERS"] = self.nursery.trainers.listening()
        bind = f"localhost:{self.ports[service]}"
        arguments = ["--bind", bind, "--workers", str(workers), _APPS[service]]
        born = self.nursery.start(arguments, environment, self.folder / f"{service}.log")
        self.processes[service] = psutil.Process(born)

    def lives(self, service: str) -> bool:
        """Return whether a service's master is there."""
        process = self.processes[service]
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)

    def wait(self, service: str) -> None:
        """Wait until a service answers."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.lives(service):
            try:
                if self.send(Message(service, "GET", "/healthz")).status == 200:
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"{service} did not start:\n{self.log(service)}")

    def wait_until_settled(self, device: str, detector: str) -> None:
        """Wait until a device has asked the model that it was given: it answers before, if that
        takes its time.
        """
        store, deadline = DeviceStore(self.home(device)), time.monotonic() + 120
        while store.models.newest_score(detector) is None:
            assert time.monotonic() < deadline, self.log(device)
            time.sleep(0.05)
        store.database.close()

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(errors="replace")

    def stop(self) -> None:
        processes = [process for service, process in self.processes.items() if self.lives(service)]
        children = [child for process in processes for child in process.children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(30)
        psutil.wait_procs(children, timeout=15)

    def family(self, service: str) -> list[psutil.Process]:
        """Return a service's processes."""
        parent = self.processes[service]
        return [parent, *parent.children(recursive=True)]

    def resident(self, service: str) -> int:
        return sum(process.memory_info().rss for process in self.family(service))

    def state(self) -> str:
        """Return a digest of what every service has stored: all tables, and the names of its blobs."""
        digest = hashlib.sha256()
        for service in _FOLDERS:
            home = self.home(service)
            with closing(
                sqlite3.connect(f"file:{home / 'state.sqlite3'}?mode=ro", uri=True)
            ) as database:
                digest.update("\n".join(database.iterdump()).encode())
            digest.update(
                "\n".join(sorted(path.name for path in (home / "blobs").iterdir())).encode()
            )
            membership = home / "membership.json"
            digest.update(membership.read_bytes() if membership.exists() else b"none")
        return digest.hexdigest()

    # -- sending
    # ----------------------------------------------------------------------------------------------------

    def send(self, message: Message, source: str = "") -> Answer:
        """Send a request as it is, over a connection of its own (so that any worker may get it).

        Args:
            message: What is sent.
            source: From which address; another one each time by default, as failures are counted by
                address.
        """
        source = source or f"127.1.{len(self.answers) // 250 % 250}.{1 + len(self.answers) % 250}"
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports[message.service], 60, (source, 0)
        )
        with closing(connection):
            names = {name.lower() for name, _ in message.fields}
            connection.putrequest(
                message.method, message.path, skip_host=True, skip_accept_encoding=True
            )
            if "host" not in names:
                connection.putheader("Host", f"localhost:{self.ports[message.service]}")
            if "accept" not in names:
                connection.putheader("Accept", "application/json")
            framed = {"content-length", "transfer-encoding"} & names
            if not framed and (message.body or message.method not in ("GET", "HEAD")):
                connection.putheader("Content-Length", str(len(message.body)))
            for name, value in message.fields:
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders()
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was read
                connection.send(message.body)
            return self._note(message.service, Answer.read(connection.getresponse()))

    def send_raw(self, service: str, data: bytes) -> list[Answer]:
        """Send bytes as they are, and return every answer that came before the service hung up (or
        fell silent).
        """
        came = bytearray()
        with (
            socket.create_connection(("127.0.0.1", self.ports[service]), timeout=10) as raw,
            suppress(OSError),
        ):
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while part := raw.recv(1 << 16):
                came += part
        stream, answers = _Came(bytes(came)), []
        while stream.tell() < len(came):
            response = http.client.HTTPResponse(stream, method="GET")  # type: ignore[arg-type]
            with suppress(http.client.HTTPException):
                response.begin()
                answers.append(self._note(service, Answer.read(response)))
                continue
            break
        return answers

    def _note(self, service: str, answer: Answer) -> Answer:
        self.answers.append((service, answer.status))
        return answer

    def refuses(self, message: Message, status: int, kind: str) -> Answer:
        """Send what must be refused, with just this status and problem type, and change nothing
        anywhere.
        """
        before = self.state()
        answer = self.send(message)
        assert (answer.status, answer.kind) == (status, kind), answer.body[:600]
        if kind != "server":
            check_headers(answer)
        assert self.state() == before, "something was stored"
        return answer

    def takes(self, message: Message) -> Answer:
        """Send what must be accepted."""
        answer = self.send(message)
        assert answer.status == 200, answer.body[:600]
        check_headers(answer)
        return answer

    # -- members
    # ----------------------------------------------------------------------------------------------------

    def store(self, service: str = "main") -> Store:
        """Open a main server's database, as its operator's commands do."""
        return Store.open(self.home(service))

    def code(self, service: str = "main", role: Role = "device") -> JoinCode:
        """Return the join code that a main server left for its own machine."""
        return JoinCode.parse((self.home(service) / f"local-join-code.{role}").read_text())

    def join(self, name: str, service: str = "main", role: Role = "device") -> Member:
        member = self.members.setdefault(name, Member(name))
        request = join_request(self.code(service, role), name, role, member.identity)
        self.takes(json_message(service, "/join", request.to_json()))
        return member

    def key_of(self, service: str) -> Member:
        """Return a service's own key pair: what somebody has who broke into it."""
        return Member(_AUDIENCES[service], Identity.open(self.home(service) / "identity.key"))

    def announce(
        self, member: Member, *detectors: str, address: str = "", service: str = "main"
    ) -> None:
        rounds = self.takes(self.status(member, *detectors, address=address, service=service)).json[
            "rounds"
        ]
        for detector, described in rounds.items():
            self.rounds[f"{service}/{detector}"] = parse_round_plan(described)

    def status(
        self, member: Member, *detectors: str, address: str = "", service: str = "main"
    ) -> Message:
        """Return a device's announcement, signed."""
        said = {
            "address": address or self.trap(f"ok/{member.name}"),
            "detectors": dict.fromkeys(detectors),
        }
        return sign(
            json_message(service, "/clientstatus", said), member.identity, self.audiences[service]
        )

    def step(self, service: str, path: str) -> Message:
        """Return the press of an operator's button."""
        return Message(service, "POST", path)

    def trap(self, path: str) -> str:
        return f"http://127.0.0.1:{self.trap_port}/{path}"

    def update(self, member: Member, detector: str, service: str = "main") -> MaskedUpdate:
        """Return an honest masked update; each call masks afresh."""
        settings, rng = self.rounds[f"{service}/{detector}"], np.random.default_rng(3)
        return masked_update(
            rng.normal(0, 0.01, settings.size).astype("f4"), 5, settings, member.name, rng
        )

    def container(
        self,
        member: Member,
        service: str,
        path: str,
        body: bytes,
        *more: tuple[str, str],
        method: str = "POST",
    ) -> Message:
        """Return a signed message with a container."""
        fields = (("Content-Type", CONTAINER_TYPE),) if body else ()
        return sign(
            Message(service, method, path, body, (*fields, *more)),
            member.identity,
            self.audiences[service],
        )


def json_message(service: str, path: str, said: object, method: str = "POST") -> Message:
    return Message(
        service, method, path, json.dumps(said).encode(), (("Content-Type", "application/json"),)
    )


def digest_of(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def sign(
    message: Message,
    identity: Identity,
    audience: str,
    *,
    covered: Sequence[str] | None = None,
    without: Sequence[str] = (),
    label: str = "doorbell",
    seen_as: Message | None = None,
    digest: str | None = None,
    **parameters: object,
) -> Message:
    """Sign a request by RFC 9421, written out by hand and independent of the services; or sign it
    wrongly.

    Args:
        message: What is sent.
        identity: Who signs.
        audience: For whom.
        covered: Components, in order; the federation's own by default.
        without: Parameters left out.
        label: The signature's label.
        seen_as: What the signature is made over instead of `message`.
        digest: Instead of the body's Content-Digest.
        parameters: Instead of the federation's own: created, expires, nonce, keyid, alg, tag.
    """
    over, now = seen_as or message, int(time.time())
    digest = digest or digest_of(over.body)
    typed = [value for name, value in over.fields if name.lower() == "content-type"]
    usual = ["@method", "@path", "@query", "content-digest", *(["content-type"] if typed else [])]
    values: dict[str, object] = {
        "created": now,
        "keyid": identity.key_id,
        "alg": "ed25519",
        "expires": now + 300,
        "nonce": base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode(),
        "tag": f"doorbell/1 {audience}",
    } | parameters
    path, _, query = over.path.partition("?")
    known = {
        "@method": over.method,
        "@path": path,
        "@query": f"?{query}",
        "content-digest": digest,
        "@status": "200",
        "@authority": "localhost",
        "content-type": typed[0] if typed else "",
    }
    names = list(usual if covered is None else covered)
    inner = " ".join(f'"{name}"' for name in names)
    ends = "".join(
        f";{name}={value if isinstance(value, int | float) else json.dumps(value)}"
        for name, value in values.items()
        if name not in without
    )
    base = (
        "".join(f'"{name}": {known[name]}\n' for name in names)
        + f'"@signature-params": ({inner}){ends}'
    )
    signature = base64.b64encode(identity.sign(base.encode())).decode()
    more = (("Content-Digest", digest), ("Signature-Input", f"{label}=({inner}){ends}"))
    return replace(
        message, fields=(*message.fields, *more, ("Signature", f"{label}=:{signature}:"))
    )


def check_headers(answer: Answer) -> None:
    """Check the fields that every answer of a service has."""
    for name, value in SECURITY_HEADERS.items():
        assert value in answer.headers.get(name, ""), f"{name} is missing"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers.get("cache-control") == "no-store"


def _draw(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for client in ("client_1", "client_2"):
        for split in ("train", "valid", "test"):
            for kind in ("face", "not_face"):
                where = folder / "face" / client / split / kind
                where.mkdir(parents=True)
                cv2.imwrite(str(where / "0.png"), rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))


def _settle(field: Field) -> None:
    """Bring the federation where attacks can hurt.

    face: round 1 is finished and delivered, round 2 is open.
    car: the sum is made and not handed over. animal, parcel: open, with Alice's update.
    Ruth was revoked, Nora joined and never announced herself, Mallory joined and is up to
    something.
    """
    for name in ("alice", "bob", "ruth", "nora", "mallory"):
        field.join(name)
    alice, bob, ruth, nora = (field.members[name] for name in ("alice", "bob", "ruth", "nora"))
    field.announce(ruth, "animal")
    write(field.store(), revoke, "ruth", "her key was stolen.", time.time())
    for member in (alice, bob):
        field.announce(member, "face", "animal", "car", "parcel")
    field.announce(field.members["mallory"], "animal")
    for member, detectors in (
        (alice, ("face", "animal", "car", "parcel")),
        (bob, ("face", "car")),
        (nora, ("car",)),
    ):
        for detector in detectors:
            body = field.update(member, detector).to_bytes()
            field.takes(field.container(member, "aggregator", "/cmodel", body))
            field.sent[f"{member.name}/{detector}"] = body
    for path in (
        "aggregate_models?detector=face",
        "aggregate_models?detector=car",
        "send_model_secagg?detector=face",
    ):
        field.takes(Message("aggregator", "POST", f"/{path}"))
    field.rounds["finished/face"] = field.rounds["main/face"]
    field.announce(alice, "face")
    field.takes(Message("device1", "POST", "/sendstatus"))
    delivered = field.takes(Message("main", "POST", "/send_model_clients?detector=face")).json[
        "detectors"
    ]["face"]
    assert delivered["delivered"] == ["alice", "bob", "device-1"]
    field.wait_until_settled("device1", "face")
    for name in ("ann", "ben"):
        field.join(name, "guarded")
    field.join("secure-aggregator", "guarded", "secure-aggregator")
    field.announce(field.members["ann"], "face", service="guarded")


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Field]:
    """Five services, started once: a secure federation, and a direct main server behind an operator
    token.

    When all is done to them that the tests of this process do, `aftermath` looks at what is left.
    """
    trap = ThreadingHTTPServer(("127.0.0.1", 0), _Trap)
    threading.Thread(target=trap.serve_forever, daemon=True).start()
    field = Field(tmp_path_factory.mktemp("field"), trap.server_address[1], _Trap.seen, nursery)
    _draw(field.folder / "pictures")
    try:
        field.start("main", workers=2, DOORBELL_MAX_BODY_MB="2")
        field.start("aggregator")
        field.start("device1")
        field.start("device2")
        field.start(
            "guarded",
            DOORBELL_TOPOLOGY="direct",
            DOORBELL_OPERATOR_TOKEN=TOKEN,
            DOORBELL_DEVICE_NETWORKS="10.0.0.0/8",
        )
        for service in field.processes:
            field.wait(service)
        _settle(field)
        yield field
        aftermath.check(field)
    finally:
        field.stop()
        trap.shutdown()


@pytest.fixture(scope="session")
def make_json_message() -> Callable[..., Message]:
    return json_message


@pytest.fixture(scope="session")
def signer() -> Callable[..., Message]:
    return sign


@pytest.fixture(scope="session")
def message() -> type[Message]:
    return Message
