"""The main server's controls over HTTP: runs, the way back, pins, and how things stand."""

from __future__ import annotations

from typing import Any

import pytest

from main_server.runs import runs
from main_server.store.devices import all_detectors
from main_server.store.pins import find_pins, set_pin
from main_server.store.publication import note_status
from main_server.store.records import Device, Status
from main_server.store.runs import newest_runs
from main_server.store.versions import newest_version
from tests.main_store import read, write

STEPS = ("/run", "/stop_run", "/resume_run", "/rollback", "/pin", "/unpin")
JSON = {"Accept": "application/json"}


@pytest.fixture
def client(federation: Any) -> Any:
    """The operator's browser, on the services' own machine; a takes part in package and raccoon."""
    federation.announce("a", "package")
    federation.announce("a", "raccoon")
    return federation.network.apps["main"].test_client()


def publish(federation: Any) -> Any:
    for device in ("a", "b"):
        federation.upload(device, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    return read(federation.main.store, newest_version, "package")


def states(federation: Any) -> dict[str, str]:
    return {run.detector: run.state for run in read(federation.main.store, newest_runs)}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_run_is_started_stopped_and_resumed_by_query(
    federation: Any, client: Any, method: str
) -> None:
    def step(path: str) -> str:
        answer = client.open(path, method=method)
        assert (answer.status_code, answer.mimetype) == (200, "text/plain")
        return str(answer.text)

    assert (
        step("/run?detector=package&rounds=3")
        == "package: A run of 3 rounds has begun with round 1.\n"
    )
    assert states(federation) == {"package": "running"}
    assert step("/stop_run?detector=package") == (
        "package: The run is stopped: 0 of 3 rounds are done. What was sent is kept; resume goes on from here.\n"
    )
    assert states(federation) == {"package": "stopped"}
    assert (
        step("/resume_run?detector=package")
        == "package: The run goes on: 0 of 3 rounds are done.\n"
    )
    assert states(federation) == {"package": "running"}


def test_steps_take_a_posted_form(federation: Any, client: Any) -> None:
    first = read(federation.main.store, newest_version, "package")
    assert client.post("/run", data={"detector": "package", "rounds": "5"}).status_code == 200
    (run,) = read(federation.main.store, newest_runs)
    assert (run.detector, run.rounds) == ("package", 5)
    assert client.post("/stop_run", data={"detector": "package"}).status_code == 200
    publish(federation)
    assert client.post("/rollback", data={"version": first.version}).status_code == 200
    assert read(federation.main.store, newest_version, "package").parent == first.version
    assert client.post("/pin", data={"version": first.version[:10]}).status_code == 200
    assert list(read(federation.main.store, find_pins)) == ["package"]
    assert client.post("/unpin", data={"detector": "package"}).status_code == 200
    assert read(federation.main.store, find_pins) == {}


def test_run_without_a_number_has_one_round_and_without_a_detector_runs_all(
    federation: Any, client: Any
) -> None:
    assert client.post("/run").status_code == 200
    assert {(run.detector, run.rounds) for run in read(federation.main.store, newest_runs)} == {
        ("package", 1),
        ("raccoon", 1),
    }
    assert client.post("/stop_run").status_code == 200
    assert set(states(federation).values()) == {"stopped"}
    assert client.post("/resume_run?detector=raccoon").status_code == 200
    assert client.post("/resume_run").status_code == 200, "one is running, and the other goes on"
    assert set(states(federation).values()) == {"running"}


def test_answers_come_as_json(federation: Any, client: Any) -> None:
    answer = client.post("/run?detector=package&rounds=2", headers=JSON)
    assert answer.json["detectors"]["package"] == {
        "status": 200,
        "said": "A run of 2 rounds has begun with round 1.",
        "rounds": 2,
        "first_round": 1,
    }
    version = read(federation.main.store, newest_version, "package")
    answer = client.post("/pin", data={"version": version.version}, headers=JSON)
    assert (answer.json["version"], answer.json["round"]) == (version.version, 0)
    assert answer.json["said"].startswith("package is pinned to the model of round 0")
    answer = client.post("/run?detector=package", headers=JSON)
    assert (answer.status_code, answer.mimetype) == (409, "application/problem+json")
    assert "package is pinned" in answer.json["detail"]


@pytest.mark.parametrize(
    "rounds", ["0", "-1", "1.5", "many", "1000000", "1e3", " 1", "²", "٣", "100001"]
)
def test_number_of_rounds_that_is_none_is_answered_with_a_sentence(
    federation: Any, client: Any, rounds: str
) -> None:
    answer = client.get("/run", query_string={"detector": "package", "rounds": rounds})
    assert answer.status_code == 400
    assert (
        "number of rounds is a whole number" in answer.text
        or "A run has from 1 to 100000 rounds" in answer.text
    )
    assert read(federation.main.store, newest_runs) == ()


@pytest.mark.parametrize("path", ["/rollback", "/pin"])
@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({}, 400, "at least 6"),
        ({"version": "abc"}, 400, "at least 6"),
        ({"version": "%_%_%_%_"}, 400, "at least 6"),
        ({"version": "\0" * 6}, 400, "at least 6"),
        ({"version": "0" * 12}, 404, "No version begins with 000000000000"),
    ],
    ids=str,
)
def test_version_that_is_none_is_answered_with_a_sentence(
    client: Any, path: str, query: dict[str, str], status: int, words: str
) -> None:
    answer = client.get(path, query_string=query)
    assert answer.status_code == status
    assert words in answer.text


@pytest.mark.parametrize("path", ["/run", "/stop_run", "/resume_run", "/unpin"])
def test_detector_that_is_none_is_answered_with_a_sentence(
    federation: Any, client: Any, path: str
) -> None:
    answer = client.get(path, query_string={"detector": "No Name"})
    assert (answer.status_code, "That is not the name of a detector" in answer.text) == (400, True)
    unknown = client.get(path, query_string={"detector": "pakcage"})
    assert unknown.status_code == (404 if path == "/run" else 409)
    assert "pakcage" in unknown.text
    assert read(federation.main.store, all_detectors) == ("package", "raccoon")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/stop_run", "No run of package is going on"),
        ("/resume_run", "No run of package was stopped"),
        ("/unpin", "package is not pinned"),
    ],
)
def test_step_out_of_order_is_answered_with_a_sentence(client: Any, path: str, words: str) -> None:
    answer = client.post(path)
    assert answer.status_code == 409
    assert words in answer.text


@pytest.mark.parametrize("path", ["/run", "/stop_run", "/resume_run", "/unpin"])
def test_without_any_device_there_is_nothing_to_do(federation: Any, path: str) -> None:
    answer = federation.network.apps["main"].test_client().post(path)
    assert (answer.status_code, "No device has announced itself yet" in answer.text) == (409, True)


@pytest.mark.parametrize("path", [*STEPS, "/status"])
def test_nobody_but_the_operator_is_answered(federation: Any, client: Any, path: str) -> None:
    before = federation.remembered("main-server")
    methods = ["GET"] if path == "/status" else ["GET", "POST"]
    for method in methods:
        for headers in ({"Host": "doorbell.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.open(path, method=method, headers=headers).status_code == 403
        elsewhere = client.open(path, method=method, environ_base={"REMOTE_ADDR": "192.0.2.7"})
        assert elsewhere.status_code == 403
    if path != "/status":
        assert client.head(path).status_code == 405, (
            "who asks for headers alone does not mean to do it"
        )
    assert federation.remembered("main-server") == before


def test_status_tells_how_things_stand(federation: Any, client: Any) -> None:
    main = federation.main
    version = publish(federation)
    said = Status(None, None, version.version, (version.version, 0.75, 80), None)
    write(main.store, note_status, Device("a", "http://a", main.clock(), True), {"package": said})
    runs.start(main, "package", 2)
    write(main.store, set_pin, "raccoon", read(main.store, newest_version, "raccoon").version, 1.0)
    answer = client.get("/status")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    shown = answer.json
    assert (shown["federation"], shown["topology"]) == ("doorbell", "secure")
    assert [(each["device"], each["state"]) for each in shown["devices"]] == [
        ("a", "online"),
        ("b", "by hand"),
    ]
    package, raccoon = shown["detectors"]
    assert (package["detector"], raccoon["detector"]) == ("package", "raccoon")
    assert (package["round"]["round"], package["round"]["state"], package["round"]["sent"]) == (
        2,
        "open",
        {},
    )
    assert (package["run"]["state"], package["run"]["rounds"], package["run"]["done"]) == (
        "running",
        2,
        0,
    )
    assert [each["round"] for each in package["versions"]] == [1, 0]
    assert package["versions"][0]["score"] == {"accuracy": 0.75, "devices": 1, "pictures": 80}
    assert package["versions"][1]["score"] is None
    assert (package["pinned"], raccoon["pinned"]) == (None, raccoon["versions"][0]["version"])
    assert raccoon["run"] is None
    assert shown["events"][0]["kind"] == "pinned"
    assert {"published", "scored", "run-started", "joined"} <= {
        event["kind"] for event in shown["events"]
    }


def test_status_of_a_federation_without_devices(federation: Any) -> None:
    shown = federation.network.apps["main"].test_client().get("/status").json
    assert (shown["devices"], shown["detectors"]) == ([], [])


def test_controls_are_described(federation: Any) -> None:
    paths = federation.network.apps["main"].test_client().get("/openapi.json").json["paths"]
    for path in STEPS:
        assert set(paths[path]) == {"get", "post"}
        for said in paths[path].values():
            assert said["summary"]
            assert {"400", "403", "409"} <= set(said["responses"])
            assert ("404" in said["responses"]) is (path in ("/run", "/rollback", "/pin"))
        form = paths[path]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"][
            "schema"
        ]
        names = {each["name"] for each in paths[path]["get"]["parameters"]}
        assert set(form["properties"]) == names
    assert set(paths["/status"]) == {"get"}
    assert {each["name"] for each in paths["/run"]["get"]["parameters"]} == {"detector", "rounds"}
    for path in ("/rollback", "/pin"):
        assert {each["name"] for each in paths[path]["get"]["parameters"]} == {"version"}
