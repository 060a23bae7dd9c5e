"""Joining: the code, what both ends prove with it, and the secret that never travels."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from device.settings import DeviceSettings
from sec_agg.settings import AggregatorSettings
from shared.errors import InvalidMessage, SettingsError
from shared.messages import convert
from shared.protocol.joining import Admission, JoinRequest, Role
from shared.security.identity import Identity, verify
from shared.security.joining import (
    JoinCode,
    Membership,
    admission,
    checked_member_name,
    join_request,
    local_code_path,
    new_key_statement,
    proves,
    read_local_code,
    transcript,
)
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient

MAIN, DEVICE, OTHER = (Identity.from_private(bytes([number]) * 32) for number in (1, 2, 3))
CODE = JoinCode(bytes(range(20)), MAIN.key_id)
SECRET, KEY = CODE.text.removeprefix("doorbell-").split("-")
REQUEST = join_request(CODE, "porch", "device", DEVICE)
ANSWER = admission(CODE, REQUEST, MAIN).to_json()
MEMBERS = [member.name for member in structs.fields(JoinRequest)]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def flipped(text: str) -> str:
    """Return base64 of other bytes: one bit differs."""
    data = bytearray(base64.b64decode(text))
    data[0] ^= 1
    return encoded(bytes(data))


def forms(secret: bytes) -> Iterator[str]:
    """Yield a secret as it might be written down."""
    yield secret.hex()
    yield base64.b32encode(secret).decode().lower()
    yield repr(secret)[2:-1]
    yield from (base64.b64encode(bytes(shift) + secret)[4:-4].decode() for shift in range(3))


# --- the code


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32))
def test_code_reads_back_from_its_text(secret: bytes, private: bytes) -> None:
    code = JoinCode(secret, Identity.from_private(private).key_id)
    assert JoinCode.parse(code.text) == code
    assert JoinCode.parse(f"  {code.text}\r\n") == code


def test_code_names_the_main_servers_key() -> None:
    assert JoinCode.make(MAIN.key_id).text.endswith(f"-{MAIN.key_id}")


def test_no_two_codes_share_secret_or_invitation() -> None:
    codes = [JoinCode.make(MAIN.key_id) for _ in range(100)]
    assert len({code.secret for code in codes}) == len({code.invitation for code in codes}) == 100
    assert {len(code.secret) for code in codes} == {20}


def test_invitation_is_all_of_the_code_that_others_may_see() -> None:
    assert len(CODE.invitation) == 32
    assert int(CODE.invitation, 16)
    assert not [
        form for form in forms(CODE.secret) if form in CODE.invitation or CODE.invitation in form
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "doorbell",
        "doorbell--",
        SECRET,
        f"doorbell-{SECRET}",
        f"doorbell-{SECRET}-",
        f"{SECRET}-{KEY}",
        f"-{SECRET}-{KEY}",
        f"Doorbell-{SECRET}-{KEY}",
        f"doorbell_{SECRET}_{KEY}",
        CODE.text.upper(),
        f"doorbell-{SECRET.upper()}-{KEY}",
        f"doorbell-{SECRET}-{KEY.upper()}",
        f"doorbell-{SECRET[1:]}-{KEY}",
        f"doorbell-{SECRET}a-{KEY}",
        f"doorbell-{SECRET}-{KEY[1:]}",
        f"doorbell-{SECRET}-{KEY}0",
        f"doorbell-{SECRET[:-1]}1-{KEY}",
        f"doorbell-{SECRET[:-1]}8-{KEY}",
        f"doorbell-{SECRET[:-1]}=-{KEY}",
        f"doorbell-{SECRET[:-1]}٣-{KEY}",
        f"doorbell-{SECRET}-{KEY[:-1]}g",
        f"doorbell-{SECRET}-{KEY[:-1]}٣",
        f"doorbell- {SECRET}-{KEY}",
        f"doorbell-{SECRET}\n-{KEY}",
        f"{CODE.text} {CODE.text}",
        f"{CODE.text}\n{CODE.text}",
        f"{CODE.text}-x",
        f"x{CODE.text}",
        f"'{CODE.text}'",
        f"doorbell-{KEY}-{SECRET}",
    ],
)
def test_text_that_is_no_code_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(SettingsError, match="not a join code") as refused:
        JoinCode.parse(text)
    assert SECRET not in str(refused.value)


# --- asking to join


def parse(message: object) -> JoinRequest:
    """Read a request as the main server does."""
    request = convert(JoinRequest, message)
    checked_member_name(request.name, request.role)
    return request


@pytest.mark.parametrize(
    ("name", "role"), [("porch", "device"), ("secure-aggregator", "secure-aggregator")]
)
def test_request_that_travelled_proves_invitation_and_key(name: str, role: Role) -> None:
    request = join_request(CODE, name, role, DEVICE)
    arrived = parse(json.loads(json.dumps(request.to_json())))
    assert arrived == request
    assert proves(arrived, CODE)


@pytest.mark.parametrize("member", MEMBERS)
def test_request_with_another_member_proves_nothing(member: str) -> None:
    other = join_request(
        JoinCode.make(MAIN.key_id), "secure-aggregator", "secure-aggregator", OTHER
    )
    assert not proves(structs.replace(REQUEST, **{member: getattr(other, member)}), CODE)


@pytest.mark.parametrize("member", ["public_key", "proof", "signature"])
def test_request_with_one_bit_changed_on_its_way_proves_nothing(member: str) -> None:
    message = REQUEST.to_json()
    assert not proves(parse(message | {member: flipped(message[member])}), CODE)


def test_request_with_another_name_proves_nothing() -> None:
    assert not proves(parse(REQUEST.to_json() | {"name": "porch2"}), CODE)


def test_request_proves_nothing_to_another_main_server_that_knows_the_secret() -> None:
    assert not proves(REQUEST, replace(CODE, main_key_id=OTHER.key_id))


def test_who_knows_the_invitation_alone_proves_nothing() -> None:
    guessed = replace(JoinCode.make(MAIN.key_id), main_key_id=MAIN.key_id)
    request = structs.replace(
        join_request(guessed, "porch", "device", OTHER), invitation=CODE.invitation
    )
    own = OTHER.sign(transcript(request, MAIN.key_id))
    assert not proves(structs.replace(request, signature=own), CODE)


def test_who_was_invited_but_does_not_own_the_key_proves_nothing() -> None:
    stolen = join_request(CODE, "porch", "device", OTHER)
    proof_for_the_stolen_key = join_request(
        CODE, "porch", "device", Identity(DEVICE.public, OTHER._private)
    )
    assert proves(stolen, CODE)
    assert proof_for_the_stolen_key.public_key == DEVICE.public
    assert not proves(proof_for_the_stolen_key, CODE)


WRONG: list[dict[str, object]] = [
    {"invitation": value}
    for value in (None, 1, "", "0" * 31, "0" * 33, "G" * 32, "A" * 32, "0" * 32 + "\n")
]
WRONG += [
    {"name": value}
    for value in (None, 1, "", "A", "../a", "a" * 33, "a\n", "main-server", "secure-aggregator")
]
WRONG += [
    {"role": value} for value in (None, "", "main-server", "Device", [], {}, "secure-aggregator")
]
for _key, _size in (("public_key", 32), ("proof", 32), ("signature", 64)):
    WRONG += [
        {_key: value} for value in (None, 1, [], "", "é", "*" * 44, encoded(bytes(_size))[:-4])
    ]
    WRONG += [{_key: encoded(bytes(size))} for size in (_size - 1, _size + 1, 0, 10_000)]
    WRONG += [{_key: f"{encoded(bytes(_size))}\n"}, {_key: f" {encoded(bytes(_size))}"}]


@pytest.mark.parametrize("changed", WRONG, ids=lambda changed: str(changed)[:50])
def test_request_with_a_member_of_the_wrong_form_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(InvalidMessage):
        parse(REQUEST.to_json() | changed)


@pytest.mark.parametrize(
    "message", [None, [], "join", 1, {}, [REQUEST.to_json()], REQUEST.to_json() | {"more": ""}]
)
def test_message_that_is_no_request_is_refused(message: object) -> None:
    with pytest.raises(InvalidMessage, match="Invalid request to join"):
        parse(message)


@pytest.mark.parametrize("member", MEMBERS)
def test_request_that_lacks_a_member_is_refused(member: str) -> None:
    message = REQUEST.to_json()
    del message[member]
    with pytest.raises(InvalidMessage, match="Invalid request to join"):
        parse(message)


# --- being admitted


def accept(answer: object) -> Membership:
    plain = answer.to_json() if isinstance(answer, Admission) else answer
    return Membership.accept(CODE, REQUEST, convert(Admission, plain))


def test_admission_that_travelled_gives_the_main_servers_key_and_the_name() -> None:
    assert accept(json.loads(json.dumps(ANSWER))) == Membership(MAIN.public, "porch")
    assert accept(ANSWER).main_key_id == MAIN.key_id


@pytest.mark.parametrize("member", sorted(ANSWER))
def test_admission_with_one_bit_changed_is_refused(member: str) -> None:
    with pytest.raises(InvalidMessage, match="not from the main server that made this join code"):
        accept(ANSWER | {member: flipped(ANSWER[member])})


@pytest.mark.parametrize("member", sorted(ANSWER))
def test_admission_with_a_member_of_the_wrong_form_is_refused(member: str) -> None:
    values = (None, 1, "", "é", encoded(bytes(31)), encoded(bytes(65)), f" {ANSWER[member]}")
    for answer in [
        *(ANSWER | {member: value} for value in values),
        {k: ANSWER[k] for k in ANSWER if k != member},
    ]:
        with pytest.raises(InvalidMessage):
            accept(answer)


@pytest.mark.parametrize("answer", [None, [], "welcome", {}, ANSWER | {"more": ""}])
def test_answer_that_is_no_admission_is_refused(answer: object) -> None:
    with pytest.raises(InvalidMessage, match="Invalid admission"):
        accept(answer)


REQUESTS = [("porch", "device", OTHER, CODE), ("gate", "device", DEVICE, CODE)]
REQUESTS += [("porch", "device", DEVICE, JoinCode(bytes(20), MAIN.key_id))]
REQUESTS += [("secure-aggregator", "secure-aggregator", DEVICE, CODE)]


@pytest.mark.parametrize(
    ("name", "role", "identity", "code"), REQUESTS, ids=["key", "name", "code", "role"]
)
def test_admission_of_another_request_is_refused(
    name: str, role: Role, identity: Identity, code: JoinCode
) -> None:
    with pytest.raises(InvalidMessage, match="Nothing was joined"):
        accept(admission(code, join_request(code, name, role, identity), MAIN))


def test_another_main_server_that_knows_the_secret_is_refused() -> None:
    for code in (CODE, replace(CODE, main_key_id=OTHER.key_id)):
        with pytest.raises(InvalidMessage, match="DOORBELL_MAIN_URL"):
            accept(admission(code, REQUEST, OTHER))


def test_who_shows_the_main_servers_key_without_owning_it_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        accept(admission(CODE, REQUEST, Identity(MAIN.public, OTHER._private)))


def test_main_server_that_does_not_know_the_secret_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        accept(admission(JoinCode(bytes(20), MAIN.key_id), REQUEST, MAIN))


def test_own_proof_sent_back_is_no_admission() -> None:
    with pytest.raises(InvalidMessage):
        accept(ANSWER | {"proof": encoded(REQUEST.proof)})
    mine = join_request(replace(CODE, main_key_id=DEVICE.key_id), "porch", "device", DEVICE)
    reflected = {"public_key": mine.public_key, "proof": mine.proof, "signature": mine.signature}
    with pytest.raises(InvalidMessage):
        Membership.accept(
            replace(CODE, main_key_id=DEVICE.key_id),
            mine,
            Admission(**reflected),
        )


# --- the secret


def test_secret_is_in_nothing_that_travels() -> None:
    travels = json.dumps(REQUEST.to_json()) + json.dumps(ANSWER)
    assert not [form for form in forms(CODE.secret) if form in travels]
    assert CODE.invitation in travels
    assert len(list(forms(CODE.secret))) == 6


def test_secret_is_in_no_repr(tmp_path: Path) -> None:
    environ = {"DOORBELL_JOIN_CODE": CODE.text}
    device, aggregator = DeviceSettings.read(1, environ), AggregatorSettings.read(environ)
    enrolment = Enrolment(
        DEVICE, "device", "porch", tmp_path, "http://main", HttpClient(), CODE.text, tmp_path
    )
    assert device.join_code == aggregator.join_code == enrolment.join_code == CODE.text
    shown = repr([CODE, REQUEST, Membership(MAIN.public, "porch"), device, aggregator, enrolment])
    assert not [form for form in forms(CODE.secret) if form in shown]
    assert MAIN.key_id in repr(CODE)


# --- names


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("main-server", "device"),
        ("secure-aggregator", "device"),
        ("main-server", "secure-aggregator"),
        ("porch", "secure-aggregator"),
        ("Porch", "device"),
        ("", "device"),
        (None, "device"),
        ("a" * 33, "device"),
    ],
)
def test_name_that_another_service_has_or_that_is_none_is_refused(name: Any, role: Role) -> None:
    with pytest.raises(InvalidMessage):
        checked_member_name(name, role)


def test_every_other_name_is_a_devices_and_the_aggregators_name_is_its_role() -> None:
    assert checked_member_name("porch", "device") == "porch"
    assert checked_member_name("main-server-2", "device") == "main-server-2"
    assert checked_member_name("secure-aggregator", "secure-aggregator") == "secure-aggregator"


# --- what is kept


def test_membership_is_kept_in_the_services_folder(tmp_path: Path) -> None:
    assert Membership.load(tmp_path) is None
    for membership in (Membership(MAIN.public, "porch"), Membership(OTHER.public, "gate")):
        membership.save(tmp_path)
        assert Membership.load(tmp_path) == membership


def test_local_code_is_read_where_it_lies_and_roles_have_their_own(tmp_path: Path) -> None:
    assert read_local_code(tmp_path, "device") is None
    local_code_path(tmp_path, "device").write_text(CODE.text)
    local_code_path(tmp_path, "secure-aggregator").mkdir()  # as unreadable as one of somebody else
    assert read_local_code(tmp_path, "device") == CODE.text
    assert read_local_code(tmp_path, "secure-aggregator") is None
    assert read_local_code(tmp_path / "nowhere", "device") is None


def test_new_key_is_owned_for_one_old_key_alone() -> None:
    signature = OTHER.sign(new_key_statement(DEVICE.public))
    assert verify(OTHER.public, signature, new_key_statement(DEVICE.public))
    assert not verify(OTHER.public, signature, new_key_statement(MAIN.public))
    assert not verify(OTHER.public, OTHER.sign(DEVICE.public), new_key_statement(DEVICE.public))
