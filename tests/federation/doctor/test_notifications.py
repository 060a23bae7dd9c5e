"""The doctor checks the declared notification channels without sending anything or showing a URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.doctor.checks import Setup
from federation.doctor.checks_notifications import notifications
from tests.owners import SECRET


def findings(tmp_path: Path, **variables: str) -> list[tuple[str, str, str]]:
    environ = {"DOORBELL_HOME": str(tmp_path), "DOORBELL_DEVICE_NAME": "door"} | variables
    found = notifications(Setup.read(environ))
    return [(each.where, each.state, f"{each.said} {each.todo}") for each in found]


def test_device_without_channels_has_nothing_to_be_checked(tmp_path: Path) -> None:
    assert findings(tmp_path) == []


def test_channels_are_named(tmp_path: Path) -> None:
    ((where, state, said),) = set(
        findings(
            tmp_path,
            DOORBELL_MQTT="mqtt://me:hidden@broker",
            DOORBELL_NOTIFY=f"https://host/hidden#{SECRET}",
        )
    )
    assert (where, state) == ("notifications of door", "ok")
    assert said.startswith("Channels: mqtt, webhook-") and "hidden" not in said


@pytest.mark.parametrize("variable", ["DOORBELL_NOTIFY", "DOORBELL_MQTT"])
def test_invalid_url_is_an_error_that_does_not_quote_it(tmp_path: Path, variable: str) -> None:
    for _, state, said in findings(tmp_path, **{variable: "mqtt://me:hidden@"}):
        assert (state, "hidden" in said) == ("wrong", False)
        assert said.startswith(f"{variable} is not valid. The MQTT broker's address is not a URL")
