"""Who belongs to the federation: joining by code, being revoked, renamed, and taking another key."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

import main_server.app
from main_server.members.members import (
    admit,
    invite,
    leave_local_codes,
    member_of,
    rename,
    revoke,
    roster,
)
from main_server.store.devices import all_devices, participations
from main_server.store.members import all_members, find_invitation
from main_server.store.members import invite as add_invitation
from main_server.store.rounds import find_round, newest_round
from shared.errors import DoorbellError, Forbidden, InvalidMessage, NotFound, OutOfOrder
from shared.messages import convert
from shared.protocol.joining import JoinRequest, Role
from shared.security.authenticator import Member
from shared.security.identity import Identity, fingerprint
from shared.security.joining import (
    JoinCode,
    Membership,
    join_request,
    local_code_path,
    new_key_statement,
    read_local_code,
)
from shared.security.signing import sign_request
from shared.transport.http_client import Peer
from tests.main_store import read, write
from tests.updates import masked_update, plain_update

JSON = {"Accept": "application/json"}
NOW, HOUR = 1_800_000_000.0, 3600.0
STATUS = {"address": "http://porch", "detectors": {"package": None}}


def identity(number: int) -> Identity:
    return Identity.from_private(bytes([number]) * 32)


def join(
    server: Any, code: JoinCode, name: str, key: Identity, role: Role = "device"
) -> Membership:
    asked = join_request(code, name, role, key)
    return Membership.accept(code, asked, admit(server, asked))


def refused(server: Any, code: JoinCode, name: str, key: Identity, role: Role = "device") -> str:
    """Return what is said to a service that may not join, and see that nothing was changed."""
    before = everything(server)
    with pytest.raises(Forbidden) as caught:
        join(server, code, name, key, role)
    assert (caught.value.slug, caught.value.status) == ("join-refused", 403)
    assert everything(server) == before
    return str(caught.value)


def everything(server: Any) -> list[str]:
    members = [repr(joined) for joined in read(server.store, all_members)]
    return (
        members
        + [repr(p) for p in read(server.store, participations)]
        + [repr(d) for d in read(server.store, all_devices)]
    )


def names(server: Any) -> list[str]:
    return [
        joined.name
        for joined in read(server.store, all_members)
        if joined.role == "device" and joined.revoked is None
    ]


def uses_left(server: Any, code: JoinCode) -> int:
    return int(read(server.store, find_invitation, code.invitation).uses_left)


# --- joining


def test_invited_device_is_a_member_under_the_name_it_asked_for(federation: Any) -> None:
    main = replace(federation.main, clock=lambda: NOW)
    membership = join(main, invite(main, "device", 1, 1), "porch", identity(1))
    assert membership == Membership(main.identity.public, "porch")
    assert member_of(main, identity(1).key_id) == Member("porch", "device", identity(1).public)
    assert [
        joined.joined_at for joined in read(main.store, all_members) if joined.name == "porch"
    ] == [NOW]
    assert member_of(main, identity(2).key_id) is None


def test_code_is_good_for_as_many_services_as_it_was_made_for(federation: Any) -> None:
    code = invite(federation.main, "device", 2, 1)
    for number in (1, 2):
        join(federation.main, code, f"device-{number}", identity(number))
    assert "used up or has expired" in refused(federation.main, code, "device-3", identity(3))
    assert names(federation.main) == ["device-1", "device-2"]
    join(federation.main, invite(federation.main, "device", 1, 1), "device-3", identity(3))


def test_of_many_that_use_the_last_use_at_once_one_joins(federation: Any) -> None:
    code, start, joined = invite(federation.main, "device", 1, 1), threading.Barrier(6), []

    def work(number: int) -> None:
        start.wait(30)
        with suppress(Forbidden):
            joined.append(join(federation.main, code, f"device-{number}", identity(number)).name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(joined) == 1
    assert names(federation.main) == joined
    assert uses_left(federation.main, code) == 0


def test_same_member_twice_costs_one_use(federation: Any) -> None:
    code = invite(federation.main, "device", 2, 1)
    first = join(federation.main, code, "porch", identity(1))
    assert join(federation.main, code, "porch", identity(1)) == first
    assert uses_left(federation.main, code) == 1
    assert names(federation.main) == ["porch"]


def test_code_expires_by_the_main_servers_clock(federation: Any) -> None:
    code = invite(replace(federation.main, clock=lambda: NOW), "device", 5, 2)
    just_before = replace(federation.main, clock=lambda: NOW + 2 * HOUR - 0.001)
    after = replace(federation.main, clock=lambda: NOW + 2 * HOUR)
    join(just_before, code, "early", identity(1))
    assert "used up or has expired" in refused(after, code, "late", identity(2))
    assert join(after, code, "early", identity(1)).name == "early", "its answer may have been lost"


def test_name_is_one_members_at_a_time(federation: Any) -> None:
    code = invite(federation.main, "device", 5, 1)
    join(federation.main, code, "porch", identity(1))
    assert "there is a porch already" in refused(federation.main, code, "porch", identity(2))
    assert uses_left(federation.main, code) == 4


def test_key_is_one_members_for_ever(federation: Any) -> None:
    code = invite(federation.main, "device", 5, 1)
    join(federation.main, code, "porch", identity(1))
    assert "joined before, under another name" in refused(
        federation.main, code, "gate", identity(1)
    )
    revoke(federation.main, "porch", "It was stolen.")
    for name in ("porch", "gate"):
        assert "was revoked" in refused(federation.main, code, name, identity(1))
    join(federation.main, code, "porch", identity(2))
    assert names(federation.main) == ["porch"]


@pytest.mark.parametrize("role", ["device", "secure-aggregator"])
def test_code_is_for_one_role(federation: Any, role: Role) -> None:
    other: Role = "secure-aggregator" if role == "device" else "device"
    name = "secure-aggregator" if other == "secure-aggregator" else "porch"
    code = invite(federation.main, role, 1, 1)
    assert "not one of this main server" in refused(federation.main, code, name, identity(1), other)


def test_there_is_one_aggregator(federation: Any) -> None:
    code = invite(federation.main, "secure-aggregator", 5, 1)
    words = refused(federation.main, code, "secure-aggregator", identity(1), "secure-aggregator")
    assert "there is a secure-aggregator already" in words


def test_code_of_another_main_server_is_refused(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    one, other = make_federation(tmp_path / "1"), make_federation(tmp_path / "2")
    code = invite(one.main, "device", 1, 1)
    assert "not one of this main server" in refused(other.main, code, "porch", identity(1))
    write(other.main.store, add_invitation, read(one.main.store, find_invitation, code.invitation))
    assert "not one of this main server" in refused(other.main, code, "porch", identity(1))
    assert uses_left(one.main, code) == 1


def test_request_altered_on_its_way_is_refused(federation: Any) -> None:
    code = invite(federation.main, "device", 1, 1)
    message = join_request(code, "porch", "device", identity(1)).to_json()
    other = join_request(code, "gate", "device", identity(2)).to_json()
    before = everything(federation.main)
    for member in ("name", "public_key", "proof", "signature"):
        with pytest.raises(Forbidden, match="not one of this main server"):
            admit(federation.main, convert(JoinRequest, message | {member: other[member]}))
    assert everything(federation.main) == before
    assert uses_left(federation.main, code) == 1
    admit(federation.main, convert(JoinRequest, message))


@pytest.mark.parametrize(
    "name", [None, "", "../a", "A", "a" * 33, "main-server", "secure-aggregator"]
)
def test_device_with_a_name_that_is_none_of_a_device_does_not_join(
    federation: Any, name: Any
) -> None:
    code = invite(federation.main, "device", 1, 1)
    asked = join_request(code, "porch", "device", identity(1)).to_json()
    before = everything(federation.main)
    with pytest.raises(InvalidMessage):
        federation.http.post_json("http://main/join", asked | {"name": name})
    assert everything(federation.main) == before


@pytest.mark.parametrize("message", [None, [], "join", {}])
def test_message_that_is_no_request_to_join_is_refused(federation: Any, message: object) -> None:
    with pytest.raises(InvalidMessage):
        federation.http.post_json("http://main/join", message)


def test_roster_names_everybody_with_key_and_reason(federation: Any) -> None:
    federation.device("b")
    federation.device("a")
    revoke(federation.main, "b", "It was stolen.")
    keys = {name: federation.device(name).identity.public for name in ("a", "b")}
    keys["secure-aggregator"] = federation.as_aggregator.identity.public
    listed = federation.as_aggregator.get("http://main/roster").json["members"]
    assert listed == list(roster(federation.main).to_json()["members"])
    assert {entry["name"]: base64.b64decode(entry["public_key"]) for entry in listed} == keys
    assert {entry["name"]: entry["role"] for entry in listed} == {
        "a": "device",
        "b": "device",
        "secure-aggregator": "secure-aggregator",
    }
    assert {entry["name"]: entry["revoked"] for entry in listed} == {
        "a": None,
        "b": "It was stolen.",
        "secure-aggregator": None,
    }


# --- the codes that the main server leaves


@pytest.mark.parametrize("role", ["device", "secure-aggregator"])
def test_local_code_lies_in_a_file_that_its_owner_alone_can_read(
    federation: Any, role: Role
) -> None:
    path = local_code_path(federation.settings.folder, role)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    text = read_local_code(federation.settings.folder, role)
    assert text is not None
    assert JoinCode.parse(text).main_key_id == federation.main.identity.key_id


def test_local_code_stays_over_restarts_and_does_not_run_out(federation: Any) -> None:
    text = read_local_code(federation.settings.folder, "device")
    federation.start()
    assert read_local_code(federation.settings.folder, "device") == text
    years_later = replace(federation.main, clock=lambda: NOW + 1e9)
    for number in range(1, 21):
        join(years_later, JoinCode.parse(text or ""), f"device-{number}", identity(number))
    assert len(names(federation.main)) == 20


def test_local_code_of_one_role_is_not_that_of_the_other(federation: Any) -> None:
    codes = {
        role: read_local_code(federation.settings.folder, role)
        for role in ("device", "secure-aggregator")
    }
    assert codes["device"] != codes["secure-aggregator"]
    code = JoinCode.parse(codes["secure-aggregator"] or "")
    assert "not one of this main server" in refused(federation.main, code, "porch", identity(1))


def test_main_server_with_another_key_leaves_other_codes(federation: Any) -> None:
    old = read_local_code(federation.settings.folder, "device")
    (federation.settings.folder / "identity.key").unlink()
    main_server.app.create_app(federation.settings, federation.http)
    main = type(federation.main).open(federation.settings, federation.http)
    text = read_local_code(federation.settings.folder, "device")
    assert text != old
    assert local_code_path(federation.settings.folder, "device").stat().st_mode & 0o777 == 0o600
    assert (
        join(main, JoinCode.parse(text or ""), "porch", identity(1)).main_public_key
        == main.identity.public
    )
    leave_local_codes(main)
    assert read_local_code(federation.settings.folder, "device") == text


# --- who may send what


def messages_of(app: Any) -> list[tuple[str, str]]:
    """Return method and path of every message between services that an app takes."""
    values = {"detector": "package", "version": "0" * 64}
    found = []
    for rule in app.url_map.iter_rules():
        if rule.endpoint in app.extensions["doorbell.messages"]:
            method = "POST" if "POST" in rule.methods else "GET"
            found.append((method, rule.build({name: values[name] for name in rule.arguments})[1]))
    return sorted(found)


SENDERS = {
    ("POST", "/check_seeds"): {"secure-aggregator"},
    ("POST", "/clientstatus"): {"device"},
    ("POST", "/cmodel"): {"device"},
    ("GET", "/model/" + "0" * 64): {"device"},
    ("POST", "/new_key"): {"device", "secure-aggregator"},
    ("POST", "/performance"): {"device"},
    ("GET", "/roster"): {"secure-aggregator"},
    ("GET", "/round/package"): {"secure-aggregator"},
    ("POST", "/secagg_model"): {"secure-aggregator"},
    ("POST", "/work"): {"device", "secure-aggregator"},
}


def test_every_message_has_its_senders(federation: Any) -> None:
    assert messages_of(federation.network.apps["main"]) == sorted([*SENDERS, ("POST", "/join")])
    assert messages_of(federation.network.apps["aggregator"]) == [("POST", "/cmodel")]


@pytest.mark.parametrize(("method", "path"), SENDERS, ids=lambda part: part[:12])
def test_message_is_taken_from_its_senders_alone(federation: Any, method: str, path: str) -> None:
    stranger = replace(
        federation.device("a"), http=federation.network.client(identity(9)), identity=identity(9)
    )
    senders = {"device": federation.device("a"), "secure-aggregator": federation.as_aggregator}
    senders |= {"main-server": federation.as_main, "stranger": stranger}

    def said_to(sender: Any) -> str:
        try:
            sender.get(f"http://main{path}") if method == "GET" else sender.post_json(
                f"http://main{path}", {}
            )
        except (Forbidden, InvalidMessage, NotFound) as error:
            return str(error) if isinstance(error, Forbidden) else "taken"
        return "taken"

    answers = {role: said_to(sender) for role, sender in senders.items()}
    assert {role for role, said in answers.items() if said == "taken"} == SENDERS[method, path]
    assert "unknown key id" in answers["stranger"]
    assert "unknown key id" in answers["main-server"]
    for role in {"device", "secure-aggregator"} - SENDERS[method, path]:
        assert f"is a {role} and may not send this message" in answers[role]
    with pytest.raises(Forbidden, match="not signed"):
        federation.http.get(f"http://main{path}") if method == "GET" else federation.http.post(
            f"http://main{path}", b""
        )


def test_message_for_another_service_is_refused(federation: Any) -> None:
    a = federation.device("a")
    for name in ("secure-aggregator", "a", ""):
        with pytest.raises(Forbidden, match="signed for another service"):
            a.http.post_json("http://main/clientstatus", STATUS, Peer(name, "http://main"))
    update = masked_update(
        federation.delta(), 10, federation.announce("a"), "a", federation.rng
    ).to_bytes()
    with pytest.raises(Forbidden, match="signed for another service"):
        a.http.post("http://aggregator/cmodel", update, Peer("main-server", "http://aggregator"))


def test_message_repeated_byte_for_byte_is_refused(federation: Any) -> None:
    seen = []
    deliver = federation.network.send

    def note(request: Any, **options: Any) -> Any:
        seen.append(request)
        return deliver(request, **options)

    federation.network.send = note
    federation.announce("a")
    assert deliver(seen[-1]).status_code == 401
    assert deliver(seen[-1]).json()["type"] == "urn:doorbell:problem:signature-replayed"


@pytest.mark.parametrize(
    "path",
    ["/round/package?a=b%20c&d", "/round/pack%61ge", "/round/package?", "/round/package?%2F"],
)
def test_signature_covers_path_and_query_as_they_are_written(federation: Any, path: str) -> None:
    federation.announce("a")
    assert federation.as_aggregator.get(f"http://main{path}").json["devices"] == ["a"]


def test_signed_path_need_not_be_text_when_decoded(federation: Any) -> None:
    for path in ("/round/%C3%A9", "/round/%FF", "/round/%21?%FF", "/model/a%25b"):
        sender = federation.device("a") if path.startswith("/model") else federation.as_aggregator
        with pytest.raises(InvalidMessage):
            sender.get(f"http://main{path}")


def test_other_query_than_the_signed_one_is_refused(federation: Any) -> None:
    federation.announce("a")
    deliver = federation.network.send

    def alter(request: Any, **options: Any) -> Any:
        request.url += "2"
        return deliver(request, **options)

    federation.network.send = alter
    with pytest.raises(Forbidden, match="not the one that was signed"):
        federation.as_aggregator.get("http://main/round/package?a=1")


# --- revoking


def masked_round(federation: Any, *devices: str) -> None:
    for device in devices:
        federation.upload(device, federation.delta())


def test_revoked_device_takes_part_no_more_and_its_messages_are_refused(federation: Any) -> None:
    masked_round(federation, "a", "b", "c")
    update = masked_update(
        federation.delta(), 10, federation.announce("c"), "c", federation.rng
    ).to_bytes()
    revoke(federation.main, "c", "It was stolen.")
    assert {p.device for p in read(federation.main.store, participations)} == {"a", "b"}
    c = federation.device("c")
    for send in (
        lambda: c.post_json("http://main/clientstatus", STATUS),
        lambda: c.get(f"http://main/model/{'0' * 64}"),
        lambda: c.post("http://main/cmodel", update),
        lambda: c.post_json("http://main/new_key", {}),
    ):
        with pytest.raises(Forbidden, match=r"c was revoked: It was stolen\."):
            send()
    federation.start()  # the aggregator's roster is fresh again
    with pytest.raises(Forbidden, match=r"c was revoked: It was stolen\."):
        c.post("http://aggregator/cmodel", update)
    assert {p.device for p in read(federation.main.store, participations)} == {"a", "b"}


def test_refusal_of_a_revoked_device_names_its_kind(federation: Any) -> None:
    federation.announce("a")
    revoke(federation.main, "a", "It was stolen.")
    a, url = federation.device("a").identity, f"http://main/model/{'0' * 64}"
    signature = sign_request("GET", url, {}, b"", a, "main-server", time.time())
    answer = federation.network.send(requests.Request("GET", url, signature | JSON).prepare())
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:doorbell:problem:revoked"


def test_update_of_a_revoked_device_is_not_in_the_next_sum(federation: Any) -> None:
    masked_round(federation, "a", "b", "c")
    revoke(federation.main, "c", "It was stolen.")
    done = federation.step("aggregator", "aggregate_models")
    assert (done["devices"], done["left_out"]) == (["a", "b"], ["c"])
    federation.step("aggregator", "send_model_secagg")
    assert read(federation.main.store, find_round, "package", 1).cohort == ("a", "b")


def test_update_of_a_revoked_device_is_not_its_namesakes(federation: Any) -> None:
    masked_round(federation, "a", "b", "c")
    revoke(federation.main, "c", "It was stolen.")
    join(federation.main, invite(federation.main, "device", 1, 1), "c", identity(1))
    namesake = replace(
        federation.device("a"), identity=identity(1), http=federation.network.client(identity(1))
    )
    namesake.post_json("http://main/clientstatus", STATUS)
    done = federation.step("aggregator", "aggregate_models")
    assert (done["devices"], done["left_out"]) == (["a", "b"], ["c"])


@pytest.mark.parametrize(
    "leave", [lambda main: revoke(main, "c", "It was stolen."), lambda main: rename(main, "c", "d")]
)
def test_sum_with_a_device_that_went_before_it_was_handed_over_is_given_up_and_the_next_round_works(
    federation: Any, leave: Callable[[Any], None]
) -> None:
    masked_round(federation, "a", "b", "c")
    federation.step("aggregator", "aggregate_models")
    base = federation.params()
    leave(federation.main)
    with pytest.raises(OutOfOrder, match="Round 1 is abandoned"):
        federation.step("aggregator", "send_model_secagg")
    np.testing.assert_array_equal(federation.params(), base)
    assert federation.announce("a").round == 2
    masked_round(federation, "a", "b")
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]
    federation.step("aggregator", "send_model_secagg")
    assert read(federation.main.store, find_round, "package", 2).cohort == ("a", "b")


def test_revoked_device_does_not_count_towards_the_least_cohort(federation: Any) -> None:
    masked_round(federation, "a", "b")
    revoke(federation.main, "b", "It was stolen.")
    with pytest.raises(OutOfOrder, match="1 of the 2 updates it needs"):
        federation.step("aggregator", "aggregate_models")


def test_plain_update_of_a_revoked_device_is_not_in_the_next_mean(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    direct = make_federation(tmp_path, topology="direct")
    for device in ("a", "b", "c"):
        body = plain_update(direct.delta(), 5, direct.announce(device), device).to_bytes()
        direct.device(device).post("http://main/cmodel", body)
    revoke(direct.main, "c", "It was stolen.")
    assert direct.step("main", "aggregate_models")["devices"] == ["a", "b"]


def test_plain_update_of_a_revoked_device_is_not_its_namesakes(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    direct = make_federation(tmp_path, topology="direct")
    for device in ("a", "b", "c"):
        body = plain_update(direct.delta(), 5, direct.announce(device), device).to_bytes()
        direct.device(device).post("http://main/cmodel", body)
    revoke(direct.main, "c", "It was stolen.")
    join(direct.main, invite(direct.main, "device", 1, 1), "c", identity(1))
    namesake = replace(
        direct.device("a"), identity=identity(1), http=direct.network.client(identity(1))
    )
    namesake.post_json("http://main/clientstatus", STATUS)
    assert direct.step("main", "aggregate_models")["devices"] == ["a", "b"]


def test_model_is_delivered_to_no_revoked_device(federation: Any) -> None:
    masked_round(federation, "a", "b")
    federation.step("aggregator", "aggregate_models")
    federation.step("aggregator", "send_model_secagg")
    revoke(federation.main, "b", "It was stolen.")
    assert list(federation.step("main", "send_model_clients")["later"]) == ["a"]


def test_name_of_a_revoked_device_is_free_for_a_device_with_another_key(federation: Any) -> None:
    federation.announce("a")
    revoke(federation.main, "a", "It was stolen.")
    join(federation.main, invite(federation.main, "device", 1, 1), "a", identity(1))
    with pytest.raises(Forbidden, match="was revoked"):
        federation.announce("a")
    namesake = replace(
        federation.device("a"), identity=identity(1), http=federation.network.client(identity(1))
    )
    assert namesake.post_json("http://main/clientstatus", STATUS).json["name"] == "a"
    revoke(federation.main, "a", "It was stolen too.")
    reasons = [
        joined.revoked for joined in read(federation.main.store, all_members) if joined.name == "a"
    ]
    assert sorted(str(reason) for reason in reasons) == ["It was stolen too.", "It was stolen."]


def test_nobody_is_revoked_twice_and_strangers_are_not_found(federation: Any) -> None:
    federation.device("a")
    revoke(federation.main, "a", "It was stolen.")
    for name in ("a", "stranger", "main-server", ""):
        with pytest.raises(NotFound, match="federation devices lists them"):
            revoke(federation.main, name, "Again.")
    assert [
        joined.revoked for joined in read(federation.main.store, all_members) if joined.name == "a"
    ] == ["It was stolen."]


def test_revoked_aggregator_is_refused(federation: Any) -> None:
    revoke(federation.main, "secure-aggregator", "It moved.")
    with pytest.raises(Forbidden, match="secure-aggregator was revoked: It moved"):
        federation.as_aggregator.get("http://main/roster")


# --- renaming


def test_renamed_device_is_known_by_its_new_name_alone(federation: Any) -> None:
    federation.announce("a")
    rename(federation.main, "a", "b")
    assert names(federation.main) == ["b"]
    assert read(federation.main.store, participations) == ()
    assert read(federation.main.store, all_devices) == ()
    reply = federation.device("a").post_json("http://main/clientstatus", STATUS)
    assert reply.json["name"] == "b"
    assert [p.device for p in read(federation.main.store, participations)] == ["b"]


def test_update_under_the_old_name_is_refused_and_one_sent_before_is_left_out(
    federation: Any,
) -> None:
    masked_round(federation, "a", "b", "c")
    settings = federation.announce("c")
    rename(federation.main, "c", "d")
    federation.start()
    with pytest.raises(Forbidden, match="d cannot speak for c"):
        body = masked_update(federation.delta(), 10, settings, "c", federation.rng).to_bytes()
        federation.device("c").post("http://aggregator/cmodel", body)
    federation.device("c").post_json("http://main/clientstatus", STATUS)
    assert federation.step("aggregator", "aggregate_models")["devices"] == ["a", "b"]


def test_plain_update_under_the_old_name_is_left_out_too(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    direct = make_federation(tmp_path, topology="direct")
    for device in ("a", "b", "c"):
        settings = direct.announce(device)
        direct.device(device).post(
            "http://main/cmodel", plain_update(direct.delta(), 5, settings, device).to_bytes()
        )
    rename(direct.main, "c", "d")
    direct.device("c").post_json("http://main/clientstatus", STATUS)
    direct.device("c").post(
        "http://main/cmodel", plain_update(direct.delta(), 5, settings, "d").to_bytes()
    )
    assert direct.step("main", "aggregate_models")["devices"] == ["a", "b", "d"]


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        ("a", "b", NotFound),
        ("a", "a", NotFound),
        ("stranger", "c", NotFound),
        ("a", "Porch", InvalidMessage),
        ("a", "main-server", InvalidMessage),
        ("a", "secure-aggregator", InvalidMessage),
        ("secure-aggregator", "c", NotFound),
        ("gone", "c", NotFound),
    ],
)
def test_renaming_that_cannot_be_is_refused_and_nothing_changes(
    federation: Any, old: str, new: str, refusal: type[DoorbellError]
) -> None:
    for device in ("a", "b", "gone"):
        federation.announce(device)
    revoke(federation.main, "gone", "It was stolen.")
    before = everything(federation.main)
    with pytest.raises(refusal):
        rename(federation.main, old, new)
    assert everything(federation.main) == before


def test_name_of_a_revoked_device_may_be_given_away(federation: Any) -> None:
    federation.device("a")
    federation.device("b")
    revoke(federation.main, "a", "It was stolen.")
    rename(federation.main, "b", "a")
    assert names(federation.main) == ["a"]


# --- another key


def new_key(old: Identity, new: Identity, signer: Identity | None = None) -> dict[str, str]:
    parts = {
        "public_key": new.public,
        "signature": (signer or new).sign(new_key_statement(old.public)),
    }
    return {key: base64.b64encode(value).decode() for key, value in parts.items()}


def test_new_key_works_and_the_old_one_is_refused(federation: Any) -> None:
    federation.announce("a")
    a = federation.device("a")
    a.post_json("http://main/new_key", new_key(a.identity, identity(1)))
    with pytest.raises(Forbidden, match="unknown key id"):
        a.post_json("http://main/clientstatus", STATUS)
    renewed = replace(a, identity=identity(1), http=federation.network.client(identity(1)))
    assert renewed.post_json("http://main/clientstatus", STATUS).json["name"] == "a"
    assert [p.device for p in read(federation.main.store, participations)] == ["a"]
    body = masked_update(
        federation.delta(),
        10,
        read(federation.main.store, newest_round, "package").plan,
        "a",
        federation.rng,
    ).to_bytes()
    assert "is kept" in renewed.post("http://aggregator/cmodel", body).json["said"]
    assert [
        joined.key_id for joined in read(federation.main.store, all_members) if joined.name == "a"
    ] == [fingerprint(identity(1).public)]


@pytest.mark.parametrize("owner", ["a", "b", "gone", "secure-aggregator"])
def test_key_that_is_known_already_is_refused(federation: Any, owner: str) -> None:
    for device in ("a", "b", "gone"):
        federation.announce(device)
    known = {name: federation.device(name).identity for name in ("a", "b", "gone")}
    known["secure-aggregator"] = federation.as_aggregator.identity
    revoke(federation.main, "gone", "It was stolen.")
    before = everything(federation.main)
    with pytest.raises(OutOfOrder, match="known already"):
        federation.device("a").post_json("http://main/new_key", new_key(known["a"], known[owner]))
    assert everything(federation.main) == before


def test_key_that_its_sender_does_not_own_is_refused(federation: Any) -> None:
    a, b = federation.device("a"), federation.device("b")
    good = new_key(a.identity, identity(1))
    wrong: list[object] = [
        None,
        [],
        {},
        "key",
        {"public_key": good["public_key"]},
        good | {"public_key": 1},
    ]
    wrong += [
        good | {"signature": value}
        for value in (None, "", "*", "é", base64.b64encode(bytes(64)).decode())
    ]
    wrong += [
        good | {"public_key": base64.b64encode(key).decode()}
        for key in (b"", bytes(31), b.identity.public)
    ]
    wrong += [new_key(a.identity, identity(1), signer=a.identity), new_key(b.identity, identity(1))]
    before = everything(federation.main)
    for message in wrong:
        with pytest.raises(InvalidMessage):
            a.post_json("http://main/new_key", message)
    assert everything(federation.main) == before


def test_key_taken_from_another_devices_message_is_refused(federation: Any) -> None:
    a, b = federation.device("a"), federation.device("b")
    with pytest.raises(InvalidMessage, match="signature does not verify"):
        b.post_json("http://main/new_key", new_key(a.identity, identity(1)))
    assert member_of(federation.main, identity(1).key_id) is None
