"""Joining when the main server is first needed, being renamed, and changing one's key."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, jsonify, request

from main_server.members.members import invite, rename
from main_server.store.devices import all_devices
from main_server.store.members import all_members, find_invitation
from shared.errors import (
    DoorbellError,
    Forbidden,
    InvalidMessage,
    PeerUnreachable,
)
from shared.messages import convert
from shared.protocol.joining import JoinRequest
from shared.security.authenticator import Member
from shared.security.identity import Identity
from shared.security.joining import JoinCode, Membership, admission
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import Peer
from tests.main_store import read

STRANGER = Identity.from_private(bytes([5]) * 32)
THREADS = 8


def an_enrolment(federation: Any, name: str = "porch", **changed: Any) -> Enrolment:
    enrolment = federation.enrolment("device", name, federation.folder / "devices" / name)
    return replace(enrolment, **changed)


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
    enrolment, before = an_enrolment(federation), joins(federation)
    assert (enrolment.name, joins(federation)) == ("porch", before)
    expected = Peer("main-server", "http://main", federation.main.identity.public)
    assert [enrolment.main(), enrolment.main(), an_enrolment(federation).main()] == [expected] * 3
    assert joins(federation) == before + 1
    assert listed(federation) == {"porch": enrolment.identity.key_id}


def test_threads_that_need_the_main_server_at_once_join_once(federation: Any) -> None:
    enrolment = an_enrolment(federation, join_code=code_of(federation))
    before, start, peers = joins(federation), threading.Barrier(THREADS), []

    def work() -> None:
        start.wait(30)
        peers.append(enrolment.main())

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peers == [Peer("main-server", "http://main", federation.main.identity.public)] * THREADS
    assert joins(federation) == before + 1


def test_workers_that_join_at_once_are_one_member_and_cost_one_use(federation: Any) -> None:
    code = code_of(federation)
    workers = [an_enrolment(federation, join_code=code) for _ in range(THREADS)]
    start, failed = threading.Barrier(THREADS), []

    def work(enrolment: Enrolment) -> None:
        start.wait(30)
        try:
            enrolment.main()
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
    enrolment, before = (
        an_enrolment(federation, local_codes=tmp_path / "nowhere"),
        joins(federation),
    )
    with pytest.raises(Forbidden, match="porch has not joined the federation") as refused:
        enrolment.main()
    assert "python -m federation invite" in str(refused.value)
    assert "DOORBELL_JOIN_CODE" in str(refused.value)
    assert refused.value.status == 403
    assert joins(federation) == before
    assert Membership.load(enrolment.folder) is None


def test_code_of_the_environment_is_used_before_the_local_one(federation: Any) -> None:
    with pytest.raises(Forbidden, match="not one of this main server"):
        an_enrolment(
            federation, join_code=JoinCode.make(federation.main.identity.key_id).text
        ).main()
    code = code_of(federation)
    an_enrolment(federation, join_code=code).main()
    assert (
        read(federation.main.store, find_invitation, JoinCode.parse(code).invitation).uses_left == 0
    )


def test_joining_is_tried_again_after_the_main_server_did_not_answer(federation: Any) -> None:
    enrolment = an_enrolment(federation)
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        enrolment.main()
    federation.network.down = set()
    assert enrolment.main().public_key == federation.main.identity.public


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
    enrolment = an_enrolment(federation, join_code=text)
    with pytest.raises(InvalidMessage, match="not from the main server that made this join code"):
        enrolment.main()
    assert Membership.load(enrolment.folder) is None
    federation.network.apps["main"] = genuine
    assert enrolment.main().public_key == federation.main.identity.public


@pytest.mark.parametrize("answer", ["", "[]", "{}", "null", "welcome"])
def test_answer_that_is_no_admission_joins_nothing(federation: Any, answer: str) -> None:
    impostor = Flask("impostor")
    impostor.add_url_rule("/join", "join", lambda: answer, methods=["POST"])
    federation.network.apps["main"] = impostor
    enrolment = an_enrolment(federation)
    with pytest.raises(InvalidMessage, match="Invalid admission"):
        enrolment.main()
    assert Membership.load(enrolment.folder) is None


def test_secret_of_the_code_is_not_sent(federation: Any) -> None:
    text = code_of(federation)
    an_enrolment(federation, join_code=text).main()
    bodies = federation.network.sent("main/join")
    assert JoinCode.parse(text).invitation in json.loads(bodies[-1])["invitation"]
    assert not [body for body in bodies if text.split("-")[1].encode() in body]


def test_main_server_alone_is_a_member_to_a_device_that_has_joined(federation: Any) -> None:
    enrolment, main = an_enrolment(federation), federation.main.identity
    assert enrolment.main_member(main.key_id) is None
    enrolment.main()
    assert enrolment.main_member(main.key_id) == Member("main-server", "main-server", main.public)
    assert enrolment.main_member(enrolment.identity.key_id) is None
    assert enrolment.main_member(federation.as_aggregator.identity.key_id) is None


def test_service_takes_the_name_that_it_is_given(federation: Any) -> None:
    enrolment = an_enrolment(federation)
    enrolment.rename("gate")
    assert enrolment.name == "porch", "who has not joined has no name to lose"
    enrolment.main()
    enrolment.rename("gate")
    assert enrolment.name == an_enrolment(federation).name == "gate"
    assert enrolment.main().public_key == federation.main.identity.public
    assert Membership.load(enrolment.folder) == Membership(federation.main.identity.public, "gate")


def test_device_hears_of_its_new_name_when_it_announces_itself(federation: Any) -> None:
    federation.announce("porch")
    rename(federation.main, "porch", "gate")
    message = {"address": "http://porch", "detectors": {"package": None}}
    assert (
        federation.device("porch").post_json("http://main/clientstatus", message).json["name"]
        == "gate"
    )
    assert [device.name for device in read(federation.main.store, all_devices)] == ["gate"]


def changed_key(enrolment: Enrolment) -> Identity:
    return enrolment.change_key(enrolment.folder / "identity.key")


def test_new_key_is_in_force_at_the_main_server_and_in_the_file(federation: Any) -> None:
    enrolment = an_enrolment(federation)
    enrolment.main()
    fresh = changed_key(enrolment)
    assert fresh.key_id != enrolment.identity.key_id
    assert listed(federation) == {"porch": fresh.key_id}
    path = enrolment.folder / "identity.key"
    assert Identity.open(path) == fresh
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in enrolment.folder.iterdir()) == [
        "identity.key",
        "membership.json",
    ]
    assert federation.announce("porch").round == 1
    with pytest.raises(Forbidden, match="unknown key id"):
        changed_key(enrolment)


def test_service_that_has_not_joined_joins_by_its_old_key_and_changes_it(federation: Any) -> None:
    fresh = changed_key(an_enrolment(federation))
    assert listed(federation) == {"porch": fresh.key_id}


def test_key_stays_where_the_main_server_does_not_answer(federation: Any) -> None:
    enrolment = an_enrolment(federation)
    enrolment.main()
    federation.network.down = {"main"}
    with pytest.raises(PeerUnreachable):
        changed_key(enrolment)
    assert Identity.open(enrolment.folder / "identity.key") == enrolment.identity
    federation.network.down = set()
    assert federation.announce("porch").round == 1
    fresh = changed_key(enrolment)
    assert listed(federation) == {"porch": fresh.key_id}


def test_new_key_whose_answer_was_lost_is_not_thrown_away(
    federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrolment = an_enrolment(federation)
    enrolment.main()
    deliver = federation.network.send

    def lose_the_answer(*arguments: Any, **options: Any) -> Any:
        deliver(*arguments, **options)
        raise requests.ConnectionError("cut off")

    monkeypatch.setattr(federation.network, "send", lose_the_answer)
    with pytest.raises(PeerUnreachable):
        changed_key(enrolment)
    monkeypatch.undo()
    with pytest.raises(Forbidden, match="unknown key id"):
        changed_key(enrolment)
    kept = Identity.open(enrolment.folder / "identity.key.next")
    assert listed(federation) == {"porch": kept.key_id}
