"""What every service tells Prometheus: in its format, counted rightly, to its operator; and the
dashboard shows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event

from device.app import create_app as device_app
from device.context import Device
from device.metrics import counted_training
from device.metrics import gauges as device_gauges
from device.settings import DeviceSettings
from device.store.records import GlobalModel
from device.training.worker_client import Busy
from main_server.app import create_app as main_app
from main_server.settings import MainSettings
from main_server.store.publication import judge
from main_server.store.versions import newest_version
from shared.errors import StorageUnavailable, TrainingFailed
from shared.storage.database import Database
from shared.telemetry.metrics import expose, refusals
from tests.main_store import read, write
from tests.updates import plain_update

DASHBOARD = Path(__file__).resolve().parents[3] / "dashboards" / "doorbell.json"
TOKEN = "the-operator-of-this-test"
Key = tuple[str, frozenset[tuple[str, str]]]


def parsed(text: str) -> dict[Key, float]:
    """Return name and labels of every sample to its value; each stands there once."""
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples)
    return found


def told(app: Flask) -> dict[Key, float]:
    response = app.test_client().get("/metrics")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(response.text)


def key(name: str, **labels: str) -> Key:
    return name, frozenset(labels.items())


class Since:
    """How much a counter grew since then: the tests of one process share them."""

    def __init__(self, app: Flask) -> None:
        self.app, self.before = app, told(app)

    def __call__(self, name: str, **labels: str) -> float:
        return told(self.app).get(key(name, **labels), 0.0) - self.before.get(
            key(name, **labels), 0.0
        )


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    return main_app(MainSettings.read({"DOORBELL_HOME": str(tmp_path)}))


@pytest.fixture
def doorbell(tmp_path: Path) -> Device:
    """A device that has pictures for two detectors."""
    settings = DeviceSettings.read(1, {"DOORBELL_HOME": str(tmp_path)})
    for detector in ("face", "package"):
        (settings.data / detector / settings.client).mkdir(parents=True)
    return Device.open(settings)


# --- what is told


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"], indirect=True)
def test_a_round_shows_in_the_figures_of_both_servers(federation: Any) -> None:
    main, aggregator = (federation.network.apps[name] for name in ("main", "aggregator"))
    grew = Since(aggregator)
    sent = [federation.upload(name, federation.delta()) for name in ("device-1", "device-2")]
    assert grew("doorbell_uploads_total", detector="package") == 2
    assert grew("doorbell_upload_bytes_total", detector="package") == sum(map(len, sent))
    federation.device("device-1").post("http://aggregator/cmodel", sent[0])
    assert grew("doorbell_uploads_total", detector="package") == 2, (
        "the same once more is not another"
    )
    waits = told(aggregator)
    assert waits[key("doorbell_waiting_updates", detector="package")] == 2
    assert waits[key("doorbell_waiting_round", detector="package")] == 1
    assert 0 <= waits[key("doorbell_waiting_age_seconds", detector="package")] < 60
    before = told(main)
    assert before[key("doorbell_open_round", detector="package")] == 1
    assert 0 <= before[key("doorbell_open_round_age_seconds", detector="package")] < 60
    assert before[key("doorbell_model_round", detector="package")] == 0
    assert before[key("doorbell_devices", state="by hand")] == 2

    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    after, summed = told(main), told(aggregator)
    assert after[key("doorbell_rounds_total", detector="package", outcome="published")] == 1
    assert after[key("doorbell_model_round", detector="package")] == 1
    assert key("doorbell_open_round", detector="package") not in after
    assert summed[key("doorbell_sums_total", detector="package")] == 1
    assert key("doorbell_waiting_updates", detector="package") not in summed


def test_gate_and_accuracy_show(federation: Any) -> None:
    main, store = federation.network.apps["main"], federation.main.store
    for name in ("device-1", "device-2"):
        federation.upload(name, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    newest = read(store, newest_version, "package")
    assert key("doorbell_model_accuracy_ratio", detector="package") not in told(main), (
        "nobody has said"
    )
    said = {
        "trained_round": 1,
        "sent_round": 1,
        "setback": None,
        "refused": None,
        "held": newest.version,
    }
    for name, accuracy, pictures in (("device-1", 0.5, 10), ("device-2", 0.9, 30)):
        score = {"version": newest.version, "accuracy": accuracy, "pictures": pictures}
        message = {
            "address": f"http://{name}",
            "wait_s": 0,
            "detectors": {"package": said | {"score": score}},
        }
        federation.device(name).post_json("http://main/work", message)
    assert told(main)[key("doorbell_model_accuracy_ratio", detector="package")] == pytest.approx(
        0.8
    )
    assert key("doorbell_versions_total", detector="package", gate="pending") not in told(main)
    before = told(main).get(key("doorbell_versions_total", detector="package", gate="passed"), 0)
    assert write(store, judge, newest, "passed", "", 1.0)
    assert (
        told(main)[key("doorbell_versions_total", detector="package", gate="passed")] == before + 1
    )


def test_models_that_are_pushed_missed_and_fetched_are_counted(federation: Any) -> None:
    grew = Since(federation.network.apps["main"])
    base = federation.announce("device-1").base_version
    federation.device("device-1").get(f"http://main/model/{base}")
    for name in ("device-1", "device-2"):
        federation.upload(name, federation.delta())
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    federation.network.down.add("device-1")
    federation.step("main", "send_model_clients")
    assert grew("doorbell_deliveries_total", detector="package", how="fetched") == 1
    assert grew("doorbell_deliveries_total", detector="package", how="missed") == 2


def test_plain_updates_are_counted_in_the_direct_topology(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    federation = make_federation(tmp_path, topology="direct")
    grew = Since(federation.network.apps["main"])
    body = plain_update(
        federation.delta(), 10, federation.announce("device-1"), "device-1"
    ).to_bytes()
    federation.device("device-1").post("http://main/cmodel", body)
    assert grew("doorbell_uploads_total", detector="package") == 1
    assert grew("doorbell_upload_bytes_total", detector="package") == len(body)


def test_device_tells_what_it_holds_and_what_waits(doorbell: Device) -> None:
    version = doorbell.blobs.put(b"a model")
    doorbell.store.models.activate(GlobalModel("face", version, 4))
    training = {
        "detector": "face",
        "round": 5,
        "base_version": version,
        "local_model": version,
        "plot": version,
    }
    doorbell.store.trainings.add(training | {"weight": 5, "history": [], "finished_at": 0.0})

    def now() -> Mapping[Key, float]:
        return parsed(expose(lambda: device_gauges(doorbell)).decode())

    assert now()[key("doorbell_held_model_round", detector="face")] == 4
    assert 0 <= now()[key("doorbell_held_model_age_seconds", detector="face")] < 60
    assert key("doorbell_held_model_round", detector="package") not in now()
    assert [
        now()[key("doorbell_unsent_updates", detector=name)] for name in ("face", "package")
    ] == [1, 0]
    newest = doorbell.store.trainings.newest("face")
    assert newest is not None
    doorbell.store.trainings.record_sent(newest)
    assert now()[key("doorbell_unsent_updates", detector="face")] == 0


def test_trainings_are_counted_by_how_they_end(doorbell: Device) -> None:
    grew = Since(device_app(1, doorbell.settings))
    with counted_training("face"):
        pass
    for error in (TrainingFailed("x"), Busy("x")):
        with pytest.raises(type(error)), counted_training("face"):
            raise error
    assert grew("doorbell_trainings_total", detector="face", outcome="done") == 1
    assert grew("doorbell_trainings_total", detector="face", outcome="training-failed") == 1
    assert grew("doorbell_trainings_total", detector="face", outcome="out-of-order") == 0, (
        "it has only to wait"
    )
    assert grew("doorbell_training_seconds_count", detector="face") == 1


# --- HTTP


def test_requests_are_counted_with_labels_that_a_stranger_cannot_choose(app: Flask) -> None:
    grew, client = Since(app), app.test_client()
    client.get("/status")
    for path in ("/one", "/two", "/three"):
        client.get(path)
    client.open("/status", method="STRANGE")
    assert grew("doorbell_http_requests_total", endpoint="status", method="GET", status="200") == 1
    assert grew("doorbell_http_requests_total", endpoint="unknown", method="GET", status="404") == 3
    assert (
        grew("doorbell_http_requests_total", endpoint="unknown", method="other", status="405") == 1
    )
    assert not [name for name in told(app) if "STRANGE" in str(name) or "/one" in str(name)]


def test_bytes_are_those_of_bodies_that_were_taken_and_given(app: Flask) -> None:
    grew, client = Since(app), app.test_client()
    size = len(client.get("/openapi.json").data)
    client.head("/openapi.json")
    assert grew("doorbell_http_sent_bytes_total", endpoint="openapi") == size
    client.post("/work", data=b"x" * 500)
    assert grew("doorbell_http_received_bytes_total", endpoint="work") == 0, (
        "refused, and so not read"
    )


def test_bytes_of_an_update_are_counted_on_its_way_in(federation: Any) -> None:
    grew = Since(federation.network.apps["aggregator"])
    body = federation.upload("device-1", federation.delta())
    assert grew("doorbell_http_received_bytes_total", endpoint="cmodel") == len(body)


def test_what_waits_is_not_among_the_durations(federation: Any) -> None:
    main = federation.network.apps["main"]
    grew = Since(main)
    federation.device("device-1").post_json(
        "http://main/work", {"address": "http://x", "wait_s": 0, "detectors": {}}
    )
    federation.announce("device-1")
    assert grew("doorbell_http_requests_total", endpoint="work", method="POST", status="200") == 1
    assert grew("doorbell_http_request_seconds_count", endpoint="work") == 0
    assert grew("doorbell_http_request_seconds_count", endpoint="clientstatus") == 1


def test_stream_is_counted_without_being_read(app: Flask) -> None:
    begun: list[int] = []

    def events() -> Iterator[bytes]:
        for number in range(10):
            begun.append(number)
            yield b"data: \n\n"

    app.add_url_rule("/stream", "stream", lambda: Response(events(), mimetype="text/event-stream"))
    grew = Since(app)
    response = app.test_client().get("/stream")
    assert len(begun) <= 1
    response.close()
    assert grew("doorbell_http_requests_total", endpoint="stream", method="GET", status="200") == 1
    assert grew("doorbell_http_request_seconds_count", endpoint="stream") == 0


def test_refusals_are_counted_by_reason(app: Flask) -> None:
    before, client = refusals(), app.test_client()
    client.post("/work", json={})
    client.get("/aggregate_models")
    client.get("/nowhere")
    client.get("/", headers={"Host": "elsewhere.example"})
    after = refusals()
    grown = {
        reason: count - before.get(reason, 0)
        for reason, count in after.items()
        if count > before.get(reason, 0)
    }
    assert grown == {"signature-missing": 1, "step": 1, "http-404": 1, "refused": 1}
    assert list(after.values()) == sorted(after.values(), reverse=True)


@pytest.mark.parametrize("token", ["", TOKEN], ids=["no token", "token"])
def test_only_the_operator_reads_it(
    token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if token:
        monkeypatch.setenv("DOORBELL_OPERATOR_TOKEN", token)
    client = main_app(MainSettings.read({"DOORBELL_HOME": str(tmp_path)})).test_client()
    assert client.get("/metrics", headers={"Host": "elsewhere.example"}).status_code == (
        401 if token else 403
    )
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    assert client.get("/metrics", headers=shown).status_code == 200
    assert client.get("/metrics").status_code == (401 if token else 200)


# --- the database


def test_database_that_is_away_takes_only_its_own_figures_with_it(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert told(app)[key("doorbell_database_readable")] == 1

    def away(_: Database) -> None:
        raise StorageUnavailable("The database does not answer.")

    monkeypatch.setattr(Database, "read", away)
    found = told(app)
    assert found[key("doorbell_database_readable")] == 0
    assert key("doorbell_devices", state="online") not in found
    assert (
        found[key("doorbell_http_requests_total", endpoint="metrics", method="GET", status="200")]
        > 0
    )


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """The SQL of all databases, from now on."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("service", ["main", "aggregator"])
def test_more_detectors_take_no_more_queries(
    federation: Any, service: str, statements: list[str]
) -> None:
    app, counts = federation.network.apps[service], []
    for detectors in (("face",), ("animal", "package", "vehicle")):
        for detector in detectors:
            federation.upload("device-1", federation.delta(), detector=detector)
        statements.clear()
        found = told(app)
        counts.append(len([said for said in statements if said.lstrip().startswith("SELECT")]))
    shown = {"main": "doorbell_open_round", "aggregator": "doorbell_waiting_updates"}[service]
    assert len([name for name, _ in found if name == shown]) == 4
    assert counts[0] == counts[1] <= 14


# --- the dashboard


def expressions() -> list[str]:
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return found + [
        str(variable["query"]["query"])
        for variable in board["templating"]["list"]
        if variable["type"] == "query"
    ]


def families(federation: Any, doorbell: Device) -> dict[str, str]:
    """Return name to type of all that the three kinds of services tell."""
    apps = [*federation.network.apps.values(), device_app(1, doorbell.settings)]
    texts = [app.test_client().get("/metrics").text for app in apps]
    return {
        family.name: family.type
        for text in texts
        for family in text_string_to_metric_families(text)
        if family.name.startswith("doorbell_")
    }


def test_dashboard_shows_what_is_told_and_nothing_else(federation: Any, doorbell: Device) -> None:
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    known = {
        name + end: name
        for name, kind in families(federation, doorbell).items()
        for end in ends[kind]
    }
    used = {
        name for expression in expressions() for name in re.findall(r"\bdoorbell_\w+", expression)
    }
    assert used - known.keys() == set()
    assert set(known.values()) - {known[name] for name in used} == set()


def test_dashboard_groups_by_labels_that_there_are(federation: Any, doorbell: Device) -> None:
    assert families(federation, doorbell)
    labels = {
        "detector",
        "outcome",
        "gate",
        "reason",
        "state",
        "how",
        "status",
        "endpoint",
        "le",
        "job",
        "instance",
    }
    named = {
        label.strip()
        for expression in expressions()
        for group in re.findall(r"by \(([^)]*)\)", expression)
        for label in group.split(",")
    }
    assert named <= labels


def test_dashboard_has_the_rows_and_asks_the_chosen_data_source() -> None:
    board = json.loads(DASHBOARD.read_text())
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Rounds and accuracy", "Uploads and refusals", "Devices", "HTTP", "Training"]
    assert "datasource" in [variable["name"] for variable in board["templating"]["list"]]
    shown = [panel for panel in board["panels"] if panel["type"] != "row"]
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in shown)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
