"""What `doctor` looks at first: what is installed, what the environment says, and the disk.

Nothing is changed.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from device.settings import DeviceSettings
from federation.extras import DISTRIBUTION
from federation.services import KEYS, Service, services
from main_server.settings import MainSettings
from sec_agg.settings import AggregatorSettings
from shared.errors import DoorbellError
from shared.settings import OperatorSettings
from shared.transport.addresses import is_loopback

State = Literal["ok", "warning", "wrong"]
OLDEST_PYTHON = (3, 11)
REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
"""In a checkout alone; an installed distribution knows its pins itself."""
SCARCE_BYTES, TOO_FEW_BYTES = 1 << 30, 100 << 20
SCARCE_FILES, TOO_FEW_FILES = 10_000, 500
_LEFT_OVER = re.compile(r"\..+\.[0-9a-z_]{8}([0-9a-f]{8})?|.+\.part")
_LEFT_OVER_S = 3600.0  # nobody writes one file for an hour


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        where: What it is about: "keys of main-server".
        state: "ok"; "warning": it works, or will, but not as it should; "wrong": something cannot
            work.
        said: What was found, one or two sentences.
        todo: How to fix it; empty where nothing has to be done.
    """

    where: str
    state: State
    said: str
    todo: str = ""

    @classmethod
    def of(cls, where: str, error: DoorbellError) -> Finding:
        """Return what a service could not do for this reason."""
        return cls(where, "wrong", error.happened, error.todo)


@dataclass(frozen=True)
class Setup:
    """What the environment describes, and what of it is on this machine.

    Attributes:
        environ: The environment.
        main: As the main server reads it; `aggregator` and `operator` as they do.
        devices: Those of this machine whose number or name is known; devices 1 and 2 where nothing
            has run yet.
        here: The services that have run here, and servers whose rows are on PostgreSQL.
        closed: Folders of services that cannot be looked into from here.
    """

    environ: Mapping[str, str]
    main: MainSettings
    aggregator: AggregatorSettings
    operator: OperatorSettings
    devices: Mapping[str, DeviceSettings]
    here: Mapping[str, Service]
    closed: tuple[Path, ...]

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Setup:
        """Read the settings of every service, and look which of them has run here.

        Raises:
            SettingsError: One of them could not start with these.
        """
        places = services(environ)
        here = {name: service for name, service in places.items() if _has_run(service)}
        numbers = [
            int(found[1])
            for name in here
            if (found := re.fullmatch(r"devices/device-([1-9][0-9]{0,3})", name))
        ]
        if environ.get("DOORBELL_DEVICE_NAME"):
            numbers = [1]
        devices = [DeviceSettings.read(number, environ) for number in (numbers if here else (1, 2))]
        return cls(
            environ=environ,
            main=MainSettings.read(environ),
            aggregator=AggregatorSettings.read(environ),
            operator=OperatorSettings.read(environ),
            devices={device.name: device for device in devices},
            here=here,
            closed=tuple(
                service.folder for service in places.values() if _is_closed(service.folder)
            ),
        )

    @property
    def home(self) -> Path:
        """Where every service keeps its state."""
        return self.main.folder.parent

    @property
    def main_is_here(self) -> bool:
        """Whether this machine's services look for the main server on this machine."""
        return "main-server" in self.here and is_loopback(
            urlsplit(self.aggregator.main_url).hostname or ""
        )


def _has_run(service: Service) -> bool:
    files = (service.folder / name for name in (*KEYS, "state.sqlite3"))
    return service.url is not None or any(os.access(path, os.F_OK) for path in files)


def _is_closed(folder: Path) -> bool:
    return os.access(folder, os.F_OK) and not os.access(folder, os.R_OK | os.X_OK)


def installation(requirements: Path = REQUIREMENTS) -> Iterator[Finding]:
    """Compare Python and what is installed with what is pinned; nothing of it is imported."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        yield Finding(
            "Python",
            "wrong",
            f"This is Python {version}.",
            "Install Python 3.11 or newer, then make setup.",
        )
    else:
        yield Finding("Python", "ok", f"This is Python {version}.")
    here = _pinned_here(requirements)
    pins = [
        (each.name, one.version) for each in here for one in each.specifier if one.operator == "=="
    ]
    differ = 0
    for name, pinned in pins:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = None
        if installed == pinned:
            continue
        differ += 1
        if installed is None:
            yield Finding(
                "packages", "wrong", f"{name} {pinned} is not installed.", "Run: make setup"
            )
        else:
            said = f"{name} is of version {installed}; the project was tested with {pinned}."
            yield Finding(
                "packages",
                "warning",
                said,
                f"Run: {sys.executable} -m pip install '{name}=={pinned}'",
            )
    if not differ:
        yield Finding(
            "packages",
            "ok",
            f"All {len(pins)} pinned packages are installed, in their pinned versions.",
        )


def _pinned_here(requirements: Path) -> list[Requirement]:
    """Return what is pinned for this machine: by a checkout's requirement file, or by what pip
    installed.

    An installed distribution has no such file. Of its extras, those parts count that somebody
    installed.
    """
    if requirements.exists():
        lines = (line.strip() for line in requirements.read_text().splitlines())
        wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
        return [each for each in wanted if each.marker is None or each.marker.evaluate()]
    installed = {canonicalize_name(each.name) for each in metadata.distributions()}
    every = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or ()]
    base = [each for each in every if each.marker is None or each.marker.evaluate({"extra": ""})]
    extras = metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ()
    optional = [
        each for each in every if any(_is_in(each, extra) for extra in extras) and each not in base
    ]
    return base + [
        each for each in optional if canonicalize_name(each.name) in installed - {DISTRIBUTION}
    ]


def _is_in(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def disk(home: Path) -> Iterator[Finding]:
    """Look whether the disk of the services' folder can be written and has room, and for files left
    over.
    """
    folder = next(path for path in (home, *home.absolute().parents) if os.access(path, os.F_OK))
    where = f"disk of {home}"
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        todo = "Let the services' user own that folder, or name another with DOORBELL_HOME."
        yield Finding(
            where, "wrong", f"{folder} is no folder that can be read and written from here.", todo
        )
        return
    room = os.statvfs(folder)
    free, files = (
        room.f_bavail * room.f_frsize,
        room.f_favail if room.f_files else SCARCE_FILES,
    )  # not all count files
    said = f"{_size(free)} are free" + (f", for {files:,} more files." if room.f_files else ".")
    if free < TOO_FEW_BYTES or files < TOO_FEW_FILES:
        yield Finding(where, "wrong", said, "Make room there before a service has to stop.")
    elif free < SCARCE_BYTES or files < SCARCE_FILES:
        yield Finding(where, "warning", said, "Make room there, or lower DOORBELL_KEEP_VERSIONS.")
    else:
        yield Finding(where, "ok", said)
    if left := _left_over(home):
        said = f"Writers that were killed have left {len(left)} files, {left[0]} for instance."
        yield Finding(where, "warning", said, "Remove them; nobody reads them.")


def folders(setup: Setup) -> Iterator[Finding]:
    """Tell which services have run here, and which folders belong to somebody else."""
    for folder in setup.closed:
        said = f"{folder} cannot be looked into from here."
        yield Finding("services", "wrong", said, "Run this as the user that the service runs as.")
    if not setup.closed:
        yield Finding("services", "ok", f"Here have run: {', '.join(setup.here) or 'none yet'}.")


def _left_over(home: Path) -> list[Path]:
    """Return files that were written beside their place and never renamed; services remove those
    among their blobs.
    """
    places, found = (
        ("main-server", "secure-aggregator", "devices/*", "devices/*/pictures-cache", "cache"),
        [],
    )
    for path in sorted(path for place in places for path in home.glob(f"{place}/*")):
        with suppress(FileNotFoundError):  # it was renamed meanwhile
            if (
                _LEFT_OVER.fullmatch(path.name)
                and path.stat().st_mtime < time.time() - _LEFT_OVER_S
            ):
                found.append(path)
    return found


def _size(count: int) -> str:
    return f"{count / (1 << 30):,.1f} GB" if count >= SCARCE_BYTES else f"{count >> 20} MB"
