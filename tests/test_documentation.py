"""What the documents promise to list, they list: every setting and every address."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device.app import create_app as device_app
from main_server.app import create_app as main_app
from sec_agg.app import create_app as aggregator_app
from shared.settings import AggregatorSettings, DeviceSettings, MainSettings

PROJECT = Path(__file__).resolve().parents[1]
VARIABLE = re.compile(r"DOORBELL_[A-Z0-9_]*[A-Z0-9]")


def test_every_setting_is_described_and_every_described_setting_exists() -> None:
    source = "".join(
        (PROJECT / "shared" / name).read_text() for name in ("settings.py", "environment.py")
    )
    described = re.findall(
        r"^\| `(DOORBELL_\w+)`", (PROJECT / "README.md").read_text(), re.MULTILINE
    )
    assert sorted(described) == sorted(set(VARIABLE.findall(source)))


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


def test_settings_of_the_raspberry_pi_have_no_comment_that_would_be_part_of_a_value() -> None:
    text = (PROJECT / "docs" / "tutorials" / "doorbell-on-a-raspberry-pi.md").read_text()
    lines = re.findall(r"^DOORBELL_\w+=.*$", text, re.MULTILINE)
    assert len(lines) > 5 and not [line for line in lines if " " in line]
