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
    source = "".join((PROJECT / "shared" / name).read_text() for name in ("settings.py", "environment.py"))
    described = re.findall(r"^\| `(DOORBELL_\w+)`", (PROJECT / "README.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(set(VARIABLE.findall(source)))


@pytest.mark.parametrize("service", ["device", "main", "aggregator"])
def test_every_address_stands_in_the_protocol(service: str, tmp_path: Path) -> None:
    environ = {"DOORBELL_HOME": str(tmp_path)}
    app = {
        "device": lambda: device_app(1, DeviceSettings.read(1, environ)),
        "main": lambda: main_app(MainSettings.read(environ)),
        "aggregator": lambda: aggregator_app(AggregatorSettings.read(environ)),
    }[service]()
    protocol = (PROJECT / "docs" / "protocol.md").read_text()
    undocumented = [rule.rule for rule in app.url_map.iter_rules() if f"`{rule.rule}`" not in protocol]
    assert undocumented == []
