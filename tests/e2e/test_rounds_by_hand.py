"""Whole rounds over real sockets, step by step, in and out of order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.round import Addresses, run_round
from shared.telemetry.logs import under
from tests.e2e.conftest import Federation, MakeFederation


@pytest.fixture(scope="module")
def secure(make_federation: MakeFederation) -> Federation:
    return make_federation()


@pytest.fixture(scope="module")
def direct(make_federation: MakeFederation) -> Federation:
    return make_federation(DOORBELL_TOPOLOGY="direct", DOORBELL_ARCHITECTURE="porch-cnn")


def test_a_secure_round_in_and_out_of_order(secure: Federation) -> None:
    # Before anything: every step says what is missing.
    assert "No trained face model" in secure.refused("device1", "/sendmodel?detector=face")
    assert "No masked update has arrived" in secure.refused("aggregator", "/aggregate_models")
    assert "No masked update has arrived" in secure.refused("aggregator", "/send_model_secagg")
    assert "No aggregated model exists" in secure.refused(
        "main", "/send_model_clients?detector=face"
    )
    assert "nothing to compare" in secure.refused("device1", "/performance?detector=face")

    # 1 to 3, and again: repeating is safe, by GET and by POST.
    assert "Trained for round 1 on 16 pictures" in secure.done(
        "device1", "/modeltrain?detector=face"
    )
    assert "ready for round 1" in secure.done("device1", "/sendstatus?detector=face")
    first = secure.done("device1", "/sendmodel?detector=face")
    assert first == secure.done("device1", "/sendmodel?detector=face", "POST")
    assert "not trained for it yet" in secure.done("device2", "/sendstatus?detector=face")

    # One of two updates: refused, and nothing changes.
    said = secure.refused("aggregator", "/aggregate_models?detector=face")
    assert "has 1 of the 2 updates" in said and "Still missing: device-2" in said
    assert "not added up yet" in secure.refused("aggregator", "/send_model_secagg?detector=face")

    # Device 2 skips step 2: step 3 does it.
    secure.done("device2", "/modeltrain?detector=face", "POST")
    secure.done("device2", "/sendmodel?detector=face")
    assert "device-1, device-2" in secure.done("aggregator", "/aggregate_models?detector=face")
    assert "the sum is the same" in secure.done("aggregator", "/aggregate_models?detector=face")
    assert first == secure.done(
        "device1", "/sendmodel?detector=face"
    )  # the same bytes again: still safe
    secure.done("device1", "/modeltrain?detector=face")
    assert "came too late" in secure.refused(
        "device1", "/sendmodel?detector=face"
    )  # new bytes: the cohort is frozen

    handed_over = secure.done("aggregator", "/send_model_secagg?detector=face")
    assert "Round 1 is finished" in handed_over
    assert handed_over == secure.done("aggregator", "/send_model_secagg?detector=face", "POST")
    assert "delivered to device-1, device-2" in secure.done(
        "main", "/send_model_clients?detector=face"
    )
    assert "global: the model of round 1" in secure.done("device2", "/performance?detector=face")

    # The next round starts from the new model, without fetching it again.
    answer = secure.step("device1", "/modeltrain?detector=face", accept="application/json").json()
    assert answer["detectors"]["face"]["round"] == 2
    assert answer["detectors"]["face"]["bytes_down"] == 0


def test_a_detector_is_a_folder_and_who_lacks_it_does_not_take_part(secure: Federation) -> None:
    assert "parcel: Trained for round 1" in secure.done("device1", "/modeltrain?detector=parcel")
    secure.done("device1", "/sendmodel?detector=parcel")
    response = secure.step("device2", "/modeltrain?detector=parcel")
    assert response.status_code == 404
    assert "no pictures for parcel" in response.text
    assert "parcel" not in secure.done("device2", "/sendstatus")
    said = secure.refused("aggregator", "/aggregate_models?detector=parcel")
    assert "1 of the 2 updates" in said and "device-2" not in said


def test_the_aggregator_holds_no_plain_update_and_no_key(secure: Federation) -> None:
    secure.done("device1", "/modeltrain?detector=animal")
    secure.done("device1", "/sendmodel?detector=animal")
    folder = secure.home / "secure-aggregator"
    key = (secure.home / "main-server" / "sealing.key").read_bytes()
    assert (secure.home / "main-server" / "sealing.key").stat().st_mode & 0o777 == 0o600
    for path in folder.rglob("*"):
        if path.is_file():
            assert key[:32] not in path.read_bytes()
    updates = [path.read_bytes() for path in (folder / "blobs").iterdir()]
    assert updates and all(b'"delta"' not in update[:4096] for update in updates)


def test_a_direct_round_needs_no_aggregator(direct: Federation) -> None:
    direct.stop("aggregator")
    devices = (direct.url("device1"), direct.url("device2"))
    at = Addresses(direct.url("main"), direct.url("aggregator"), devices)
    direct.done("device1", "/modeltrain?detector=face")
    direct.done("device1", "/sendmodel?detector=face")
    assert "1 of the 2 updates" in direct.refused("main", "/aggregate_models?detector=face")
    steps = run_round(at, "direct", "face")
    assert [step.path for step in steps if step.server == at.main] == [
        "/aggregate_models",
        "/send_model_clients",
    ]
    assert "sent to the main server" in steps[4].said
    assert "Round 1 is finished" in direct.done(
        "main", "/aggregate_models?detector=face"
    )  # repeated: the same
    accuracy = steps[-1].detectors["face"]["global"]["accuracy"]
    assert 0.0 <= accuracy <= 1.0


def test_browsers_get_a_page_with_the_ancestors_buttons(secure: Federation) -> None:
    browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    for service, labels in {
        "device1": [
            "Model Training (Locally)",
            "Send Model to Federated Server",
            "Measure Model Performance",
        ],
        "aggregator": ["Aggregate Local Models", "Send Aggregated Model to Main Server"],
        "main": ["Send Aggregated Models to Federated Clients"],
    }.items():
        page = secure.step(service, "/", accept=browser)
        assert page.headers["Content-Type"].startswith("text/html")
        assert all(label in page.text for label in labels)
        assert not re.search(r"(src|href)=\"https?://", page.text)
    answer = secure.step("device2", "/sendstatus", "POST", accept=browser)
    assert (
        answer.status_code == 200 and 'role="status"' in answer.text and "registered" in answer.text
    )
    assert secure.step("device1", "/plot/face.png").content.startswith(b"\x89PNG")


def test_json_errors_are_problem_details(secure: Federation) -> None:
    response = secure.step(
        "aggregator", "/send_model_secagg?detector=animal", accept="application/json"
    )
    assert response.status_code == 409
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert (
        problem["status"] == 409
        and problem["type"].startswith("urn:doorbell:problem:")
        and problem["detail"]
    )


def test_the_main_servers_folder_never_holds_a_single_devices_update(secure: Federation) -> None:
    blobs: list[Path] = list((secure.home / "main-server" / "blobs").iterdir())
    assert blobs
    assert all(b"doorbell-model/1" in blob.read_bytes()[:4096] for blob in blobs)


def test_one_id_follows_a_round_through_all_four_logs(secure: Federation) -> None:
    at = Addresses(
        secure.url("main"), secure.url("aggregator"), (secure.url("device1"), secure.url("device2"))
    )
    with under("by-hand-7"):
        run_round(at, "secure", "animal")
    lines = {
        name: [line for line in secure.log(name).splitlines() if "[by-hand-7]" in line]
        for name in secure.ports
    }
    for device in ("device1", "device2"):
        said = " ".join(lines[device])
        assert all(
            f" {path} 200 in " in said
            for path in ("/modeltrain", "/sendmodel", "/aggmodel", "/performance")
        )
    assert len([line for line in lines["aggregator"] if "/cmodel 200 in" in line]) == 2
    said = " ".join(lines["main"])
    assert "by secure-aggregator" in said and "animal: Round 1 is finished" in said
