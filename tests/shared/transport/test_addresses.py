from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address, ip_network

import pytest
import requests

from shared.transport.addresses import guarded_session, permitted

ANYWHERE = ()


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.0.1",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "224.0.0.1",
        "ff02::1",
        "0.0.0.0",
        "::",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_addresses_that_no_device_has_are_refused(address: str) -> None:
    assert not permitted(ip_address(address), ANYWHERE)
    assert not permitted(ip_address(address), (ip_network("0.0.0.0/0"), ip_network("::/0")))


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "192.168.1.20", "10.8.0.3", "203.0.114.9", "2001:db9::1"]
)
def test_ordinary_addresses_are_permitted(address: str) -> None:
    assert permitted(ip_address(address), ANYWHERE)


def test_an_operators_networks_restrict_the_rest() -> None:
    networks = (ip_network("192.168.0.0/16"), ip_network("10.8.0.0/24"))
    assert permitted(ip_address("10.8.0.3"), networks)
    assert permitted(ip_address("::ffff:192.168.1.20"), networks)
    assert not permitted(ip_address("10.9.0.3"), networks)
    assert not permitted(ip_address("127.0.0.1"), networks)


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A server on this machine, and what it was asked."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}", paths
    server.shutdown()


def test_a_guarded_session_reaches_what_is_permitted(asked: tuple[str, list[str]]) -> None:
    url, paths = asked
    assert guarded_session(ANYWHERE).get(f"{url}/here", timeout=5).status_code == 204
    assert paths == ["/here"]


def test_a_guarded_session_sends_nothing_to_what_is_not_permitted(
    asked: tuple[str, list[str]],
) -> None:
    url, paths = asked
    with pytest.raises(requests.ConnectionError, match="not an address that a device may have"):
        guarded_session((ip_network("10.0.0.0/8"),)).get(f"{url}/there", timeout=5)
    assert paths == []
