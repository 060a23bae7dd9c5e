"""Which addresses are this machine's own, and at which ones a device may be called.

The main server calls devices by what they announce. A device's address is checked when it is
connected to, not when it is announced: a name may point elsewhere later. Link-local addresses
(cloud metadata services live there), multicast, unspecified and reserved ones are refused always;
an operator may restrict the rest to their own networks.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError

from shared.errors import SettingsError

Network = IPv4Network | IPv6Network
# Metadata services of clouds at other than link-local addresses: they give away credentials.
_METADATA = (
    ip_address("fd00:ec2::254"),
    ip_address("fd20:ce::254"),
    ip_address("100.100.100.200"),
    ip_address("192.0.0.192"),
)


def permitted(address: IPv4Address | IPv6Address, networks: tuple[Network, ...]) -> bool:
    """Return whether a device may be at `address`.

    Args:
        address: What the connection leads to.
        networks: The operator's own, or none for no further restriction.
    """
    address = _embedded(address)
    if address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    # ::1 is reserved by the library's account, and a device may be on this machine.
    if address.is_reserved and not address.is_loopback:
        return False
    if address in _METADATA:
        return False
    return not networks or any(address in network for network in networks)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address to which an IPv6 one of a transition mechanism leads, or itself."""
    if not isinstance(address, IPv6Address):
        return address
    tunnelled = address.teredo
    behind = tunnelled[1] if tunnelled else None
    return address.ipv4_mapped or address.sixtofour or behind or address


def check_bind(addresses: Iterable[object], token: str | None) -> None:
    """Refuse to listen where others can reach a service that has no operator token.

    Args:
        addresses: As gunicorn parses them: (host, port), a Unix socket's path, or an inherited
            socket's number.
        token: What an operator shows, or None.

    Raises:
        SettingsError: One of them is not a loopback address, and there is no token.
    """
    if token is not None:
        return
    for address in addresses:
        if isinstance(address, str):
            continue  # a Unix socket: its file's permissions decide
        host = str(address[0]) if isinstance(address, tuple) else f"inherited socket {address}"
        if not is_loopback(host):
            raise SettingsError(
                f"This service does not start on {host or 'every address'} without"
                " DOORBELL_OPERATOR_TOKEN, as other machines could press its buttons: set it to 20"
                " secret characters or more, or listen on localhost.",
                kept="",
            )


def is_loopback(name: str) -> bool:
    """Return whether a host's name or address is this machine's own; no resolver is asked."""
    address = parse_address(name)
    return name == "localhost" or (address is not None and address.is_loopback)


def parse_address(name: str) -> IPv4Address | IPv6Address | None:
    """Return the address that `name` spells, an IPv4 one for its IPv6 form, or None."""
    try:
        address = ip_address(name)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def guarded_session(networks: tuple[Network, ...]) -> requests.Session:
    """Return a session that connects to permitted addresses alone.

    It looks at the connection that was made, since a name may lead elsewhere at each look-up, and
    refuses before it sends a byte.

    Args:
        networks: As for `permitted`.
    """

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _checked(self, super()._new_conn(), networks)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _checked(self, super()._new_conn(), networks)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    session = requests.Session()
    for scheme in ("http", "https"):
        adapter = HTTPAdapter()
        adapter.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
        session.mount(f"{scheme}://", adapter)
    return session


def _checked(
    connection: HTTPConnection, made: socket.socket, networks: tuple[Network, ...]
) -> socket.socket:
    """Return a connection that was made, if it leads to where a device may be."""
    peer = made.getpeername()[0]
    if permitted(ip_address(peer.partition("%")[0]), networks):
        return made
    made.close()
    raise NewConnectionError(connection, f"{peer} is not an address that a device may have")
