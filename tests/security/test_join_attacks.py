"""Attacks on joining: who was not invited stays outside, and an invitation is worth what it says."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from main_server.store.members import Invitation, find_invitation, invite
from shared.security.identity import Identity
from shared.security.joining import JoinCode, join_request, new_key_statement
from tests.main_store import read, write

Field = Any


def fresh() -> Identity:
    return Identity.from_private(secrets.token_bytes(32))


def request(
    field: Field, name: str = "eve", role: Any = "device", code: JoinCode | None = None, **how: Any
) -> Any:
    """Return a request to join that is honest but for what is named; JSON."""
    made = join_request(code or field.code(), name, role, how.pop("identity", None) or fresh())
    return made.to_json() | how


def code_of(field: Field, uses: int, hours: float = 1) -> JoinCode:
    """Return a join code, noted as the operator's command notes it."""
    code = JoinCode.make(field.key_of("main").identity.key_id)
    invitation = Invitation(
        code.invitation, code.secret, "device", uses, time.time() + hours * 3600
    )
    write(field.store(), invite, invitation)
    return code


def wrong_secret(field: Field) -> Any:
    guessed = JoinCode(secrets.token_bytes(20), field.code().main_key_id)
    return request(field, code=guessed) | {"invitation": field.code().invitation}


def empty_secret(field: Field) -> Any:
    return request(field, code=JoinCode(b"", field.code().main_key_id))


def used_up(field: Field) -> Any:
    code = code_of(field, 1)
    field.takes(field.join_message(request(field, f"once-{secrets.token_hex(4)}", code=code)))
    return request(field, code=code)


def of_another_server(field: Field) -> Any:
    return request(field, code=field.code("guarded"))


def proof_for_another(field: Field, **parts: Any) -> Any:
    """Return a request whose proof was made over another one."""
    return request(field) | parts


def not_its_own_key(field: Field) -> Any:
    """Return Alice's public key with a proof over it, and a signature by another key."""
    alice = field.members["alice"].identity
    pretended = Identity(alice.public, fresh()._private)
    return request(field, identity=pretended)


def encoded(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


REFUSED, INVALID = (403, "join-refused"), (400, "invalid-message")
JOINS: list[tuple[str, Callable[[Field], Any], tuple[int, str]]] = [
    ("wrong secret", wrong_secret, REFUSED),
    ("empty secret", empty_secret, REFUSED),
    ("unknown invitation", lambda f: request(f, code=JoinCode.make(f.code().main_key_id)), REFUSED),
    ("invitation of another server", of_another_server, REFUSED),
    ("code used up", used_up, REFUSED),
    ("code without a use", lambda f: request(f, code=code_of(f, 0)), REFUSED),
    ("code expired", lambda f: request(f, code=code_of(f, 5, hours=-1)), REFUSED),
    (
        "a device's code for an aggregator",
        lambda f: request(f, "secure-aggregator", "secure-aggregator"),
        REFUSED,
    ),
    (
        "an aggregator's code for a device",
        lambda f: request(f, code=f.code(role="secure-aggregator")),
        REFUSED,
    ),
    (
        "second aggregator",
        lambda f: request(
            f, "secure-aggregator", "secure-aggregator", f.code(role="secure-aggregator")
        ),
        REFUSED,
    ),
    ("name taken", lambda f: request(f, "alice"), REFUSED),
    (
        "known key under another name",
        lambda f: request(f, identity=f.members["alice"].identity),
        REFUSED,
    ),
    (
        "revoked key again",
        lambda f: request(f, "ruth", identity=f.members["ruth"].identity),
        REFUSED,
    ),
    ("another's key", not_its_own_key, REFUSED),
    ("name changed after the proof", lambda f: proof_for_another(f, name="mallet"), REFUSED),
    (
        "key changed after the proof",
        lambda f: proof_for_another(f, public_key=encoded(32)),
        REFUSED,
    ),
    ("proof of nothing", lambda f: proof_for_another(f, proof=encoded(32)), REFUSED),
    ("signature of nothing", lambda f: proof_for_another(f, signature=encoded(64)), REFUSED),
    ("invitation is SQL", lambda f: proof_for_another(f, invitation="' OR '1'='1"), INVALID),
    ("role that there is not", lambda f: proof_for_another(f, role="main-server"), INVALID),
    ("role that is a list", lambda f: proof_for_another(f, role=["device"]), INVALID),
    ("no role", lambda f: {k: v for k, v in request(f).items() if k != "role"}, INVALID),
    ("more than is asked", lambda f: proof_for_another(f, uses_left=5), INVALID),
    ("key too short", lambda f: proof_for_another(f, public_key=encoded(31)), INVALID),
    ("key too long", lambda f: proof_for_another(f, public_key=encoded(33)), INVALID),
    ("key that is no base64", lambda f: proof_for_another(f, public_key="!" * 44), INVALID),
    ("key beyond ASCII", lambda f: proof_for_another(f, public_key="é" * 44), INVALID),
    ("key that is a number", lambda f: proof_for_another(f, public_key=5), INVALID),
    ("key of a megabyte", lambda f: proof_for_another(f, public_key="A" * 1_000_000), INVALID),
    ("proof too short", lambda f: proof_for_another(f, proof=encoded(16)), INVALID),
    ("signature too short", lambda f: proof_for_another(f, signature=encoded(63)), INVALID),
    ("a list", lambda f: [request(f)], INVALID),
    ("nothing", lambda f: None, INVALID),
]
NAMES = [
    "main-server",
    "secure-aggregator",
    "../../x",
    "..",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "a b",
    "",
    "-a",
    "Alice",
    "älice",
    "аlice",
    "alice\u200b",
    "a" * 33,
    "<script>",
    "alice;rm",
    "%2e%2e",
    7,
    None,
    ["alice"],
]


@pytest.fixture
def door(field: Field, make_json_message: Any) -> Field:
    field.join_message = lambda said: make_json_message("main", "/join", said)
    return field


@pytest.mark.parametrize(("build", "outcome"), [pytest.param(*row[1:], id=row[0]) for row in JOINS])
def test_who_was_not_invited_stays_outside(
    door: Field, build: Callable[[Field], Any], outcome: tuple[int, str]
) -> None:
    door.refuses(door.join_message(build(door)), *outcome)


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_nobody_can_be_called_that(door: Field, name: Any) -> None:
    said = request(door, name if isinstance(name, str) else "eve") | {"name": name}
    door.refuses(door.join_message(said), *INVALID)


def test_an_invited_device_joins_once_by_one_use_however_often_it_asks(door: Field) -> None:
    code = code_of(door, 2)
    said = request(door, f"twice-{secrets.token_hex(4)}", code=code)
    door.takes(door.join_message(said))
    before = door.state()
    again = [door.takes(door.join_message(said)) for _ in range(4)]
    assert door.state() == before, "a repeated request costs no use and changes nothing"
    assert len({answer.json["public_key"] for answer in again}) == 1
    assert read(door.store(), find_invitation, code.invitation).uses_left == 1


def test_join_codes_cannot_be_guessed_fast(door: Field) -> None:
    """Refusals tell a guess nothing, and after a few the address is not heard by that worker for a
    while.
    """
    before, seen, details = door.state(), [], set()
    for build in [
        wrong_secret,
        lambda f: request(f, code=JoinCode.make(f.code().main_key_id)),
    ] * 30:
        answer = door.send(door.join_message(build(door)), "127.9.9.9")
        seen.append((answer.status, answer.kind))
        details |= {answer.json["detail"]} if answer.status == 403 else set()
    assert set(seen) == {REFUSED, (429, "too-many-attempts")}
    assert seen.count(REFUSED) <= 2 * 10, "ten by each of the two workers"
    assert len(details) == 1, "whether an invitation exists is not told"
    assert door.state() == before
    door.takes(door.join_message(request(door, f"late-{secrets.token_hex(4)}")))


def test_a_stolen_code_does_not_take_a_name_over(door: Field) -> None:
    """Who holds a good code joins under a new name only: no member's key is replaced by joining."""
    door.refuses(door.join_message(request(door, "bob", code=code_of(door, 3))), *REFUSED)


def key_change(
    field: Field, who: str, new: Identity, by: Identity, over: bytes | None = None
) -> dict[str, str]:
    statement = new_key_statement(over or field.members[who].identity.public)
    parts = {"public_key": new.public, "signature": by.sign(statement)}
    return {name: base64.b64encode(part).decode() for name, part in parts.items()}


def changes(field: Field) -> dict[str, object]:
    alice, mine = field.members["alice"].identity, fresh()
    honest = key_change(field, "mallory", mine, mine)
    return {
        "not its own key": key_change(field, "mallory", mine, fresh()),
        "a statement for another member": key_change(field, "mallory", mine, mine, alice.public),
        "alice's key": key_change(field, "mallory", alice, mine),
        "a short key": honest | {"public_key": encoded(31)},
        "no signature": {"public_key": honest["public_key"]},
        "no base64": honest | {"signature": "???"},
        "a list": [honest],
    }


@pytest.mark.parametrize(
    "which",
    [
        "not its own key",
        "a statement for another member",
        "alice's key",
        "a short key",
        "no signature",
        "no base64",
        "a list",
    ],
)
def test_no_other_key_is_put_in_force(
    door: Field, make_json_message: Any, signer: Any, which: str
) -> None:
    message = make_json_message("main", "/new_key", changes(door)[which])
    door.refuses(signer(message, door.members["mallory"].identity, "main-server"), *INVALID)


def test_a_members_own_key_is_no_new_key(door: Field, make_json_message: Any, signer: Any) -> None:
    own = door.members["mallory"].identity
    message = make_json_message("main", "/new_key", key_change(door, "mallory", own, own))
    door.refuses(signer(message, own, "main-server"), 409, "out-of-order")


def test_a_changed_key_is_in_force_and_the_old_one_is_not(
    door: Field, make_json_message: Any, signer: Any
) -> None:
    member = door.join(f"rekeyed-{secrets.token_hex(4)}")
    old, new = member.identity, fresh()
    message = make_json_message("main", "/new_key", key_change(door, member.name, new, new))
    door.takes(signer(message, old, "main-server"))
    door.refuses(door.status(member, "animal"), 401, "signature-unknown-key")
    door.takes(door.status(replace(member, identity=new), "animal"))
