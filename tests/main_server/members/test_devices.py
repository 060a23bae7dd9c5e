"""Devices announce themselves: what is noted, what they hear, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from main_server.rounds.announcement import announce
from main_server.store.devices import all_detectors, all_devices, participations
from main_server.store.records import Device, Participation
from shared.errors import InvalidMessage, NotFound
from shared.messages import convert
from shared.protocol.announcement import MAX_DETECTORS, Announcement
from tests.main_store import read

STATUS = {"address": "http://a:8001", "detectors": {"package": None}}


def test_device_is_noted_with_address_and_time(federation: Any) -> None:
    main = replace(federation.main, clock=lambda: 1234.5)
    announce(main, federation.caller("a"), convert(Announcement, STATUS))
    assert read(main.store, all_devices) == (Device("a", "http://a:8001", 1234.5),)
    assert read(main.store, participations) == (Participation("a", "package", None, None),)


def test_device_hears_the_open_round_of_each_of_its_detectors(federation: Any) -> None:
    rounds = announce(
        federation.main,
        federation.caller("a"),
        convert(Announcement, STATUS | {"detectors": {"package": None, "raccoon": None}}),
    )
    assert {name: (settings.detector, settings.round) for name, settings in rounds.items()} == {
        "package": ("package", 1),
        "raccoon": ("raccoon", 1),
    }
    assert rounds["package"].base_version != rounds["raccoon"].base_version


def test_repeated_announcement_opens_no_other_round_and_updates_what_is_known(
    federation: Any,
) -> None:
    first = announce(federation.main, federation.caller("a"), convert(Announcement, STATUS))
    elsewhere = STATUS | {"address": "http://elsewhere/", "detectors": {"package": 1}}
    again = announce(federation.main, federation.caller("a"), convert(Announcement, elsewhere))
    assert again == first
    assert read(federation.main.store, all_devices)[0].address == "http://elsewhere"
    assert read(federation.main.store, participations)[0].trained_round == 1


def test_every_device_hears_the_same_round(federation: Any) -> None:
    assert federation.announce("a") == federation.announce("b")


def test_device_is_noted_under_the_name_by_which_it_joined_and_no_other(federation: Any) -> None:
    federation.device("b")
    reply = federation.device("a").post_json(
        "http://main/clientstatus", STATUS | {"device": "b", "name": "b"}
    )
    assert reply.json["name"] == "a"
    assert [device.name for device in read(federation.main.store, all_devices)] == ["a"]


def test_device_without_pictures_is_noted_and_hears_of_no_round(federation: Any) -> None:
    assert (
        announce(
            federation.main,
            federation.caller("a"),
            convert(Announcement, STATUS | {"detectors": {}}),
        )
        == {}
    )
    assert [device.name for device in read(federation.main.store, all_devices)] == ["a"]
    assert read(federation.main.store, all_detectors) == ()


def test_round_is_shown_with_its_devices_and_unknown_detectors_are_not_found(
    federation: Any,
) -> None:
    settings = federation.announce("b")
    federation.announce("a")
    shown = federation.as_aggregator.get("http://main/round/package").json
    assert shown == {"round": settings.to_json(), "devices": ["a", "b"]}
    with pytest.raises(NotFound, match="No device takes part in raccoon"):
        federation.as_aggregator.get("http://main/round/raccoon")
    with pytest.raises(InvalidMessage):
        federation.as_aggregator.get("http://main/round/NOT-A-NAME")


@pytest.mark.parametrize(
    "changed",
    [
        {"address": None},
        {"address": "a:8001"},
        {"address": "ftp://a"},
        {"address": "http://"},
        {"address": "http://a:0"},
        {"address": "http://a:99999"},
        {"address": "http://[a"},
        {"address": "http://a/?to="},
        {"address": "http://a/#b"},
        {"address": "http://" + "a" * 256},
        {"detectors": None},
        {"detectors": ["package"]},
        {"detectors": {"../package": None}},
        {"detectors": {"package": 0}},
        {"detectors": {"package": True}},
        {"detectors": {"package": "1"}},
        {"detectors": {"package": 2**31}},
        {"detectors": {f"d{number}": None for number in range(MAX_DETECTORS + 1)}},
    ],
    ids=str,
)
def test_status_that_is_none_is_refused_and_nothing_is_noted(
    federation: Any, changed: dict[str, object]
) -> None:
    a = federation.device("a")
    before = federation.remembered("main-server")
    with pytest.raises(InvalidMessage):
        a.post_json("http://main/clientstatus", STATUS | changed)
    assert federation.remembered("main-server") == before


@pytest.mark.parametrize("message", [None, [], "status", 1, {}])
def test_message_that_is_no_status_is_refused(federation: Any, message: object) -> None:
    with pytest.raises(InvalidMessage):
        federation.device("a").post_json("http://main/clientstatus", message)
