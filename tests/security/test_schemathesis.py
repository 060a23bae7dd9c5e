"""Every service does what its own description says, and no more, whatever is asked of it.

The requests are made from the description: what it permits, what it does not, and methods that it
does not name. They come signed by a member who may send them, unsigned, and from an operator with a
token.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from requests.auth import AuthBase
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from learning.architectures import architecture
from learning.model import Model
from shared.protocol.joining import Admission
from shared.round.masking import SEALED_BYTES
from shared.round.payloads import Aggregate, MaskedUpdate, PlainUpdate
from shared.round.plan import RoundPlan, parse_round_plan
from shared.security.identity import Identity
from shared.security.joining import JoinCode, Membership, join_request
from shared.security.signing import sign_request
from shared.transport.http_client import CONTAINER_TYPE, HttpClient, Peer
from tests.e2e.conftest import Federation
from tests.warm.services import Nursery

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = "the-operator-of-this-test"
MEMBER, DETECTOR = "fuzzer", "face"
AUDIENCES = {"main": "main-server", "aggregator": "secure-aggregator", "device1": "device-1"}
OF_AGGREGATOR = ("/roster", "/round", "/check_seeds", "/secagg_model")
REACHED = {  # behind the gate, where chance alone might not lead
    "main": {
        "POST /clientstatus": {200, 400},
        "POST /check_seeds": {200, 400},
        "POST /cmodel": {400, 409},
        "GET /roster": {200},
        "GET /round/{detector}": {200, 400, 404},
        "GET /model/{version}": {200, 400, 404},
    },
    "aggregator": {"POST /cmodel": {200, 400}},
    "device1": {"POST /aggmodel": {400, 403}},
}
PROMISES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
BOUNDED = SchemathesisConfig.from_dict(
    {
        "seed": 1,
        "generation": {
            "with-security-parameters": False,
            "deterministic": True,
            "max-examples": 5,
            "no-shrink": True,
            "database": "none",
        },
        "phases": {"stateful": {"enabled": False}},
        "checks": {"enabled": False} | {promise: {"enabled": True} for promise in PROMISES},
    }
)
GOOD: list[bytes] = [b""]  # containers that the service under test would take


@st.composite
def containers(draw: st.DrawFn) -> bytes:
    """A good container, or one that is cut, changed in one byte, or none at all."""
    if draw(st.integers(0, 9)) == 9:
        return draw(st.binary(max_size=64))
    whole = GOOD[draw(st.integers(0, 1)) % len(GOOD)]
    place = draw(st.none() | st.integers(0, 3000))
    if place is None:
        return whole
    return (
        whole[:place]
        + draw(st.binary(max_size=1))
        + draw(st.sampled_from((b"", whole[place + 1 :])))
    )


schemathesis.openapi.media_type(CONTAINER_TYPE, containers())


@dataclass
class Signer(AuthBase):
    """Signs what goes onto the wire, as the member whose message it is."""

    service: str
    member: Identity
    aggregator: Identity
    main: Identity

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        body = request.body or b""
        data = body.encode() if isinstance(body, str) else bytes(body)  # type: ignore[arg-type]
        device = (
            self.aggregator
            if urlsplit(str(request.url)).path.startswith(OF_AGGREGATOR)
            else self.member
        )
        identity = self.main if self.service == "device1" else device
        if not data or "Content-Type" in request.headers:
            url, fields = (
                str(request.url),
                {name: str(value) for name, value in request.headers.items()},
            )
            audience = AUDIENCES[self.service]
            signature = sign_request(
                str(request.method), url, fields, data, identity, audience, time.time()
            )
            request.headers.update(signature)
        return request


@dataclass
class Field:
    """Services under gunicorn, and keys of everybody who may send messages to one of them."""

    federation: Federation
    guarded: Federation
    member: Identity
    current: RoundPlan

    def url(self, service: str, path: str) -> str:
        federation = self.guarded if service == "guarded" else self.federation
        return str(federation.url("device1" if service == "guarded" else service, path))

    def identity(self, service: str) -> Identity:
        return Identity.open(self.federation.home / service / "identity.key")

    def signer(self, service: str) -> Signer:
        return Signer(
            service, self.member, self.identity("secure-aggregator"), self.identity("main-server")
        )


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Field]:
    """Start all services; a device without pictures refuses to train before it starts to."""
    folder = tmp_path_factory.mktemp("contract")
    variables = {"DOORBELL_DATA": str(folder / "no-pictures")}
    alone = {
        "GUNICORN_CMD_ARGS": "--threads 1"
    }  # so that nobody has room to wait for work: each answer comes at once
    federation = Federation(folder / "home", variables | alone, nursery)
    guarded = Federation(
        folder / "guarded", variables | {"DOORBELL_OPERATOR_TOKEN": TOKEN}, nursery
    )
    try:
        for service in AUDIENCES:
            federation.start(service)
        guarded.start("device1")
        member = Identity.from_private(secrets.token_bytes(32))
        yield Field(federation, guarded, member, take_part(federation, member))
    finally:
        federation.stop(*federation.processes)
        guarded.stop(*guarded.processes)


def take_part(federation: Federation, member: Identity) -> RoundPlan:
    """Let the member, the aggregator and the device join; return the round that is open for the
    member.
    """
    code = JoinCode.parse((federation.home / "main-server" / "local-join-code.device").read_text())
    asking, http = join_request(code, MEMBER, "device", member), HttpClient(member)
    answer = http.post_json(federation.url("main", "/join"), asking).read(Admission)
    main = Peer(
        "main-server",
        federation.url("main"),
        Membership.accept(code, asking, answer).main_public_key,
    )
    status = {"address": "http://localhost:9", "detectors": {DETECTOR: None}}
    rounds = http.post_json(f"{main.url}/clientstatus", status, main).json["rounds"]
    assert federation.step("device1", "/sendstatus").status_code == 409
    assert (
        federation.step("aggregator", f"/aggregate_models?detector={DETECTOR}").status_code == 409
    )
    return parse_round_plan(rounds[DETECTOR])


def good_containers(current: RoundPlan) -> dict[str, list[bytes]]:
    """Return what each service would take, but for what only a training, a sum or a manifest can
    show.
    """
    where, spec = (
        (current.detector, current.round, current.base_version),
        architecture(current.architecture),
    )
    seed, vector = bytes(SEALED_BYTES), np.zeros(current.size + 2, "<u4")
    plain = PlainUpdate(*where, MEMBER, 5, np.zeros(current.size, "<f4"))
    aggregate = Aggregate(*where, {MEMBER: seed, "somebody": seed}, vector)
    model = Model(
        current.detector, 1, current.base_version, spec.name, spec.initial(np.random.default_rng(0))
    )
    return {
        "main": [plain.to_bytes(), aggregate.to_bytes()],
        "aggregator": [MaskedUpdate(*where, MEMBER, seed, vector).to_bytes()],
        "device1": [model.to_bytes()],
    }


@dataclass
class Found:
    """What a run came to: statuses by operation, and promises that were broken, with how to see it
    again.
    """

    statuses: dict[str, set[int]]
    broken: list[str]


def described(field: Field, service: str, *without: str, **headers: str) -> Any:
    said = requests.get(field.url(service, "/openapi.json"), timeout=30).json()
    if service == "main":
        give_examples(said["paths"], field.current)
    schema = schemathesis.openapi.from_dict(said, config=BOUNDED)
    schema.config.update(base_url=field.url(service, ""), headers=headers)
    return schema.exclude(path=list(without)) if without else schema


def give_examples(paths: Any, current: RoundPlan) -> None:
    """Add to a description what nobody guesses: which round is open, and from what it starts."""
    values = {
        "/model/{version}": (current.base_version, "0" * 64),
        "/round/{detector}": (DETECTOR, "nobody"),
    }
    for path, examples in values.items():
        paths[path]["get"]["parameters"][0]["examples"] = {
            value: {"value": value} for value in examples
        }
    seeds = {"detector": DETECTOR, "round": current.round, "sealed_seeds": {MEMBER: "AAAA"}}
    paths["/check_seeds"]["post"]["requestBody"]["content"]["application/json"]["example"] = seeds


def run(description: Any) -> Found:
    """Ask a service whatever its description suggests, and note which answers are not as it says."""
    found = Found({}, [])
    for event in from_schema(description).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.broken.append(repr(event))
        elif isinstance(event, events.ScenarioFinished):
            note(event.recorder, found)
    return found


def note(recorder: Any, found: Found) -> None:
    for case_id, exchange in recorder.interactions.items():
        if exchange.response is None:
            found.broken.append(f"{recorder.label}: no answer")
        elif (
            exchange.response.status_code == 414
        ):  # gunicorn's own, for an address that is longer than any of ours
            continue
        elif recorder.label.startswith(f"{exchange.request.method} "):
            found.statuses.setdefault(recorder.label, set()).add(exchange.response.status_code)
        failed = [
            check.failure_info for check in recorder.checks.get(case_id, ()) if check.failure_info
        ]
        found.broken += [f"{recorder.label}: {info.failure}\n{info.code_sample}" for info in failed]


def operations(description: Any, security: str | None = None) -> set[str]:
    """Return the labels of what is described; only what needs that security, if it is named."""
    paths = description.raw_schema["paths"].items()
    every = {
        f"{method.upper()} {path}": said
        for path, methods in paths
        for method, said in methods.items()
    }
    return {
        label
        for label, said in every.items()
        if security is None or {security: []} in said["security"]
    }


@pytest.mark.parametrize("service", AUDIENCES)
def test_service_keeps_what_it_says_to_members(field: Field, service: str) -> None:
    description = described(field, service, Accept="application/json")
    description.auth.set_from_requests(field.signer(service))
    description.config.generation.update(max_examples=20)
    GOOD[:] = good_containers(field.current)[service]
    found = run(description)
    assert not found.broken, "\n\n".join(found.broken)
    assert found.statuses.keys() == operations(description)
    behind_the_gate = {label for label, seen in found.statuses.items() if seen - {401}}
    assert operations(description, "signature") <= behind_the_gate
    for label, statuses in REACHED[service].items():
        assert statuses <= found.statuses[label], label


@pytest.mark.parametrize("service", AUDIENCES)
def test_service_keeps_what_it_says_to_strangers_and_lets_none_in(
    field: Field, service: str
) -> None:
    description = described(field, service, Accept="text/html")
    messages = operations(description, "signature")
    found = run(description.include(path=[label.partition(" ")[2] for label in messages]))
    assert not found.broken, "\n\n".join(found.broken)
    assert {label: seen - {404} for label, seen in found.statuses.items()} == {
        label: {401} for label in messages
    }


def test_service_keeps_what_it_says_to_an_operator_with_a_token(field: Field) -> None:
    description = described(field, "guarded", "/login", Authorization=f"Bearer {TOKEN}")
    found = run(description)
    assert not found.broken, "\n\n".join(found.broken)
    assert {label for label, seen in found.statuses.items() if 401 in seen} <= operations(
        description, "signature"
    )
    found = run(
        described(field, "guarded").include(path="/login")
    )  # locks everybody out, and so comes last
    assert not found.broken, "\n\n".join(found.broken)
    assert found.statuses == {"GET /login": {200}, "POST /login": {401, 429}}
