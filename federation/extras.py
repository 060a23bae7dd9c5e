"""What of the installed distribution's extras is missing.

A checkout's `make setup` installs everything.
"""

from __future__ import annotations

import importlib.util
import subprocess  # nosec B404
import sys
from collections.abc import Sequence
from importlib import metadata

from packaging.requirements import Requirement

from federation.preflight import NotReady

DISTRIBUTION = "doorbell-federation"
EVERYTHING = ("server", "train")
_OURS = (
    "shared",
    "dataset",
    "learning",
    "device",
    "sec_agg",
    "main_server",
    "federation",
    "simulator",
)


def missing(extras: Sequence[str]) -> list[str]:
    """Return the requirements of these extras that are not installed; none in a checkout, which has
    no metadata.
    """
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    wanted = [Requirement(line) for line in lines]
    return [
        _pin(each)
        for each in wanted
        if _applies(each, _all_of(wanted, extras)) and not _installed(each.name)
    ]


def check(extras: Sequence[str]) -> None:
    """Refuse if something of these extras is missing.

    Raises:
        NotReady: Says how to install it.
    """
    if needed := missing(extras):
        raise NotReady(_said(needed), _install(extras))


def install(extras: Sequence[str]) -> None:
    """Install what is missing, as `make demo` does; in a virtual environment alone, and in the
    pinned versions.

    Raises:
        NotReady: This is no virtual environment, or pip failed.
    """
    needed = missing(extras)
    if not needed:
        return
    if sys.prefix == sys.base_prefix:  # a system's own Python is not ours to change
        raise NotReady(_said(needed), f"Make a virtual environment. {_install(extras)}")
    print(f"{_said(needed)} Installing (about 2 GB, most of it TensorFlow) ...", flush=True)
    if importlib.util.find_spec("pip") is None:  # an environment that uv made has none
        _python("ensurepip")
    if _python("pip", "install", "--quiet", "--disable-pip-version-check", *needed):
        raise NotReady("pip could not install it; its message is above.", _install(extras))
    importlib.invalidate_caches()


def _python(module: str, *words: str) -> int:
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, check=False).returncode  # nosec B603 # our own pins, no shell


def is_ours(module: str) -> bool:
    """Return whether a module is the project's own, so that its absence is a mistake of ours."""
    return module.partition(".")[0] in _OURS


def lacking(module: str) -> str:
    """Return what to say where a command needs a module that is not installed."""
    return f"This command needs {module}, which is not installed. {_install(EVERYTHING)}"


def _said(needed: Sequence[str]) -> str:
    return (
        f"{len(needed)} packages are not installed: "
        f"{', '.join(one.partition('=')[0] for one in needed)}."
    )


def _install(extras: Sequence[str]) -> str:
    # No name that an index would be asked for: the project is installed from its checkout.
    return (
        f"Install it from a checkout (pip install '.[{','.join(extras)}]'), or let "
        "doorbell demo install everything."
    )


def _all_of(wanted: Sequence[Requirement], extras: Sequence[str]) -> set[str]:
    """Return these extras, and those that they name: doorbell-federation[edge] in train."""
    found = set(extras)
    for each in wanted:
        if each.name == DISTRIBUTION and _applies(each, found):
            found |= each.extras
    return found


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _pin(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"
