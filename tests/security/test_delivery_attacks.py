"""Attacks by a device's address: where the main server is sent, and what answers it there."""

from __future__ import annotations

import http.server
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from main_server.context import MainServer
from main_server.models.registry import _deliver_to, keep_model, load_model
from main_server.settings import MainSettings
from main_server.store.records import Device
from main_server.store.versions import newest_version
from shared.errors import PeerUnreachable
from shared.transport.addresses import permitted
from shared.transport.http_client import HttpClient
from tests.main_store import read

Field = Any
ADDRESSES = [
    "file:///etc/passwd",
    "gopher://localhost:8003/_POST",
    "ftp://localhost/",
    "unix:///run/docker.sock",
    "javascript:alert(1)",
    "//localhost",
    "localhost:8001",
    "http://",
    "http:///aggmodel",
    "http://localhost:0",
    "http://localhost:65536",
    "http://localhost:-1",
    "http://localhost:port",
    "http://169.254.169.254/",
    "http://169.254.169.254:80/latest/meta-data",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://100.100.100.200/",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
    "http://user:password@localhost/",
    "http://localhost@evil.example/",
    "http://localhost/?detector=face",
    "http://localhost/#fragment",
    "http://localhost:{main}/send_model_clients?",
    "http://localhost:{aggregator}/aggregate_models?",
    "http://localhost:{aggregator}/aggregate_models#",
    "http://localhost:{aggregator}\\@evil.example",
    "http://local host/",
    "http://localhost/\r\nX-Injected: 1",
    "http://localhost/\tx",
    " http://localhost/",
    "http://localhost/\0",
    "http://lоcalhost/",
    "http://[localhost]/",
    "http://[::1/",
]


@pytest.mark.parametrize("address", ADDRESSES, ids=repr)
def test_no_device_announces_such_an_address(field: Field, address: str) -> None:
    for service, port in field.ports.items():
        address = address.replace(f"{{{service}}}", str(port))
    field.refuses(
        field.status(field.members["mallory"], "face", address=address), 400, "invalid-message"
    )


PLACES = [
    "169.254.0.1",
    "::ffff:169.254.169.254",
    "ff02::1",
    "::",
    "0.0.0.0",
    "64:ff9b::a9fe:a9fe",
    "fe80::1",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("place", PLACES)
def test_no_connection_may_lead_there(place: str) -> None:
    assert not permitted(ipaddress.ip_address(place), ())


def test_a_connection_may_lead_to_this_machine_unless_the_operator_says_otherwise() -> None:
    assert permitted(ipaddress.ip_address("127.0.0.1"), ())
    assert not permitted(
        ipaddress.ip_address("::ffff:127.0.0.1"), (ipaddress.ip_network("10.0.0.0/8"),)
    )


@pytest.fixture
def deliver(field: Field, message: Any) -> Iterator[Any]:
    """Return a function that delivers to Mallory at an address, and tells what became of it."""

    def at(path: str) -> dict[str, Any]:
        field.announce(field.members["mallory"], "face", address=field.trap(path))
        field.trap_log.clear()
        answer = field.takes(message("main", "POST", "/send_model_clients?detector=face"))
        return dict(answer.json["detectors"]["face"])

    yield at
    field.announce(field.members["mallory"], "face")


def test_an_honest_device_is_given_the_model(field: Field, deliver: Any) -> None:
    assert set(deliver("ok/mallory")["delivered"]) == {"alice", "bob", "device-1", "mallory"}
    assert "POST /ok/mallory/aggmodel" in field.trap_log


def test_a_redirect_is_not_followed(field: Field, deliver: Any) -> None:
    done = deliver("redirect")
    assert set(done["later"]) == {"mallory"}
    assert "POST /redirect/aggmodel" in field.trap_log
    assert not [asked for asked in field.trap_log if "internal" in asked]


@pytest.mark.parametrize("how", ["bomb", "endless", "huge-header", "deep"])
def test_a_devices_answer_costs_neither_memory_nor_time(
    field: Field, deliver: Any, how: str
) -> None:
    before, started, peak, done = field.resident("main"), time.monotonic(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], field.resident("main"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        outcome = deliver(how)
    finally:
        done.set()
        watcher.join()
    assert set(outcome["later"]) == {"mallory"}
    assert {"alice", "bob", "device-1"} <= set(outcome["delivered"]), (
        "the others have it all the same"
    )
    assert peak[0] - before < 96 << 20
    assert time.monotonic() - started < 15


def test_a_devices_words_are_cut_and_shown_as_text(
    field: Field, deliver: Any, message: Any
) -> None:
    outcome = deliver("chatty")
    assert len(outcome["later"]["mallory"]) < 2000
    page = field.takes(
        message(
            "main", "POST", "/send_model_clients?detector=face", fields=(("Accept", "text/html"),)
        )
    )
    assert b"<script>alert" not in page.body


def test_an_operators_networks_are_kept_to(field: Field, message: Any) -> None:
    """The direct main server here takes devices in 10.0.0.0/8 alone; a name is judged by where it
    leads.
    """

    environ = {
        "DOORBELL_HOME": str(field.home("guarded").parent),
        "DOORBELL_DEVICE_NETWORKS": "10.0.0.0/8",
    }
    server = MainServer.open(MainSettings.read(environ))
    newest = read(server.store, newest_version, "face")
    assert newest is not None
    version = keep_model(server, load_model(server, newest.version))
    field.trap_log.clear()
    device = Device("ann", f"http://localhost:{field.trap_port}/ok/ann", 0.0)
    refused = _deliver_to(server, device, version, b"model")
    assert refused is not None and "No answer" in refused
    assert field.trap_log == [], "not a byte was sent"


class _Dribble(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        try:
            for _ in range(400):
                self.wfile.write(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


def test_an_answer_that_dribbles_is_given_up() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Dribble)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(PeerUnreachable, match="too long"):
        HttpClient(timeout_s=0.3, attempts=1).get(f"http://127.0.0.1:{server.server_port}/")
    assert time.monotonic() - started < 5
    server.shutdown()


def test_a_peer_that_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(PeerUnreachable):
            HttpClient(timeout_s=0.3, attempts=2).get(
                f"http://127.0.0.1:{silent.getsockname()[1]}/"
            )
        assert time.monotonic() - started < 5
