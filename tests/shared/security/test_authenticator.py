"""Who may call what: every service admits signed messages by its authenticator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from shared.errors import (
    BadSignature,
    DoorbellError,
    Forbidden,
    NotSigned,
    PeerUnreachable,
)
from shared.security.authenticator import AnyRole, Authenticator, Caller, Member
from shared.security.identity import Identity
from shared.security.signing import sign_request, verify_response
from shared.storage.nonces import Nonces

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
def authenticator(tmp_path: Path) -> Iterator[Authenticator]:
    members = {
        PORCH.key_id: Member("porch", "device", PORCH.public),
        SUMMER.key_id: Member("secure-aggregator", "secure-aggregator", SUMMER.public),
        MAIN.key_id: Member("main-server", "main-server", MAIN.public),
        GONE.key_id: Member("gone", "device", GONE.public, "it was stolen"),
    }
    with closing(Nonces(tmp_path)) as nonces:
        yield Authenticator(GATE, lambda: "gate", members.get, nonces, lambda: NOW)


@dataclass
class Sent:
    """A signed request to the authenticator; `read` counts how often its body was asked for."""

    headers: dict[str, str]
    method: str = "POST"
    target: str = TARGET
    body: bytes = BODY
    read: list[int] = field(default_factory=list)

    def to(self, authenticator: Authenticator, roles: tuple[AnyRole, ...] = DEVICE) -> Caller:
        def read_body() -> bytes:
            self.read.append(1)
            return self.body

        return authenticator.admit(self.method, self.target, self.headers, read_body, roles)


def sent(identity: Identity = PORCH, audience: str = "gate", now: float = NOW) -> Sent:
    return Sent(
        TYPE | sign_request("POST", f"http://any{TARGET}", TYPE, BODY, identity, audience, now)
    )


@pytest.mark.parametrize(
    ("identity", "role", "name"),
    [
        (PORCH, "device", "porch"),
        (SUMMER, "secure-aggregator", "secure-aggregator"),
        (MAIN, "main-server", "main-server"),
    ],
)
def test_member_with_the_role_is_let_in_under_its_name(
    authenticator: Authenticator, identity: Identity, role: Any, name: str
) -> None:
    caller = sent(identity).to(authenticator, (role,))
    assert (caller.name, caller.member.role, caller.verified.key_id) == (
        name,
        role,
        identity.key_id,
    )
    assert caller.verified.body == BODY
    assert (
        sent(identity).to(authenticator, ("device", "secure-aggregator", "main-server")).name
        == name
    )


@pytest.mark.parametrize("identity", [PORCH, SUMMER, MAIN], ids=["device", "aggregator", "main"])
def test_member_with_another_role_is_refused(
    authenticator: Authenticator, identity: Identity
) -> None:
    everyone: tuple[AnyRole, ...] = ("device", "secure-aggregator", "main-server")
    mine = sent(identity).to(authenticator, everyone).member.role
    others = tuple(role for role in everyone if role != mine)
    for roles in (others, others[:1], ()):
        with pytest.raises(
            Forbidden, match=f"is a {mine} and may not send this message"
        ) as refused:
            sent(identity).to(authenticator, roles)
        assert (refused.value.slug, refused.value.status) == ("wrong-role", 403)


def test_revoked_member_is_told_why(authenticator: Authenticator) -> None:
    with pytest.raises(Forbidden, match="gone was revoked: it was stolen") as refused:
        sent(GONE).to(authenticator)
    assert (refused.value.slug, refused.value.status) == ("revoked", 403)
    assert refused.value.problem()["type"] == "urn:doorbell:problem:revoked"


def test_strangers_key_is_refused_before_its_body_is_read(authenticator: Authenticator) -> None:
    message = sent(STRANGER)
    with pytest.raises(BadSignature) as refused:
        message.to(authenticator)
    assert (refused.value.slug, refused.value.status) == ("signature-unknown-key", 401)
    assert message.read == []


def test_message_for_another_service_is_refused(authenticator: Authenticator) -> None:
    with pytest.raises(BadSignature) as refused:
        sent(audience="another").to(authenticator)
    assert (refused.value.slug, refused.value.status) == ("signature-wrong-audience", 401)


def test_authenticator_answers_to_the_name_that_its_service_has_now(
    authenticator: Authenticator,
) -> None:
    names = iter(["gate", "new-name"])
    renamed = replace(authenticator, name=lambda: next(names))
    sent().to(renamed)
    with pytest.raises(BadSignature):
        sent().to(renamed)


def test_message_counts_once(authenticator: Authenticator) -> None:
    message = sent()
    message.to(authenticator)
    with pytest.raises(BadSignature) as refused:
        message.to(authenticator)
    assert (refused.value.slug, refused.value.status) == ("signature-replayed", 401)


def test_message_refused_for_its_senders_role_does_not_count_later_either(
    authenticator: Authenticator,
) -> None:
    message = sent()
    with pytest.raises(Forbidden):
        message.to(authenticator, ("main-server",))
    with pytest.raises(BadSignature):
        message.to(authenticator)


@pytest.mark.parametrize(
    ("age", "slug"), [(-301, "signature-from-the-future"), (601, "signature-expired")]
)
def test_authenticator_looks_at_its_clock(
    authenticator: Authenticator, age: float, slug: str
) -> None:
    with pytest.raises(BadSignature) as refused:
        sent(now=NOW - age).to(authenticator)
    assert refused.value.slug == slug


def test_message_without_signature_is_refused(authenticator: Authenticator) -> None:
    with pytest.raises(NotSigned) as refused:
        Sent(TYPE).to(authenticator)
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
    authenticator: Authenticator, changed: dict[str, Any], slug: str
) -> None:
    with pytest.raises(BadSignature) as refused:
        replace(sent(), **changed).to(authenticator)
    assert refused.value.slug == slug


def test_error_while_members_are_looked_up_reaches_the_sender(authenticator: Authenticator) -> None:
    def unreachable(_: str) -> Member:
        raise PeerUnreachable("The main server does not answer.")

    message = sent()
    with pytest.raises(PeerUnreachable):
        message.to(replace(authenticator, members=unreachable))
    assert message.to(authenticator).name == "porch", "nothing was spent"


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
    authenticator: Authenticator,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[], Sent],
    slug: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(DoorbellError):
        make().to(authenticator)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        f"refused POST /cmodel: {slug}",
    )


def test_message_that_is_let_in_is_not_logged(
    authenticator: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sent().to(authenticator)
    assert caplog.records == []


def test_answer_is_signed_for_its_question(authenticator: Authenticator) -> None:
    first, second = sent(), sent()
    answer = TYPE | authenticator.sign_answer(200, TYPE, b"said", first.to(authenticator))
    verify_response(200, answer, b"said", first.headers, GATE.public)
    for status, body, asked, key in (
        (409, b"said", first, GATE),
        (200, b"told", first, GATE),
        (200, b"said", second, GATE),
        (200, b"said", first, PORCH),
    ):
        with pytest.raises(BadSignature):
            verify_response(status, answer, body, asked.headers, key.public)


def test_caller_speaks_for_itself_alone(authenticator: Authenticator) -> None:
    caller = sent().to(authenticator)
    caller.must_be("porch")
    with pytest.raises(Forbidden, match="porch cannot speak for gate"):
        caller.must_be("gate")
