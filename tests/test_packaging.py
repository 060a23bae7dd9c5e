"""What is installed: the requirement files and locks agree with pyproject.toml, and the wheel holds
what runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parents[1]
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
FILES = {
    "requirements": ("server", "train"),
    "requirements-edge": ("edge",),
    "requirements-dev": ("dev",),
}
PACKAGES = (
    "shared",
    "dataset",
    "learning",
    "device",
    "sec_agg",
    "main_server",
    "federation",
    "simulator",
)
DATA = ("*.html", "*.css", "*.js", "migrations/*.py", "Procfile")


def _needed(extras: tuple[str, ...]) -> Iterator[Requirement]:
    """Yield what the project with these extras requires, extras of extras included."""
    for line in METADATA["dependencies"]:
        yield Requirement(line)
    for extra in extras:
        for line in METADATA["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == METADATA["name"]:
                yield from _needed(tuple(requirement.extras))
            else:
                yield requirement


def _names_of(requirements: Iterator[Requirement]) -> set[tuple[str, str, frozenset[str]]]:
    return {(each.name, str(each.specifier), frozenset(each.extras)) for each in requirements}


def _lines(name: str) -> list[str]:
    text = (PROJECT / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", FILES)
def test_requirement_file_holds_what_pyproject_pins(name: str) -> None:
    held = _names_of(Requirement(line) for line in _lines(f"{name}.txt"))
    assert held == _names_of(_needed(FILES[name])), "run make lock"


@pytest.mark.parametrize("extra", ["", *METADATA["optional-dependencies"]])
def test_every_dependency_is_pinned(extra: str) -> None:
    loose = [
        each
        for each in _needed((extra,) if extra else ())
        if not str(each.specifier).startswith("==")
    ]
    assert loose == []


@pytest.mark.parametrize("name", FILES)
def test_lock_has_hashes_of_every_package_and_every_pin(name: str) -> None:
    lines = _lines(f"{name}.lock")
    assert [line for line in lines if not re.search(r" --hash=sha256:[0-9a-f]{64}", line)] == []
    locked = {Requirement(line.partition(" --hash")[0]).name: line for line in lines}
    for each in _needed(FILES[name]):
        assert (
            locked[each.name].startswith(f"{each.name}{each.specifier}".replace("[", "["))
            or each.extras
        )
    assert all(each.name in locked for each in _needed(FILES[name]))


@pytest.mark.parametrize("name", [f"{name}{kind}" for name in FILES for kind in (".txt", ".lock")])
def test_no_package_index_is_named(name: str) -> None:
    assert not re.search(r"://|--index|--extra-index|--find-links", (PROJECT / name).read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in the project's wheel, built from a copy of its sources."""
    copy = tmp_path_factory.mktemp("sources")
    for package in PACKAGES:
        if (PROJECT / package).exists():
            shutil.copytree(
                PROJECT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
            )
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(PROJECT / name, copy)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(copy / "dist")], cwd=copy, check=True, capture_output=True
    )
    (built,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def test_wheel_holds_every_module_and_what_it_reads(wheel: list[str]) -> None:
    patterns = ("*.py", *DATA)
    wanted = {
        str(path.relative_to(PROJECT))
        for package in PACKAGES
        for pattern in patterns
        for path in (PROJECT / package).rglob(pattern)
    }
    assert sorted(wanted - set(wheel)) == []
    for kind in (
        "templates/base.html",
        "static/style.css",
        "migrations/env.py",
        "federation/Procfile",
    ):
        assert any(name.endswith(kind) for name in wheel), kind


def test_wheel_holds_the_licence_and_nothing_of_the_tests(wheel: list[str]) -> None:
    assert {name.rpartition("/")[2] for name in wheel if "/licenses/" in name} == {
        "LICENSE",
        "NOTICE",
    }
    tops = {name.partition("/")[0] for name in wheel if ".dist-info/" not in name}
    assert tops <= set(PACKAGES)
