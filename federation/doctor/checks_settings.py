"""What `doctor` checks of the settings: each by itself, and then with one another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from urllib.parse import urlsplit

from device.settings import DeviceSettings, port_of
from federation.doctor.checks import Finding, Setup
from federation.processes import PROCFILE
from federation.reference import PORTS, every_setting
from main_server.settings import MainSettings
from sec_agg.settings import AggregatorSettings
from shared.errors import DoorbellError
from shared.security.joining import JoinCode
from shared.settings import ListenSettings, LogSettings, OperatorSettings
from shared.transport.addresses import is_loopback


def _addresses(environ: Mapping[str, str]) -> None:
    """Read where every service of this machine listens."""
    for port in PORTS:
        ListenSettings.read(port, environ)


_READERS: Mapping[str, Callable[[Mapping[str, str]], object]] = {
    "the main server": MainSettings.read,
    "the secure aggregator": AggregatorSettings.read,
    "devices": partial(DeviceSettings.read, 1),
    "operators": OperatorSettings.read,
    "every service": LogSettings.read,
    "services as they start": _addresses,
}


def settings(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Read every service's settings, and look for variables that nobody reads."""
    refused: dict[tuple[str, str], list[str]] = {}
    for who, reader in _READERS.items():
        try:
            reader(environ)
        except DoorbellError as error:
            refused.setdefault((error.happened, error.todo), []).append(who)
    for (said, todo), whose in refused.items():
        yield Finding("settings", "wrong", f"{said} It is read by {' and '.join(whose)}.", todo)
    known = known_variables()
    unknown = sorted(name for name in environ if name.startswith("DOORBELL_") and name not in known)
    for name in unknown:
        if near := get_close_matches(name, known, 1, 0.85):
            said = f"{name} is not a setting; did you mean {near[0]}?"
            yield Finding("settings", "wrong", said, f"Set {near[0]} instead.")
        else:
            yield Finding("settings", "warning", f"{name} is not a setting.", f"Unset {name}.")
    if not refused and not unknown:
        own = ", ".join(sorted(known & set(environ))) or "none"
        yield Finding("settings", "ok", f"Every service can read its settings. Set are: {own}.")


def known_variables() -> set[str]:
    """Return the names of all variables that a service or the Procfile reads."""
    declared = {setting.variable for settings in every_setting().values() for setting in settings}
    return declared | set(re.findall(r"\$\{(\w+)", PROCFILE.read_text()))


def contradictions(setup: Setup) -> Iterator[Finding]:
    """Look for settings that are valid by themselves and contradict one another."""
    device = DeviceSettings.read(1, setup.environ)
    yield from _plain_text(device)
    yield from _other_ports(setup.environ, device)
    if device.join_code is not None:
        try:
            JoinCode.parse(device.join_code)
        except DoorbellError as error:
            yield Finding.of("settings", error)
    yield from _unused(setup.main)


def _plain_text(device: DeviceSettings) -> Iterator[Finding]:
    """Warn of servers that are reached over a network without TLS."""
    urls = {
        "DOORBELL_MAIN_URL": device.main_url,
        "DOORBELL_AGGREGATOR_URL": device.aggregator_url,
    }
    for name, url in urls.items():
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield Finding(
                "settings",
                "warning",
                f"{name} is {url}: what is sent there is signed, "
                "but everybody on the way can read it.",
                f"Put TLS in front, and let {name} begin with https://.",
            )


def _other_ports(environ: Mapping[str, str], device: DeviceSettings) -> Iterator[Finding]:
    """Find services that listen on another port than the one at which they are called."""
    urls = {"PORT": device.main_url, "DOORBELL_AGGREGATOR_PORT": device.aggregator_url}
    for number in (1, 2):
        own = environ.get("DOORBELL_DEVICE_URL") or f"http://:{port_of(number)}"
        urls[f"DOORBELL_DEVICE{number}_PORT"] = own
    for name, url in urls.items():
        port = environ.get(name)
        parts = urlsplit(url)
        if port and is_loopback(parts.hostname or "localhost") and port != str(parts.port):
            yield Finding(
                "settings",
                "wrong",
                f"{name} is {port}, but others look for that service on port {parts.port}.",
                "Let its address name the same port, or unset one of them.",
            )


def _unused(main: MainSettings) -> Iterator[Finding]:
    """Warn of settings of the main server that another one makes useless."""
    if main.target_cohort is not None and main.target_cohort < main.min_cohort:
        yield Finding(
            "settings",
            "warning",
            f"DOORBELL_TARGET_COHORT is {main.target_cohort}, "
            f"but DOORBELL_MIN_COHORT {main.min_cohort} is waited for.",
            "Raise the one or lower the other.",
        )
    if main.s3_endpoint and not main.blobs:
        yield Finding(
            "settings",
            "warning",
            "DOORBELL_S3_ENDPOINT is set, but without DOORBELL_BLOBS everything is kept in "
            "the folder.",
            "Set DOORBELL_BLOBS to s3://bucket/prefix, or unset the other.",
        )
