"""What each service says of itself: every address and method, and every status of a problem it can
give, no others.
"""

from __future__ import annotations

import ast
import base64
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from flask import Flask
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate

import device.store.store as device_store
from device.app import create_app as device_app
from device.rounds import participation
from device.settings import DeviceSettings
from device.store.records import GlobalModel
from device.training.worker_client import Trainer
from main_server.app import create_app as main_app
from main_server.members import members
from main_server.models import evaluations, registry
from main_server.rounds import aggregation as sums
from main_server.rounds import announcement, direct, opening, seeds
from main_server.runs import tasks
from main_server.settings import MainSettings
from sec_agg import aggregation
from sec_agg.app import create_app as aggregator_app
from sec_agg.settings import AggregatorSettings
from sec_agg.store.store import Store as AggregatorStore
from shared import errors
from shared.errors import (
    DatasetError,
    DoorbellError,
    Forbidden,
    InvalidMessage,
    NotFound,
    OutOfOrder,
    PeerUnreachable,
    TrainingFailed,
)
from shared.messages import convert, sized
from shared.protocol.joining import JoinRequest
from shared.round.plan import RoundPlan
from shared.security.identity import Identity
from shared.security.joining import JoinCode, Membership, join_request
from shared.transport.http_client import HttpClient
from shared.web import openapi

PROJECT = Path(__file__).resolve().parents[3]
TOKEN = "the-operator-of-this-test"
DETECTOR, VERSION = "person", "0123456789abcdef" * 4
SERVICES = ("device", "main", "aggregator")
PACKAGES = ("shared", "device", "sec_agg", "main_server")
FROM_PEERS = tuple(
    kind("x") for kind in (InvalidMessage, Forbidden, NotFound, OutOfOrder, PeerUnreachable)
)
STEPS = {
    "device": ("/modeltrain", "/sendstatus", "/sendmodel", "/performance"),
    "main": ("/aggregate_models", "/send_model_clients"),
    "aggregator": ("/aggregate_models", "/send_model_secagg"),
}
VERBS: dict[tuple[str, str], Callable[..., object]] = {
    ("main", "/join"): members.admit,
    ("main", "/clientstatus"): announcement.announce,
    ("main", "/work"): tasks.for_device,
    ("main", "/performance"): evaluations.keep_evaluation,
    ("main", "/new_key"): members.change_key,
    ("main", "/roster"): members.roster,
    ("main", "/round/{detector}"): opening.current_round,
    ("main", "/model/{version}"): registry.published_model,
    ("main", "/check_seeds"): seeds.check_seeds,
    ("main", "/secagg_model"): sums.accept_aggregate,
    ("main", "/cmodel"): direct.accept_plain,
    ("aggregator", "/cmodel"): aggregation.accept,
    ("device", "/aggmodel"): participation.install,
}
MORE = {("main", "/join"): {429}, ("aggregator", "/cmodel"): {404, 503}}
"""What the routes, and the main server that the aggregator asks, add to what the docstring of the
verb names.
"""

Make = Callable[..., Flask]


class Peers(HttpClient):
    """Other services that all give one answer."""

    def __init__(self, error: DoorbellError) -> None:
        super().__init__()
        self.error = error

    def _send(self, *_: object, **__: object) -> Any:
        raise self.error


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that makes a service's app with some memory, and with other services as
    given.
    """
    monkeypatch.delenv("DOORBELL_OPERATOR_TOKEN", raising=False)

    def make(service: str, peers: DoorbellError = FROM_PEERS[-1], token: str = "") -> Flask:
        environ, http = {"DOORBELL_HOME": str(tmp_path)}, Peers(peers)
        if token:
            monkeypatch.setenv("DOORBELL_OPERATOR_TOKEN", token)
        app = {
            "device": lambda: device_app(1, DeviceSettings.read(1, environ), http),
            "main": lambda: main_app(MainSettings.read(environ), http),
            "aggregator": lambda: aggregator_app(AggregatorSettings.read(environ), http),
        }[service]()
        app.config["MAX_CONTENT_LENGTH"] = 1000
        return app

    return make


def description(app: Flask) -> Any:
    return app.test_client().get("/openapi.json").json


def problems(said: Any) -> set[int]:
    return {int(status) for status in said["responses"] if int(status) >= 400}


def schema_of(app: Flask, path: str, method: str = "post") -> Draft202012Validator:
    said = description(app)
    body = said["paths"][path][method]["requestBody"]["content"]["application/json"]
    # References to declared messages are within the whole description.
    return Draft202012Validator(body["schema"] | {"components": said["components"]})


@pytest.mark.parametrize("token", ["", TOKEN], ids=["no token", "token"])
@pytest.mark.parametrize("service", SERVICES)
class TestDescription:
    """The document as a whole, of every service, with and without a token."""

    def test_it_is_valid_openapi(self, make: Make, service: str, token: str) -> None:
        validate(description(make(service, token=token)))

    def test_every_address_and_method_is_in_it_and_nothing_else(
        self, make: Make, service: str, token: str
    ) -> None:
        app = make(service, token=token)
        routed = {
            (re.sub(r"<(?:\w+:)?", "{", rule.rule).replace(">", "}"), method.lower())
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}  # what HTTP itself answers
        }
        paths = description(app)["paths"]
        assert {(path, method) for path, methods in paths.items() for method in methods} == routed

    def test_whoever_may_see_the_health_may_see_it(
        self, make: Make, service: str, token: str
    ) -> None:
        stranger = make(service, token=token).test_client()
        seen = [
            stranger.get(path, headers={"Host": "elsewhere.example"})
            for path in ("/healthz", "/openapi.json", "/")
        ]
        assert [answer.status_code for answer in seen] == [200, 200, 401 if token else 403]

    def test_every_operation_says_what_it_does_and_who_may(
        self, make: Make, service: str, token: str
    ) -> None:
        free = {"/healthz", "/openapi.json", "/static/{filename}", "/login", "/join"}
        for path, methods in description(make(service, token=token))["paths"].items():
            message = (service, path) in VERBS and path != "/join"
            needed: list[dict[str, list[str]]] = (
                []
                if path in free
                else [{"signature": []}]
                if message
                else [{"operator": []}]
                if token
                else []
            )
            for said in methods.values():
                assert said["summary"]
                assert said["security"] == needed, path


@pytest.mark.parametrize("path", [*STEPS["device"], "/plot/{detector}.png", "/"])
def test_with_a_token_a_step_can_refuse_as_the_guard_does(make: Make, path: str) -> None:
    app = make("device", token=TOKEN)
    client, address = app.test_client(), path.replace("{detector}", DETECTOR)
    seen = {client.get(address).status_code}
    assert client.post("/login", data={"token": TOKEN}).status_code == 303
    seen.add(client.get(address, headers={"Sec-Fetch-Site": "cross-site"}).status_code)
    for _ in range(11):
        seen.add(
            app.test_client().get(address, headers={"Authorization": "Bearer another"}).status_code
        )
    assert seen == {401, 403, 429}
    assert seen <= problems(description(app)["paths"][path]["get"])


def statuses(app: Flask, path: str, method: str) -> Iterator[int]:
    """Do a step in every way that an operator, or another site, can."""
    ask = partial(app.test_client().open, path, method=method)
    yield ask(headers={"Sec-Fetch-Site": "cross-site"}).status_code
    for name in (None, "other", DETECTOR, "no name"):
        yield ask(query_string={"detector": name} if name else {}).status_code
    if method == "POST":
        yield ask(data=b"x" * 1001, content_type="application/x-www-form-urlencoded").status_code


@pytest.fixture
def remembered(tmp_path: Path, round_settings: Callable[..., RoundPlan]) -> None:
    """Let the device have trained, and the aggregator have added up."""
    settings = DeviceSettings.read(1, {"DOORBELL_HOME": str(tmp_path)})
    (settings.data / DETECTOR / settings.client).mkdir(parents=True)
    (settings.data / "cat" / settings.client).mkdir(parents=True)
    current, store = round_settings(detector=DETECTOR), device_store.DeviceStore(settings.folder)
    Membership(bytes(32), settings.name).save(settings.folder)
    store.rounds.remember([current])
    store.models.activate(GlobalModel(DETECTOR, current.base_version, 2))
    training = {
        "detector": DETECTOR,
        "round": 3,
        "base_version": VERSION,
        "local_model": VERSION,
        "plot": VERSION,
    }
    store.trainings.add(training | {"weight": 5, "history": [], "finished_at": 0.0})
    aggregator = AggregatorSettings.read({"DOORBELL_HOME": str(tmp_path)})
    sums = AggregatorStore(aggregator.folder)
    Membership(bytes(32), "secure-aggregator").save(aggregator.folder)
    sums.remember_round(current)
    sums.freeze(DETECTOR, current.round, (), {})
    (aggregator.folder / "blobs").mkdir()
    (aggregator.folder / "blobs" / VERSION).write_bytes(b"sum")
    sums.keep_sum(DETECTOR, current.round, VERSION)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("service", "path"), [(service, path) for service in SERVICES for path in STEPS[service]]
)
@pytest.mark.usefixtures("remembered")
def test_step_can_give_just_the_problems_that_are_described(
    make: Make, service: str, path: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.disable(logging.CRITICAL)
    trained: list[DoorbellError] = [DatasetError("x"), TrainingFailed("x"), OutOfOrder("x")]
    monkeypatch.setattr(Trainer, "run", lambda *_: (_ for _ in ()).throw(trained[0]))
    seen = {500}  # what nobody planned for
    for error in FROM_PEERS:
        seen |= set(statuses(make(service, error), path, method))
    for _ in range(2):
        trained.pop(0)
        seen |= set(statuses(make(service), path, method))
    logging.disable(logging.NOTSET)
    assert seen - {200} == problems(description(make(service))["paths"][path][method.lower()])


@pytest.mark.parametrize(("service", "path"), VERBS, ids=str)
def test_message_can_give_the_problems_that_its_verb_names(
    make: Make, service: str, path: str
) -> None:
    _, _, raises = (inspect.getdoc(VERBS[service, path]) or "").partition("Raises:")
    named = {
        getattr(errors, name).status
        for name in re.findall(r"\b[A-Z]\w+(?=[\w, ]*:)", raises)
        if hasattr(errors, name)
    }
    signed = {400, 401, 403, 413} if path != "/join" else {400, 413}
    (said,) = description(make(service))["paths"][path].values()
    assert problems(said) == {int(status) for status in named} | signed | MORE.get(
        (service, path), set()
    ) | {500}


def test_every_problem_type_of_the_sources_is_described(make: Make) -> None:
    """Also those that an error gets where it is raised."""
    written: set[str] = set()
    for source in (path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            if (
                isinstance(node, ast.keyword)
                and node.arg == "slug"
                and isinstance(node.value, ast.Constant)
            ):
                written.add(str(node.value.value))
            if isinstance(node, ast.Constant) and str(node.value).startswith(
                "urn:doorbell:problem:"
            ):
                written.add(str(node.value).rpartition(":")[2])
    described = description(make("main"))["components"]["schemas"]["Problem"]["properties"]["type"][
        "enum"
    ]
    assert written - {""} == set(openapi.OTHER_TYPES)
    assert {f"urn:doorbell:problem:{slug}" for slug in written - {""}} <= set(described)


class TestBodies:
    """What members send is what is described, and what is described is no more than what is taken."""

    def test_request_to_join(self, make: Make) -> None:
        schema, code = schema_of(make("main"), "/join"), JoinCode.make("0" * 32)
        asking = join_request(
            code, "device-1", "device", Identity.from_private(bytes(32))
        ).to_json()
        schema.validate(asking)
        for changes in (
            {"name": "No Name"},
            {"role": "main-server"},
            {"proof": "AAAA"},
            {"more": 1},
            {"invitation": 1},
        ):
            assert not schema.is_valid(asking | changes), changes
            with pytest.raises(InvalidMessage):
                convert(JoinRequest, asking | changes)

    @pytest.mark.parametrize(
        "changes",
        [
            {"address": "ftp://x"},
            {"address": "http://"},
            {"address": 1},
            {"address": "http://x/?y"},
            {"detectors": {"person": 0}},
            {"detectors": {"person": "1"}},
            {"detectors": {"Person": 1}},
            {"detectors": []},
            {"detectors": {f"d{n}": None for n in range(65)}},
        ],
        ids=str,
    )
    def test_status_of_a_device(self, make: Make, changes: Mapping[str, object]) -> None:
        schema = schema_of(make("main"), "/clientstatus")
        status = {"address": "http://localhost:8001", "detectors": {"person": None, "cat": 3}}
        schema.validate(status)
        assert not schema.is_valid(status | dict(changes))

    def test_round_settings(self, make: Make, round_settings: Callable[..., RoundPlan]) -> None:
        answer = description(make("main"))["paths"]["/round/{detector}"]["get"]["responses"]["200"]
        described = answer["content"]["application/json"]["schema"]
        components = description(make("main"))["components"]
        schema = Draft202012Validator(described | {"components": components})
        for settings in (round_settings(), round_settings(topology="direct", clipping_norm=2.5)):
            schema.validate({"round": settings.to_json(), "devices": ["device-1"]})
        assert not schema.is_valid(
            {"round": round_settings().to_json() | {"more": 1}, "devices": []}
        )
        assert not schema.is_valid(
            {"round": round_settings().to_json() | {"topology": "other"}, "devices": []}
        )

    @pytest.mark.parametrize("size", range(1, 8))
    def test_bytes_in_base64(self, size: int) -> None:
        schema = Draft202012Validator(msgspec.json.schema(Annotated[bytes, sized(size)]))
        for other in range(10):
            assert schema.is_valid(base64.b64encode(bytes(other)).decode()) is (other == size)
