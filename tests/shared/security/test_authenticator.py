"""Who may call what: the gate of every service, and a service's own standing in the federation."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, jsonify, request

from main_server.members.members import invite, rename
from main_server.store.devices import all_devices
from main_server.store.members import all_members, find_invitation
from shared.errors import (
    BadSignature,
    DoorbellError,
    Forbidden,
    InvalidMessage,
    NotSigned,
    PeerUnreachable,
)
from shared.messages import convert
from shared.protocol.joining import JoinRequest
from shared.security.authenticator import AnyRole, Caller, Gate, Member, Standing
from shared.security.identity import Identity
from shared.security.joining import JoinCode, Membership, admission
from shared.security.nonces import Nonces
from shared.security.signing import sign_request, verify_response
from shared.transport.http_client import Peer
from tests.main_store import read

NOW = 1_800_000_000.0
GATE, PORCH, SUMMER, GONE, STRANGER, MAIN = (
    Identity.from_private(bytes([number]) * 32) for number in range(1, 7)
)
TARGET, BODY, TYPE = (
    "/cmodel?secret=1",
    b"masked update",
    {"Content-Type": "application/octet-stream"},
)
THREADS = 8
DEVICE: tuple[AnyRole, ...] = ("device",)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    members = {
        PORCH.key_id: Member("porch", "device", PORCH.public),
        SUMMER.key_id: Member("secure-aggregator", "secure-aggregator", SUMMER.public),
        MAIN.key_id: Member("main-server", "main-server", MAIN.public),
        GONE.key_id: Member("gone", "device", GONE.public, "it was stolen"),
    }
    with closing(Nonces(tmp_path)) as nonces:
        yield Gate(GATE, lambda: "gate", members.get, nonces, lambda: NOW)


@dataclass
class Sent:
    """A signed request on its way to the gate; `read` counts how often its body was asked for."""

    headers: dict[str, str]
    method: str = "POST"
    target: str = TARGET
    body: bytes = BODY
    read: list[int] = field(default_factory=list)

    def to(self, gate: Gate, roles: tuple[AnyRole, ...] = DEVICE) -> Caller:
        def read_body() -> bytes:
            self.read.append(1)
            return self.body

        return gate.admit(self.method, self.target, self.headers, read_body, roles)


def sent(identity: Identity = PORCH, audience: str = "gate", now: float = NOW) -> Sent:
    return Sent(
        TYPE | sign_request("POST", f"http://any{TARGET}", TYPE, BODY, identity, audience, now)
    )


# --- the gate


@pytest.mark.parametrize(
    ("identity", "role", "name"),
    [
        (PORCH, "device", "porch"),
        (SUMMER, "secure-aggregator", "secure-aggregator"),
        (MAIN, "main-server", "main-server"),
    ],
)
def test_member_with_the_role_is_let_in_under_its_name(
    gate: Gate, identity: Identity, role: Any, name: str
) -> None:
    caller = sent(identity).to(gate, (role,))
    assert (caller.name, caller.member.role, caller.verified.key_id) == (
        name,
        role,
        identity.key_id,
    )
    assert caller.verified.body == BODY
    assert sent(identity).to(gate, ("device", "secure-aggregator", "main-server")).name == name


@pytest.mark.parametrize("identity", [PORCH, SUMMER, MAIN], ids=["device", "aggregator", "main"])
def test_member_with_another_role_is_refused(gate: Gate, identity: Identity) -> None:
    everyone: tuple[AnyRole, ...] = ("device", "secure-aggregator", "main-server")
    mine = sent(identity).to(gate, everyone).member.role
    others = tuple(role for role in everyone if role != mine)
    for roles in (others, others[:1], ()):
        with pytest.raises(Forbidden, match=f"is a {mine}, and may not send this") as refused:
            sent(identity).to(gate, roles)
        assert (refused.value.slug, refused.value.status) == ("wrong-role", 403)


def test_revoked_member_is_told_why(gate: Gate) -> None:
    with pytest.raises(Forbidden, match="gone was revoked: it was stolen") as refused:
        sent(GONE).to(gate)
    assert (refused.value.slug, refused.value.status) == ("revoked", 403)
    assert refused.value.problem()["type"] == "urn:doorbell:problem:revoked"


def test_strangers_key_is_refused_before_its_body_is_read(gate: Gate) -> None:
    message = sent(STRANGER)
    with pytest.raises(BadSignature) as refused:
        message.to(gate)
    assert (refused.value.slug, refused.value.status) == ("signature-unknown-key", 401)
    assert message.read == []


def test_message_for_another_service_is_refused(gate: Gate) -> None:
    with pytest.raises(BadSignature) as refused:
        sent(audience="another").to(gate)
    assert (refused.value.slug, refused.value.status) == ("signature-wrong-audience", 401)


def test_gate_answers_to_the_name_that_its_service_has_now(gate: Gate) -> None:
    names = iter(["gate", "new-name"])
    renamed = replace(gate, name=lambda: next(names))
    sent().to(renamed)
    with pytest.raises(BadSignature):
        sent().to(renamed)


def test_message_counts_once(gate: Gate) -> None:
    message = sent()
    message.to(gate)
    with pytest.raises(BadSignature) as refused:
        message.to(gate)
    assert (refused.value.slug, refused.value.status) == ("signature-replayed", 401)


def test_message_refused_for_its_senders_role_does_not_count_later_either(gate: Gate) -> None:
    message = sent()
    with pytest.raises(Forbidden):
        message.to(gate, ("main-server",))
    with pytest.raises(BadSignature):
        message.to(gate)


@pytest.mark.parametrize(
    ("age", "slug"), [(-301, "signature-from-the-future"), (601, "signature-expired")]
)
def test_gate_looks_at_its_clock(gate: Gate, age: float, slug: str) -> None:
    with pytest.raises(BadSignature) as refused:
        sent(now=NOW - age).to(gate)
    assert refused.value.slug == slug


def test_message_without_signature_is_refused(gate: Gate) -> None:
    with pytest.raises(NotSigned) as refused:
        Sent(TYPE).to(gate)
    assert (refused.value.slug, refused.value.status) == ("signature-missing", 401)


@pytest.mark.parametrize(
    ("changed", "slug"),
    [
        ({"method": "PUT"}, "signature-invalid"),
        ({"target": "/cmodel?secret=2"}, "signature-invalid"),
        ({"target": "/cmodel"}, "signature-invalid"),
        ({"target": "/other?secret=1"}, "signature-invalid"),
        ({"body": b"another update"}, "digest-mismatch"),
    ],
)
def test_message_that_was_changed_is_refused(
    gate: Gate, changed: dict[str, Any], slug: str
) -> None:
    with pytest.raises(BadSignature) as refused:
        replace(sent(), **changed).to(gate)
    assert refused.value.slug == slug


def test_error_while_members_are_looked_up_reaches_the_sender(gate: Gate) -> None:
    def unreachable(_: str) -> Member:
        raise PeerUnreachable("The main server does not answer.")

    message = sent()
    with pytest.raises(PeerUnreachable):
        message.to(replace(gate, members=unreachable))
    assert message.to(gate).name == "porch", "nothing was spent"


REFUSED: list[tuple[Callable[[], Sent], str]] = [
    (lambda: Sent(TYPE), "signature-missing"),
    (lambda: sent(GONE), "revoked"),
    (lambda: sent(SUMMER), "wrong-role"),
    (lambda: sent(STRANGER), "signature-unknown-key"),
    (lambda: sent(audience="x"), "signature-wrong-audience"),
    (lambda: replace(sent(), body=b""), "digest-mismatch"),
]


@pytest.mark.parametrize(("make", "slug"), REFUSED, ids=[slug for _, slug in REFUSED])
def test_each_refusal_is_logged_once_without_the_query(
    gate: Gate, caplog: pytest.LogCaptureFixture, make: Callable[[], Sent], slug: str
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DoorbellError):
        make().to(gate)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        f"refused POST /cmodel: {slug}",
    )


def test_message_that_is_let_in_is_not_logged(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sent().to(gate)
    assert caplog.records == []


def test_answer_is_signed_for_its_question(gate: Gate) -> None:
    first, second = sent(), sent()
    answer = TYPE | gate.sign_answer(200, TYPE, b"said", first.to(gate))
    verify_response(200, answer, b"said", first.headers, GATE.public)
    for status, body, asked, key in (
        (409, b"said", first, GATE),
        (200, b"told", first, GATE),
        (200, b"said", second, GATE),
        (200, b"said", first, PORCH),
    ):
        with pytest.raises(BadSignature):
            verify_response(status, answer, body, asked.headers, key.public)


def test_caller_speaks_for_itself_alone(gate: Gate) -> None:
    caller = sent().to(gate)
    caller.must_be("porch")
    with pytest.raises(Forbidden, match="porch cannot speak for gate"):
        caller.must_be("gate")


# --- a service's own standing


def a_standing(federation: Any, name: str = "porch", **changed: Any) -> Standing:
    standing = federation.standing("device", name, federation.folder / "devices" / name)
    return replace(standing, **changed)


def joins(federation: Any) -> int:
    return len(federation.network.sent("main/join"))


def code_of(federation: Any, uses: int = 1, role: Any = "device") -> str:
    return str(invite(federation.main, role, uses, 1.0).text)


def listed(federation: Any) -> dict[str, str]:
    return {
        joined.name: joined.key_id
        for joined in read(federation.main.store, all_members)
        if joined.role == "device"
    }


def test_service_joins_when_it_first_needs_the_main_server_and_then_never_again(
    federation: Any,
) -> None:
    standing, before = a_standing(federation), joins(federation)
    assert (standing.name, joins(federation)) == ("porch", before)
    expected = Peer("main-server", "http://main", federation.main.identity.public)
    assert [standing.main(), standing.main(), a_standing(federation).main()] == [expected] * 3
    assert joins(federation) == before + 1
    assert listed(federation) == {"porch": standing.identity.key_id}


def test_threads_that_need_the_main_server_at_once_join_once(federation: Any) -> None:
    standing = a_standing(federation, join_code=code_of(federation))
    before, start, peers = joins(federation), threading.Barrier(THREADS), []

    def work() -> None:
        start.wait(30)
        peers.append(standing.main())

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peers == [Peer("main-server", "http://main", federation.main.identity.public)] * THREADS
    assert joins(federation) == before + 1


def test_workers_that_join_at_once_are_one_member_and_cost_one_use(federation: Any) -> None:
    code = code_of(federation)
    workers = [a_standing(federation, join_code=code) for _ in range(THREADS)]
    start, failed = threading.Barrier(THREADS), []

    def work(standing: Standing) -> None:
        start.wait(30)
        try:
            standing.main()
        except DoorbellError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert list(listed(federation)) == ["porch"]
    assert (
        read(federation.main.store, find_invitation, JoinCode.parse(code).invitation).uses_left == 0
    )


def test_without_a_code_it_says_what_to_do_and_asks_nobody(federation: Any, tmp_path: Path) -> None:
    standing, before = a_standing(federation, local_codes=tmp_path / "nowhere"), joins(federation)
    with pytest.raises(Forbidden, match="porch has not joined the federation") as refused:
        standing.main()
    assert "python -m federation invite" in str(refused.value)
    assert "DOORBELL_JOIN_CODE" in str(refused.value)
    assert refused.value.status == 403
    assert joins(federation) == before
    assert Membership.load(standing.folder) is None


def test_code_of_the_environment_is_used_before_the_local_one(federation: Any) -> None:
    with pytest.raises(Forbidden, match="not one of this main server"):
        a_standing(federation, join_code=JoinCode.make(federation.main.identity.key_id).text).main()
    code = code_of(federation)
    a_standing(federation, join_code=code).main()
    assert (
        read(federation.main.store, find_invitation, JoinCode.parse(code).invitation).uses_left == 0
    )


def test_joining_is_tried_again_after_the_main_server_did_not_answer(federation: Any) -> None:
    standing = a_standing(federation)
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        standing.main()
    federation.network.down = set()
    assert standing.main().public_key == federation.main.identity.public


@pytest.mark.parametrize("knows_the_secret", [True, False])
def test_impostor_at_the_main_servers_address_is_not_joined(
    federation: Any, knows_the_secret: bool
) -> None:
    impostor, text = Flask("impostor"), code_of(federation)

    @impostor.post("/join")
    def join() -> Any:
        asked = convert(JoinRequest, request.get_json())
        code = (
            JoinCode.parse(text)
            if knows_the_secret
            else JoinCode.make(federation.main.identity.key_id)
        )
        return jsonify(admission(code, asked, STRANGER).to_json())

    genuine, federation.network.apps["main"] = federation.network.apps["main"], impostor
    standing = a_standing(federation, join_code=text)
    with pytest.raises(InvalidMessage, match="not the main server that made this join code"):
        standing.main()
    assert Membership.load(standing.folder) is None
    federation.network.apps["main"] = genuine
    assert standing.main().public_key == federation.main.identity.public


@pytest.mark.parametrize("answer", ["", "[]", "{}", "null", "welcome"])
def test_answer_that_is_no_admission_joins_nothing(federation: Any, answer: str) -> None:
    impostor = Flask("impostor")
    impostor.add_url_rule("/join", "join", lambda: answer, methods=["POST"])
    federation.network.apps["main"] = impostor
    standing = a_standing(federation)
    with pytest.raises(InvalidMessage, match="Invalid admission"):
        standing.main()
    assert Membership.load(standing.folder) is None


def test_secret_of_the_code_is_not_sent(federation: Any) -> None:
    text = code_of(federation)
    a_standing(federation, join_code=text).main()
    bodies = federation.network.sent("main/join")
    assert JoinCode.parse(text).invitation in json.loads(bodies[-1])["invitation"]
    assert not [body for body in bodies if text.split("-")[1].encode() in body]


def test_main_server_alone_is_a_member_to_a_device_that_has_joined(federation: Any) -> None:
    standing, main = a_standing(federation), federation.main.identity
    assert standing.main_member(main.key_id) is None
    standing.main()
    assert standing.main_member(main.key_id) == Member("main-server", "main-server", main.public)
    assert standing.main_member(standing.identity.key_id) is None
    assert standing.main_member(federation.as_aggregator.identity.key_id) is None


def test_service_takes_the_name_that_it_is_given(federation: Any) -> None:
    standing = a_standing(federation)
    standing.rename("gate")
    assert standing.name == "porch", "who has not joined has no name to lose"
    standing.main()
    standing.rename("gate")
    assert standing.name == a_standing(federation).name == "gate"
    assert standing.main().public_key == federation.main.identity.public
    assert Membership.load(standing.folder) == Membership(federation.main.identity.public, "gate")


def test_device_hears_of_its_new_name_when_it_announces_itself(federation: Any) -> None:
    federation.announce("porch")
    rename(federation.main, "porch", "gate")
    message = {"address": "http://porch", "detectors": {"package": None}}
    assert (
        federation.device("porch").post_json("http://main/clientstatus", message).json["name"]
        == "gate"
    )
    assert [device.name for device in read(federation.main.store, all_devices)] == ["gate"]


def changed_key(standing: Standing) -> Identity:
    return standing.change_key(standing.folder / "identity.key")


def test_new_key_is_in_force_at_the_main_server_and_in_the_file(federation: Any) -> None:
    standing = a_standing(federation)
    standing.main()
    fresh = changed_key(standing)
    assert fresh.key_id != standing.identity.key_id
    assert listed(federation) == {"porch": fresh.key_id}
    path = standing.folder / "identity.key"
    assert Identity.open(path) == fresh
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in standing.folder.iterdir()) == [
        "identity.key",
        "membership.json",
    ]
    assert federation.announce("porch").round == 1
    with pytest.raises(Forbidden, match="not on the list"):
        changed_key(standing)


def test_service_that_has_not_joined_joins_by_its_old_key_and_changes_it(federation: Any) -> None:
    fresh = changed_key(a_standing(federation))
    assert listed(federation) == {"porch": fresh.key_id}


def test_key_stays_where_the_main_server_does_not_answer(federation: Any) -> None:
    standing = a_standing(federation)
    standing.main()
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        changed_key(standing)
    assert Identity.open(standing.folder / "identity.key") == standing.identity
    federation.network.down = set()
    assert federation.announce("porch").round == 1
    fresh = changed_key(standing)
    assert listed(federation) == {"porch": fresh.key_id}


def test_new_key_whose_answer_was_lost_is_not_thrown_away(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing = a_standing(federation)
    standing.main()
    deliver = federation.network.send

    def lose_the_answer(*arguments: Any, **options: Any) -> Any:
        deliver(*arguments, **options)
        raise requests.ConnectionError("cut off")

    monkeypatch.setattr(federation.network, "send", lose_the_answer)
    with pytest.raises(PeerUnreachable):
        changed_key(standing)
    monkeypatch.undo()
    with pytest.raises(Forbidden, match="not on the list"):
        changed_key(standing)
    kept = Identity.open(standing.folder / "identity.key.next")
    assert listed(federation) == {"porch": kept.key_id}
