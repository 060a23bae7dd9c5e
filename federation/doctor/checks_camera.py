"""What `doctor` looks at of cameras: whether a device that runs gets pictures, else whether what is
named is there.

A device says so among its figures, which are its operator's: whether a doorbell is blind is nobody
else's business, so /healthz does not tell. An address may hold a password, so it is shown as the
device itself shows it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from device.camera.camera import Camera
from device.camera.source import redacted
from federation.doctor.checks import Finding, Setup
from shared.errors import SettingsError
from shared.transport.addresses import is_loopback

_TIMEOUT_S = 3.0
_MAX_FIGURES_BYTES = 1 << 20
_UP = re.compile(rb"^doorbell_camera_up ([01])(?:\.0)?$", re.MULTILINE)


def cameras(setup: Setup) -> Iterator[Finding]:
    """Look at the camera of every device of this machine that is to have one."""
    for name, device in setup.devices.items():
        if device.bell.camera is not None:
            yield _camera(
                f"camera of {name}",
                device.bell.camera,
                _gives_pictures(device.url, setup.operator.token),
            )


def _camera(where: str, source: str, gives: bool | None) -> Finding:
    try:
        Camera(source)
    except SettingsError as error:
        return Finding.of(where, error)
    if gives:
        return Finding(where, "ok", "It gives pictures.")
    path = _path(source)
    if path is not None and not os.access(path, os.F_OK):
        todo = "Plug the camera in, or name what there is in DOORBELL_CAMERA."
        return Finding(
            where, "wrong", f"There is no {path}, as far as can be seen from here.", todo
        )
    if path is not None and not os.access(path, os.R_OK):
        todo = (
            "Let the service's user read it; a camera of the machine is read by whoever "
            "is in the group video."
        )
        return Finding(where, "warning", f"{path} cannot be read from here.", todo)
    if gives is None:
        said = (
            f"It is {redacted(source)}. No device tells whether it gives pictures: none "
            "runs, or none has tried yet."
        )
        return Finding(where, "ok", said)
    todo = (
        "The device's page Events says why. See that the camera has power and a network, "
        "and its password is right."
    )
    return Finding(
        where, "wrong", f"It is {redacted(source)}, and the device gets no picture from it.", todo
    )


def _path(source: str) -> Path | None:
    """Return what a camera is read from, if that is on this machine and has a place among the
    files.
    """
    if source.isdecimal():
        return Path(f"/dev/video{int(source)}") if sys.platform == "linux" else None
    return None if "://" in source else Path(source)


def _gives_pictures(url: str, token: str | None) -> bool | None:
    """Return what a device that runs says of its camera, or None if it says nothing; it alone may
    see the token.
    """
    parts = urlsplit(url)
    trusted = parts.scheme == "https" or is_loopback(parts.hostname or "")
    session = requests.Session()
    session.trust_env = False  # as when its health is asked for
    headers = {"Authorization": f"Bearer {token}"} if token is not None and trusted else {}
    try:
        with session.get(
            f"{url}/metrics",
            headers=headers,
            timeout=_TIMEOUT_S,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = (
                response.raw.read(_MAX_FIGURES_BYTES, decode_content=True)
                if response.status_code == 200
                else b""
            )
    except (requests.RequestException, HTTPError, ValueError, OSError):
        return None
    found = _UP.search(body)
    return None if found is None else found[1] == b"1"
