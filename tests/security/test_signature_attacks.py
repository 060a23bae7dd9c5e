"""Attacks on the signatures of messages: every one is refused, and nothing is stored."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

COVERED = ["@method", "@path", "@query", "content-digest", "content-type"]


@dataclass
class Bench:
    """Alice's announcement, and ways to sign it."""

    field: Any
    make: Callable[..., Any]
    signer: Callable[..., Any]

    @property
    def unsigned(self) -> Any:
        detectors = dict.fromkeys(("face", "animal", "car", "parcel"))
        return self.make(
            "main", "/clientstatus", {"address": self.field.trap("stolen"), "detectors": detectors}
        )

    def signed(self, who: str = "alice", audience: str = "main-server", **how: Any) -> Any:
        return self.signer(self.unsigned, self.field.members[who].identity, audience, **how)

    @property
    def now(self) -> int:
        return int(time.time())


@pytest.fixture
def bench(field: Any, make_json_message: Callable[..., Any], signer: Callable[..., Any]) -> Bench:
    return Bench(field, make_json_message, signer)


def stranger(b: Bench) -> Any:
    return b.signer(b.unsigned, type(b.field.members["alice"])("stranger").identity, "main-server")


def two_signatures(b: Bench) -> Any:
    message, other = b.signed(), b.signed("bob", label="other")
    both = {
        name: f"{message.value(name)}, {other.value(name)}"
        for name in ("signature", "signature-input")
    }
    return message.with_field("Signature", both["signature"]).with_field(
        "Signature-Input", both["signature-input"]
    )


def repeated(name: str) -> Callable[[Bench], Any]:
    def build(b: Bench) -> Any:
        message = b.signed()
        return message.but(fields=(*message.fields, (name, message.value(name.lower()))))

    return build


def by_another_key_under_alices_name(b: Bench) -> Any:
    return b.signed("bob", keyid=b.field.members["alice"].identity.key_id)


def flipped(b: Bench) -> Any:
    message = b.signed()
    label, _, text = message.value("signature").partition("=")
    signature = bytearray(base64.b64decode(text.strip(":")))
    signature[7] ^= 1
    return message.with_field("Signature", f"{label}=:{base64.b64encode(signature).decode()}:")


def edited(old: str, new: str) -> Callable[[Bench], Any]:
    """Change Signature-Input after signing."""

    def build(b: Bench) -> Any:
        message = b.signed()
        assert old in message.value("signature-input")
        return message.with_field(
            "Signature-Input", message.value("signature-input").replace(old, new)
        )

    return build


def answer_as_request(b: Bench) -> Any:
    """Sign a request in the form that answers have."""
    return b.signed(
        covered=["@status", "content-digest"], without=("expires", "nonce"), tag="doorbell/1"
    )


def with_answers_signature(b: Bench) -> Any:
    honest = b.field.status(
        b.field.members["mallory"], "animal", address=b.field.trap("ok/mallory")
    )
    answer = b.field.takes(honest)
    message = b.unsigned.with_field("Content-Digest", b.signed().value("content-digest"))
    for name in ("Signature", "Signature-Input"):
        message = message.with_field(name, answer.headers[name.lower()])
    return message


def altered(**changes: Any) -> Callable[[Bench], Any]:
    return lambda b: b.signed().but(**changes)


def padded_body(b: Bench) -> Any:
    message = b.signed()
    return message.but(body=message.body + b" ")


def body_and_digest(b: Bench) -> Any:
    message, other = (
        b.signed(),
        b.signer(b.unsigned.but(body=b"{}"), b.field.members["bob"].identity, "main-server"),
    )
    return message.but(body=b"{}").with_field("Content-Digest", other.value("content-digest"))


def seen_as(**changes: Any) -> Callable[[Bench], Any]:
    """Sign one request, send another."""
    return lambda b: b.signed(seen_as=b.unsigned.but(**changes))


MALFORMED, INCOMPLETE, INVALID = "signature-malformed", "signature-incomplete", "signature-invalid"
ATTACKS: list[tuple[str, Callable[[Bench], Any], int, str]] = [
    ("unsigned", lambda b: b.unsigned, 401, "signature-missing"),
    ("no Signature", lambda b: b.signed().without("signature"), 401, "signature-missing"),
    (
        "no Signature-Input",
        lambda b: b.signed().without("signature-input"),
        401,
        "signature-missing",
    ),
    ("no Content-Digest", lambda b: b.signed().without("content-digest"), 401, INCOMPLETE),
    ("no Content-Type", lambda b: b.signed().without("content-type"), 401, MALFORMED),
    ("altered body", padded_body, 401, "digest-mismatch"),
    ("no body", altered(body=b""), 401, "digest-mismatch"),
    ("altered body and digest", body_and_digest, 401, INVALID),
    ("altered path", altered(path="/new_key"), 401, INVALID),
    ("added query", altered(path="/clientstatus?device=bob"), 401, INVALID),
    ("taken away query", seen_as(path="/clientstatus?a=b"), 401, INVALID),
    ("signed for another method", seen_as(method="PUT"), 401, INVALID),
    ("signed for another path", seen_as(path="/new_key"), 401, INVALID),
    (
        "altered Content-Type",
        lambda b: b.signed().with_field("Content-Type", "application/json;charset=utf-16"),
        401,
        INVALID,
    ),
    (
        "altered digest",
        lambda b: b.signed().with_field(
            "Content-Digest", b.signed(digest="sha-256=:AAAA:").value("content-digest")
        ),
        401,
        INVALID,
    ),
    (
        "digest by SHA-512's name",
        lambda b: b.signed(digest="sha-512=:AAAA:"),
        401,
        "digest-mismatch",
    ),
    ("digest of nothing", lambda b: b.signed(digest="sha-256=::"), 401, "digest-mismatch"),
    (
        "digest by MD5",
        lambda b: b.signed(digest="md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"),
        401,
        "digest-mismatch",
    ),
    ("another key", by_another_key_under_alices_name, 401, INVALID),
    ("unknown key", stranger, 401, "signature-unknown-key"),
    ("revoked key", lambda b: b.signed("ruth"), 403, "revoked"),
    (
        "expired",
        lambda b: b.signed(created=b.now - 900, expires=b.now - 600),
        401,
        "signature-expired",
    ),
    (
        "from the future",
        lambda b: b.signed(created=b.now + 900, expires=b.now + 999),
        401,
        "signature-from-the-future",
    ),
    ("good for an hour", lambda b: b.signed(expires=b.now + 3600), 401, MALFORMED),
    ("expires before it begins", lambda b: b.signed(expires=b.now - 1), 401, MALFORMED),
    ("good for ever", lambda b: b.signed(created=0, expires=2**53), 401, MALFORMED),
    ("created by a float", lambda b: b.signed(created=1.5), 401, MALFORMED),
    ("created as text", lambda b: b.signed(created="1700000000"), 401, MALFORMED),
    (
        "for the aggregator",
        lambda b: b.signed(audience="secure-aggregator"),
        401,
        "signature-wrong-audience",
    ),
    ("for a device", lambda b: b.signed(audience="device-1"), 401, "signature-wrong-audience"),
    ("for nobody", lambda b: b.signed(tag="doorbell/1"), 401, "signature-wrong-audience"),
    (
        "of another protocol version",
        lambda b: b.signed(tag="doorbell/0 main-server"),
        401,
        "signature-wrong-audience",
    ),
    *(
        (
            f"does not cover {part}",
            lambda b, p=part: b.signed(covered=[c for c in COVERED if c != p]),
            401,
            INCOMPLETE,
        )
        for part in COVERED
    ),
    *(
        (f"has no {name}", lambda b, n=name: b.signed(without=(n,)), 401, INCOMPLETE)
        for name in ("created", "expires", "nonce", "keyid", "alg", "tag")
    ),
    ("covers nothing", lambda b: b.signed(covered=[]), 401, INCOMPLETE),
    ("covers more", lambda b: b.signed(covered=[*COVERED, "@authority"]), 401, MALFORMED),
    ("covers in another order", lambda b: b.signed(covered=COVERED[::-1]), 401, MALFORMED),
    ("covers one part twice", lambda b: b.signed(covered=[*COVERED, "@method"]), 401, MALFORMED),
    ("two signatures", two_signatures, 401, MALFORMED),
    ("Signature twice", repeated("Signature"), 401, MALFORMED),
    ("Signature-Input twice", repeated("Signature-Input"), 401, MALFORMED),
    ("Content-Digest twice", repeated("Content-Digest"), 401, "signature-invalid"),
    ("another label", lambda b: b.signed(label="sig1"), 401, MALFORMED),
    ("alg rsa", lambda b: b.signed(alg="rsa-pss-sha512"), 401, MALFORMED),
    ("alg hmac", lambda b: b.signed(alg="hmac-sha256"), 401, MALFORMED),
    ("alg none", lambda b: b.signed(alg="none"), 401, MALFORMED),
    ("alg changed after signing", edited('"ed25519"', '"hmac-sha256"'), 401, MALFORMED),
    ("nonce changed after signing", edited('nonce="', 'nonce="A'), 401, MALFORMED),
    ("expiry moved after signing", edited(";expires=1", ";expires=2"), 401, MALFORMED),
    ("short nonce", lambda b: b.signed(nonce="AAAA"), 401, MALFORMED),
    ("key id is a path", lambda b: b.signed(keyid="../../identity.key"), 401, MALFORMED),
    ("key id is SQL", lambda b: b.signed(keyid="' OR 1=1 --"), 401, MALFORMED),
    ("flipped bit", flipped, 401, INVALID),
    ("empty signature", lambda b: b.signed().with_field("Signature", "doorbell=::"), 401, INVALID),
    (
        "signature that is no bytes",
        lambda b: b.signed().with_field("Signature", "doorbell=1"),
        401,
        MALFORMED,
    ),
    ("an answer's form", answer_as_request, 401, INCOMPLETE),
    ("an answer's signature", with_answers_signature, 401, INCOMPLETE),
    (
        "bytes above ASCII",
        lambda b: b.signed().with_field("Signature-Input", "doorbell=\xff"),
        401,
        MALFORMED,
    ),
    (
        "long Signature",
        lambda b: b.signed().with_field("Signature", f"doorbell=:{'A' * 4000}:"),
        401,
        MALFORMED,
    ),
    (
        "field beyond the limit",
        lambda b: b.signed().with_field("X-Long", "x" * 9000),
        431,
        "server",
    ),
    ("too many fields", lambda b: b.signed().but(fields=(("X-A", "b"),) * 80), 431, "server"),
    (
        "line feed within a field",
        lambda b: b.signed().with_field("X-A", "b\n\tSignature: c"),
        400,
        "server",
    ),
    (
        "underscored field",
        lambda b: b.signed().without("signature").with_field("Signature_", "a"),
        401,
        "signature-missing",
    ),
]


@pytest.mark.parametrize(
    ("attack", "status", "kind"), [pytest.param(*row[1:], id=row[0]) for row in ATTACKS]
)
def test_a_bad_signature_is_refused(
    bench: Bench, attack: Callable[[Bench], Any], status: int, kind: str
) -> None:
    bench.field.refuses(attack(bench), status, kind)


def test_the_same_announcement_well_signed_is_taken(bench: Bench) -> None:
    before = bench.field.state()
    answer = bench.field.takes(bench.signed())
    assert answer.json["name"] == "alice"
    assert bench.field.state() != before
    bench.field.announce(bench.field.members["alice"], "face", "animal", "car", "parcel")


@pytest.mark.parametrize("service", ["main", "aggregator"])
def test_a_captured_request_counts_once_whichever_worker_gets_it(
    bench: Bench, service: str
) -> None:
    field, alice = bench.field, bench.field.members["alice"]
    if service == "main":
        captured = field.status(alice, "face", "animal", "car", "parcel")
    else:
        captured = field.container(alice, "aggregator", "/cmodel", field.sent["alice/parcel"])
    field.takes(captured)
    for _ in range(8):  # each on a connection of its own: both workers get some
        field.refuses(captured, 401, "signature-replayed")


@pytest.mark.parametrize("service", ["aggregator", "device1", "device2"])
def test_a_message_for_main_is_refused_elsewhere(bench: Bench, service: str) -> None:
    path = "/cmodel" if service == "aggregator" else "/aggmodel"
    message = bench.unsigned.but(service=service, path=path)
    signed = bench.signer(message, bench.field.members["alice"].identity, "main-server")
    bench.field.refuses(signed, 401, "signature-wrong-audience")


@pytest.mark.parametrize("service", ["aggregator", "device1", "device2", "guarded"])
@pytest.mark.parametrize("how", ["unsigned", "stranger"])
def test_no_service_takes_a_strangers_message(
    bench: Bench, message: Any, service: str, how: str
) -> None:
    path = "/aggmodel" if service.startswith("device") else "/cmodel"
    said = message(
        service, "POST", path, b"hello", (("Content-Type", "application/vnd.doorbell.container"),)
    )
    if how == "unsigned":
        bench.field.refuses(said, 401, "signature-missing")
    else:
        key = type(bench.field.members["alice"])("stranger").identity
        signed = bench.signer(said, key, bench.field.audiences[service])
        bench.field.refuses(signed, 401, "signature-unknown-key")


ROLES = [
    ("alice", "main", "POST", "/check_seeds"),
    ("alice", "main", "POST", "/secagg_model"),
    ("alice", "main", "GET", "/roster"),
    ("alice", "main", "GET", "/round/face"),
    ("aggregator", "main", "POST", "/clientstatus"),
    ("aggregator", "main", "POST", "/cmodel"),
    ("aggregator", "main", "GET", f"/model/{'0' * 64}"),
    ("aggregator", "aggregator", "POST", "/cmodel"),
]


@pytest.mark.parametrize(("who", "service", "method", "path"), ROLES, ids=str)
def test_a_member_cannot_do_what_another_role_does(
    bench: Bench, message: Any, who: str, service: str, method: str, path: str
) -> None:
    member = bench.field.key_of(who) if who == "aggregator" else bench.field.members[who]
    said = (
        bench.unsigned.but(service=service, path=path)
        if method == "POST"
        else message(service, method, path)
    )
    bench.field.refuses(
        bench.signer(said, member.identity, bench.field.audiences[service]), 403, "wrong-role"
    )


@pytest.mark.parametrize(
    ("who", "service"),
    [
        ("main", "main"),
        ("main", "aggregator"),
        ("device1", "device1"),
        ("aggregator", "device1"),
        ("alice", "device1"),
    ],
)
def test_a_key_counts_only_where_it_is_on_the_list(bench: Bench, who: str, service: str) -> None:
    member = bench.field.members["alice"] if who == "alice" else bench.field.key_of(who)
    path = {"main": "/clientstatus", "aggregator": "/cmodel", "device1": "/aggmodel"}[service]
    message = bench.unsigned.but(service=service, path=path)
    signed = bench.signer(message, member.identity, bench.field.audiences[service])
    bench.field.refuses(signed, 401, "signature-unknown-key")


def test_a_device_that_has_not_joined_takes_nothing(bench: Bench) -> None:
    message = bench.unsigned.but(service="device2", path="/aggmodel")
    signed = bench.signer(message, bench.field.key_of("main").identity, "device-2")
    bench.field.refuses(signed, 401, "signature-unknown-key")


def test_a_bad_signature_spends_no_nonce(bench: Bench) -> None:
    nonce = base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
    alice = bench.field.members["alice"].identity
    bench.field.refuses(bench.signed("bob", keyid=alice.key_id, nonce=nonce), 401, INVALID)
    honest = bench.unsigned.but(
        body=bench.field.status(bench.field.members["alice"], "face", "animal").body
    )
    bench.field.takes(bench.signer(honest, alice, "main-server", nonce=nonce))


def test_a_strangers_body_is_not_waited_for(bench: Bench) -> None:
    """The signature is judged before the body is read: a body that never comes holds nobody up."""
    head = b"POST /cmodel HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nAccept: application/json\r\n\r\n"
    started = time.monotonic()
    (answer,) = bench.field.send_raw("aggregator", head)
    assert (answer.status, answer.kind) == (401, "signature-missing")
    assert time.monotonic() - started < 5
