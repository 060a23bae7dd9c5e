"""What devices tell of their measurements: what is kept, who may tell it, and what a person is
shown.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from main_server.dashboard.report import weighted_mean
from main_server.members.members import rename, revoke
from main_server.models.evaluations import keep_evaluation
from main_server.store.evaluations import performances
from main_server.store.events import newest_events
from shared.errors import DoorbellError, Forbidden, InvalidMessage, NotFound
from shared.messages import convert
from shared.protocol.evaluations import METRICS, Performance
from tests.main_store import read

BETWEEN = {"value": 0.125, "low": -0.25, "high": 0.5}


def measured(
    version: str, accuracy: float = 0.75, pictures: int = 40, **changed: Any
) -> dict[str, Any]:
    """Return what a device tells whose models differ by 12.5 points."""
    local = {
        name: {"value": accuracy, "low": accuracy - 0.125, "high": accuracy + 0.125}
        for name in METRICS
    }
    better = {name: {"value": accuracy + 0.125, "low": accuracy, "high": 1.0} for name in METRICS}
    figures = {"local": local, "global": better, "difference": dict.fromkeys(METRICS, BETWEEN)}
    return (
        {"detector": "package", "trained_round": 3, "version": version, "pictures": pictures}
        | figures
        | changed
    )


def tell(federation: Any, device: str, *said: Any, **changed: Any) -> str:
    """Announce a device, let it tell the main server, and return the version that it told of."""
    version = str(federation.announce(device).base_version)
    federation.device(device).post_json(
        "http://main/performance", measured(version, *said, **changed)
    )
    return version


def page(federation: Any, path: str = "/report") -> Any:
    client = federation.network.apps["main"].test_client()
    return client.get(path, headers={"Host": "localhost", "Accept": "text/html"})


def rows(federation: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(page(federation, "/report.csv").text)))


def test_what_a_device_tells_is_kept_with_the_round_of_its_version(federation: Any) -> None:
    main = replace(federation.main, clock=lambda: 1234.5)
    version = federation.announce("a").base_version
    keep_evaluation(main, federation.caller("a"), convert(Performance, measured(version)))
    (told,) = read(main.store, performances)
    assert (told.device, told.global_round, told.told_at) == ("a", 0, 1234.5)
    assert told.performance.to_json() == measured(version)


def test_newest_takes_the_place_of_the_one_before_and_is_news_once(federation: Any) -> None:
    for accuracy in (0.5, 0.75, 0.75):
        tell(federation, "a", accuracy)
    (told,) = read(federation.main.store, performances)
    assert told.performance.figures["local"]["accuracy"].value == 0.75
    said = [
        event.said
        for event in read(federation.main.store, newest_events, 30)
        if event.kind == "measured"
    ]
    assert said == ["a has measured its own and the global model on 40 test pictures."] * 2


def test_measurements_survive_a_restart(federation: Any) -> None:
    tell(federation, "a")
    federation.start()
    assert [told.device for told in read(federation.main.store, performances)] == ["a"]


def test_page_shows_each_device_and_the_weighted_mean(federation: Any) -> None:
    tell(federation, "a", 0.75, 30)
    tell(federation, "b", 0.25, 10)
    shown = page(federation).text
    assert "75.0 % (62.5 to 87.5)" in shown and "25.0 % (12.5 to 37.5)" in shown
    assert "62.5 %<" in shown.replace("</td>", "<"), "(30 x 0.75 + 10 x 0.25) / 40"
    assert "+12.5 points (-25.0 to +50.0)" in shown
    assert shown.count('scope="rowgroup"') == 3
    assert ">40<" in shown
    assert "measured different global models" not in shown


def test_mean_leaves_out_who_does_not_know(federation: Any) -> None:
    tell(federation, "a", 0.75, 30)
    unknown = dict.fromkeys(("value", "low", "high"))
    alike = dict.fromkeys(METRICS, BETWEEN | {"low": 0.0}) | {"roc_auc": unknown}
    tell(federation, "b", 0.5, 10, local=alike)
    told = read(federation.main.store, performances)
    assert weighted_mean(told, "local", "roc_auc").value == 0.75
    assert weighted_mean(told[1:], "local", "roc_auc").value is None
    assert weighted_mean(told, "local", "accuracy").value == (30 * 0.75 + 10 * 0.125) / 40


def test_page_says_when_devices_measured_different_models(federation: Any) -> None:
    tell(federation, "a")
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    tell(federation, "b")
    assert "measured different global models" in page(federation).text


def test_file_has_every_figure_of_every_device(federation: Any) -> None:
    version = tell(federation, "a")
    (local, better, difference) = rows(federation)
    assert (local["device"], local["model"], local["round"], local["version"]) == (
        "a",
        "local",
        "3",
        "",
    )
    assert (better["model"], better["round"], better["version"]) == ("global", "0", version)
    assert (difference["round"], difference["roc_auc"], difference["roc_auc_low"]) == (
        "",
        "0.125",
        "-0.25",
    )
    assert all(better[name] == "0.875" and better[f"{name}_high"] == "1.0" for name in METRICS)


def test_before_anything_is_measured_page_and_file_say_so(federation: Any) -> None:
    assert "No device has measured anything yet" in page(federation).text
    assert rows(federation) == []
    assert 'href="/report"' in page(federation).text


# --- who, and what


def test_revoked_device_is_no_longer_shown_and_may_not_tell(federation: Any) -> None:
    version = tell(federation, "a")
    tell(federation, "b")
    revoke(federation.main, "a", "sold")
    assert {row["device"] for row in rows(federation)} == {"b"}
    with pytest.raises(Forbidden):
        federation.device("a").post_json("http://main/performance", measured(version))
    assert {row["device"] for row in rows(federation)} == {"b"}


def test_renamed_device_keeps_its_measurement(federation: Any) -> None:
    tell(federation, "a")
    rename(federation.main, "a", "porch")
    assert {row["device"] for row in rows(federation)} == {"porch"}


def test_device_tells_of_itself_alone(federation: Any) -> None:
    version = tell(federation, "a", 0.5)
    federation.announce("b")
    said = measured(version, 0.75) | {"device": "a"}
    with pytest.raises(InvalidMessage):
        federation.device("b").post_json("http://main/performance", said)
    assert [told.device for told in read(federation.main.store, performances)] == ["a"]


def test_device_without_a_part_in_the_detector_is_refused(federation: Any) -> None:
    version = federation.announce("a").base_version
    federation.announce("b", "raccoon")
    with pytest.raises(NotFound, match="b does not take part in package"):
        federation.device("b").post_json("http://main/performance", measured(version))
    assert read(federation.main.store, performances) == ()


def test_aggregator_may_not_tell(federation: Any) -> None:
    version = federation.announce("a").base_version
    with pytest.raises(Forbidden):
        federation.as_aggregator.post_json("http://main/performance", measured(version))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "0" * 64},
        {"detector": "raccoon"},
        {"pictures": 0},
        {"local": {}},
        {"more": 1},
        {"global": None},
        {"difference": dict.fromkeys(METRICS, BETWEEN | {"high": 2})},
    ],
    ids=[
        "no version",
        "of another detector",
        "no pictures",
        "no figures",
        "more",
        "no global",
        "out of range",
    ],
)
def test_hostile_message_is_refused_and_what_was_told_stays(
    federation: Any, changes: Mapping[str, Any]
) -> None:
    version = tell(federation, "a", 0.5)
    federation.announce("a", "raccoon")
    with pytest.raises(InvalidMessage):
        federation.device("a").post_json(
            "http://main/performance", measured(version) | dict(changes)
        )
    (told,) = read(federation.main.store, performances)
    assert told.performance.figures["local"]["accuracy"].value == 0.5


def test_numbers_that_json_has_not_are_refused(federation: Any) -> None:
    version = federation.announce("a").base_version
    for number in (float("nan"), float("inf"), 10**400):
        said = measured(version)
        said["local"] = said["local"] | {"f1": {"value": number, "low": 0.0, "high": 1.0}}
        with pytest.raises(DoorbellError) as caught:
            federation.device("a").post_json("http://main/performance", said)
        assert caught.value.status == 400
    assert read(federation.main.store, performances) == ()
