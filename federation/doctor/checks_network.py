"""What `doctor` asks over the network: who answers where, with which clock, version and key; and
whether devices do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from device.settings import DeviceSettings
from federation.doctor.checks import Finding, Setup
from federation.doctor.checks_members import announced, identity_of, membership_of
from federation.preflight import NotReady, check_ports
from shared import __version__
from shared.errors import DoorbellError, NotFound
from shared.names import AGGREGATOR, MAIN_SERVER
from shared.security.identity import Identity
from shared.security.joining import Membership
from shared.security.signing import CLOCK_TOLERANCE_S
from shared.transport.addresses import guarded_session, is_loopback
from shared.transport.http_client import HttpClient, Peer

WORRYING_S = 30.0
_TIMEOUT_S = 3.0
_MAX_HEALTH_BYTES = 1 << 16
_AT_ONCE = 64
_NO_VERSION = "0" * 64


@dataclass(frozen=True)
class Address:
    """Where a service is looked for.

    Attributes:
        name: "main-server", "secure-aggregator" or "devices/NAME".
        service: What its /healthz calls it.
        url: Where.
        is_here: Whether it has run on this machine.
    """

    name: str
    service: str
    url: str
    is_here: bool


@dataclass(frozen=True)
class Health:
    """What answered at an address.

    Attributes:
        told: What /healthz says; empty if whoever answered is no service of ours.
        ahead_s: How far its clock is ahead of this machine's, in seconds; negative if it is behind.
        unsure_s: By how much that may be off: its header has whole seconds, and the way there and
            back takes time.
    """

    told: Mapping[str, Any]
    ahead_s: float
    unsure_s: float


def addresses(setup: Setup) -> list[Address]:
    """Return where the services of this machine are, and those that they need."""
    device = DeviceSettings.read(1, setup.environ)
    needed = [Address(MAIN_SERVER, "Main server", setup.aggregator.main_url, setup.main_is_here)]
    if AGGREGATOR in setup.here or (setup.devices and setup.main.topology == "secure"):
        is_here = AGGREGATOR in setup.here and is_loopback(
            urlsplit(device.aggregator_url).hostname or ""
        )
        needed.append(Address(AGGREGATOR, "Secure aggregator", device.aggregator_url, is_here))
    for name, known in setup.devices.items():
        needed.append(
            Address(
                f"devices/{name}", f"Doorbell {name}", known.url, f"devices/{name}" in setup.here
            )
        )
    return needed


def network(setup: Setup) -> Iterator[Finding]:
    """Ask every address who is there, and compare clocks, versions and keys."""
    known = addresses(setup)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        answers = list(threads.map(lambda address: _ask(address.url, requests.Session()), known))
    for address, health in zip(known, answers, strict=True):
        if health is None or not health.told:
            yield _nobody(setup, address, health)
        elif health.told["service"] != address.service:
            said = f"{address.url} answers as {health.told['service']}, not as {address.service}."
            yield Finding(
                f"address of {address.name}", "wrong", said, "Fix the addresses in the settings."
            )
        else:
            yield Finding(f"address of {address.name}", "ok", f"It answers at {address.url}.")
            yield _clock(address, health)
            yield from _version(address, health)
            if address.name == MAIN_SERVER:
                yield from _standings(setup)
    yield from _callable_devices(setup)


def _ask(url: str, session: requests.Session) -> Health | None:
    """Return what answers at an address, or None if nobody does."""
    session.trust_env = False  # a proxy is not asked by the services either
    began = time.time()
    try:
        with session.get(
            f"{url}/healthz", timeout=_TIMEOUT_S, allow_redirects=False, stream=True
        ) as response:
            took = time.time() - began
            body = response.raw.read(_MAX_HEALTH_BYTES, decode_content=True)
            date = response.headers.get("Date", "")
    except (requests.RequestException, HTTPError, ValueError, OSError):
        return None
    try:
        told = json.loads(body)
        theirs = parsedate_to_datetime(date).timestamp() + 0.5
    except (ValueError, RecursionError):
        return Health({}, 0.0, 0.0)
    is_ours = isinstance(told, dict) and isinstance(told.get("service"), str)
    return Health(told if is_ours else {}, theirs - (began + took / 2), 0.5 + took / 2)


def _nobody(setup: Setup, address: Address, health: Health | None) -> Finding:
    where, host, port = (
        f"address of {address.name}",
        urlsplit(address.url).hostname or "",
        _port(address.url),
    )
    if health is not None:
        todo = (
            f"Stop what listens there (ss -ltnp 'sport = :{port}' shows it on its "
            "machine), or fix the address."
        )
        return Finding(
            where, "wrong", f"{address.url} answers, but not as a service of this project.", todo
        )
    if not is_loopback(host):
        said, todo = (
            f"Nobody answers at {address.url}.",
            "Start it there, let requests through, or fix that address.",
        )
        return Finding(where, "warning" if address.is_here else "wrong", said, todo)
    try:
        check_ports({address.name: port})
    except NotReady as error:
        return Finding.of(where, error)
    said = f"It is not running; port {port} is free."
    if address.is_here or not setup.here:
        return Finding(where, "ok", said)
    return Finding(
        where,
        "warning",
        f"{said} Services of this machine look for it there.",
        "Start it, or fix that address.",
    )


def _port(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def _clock(address: Address, health: Health) -> Finding:
    where, off = f"clock of {address.name}", max(0.0, abs(health.ahead_s) - health.unsure_s)
    if off <= WORRYING_S:
        return Finding(where, "ok", "It agrees with this machine's.")
    which = "ahead of" if health.ahead_s > 0 else "behind"
    said = (
        f"Its clock is {off:,.0f} s {which} this machine's; messages are taken up to "
        f"{CLOCK_TOLERANCE_S} s."
    )
    return Finding(
        where,
        "wrong" if off > CLOCK_TOLERANCE_S else "warning",
        said,
        "Set both clocks, by NTP say.",
    )


def _version(address: Address, health: Health) -> Iterator[Finding]:
    if (version := health.told.get("version")) != __version__:
        said = f"It is of version {version}" if version else "It tells no version"
        todo = "Install the same version everywhere, and start the services again."
        yield Finding(
            f"version of {address.name}",
            "warning",
            f"{said}; what is installed here is {__version__}.",
            todo,
        )


def _standings(setup: Setup) -> Iterator[Finding]:
    """Have each service of this machine ask the main server something, signed, as it does when it
    runs.
    """
    for name, service in setup.here.items():
        identity = identity_of(service)
        try:
            membership = membership_of(service) if name != MAIN_SERVER else None
        except ValueError:
            membership = None  # its own finding says it
        if identity is not None and membership is not None:
            yield _standing(name, setup.aggregator.main_url, identity, membership)


def _standing(name: str, main_url: str, identity: Identity, membership: Membership) -> Finding:
    where, path = (
        f"standing of {name}",
        "/roster" if name == AGGREGATOR else f"/model/{_NO_VERSION}",
    )
    try:
        HttpClient(identity, _TIMEOUT_S, 1).get(
            f"{main_url}{path}", Peer(MAIN_SERVER, main_url, membership.main_public_key)
        )
    except NotFound:
        pass  # there is no such model; but it was for this service that the main server looked
    except DoorbellError as error:
        todo = "The main server's operator sees who has joined: python -m federation devices."
        return Finding(where, "wrong", error.happened, error.todo or todo)
    return Finding(
        where,
        "ok",
        "The main server takes its messages, and answers with the key that it joined by.",
    )


def _callable_devices(setup: Setup) -> Iterator[Finding]:
    """Call the devices that announced themselves to the main server of this machine; most need no
    call.
    """
    devices = announced(setup)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        ask = lambda device: _ask(device.address, guarded_session(setup.main.device_networks))  # noqa: E731
        silent = [
            each
            for each, health in zip(devices, threads.map(ask, devices), strict=True)
            if health is None
        ]
    if not devices:
        return
    said = (
        f"{len(devices) - len(silent)} of {len(devices)} devices answer where they said "
        "they can be called."
    )
    left = [device.name for device in silent if not device.waiting]
    if left:
        said += f" {_names(left)} do not, and have never asked for work by themselves."
        todo = (
            "Set DOORBELL_WAIT_FOR_WORK=yes there, or let the main server through to "
            "their DOORBELL_DEVICE_URL."
        )
        yield Finding("devices", "warning", said, todo)
    else:
        said += (
            f" {_names([device.name for device in silent])} ask for work by themselves."
            if silent
            else ""
        )
        yield Finding("devices", "ok", said)


def _names(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
