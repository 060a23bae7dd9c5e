"""Versions of the global model: version 0, handing out, delivery."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device.app
from device.context import identity_path
from device.settings import DeviceSettings
from device.store.store import DeviceStore
from learning.architectures import ARCHITECTURES
from main_server.context import MainServer
from main_server.models.registry import load_model
from main_server.store.devices import participations
from main_server.store.versions import newest_version
from shared.errors import InvalidMessage, NotFound, OutOfOrder
from shared.messages import convert
from shared.protocol.announcement import Announcement
from shared.security.identity import Identity
from tests.main_store import read


def finish_a_round(federation: Any) -> None:
    for name in ("device-1", "device-2"):
        federation.upload(name, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")


def add_device(federation: Any, number: int, *detectors: str) -> DeviceStore:
    """Put a real device app on the network, with picture folders; return its memory."""
    settings = DeviceSettings.read(
        number,
        {
            "DOORBELL_HOME": str(federation.folder),
            "DOORBELL_DATA": str(federation.folder / "pictures"),
            "DOORBELL_MAIN_URL": "http://main",
        },
    )
    for detector in detectors:
        (federation.folder / "pictures" / detector / settings.client).mkdir(parents=True)
    http = federation.network.client(Identity.open(identity_path(settings)))
    federation.network.apps[settings.name] = device.app.create_app(number, settings, http)
    return DeviceStore(settings.folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_version_0_is_the_same_from_the_same_seed(
    make_federation: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    versions = [
        make_federation(tmp_path / str(number), architecture=name, seed=seed)
        .announce("a")
        .base_version
        for number, seed in enumerate([5, 5, 6])
    ]
    assert versions[0] == versions[1] != versions[2]


def test_version_0_differs_between_detectors(federation: Any) -> None:
    federation.announce("a", "package")
    federation.announce("a", "raccoon")
    assert not np.array_equal(federation.params("package"), federation.params("raccoon"))


def test_workers_that_start_at_the_same_time_make_one_version_0_and_one_round(
    federation: Any,
) -> None:
    from main_server.rounds.announcement import announce  # noqa: PLC0415

    start, heard = threading.Barrier(5), []
    callers = [federation.caller(f"d{number}") for number in range(5)]

    def work(number: int) -> None:
        main = MainServer.open(federation.settings, federation.http)
        start.wait()
        message = {"address": "http://d", "detectors": {"package": None}}
        heard.append(announce(main, callers[number], convert(Announcement, message))["package"])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 5
    assert len(set(heard)) == 1


def test_served_model_has_the_hash_it_is_asked_by(federation: Any) -> None:
    version = federation.announce("a").base_version
    body = federation.device("a").get(f"http://main/model/{version}").body
    assert hashlib.sha256(body).hexdigest() == version
    assert load_model(federation.main, version).round == 0


@pytest.mark.parametrize("version", ["0" * 64, "f" * 64])
def test_unknown_version_is_not_found(federation: Any, version: str) -> None:
    with pytest.raises(NotFound, match="no such version"):
        federation.device("a").get(f"http://main/model/{version}")


def test_blob_that_was_never_published_is_not_handed_out(federation: Any) -> None:
    digest = federation.main.blobs.put(b"a plain update, say")
    with pytest.raises(NotFound):
        federation.device("a").get(f"http://main/model/{digest}")


def test_version_that_is_no_hash_is_refused(federation: Any) -> None:
    with pytest.raises(InvalidMessage):
        federation.device("a").get("http://main/model/sealing.key")


def test_published_model_names_its_parent_and_round(federation: Any) -> None:
    base = federation.announce("device-1").base_version
    finish_a_round(federation)
    newest = read(federation.main.store, newest_version, "package")
    model = load_model(federation.main, newest.version)
    assert (model.parent, model.round, model.detector) == (base, 1, "package")
    assert federation.announce("device-1").base_version == newest.version


def test_delivery_before_a_round_is_finished_is_refused(federation: Any) -> None:
    with pytest.raises(OutOfOrder, match="No device has announced itself yet"):
        federation.http.post("http://main/send_model_clients", b"")
    federation.announce("device-1")
    with pytest.raises(OutOfOrder, match="No aggregated model exists yet"):
        federation.step("main", "send_model_clients")


def test_delivery_reaches_those_that_answer_and_names_those_that_fetch_it_later(
    federation: Any,
) -> None:
    store = add_device(federation, 1, "package")
    finish_a_round(federation)
    done = federation.step("main", "send_model_clients")
    newest = read(federation.main.store, newest_version, "package")
    assert done["delivered"] == ["device-1"]
    assert list(done["later"]) == ["device-2"]
    assert "device-2 fetches it later: No answer from http://device-2" in done["said"]
    assert store.models.active("package").version == newest.version
    delivered = {p.device: p.delivered for p in read(federation.main.store, participations)}
    assert delivered == {"device-1": newest.version, "device-2": None}

    late = add_device(federation, 2, "package")
    again = federation.step("main", "send_model_clients")
    assert again["delivered"] == ["device-1", "device-2"]
    assert late.models.active("package").version == newest.version


def test_device_that_refuses_holds_nothing_up(federation: Any) -> None:
    add_device(federation, 1, "raccoon")
    add_device(federation, 2, "package")
    finish_a_round(federation)
    done = federation.step("main", "send_model_clients")
    assert done["delivered"] == ["device-2"]
    assert "no pictures for package" in done["later"]["device-1"]


def test_devices_of_other_detectors_are_left_in_peace(federation: Any) -> None:
    federation.announce("device-3", "raccoon")
    finish_a_round(federation)
    done = federation.step("main", "send_model_clients")
    assert sorted(done["later"]) == ["device-1", "device-2"]
