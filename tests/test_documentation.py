"""The documents list every setting and every address, their links resolve, and the README is short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device.app import create_app as device_app
from device.settings import DeviceSettings
from federation.processes import PROCFILE
from federation.reference import PAGES, every_setting, page, path_of
from main_server.app import create_app as main_app
from main_server.settings import MainSettings
from sec_agg.app import create_app as aggregator_app
from sec_agg.settings import AggregatorSettings

PROJECT = Path(__file__).resolve().parents[1]
NO_SETTINGS = {"DOORBELL_PAGE", "DOORBELL_NAV"}  # of templates
PORT_OF_A_DEVICE = re.compile(r"DOORBELL_DEVICE[0-9]*(_PORT)?")
VARIABLE = re.compile(r"DOORBELL_[A-Z0-9_]*[A-Z0-9]")
README = PROJECT / "README.md"
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
LONGEST_README = 160
LARGEST_PICTURE_BYTES = 80_000


@pytest.mark.parametrize("name", PAGES)
def test_generated_page_is_what_the_declarations_say(name: str) -> None:
    path = path_of(name)
    assert path.read_text() == page(name), "Run: make docs"


def test_no_variable_of_the_environment_is_read_beside_the_declared_ones() -> None:
    declared = {setting.variable for settings in every_setting().values() for setting in settings}
    used = {
        variable
        for package in ("shared", "device", "main_server", "sec_agg", "dataset", "federation")
        for path in (PROJECT / package).rglob("*.py")
        for variable in VARIABLE.findall(path.read_text())
    }
    undeclared = {each for each in used - declared if not PORT_OF_A_DEVICE.fullmatch(each)}
    assert undeclared <= NO_SETTINGS


@pytest.mark.parametrize("service", ["device", "main", "aggregator"])
def test_every_address_stands_in_the_protocol(service: str, tmp_path: Path) -> None:
    environ = {"DOORBELL_HOME": str(tmp_path)}
    app = {
        "device": lambda: device_app(1, DeviceSettings.read(1, environ)),
        "main": lambda: main_app(MainSettings.read(environ)),
        "aggregator": lambda: aggregator_app(AggregatorSettings.read(environ)),
    }[service]()
    protocol = (PROJECT / "docs" / "reference" / "protocol.md").read_text()
    undocumented = [
        rule.rule for rule in app.url_map.iter_rules() if f"`{rule.rule}`" not in protocol
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    ("unit", "process"), [("device", "device1"), ("main-server", "web"), ("aggregator", "secagg")]
)
def test_unit_starts_what_the_procfile_starts(unit: str, process: str) -> None:
    wanted = dict(line.split(": ", 1) for line in (PROJECT / "Procfile").read_text().splitlines())[
        process
    ].split()
    lines = (PROJECT / "deploy" / f"doorbell-{unit}.service").read_text().splitlines()
    started = (
        next(line for line in lines if line.startswith("ExecStart=")).partition("=")[2].split()
    )
    where = wanted.index("--bind") + 1
    assert started[0].endswith("/.venv/bin/gunicorn") and started[where].endswith(
        re.search(r"\d{4}", wanted[where])[0]
    )
    assert sorted(started[1:where] + started[where + 1 :]) == sorted(
        wanted[1:where] + wanted[where + 1 :]
    )
    assert "EnvironmentFile=/etc/doorbell.env" in lines and "User=doorbell" in lines


def test_installed_federation_starts_what_the_procfile_starts() -> None:
    """The package's own Procfile names apps where the one of a checkout names the wsgi modules that
    make them.
    """
    ours = dict(line.split(": ", 1) for line in PROCFILE.read_text().splitlines())
    for process, line in dict(
        each.split(": ", 1) for each in (PROJECT / "Procfile").read_text().splitlines()
    ).items():
        *command, wsgi = line.split()
        module = (PROJECT / f"{wsgi.partition(':')[0]}.py").read_text()
        app = re.search(r"from (\S+) import", module)[1] + ":" + re.search(r"app = (.+)", module)[1]
        hooked = ['"$PYTHON"', "-m", "gunicorn", "--config", "python:shared.web.gunicorn_hooks"]
        assert ours.pop(process).split() == [*hooked, *command[1:], f'"{app}"']
    assert ours == {}


def test_settings_of_the_raspberry_pi_have_no_comment_that_would_be_part_of_a_value() -> None:
    text = (PROJECT / "docs" / "tutorials" / "doorbell-on-a-raspberry-pi.md").read_text()
    lines = re.findall(r"^DOORBELL_\w+=.*$", text, re.MULTILINE)
    assert len(lines) > 5 and not [line for line in lines if " " in line]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_relative_links_resolve(document: Path) -> None:
    links = [target for target in _links(document) if "://" not in target]
    assert [target for target in links if not _resolves(document, target)] == []


def test_every_page_of_the_documentation_is_linked() -> None:
    linked = {
        (document.parent / target.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for target in _links(document)
    }
    pages = set(PROJECT.glob("docs/**/*.*"))
    assert pages - linked == set()


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_README


def test_readme_shows_small_pictures_that_name_no_other_host() -> None:
    shown = [
        README.parent / target for target in _links(README) if target.startswith("docs/images/")
    ]
    assert len(shown) == 2
    for picture in shown:
        content = picture.read_bytes()
        assert content.startswith((b"\x89PNG", b"<svg")) and len(content) < LARGEST_PICTURE_BYTES
        assert not re.search(rb"url\([^#]|href=|(src|xlink)", content) or picture.suffix == ".png"


def _links(document: Path) -> list[str]:
    return LINK.findall(FENCE.sub("", document.read_text()))


def _resolves(document: Path, target: str) -> bool:
    """Whether a link's file exists and, if it names a section, has that heading."""
    path, _, section = target.partition("#")
    file = (document.parent / path) if path else document
    return file.exists() and (not section or section in _anchors(file))


def _anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
