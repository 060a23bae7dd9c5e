"""Signed messages: what holds, what each attack is told, and an independent signer written from RFC
9421 alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import HTTPMessageVerifier, MappingKeyResolver
from http_message_signatures.algorithms import ED25519
from http_message_signatures.exceptions import InvalidSignature
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from shared.errors import BadSignature, DoorbellError, NotSigned
from shared.security.identity import Identity, fingerprint
from shared.security.signing import (
    Receiver,
    Verified,
    sign_request,
    sign_response,
    verify_request,
    verify_response,
)
from shared.storage.nonces import Nonces

PUBLISHED = json.loads((Path(__file__).parents[2] / "vectors" / "signing.json").read_text())
NOW = 1_800_000_000
DEVICE, MAIN, STRANGER = (Identity.from_private(bytes([number]) * 32) for number in (1, 2, 3))
URL, TARGET = "http://localhost:8003/cmodel?detector=front%20door", "/cmodel?detector=front%20door"
BODY, TYPE = b"masked update", {"Content-Type": "application/vnd.doorbell.container"}
COVERED = ("@method", "@path", "@query", "content-digest", "content-type")
PARAMETERS: dict[str, Any] = {
    "created": NOW,
    "expires": NOW + 300,
    "nonce": "AAAAAAAAAAAAAAAAAAAAAA",
    "keyid": DEVICE.key_id,
    "alg": "ed25519",
    "tag": "doorbell/1 aggregator",
}


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with closing(Nonces(tmp_path)) as nonces:
        yield Receiver("aggregator", {DEVICE.key_id: DEVICE.public}.get, nonces)


@dataclass(frozen=True)
class Sent:
    """A request as it reaches the receiver."""

    method: str = "POST"
    target: str = TARGET
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = BODY
    now: float = NOW

    def verified(self, receiver: Receiver) -> Verified:
        return verify_request(
            self.method, self.target, Headers(self.headers), lambda: self.body, receiver, self.now
        )

    def also(self, **changed: str) -> Sent:
        return replace(
            self,
            headers=self.headers | {name.replace("_", "-"): text for name, text in changed.items()},
        )

    def without(self, name: str) -> Sent:
        return replace(
            self, headers={key: text for key, text in self.headers.items() if key != name}
        )


def sent(
    identity: Identity = DEVICE, audience: str = "aggregator", body: bytes = BODY, now: float = NOW
) -> Sent:
    return Sent(
        headers=TYPE | sign_request("POST", URL, TYPE, body, identity, audience, now), body=body
    )


def by_hand(
    covered: Iterable[str] = COVERED, identity: Identity = DEVICE, drop: str = "", **changed: object
) -> Sent:
    """Sign a request from RFC 9421, sections 2.3, 2.5 and 4, without the library."""
    digest = f"sha-256=:{base64.b64encode(hashlib.sha256(BODY).digest()).decode()}:"
    values = {
        "@method": "POST",
        "@path": "/cmodel",
        "@query": "?detector=front%20door",
        "@authority": "doorbell",
        "content-digest": digest,
        "content-type": TYPE["Content-Type"],
        "@status": "200",
    }
    parameters = {name: value for name, value in (PARAMETERS | changed).items() if name != drop}
    inner = "(" + " ".join(f'"{name}"' for name in covered) + ")"
    inner += "".join(
        f";{name}={value if isinstance(value, int) else f'{chr(34)}{value}{chr(34)}'}"
        for name, value in parameters.items()
    )
    base = (
        "".join(f'"{name}": {values[name]}\n' for name in covered) + f'"@signature-params": {inner}'
    )
    signature = base64.b64encode(identity.sign(base.encode())).decode()
    signed = {
        "Content-Digest": digest,
        "Signature-Input": f"doorbell={inner}",
        "Signature": f"doorbell=:{signature}:",
    }
    return Sent(headers=TYPE | signed)


def slug_of(refused: DoorbellError) -> str:
    assert int(refused.status) == 401
    problem = refused.problem()
    assert problem["type"] == f"urn:doorbell:problem:{refused.slug}"
    assert refused.happened.endswith(".")
    assert refused.todo.endswith(".")
    return refused.slug


def test_library_agrees_with_the_published_signature() -> None:
    vector = PUBLISHED["ed25519_request"]
    signed = {"Signature-Input": vector["signature_input"], "Signature": vector["signature"]}
    message = SimpleNamespace(
        method=vector["method"], url=vector["url"], headers=vector["headers"] | signed
    )
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public"]))
    keys = MappingKeyResolver(public_keys={vector["key_id"]: key}, private_keys={})
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=keys)
    (result,) = verifier.verify(message, max_age=None)
    base = "\n".join(f"{name}: {value}" for name, value in result.covered_components.items())
    assert base == "\n".join(vector["signature_base"])
    message.headers["Date"] = "Tue, 20 Apr 2021 02:07:56 GMT"
    with pytest.raises(InvalidSignature):
        verifier.verify(message, max_age=None)


def test_our_keys_sign_as_published() -> None:
    vector = PUBLISHED["ed25519_request"]
    signature = Identity.from_private(bytes.fromhex(vector["private"])).sign(
        "\n".join(vector["signature_base"]).encode()
    )
    assert vector["signature"] == f"sig-b26=:{base64.b64encode(signature).decode()}:"


def test_content_digest_is_the_published_one() -> None:
    vector = PUBLISHED["content_digest"]
    signed = sign_request("POST", URL, TYPE, vector["body"].encode(), DEVICE, "aggregator", NOW)
    assert signed["Content-Digest"] == vector["field"]


@pytest.mark.parametrize("body", [b"", b"{}", bytes(100_000)], ids=len)
def test_signed_request_holds(receiver: Receiver, body: bytes) -> None:
    verified = sent(body=body).verified(receiver)
    assert (verified.key_id, verified.body) == (DEVICE.key_id, body)
    assert verified.body_sha256 == hashlib.sha256(body).digest()
    assert repr(body) not in repr(verified) or not body


def test_get_without_body_or_type_holds(receiver: Receiver) -> None:
    signed = sign_request("GET", "http://host", {"Accept": "*/*"}, b"", DEVICE, "aggregator", NOW)
    assert signed.keys() == {"Content-Digest", "Signature-Input", "Signature"}
    assert verify_request("GET", "/", Headers(signed), lambda: b"", receiver, NOW).body == b""


def test_request_signed_by_hand_holds(receiver: Receiver) -> None:
    assert by_hand().verified(receiver).key_id == DEVICE.key_id


def test_request_as_requests_prepares_it_holds(receiver: Receiver) -> None:
    url = "http://LOCALHOST:8003/models/é/%7e?detector=front door&x=ä"
    request = requests.Request("POST", url, headers=TYPE, data=BODY).prepare()
    assert request.url
    request.headers.update(
        sign_request("POST", request.url, request.headers, BODY, DEVICE, "aggregator", NOW)
    )
    assert (
        verify_request("POST", request.path_url, request.headers, lambda: BODY, receiver, NOW).body
        == BODY
    )


def test_every_request_has_its_own_nonce(receiver: Receiver) -> None:
    for _ in range(3):
        sent().verified(receiver)


@pytest.mark.parametrize(
    ("method", "url", "headers", "body", "audience"),
    [
        ("post", URL, TYPE, BODY, "main"),
        ("POST", "/cmodel", TYPE, BODY, "main"),
        ("POST", URL, {}, BODY, "main"),
        ("POST", "http://a/ b", TYPE, BODY, "main"),
        ("POST", "http://a/é", TYPE, BODY, "main"),
        ("POST", URL, {"content-type": "a\r\nb: c"}, BODY, "main"),
        ("POST", URL, {"content-type": "é"}, BODY, "main"),
        ("POST", URL, TYPE, BODY, "é"),
    ],
)
def test_what_cannot_be_signed_is_an_error_of_value(
    method: str, url: str, headers: dict[str, str], body: bytes, audience: str
) -> None:
    with pytest.raises(ValueError, match=r"cannot be signed|needs a Content-Type"):
        sign_request(method, url, headers, body, DEVICE, audience, NOW)


PLAIN = sent()
INPUT, SIGNATURE = PLAIN.headers["Signature-Input"], PLAIN.headers["Signature"]
ATTACKS: dict[str, tuple[str, Sent]] = {
    "unsigned": ("signature-missing", Sent(headers=TYPE)),
    "no Signature": ("signature-missing", PLAIN.without("Signature")),
    "no Signature-Input": ("signature-missing", PLAIN.without("Signature-Input")),
    "no Content-Digest": ("signature-incomplete", PLAIN.without("Content-Digest")),
    "no Content-Type": ("signature-malformed", PLAIN.without("Content-Type")),
    "altered body": ("digest-mismatch", replace(PLAIN, body=b"another update")),
    "no body": ("digest-mismatch", replace(PLAIN, body=b"")),
    "altered body and digest": (
        "signature-invalid",
        replace(PLAIN, body=b"x").also(Content_Digest=sent(body=b"x").headers["Content-Digest"]),
    ),
    "second digest": (
        "signature-invalid",
        PLAIN.also(Content_Digest=PLAIN.headers["Content-Digest"] + ", md5=:AA==:"),
    ),
    "digest of another kind": ("signature-invalid", PLAIN.also(Content_Digest="md5=:AA==:")),
    "altered path": (
        "signature-invalid",
        replace(PLAIN, target="/secagg_model?detector=front%20door"),
    ),
    "altered query": ("signature-invalid", replace(PLAIN, target="/cmodel?detector=back%20door")),
    "query with more": ("signature-invalid", replace(PLAIN, target=TARGET + "&detector=back")),
    "no query": ("signature-invalid", replace(PLAIN, target="/cmodel")),
    "path decoded": ("signature-malformed", replace(PLAIN, target="/cmodel?detector=front door")),
    "path with fragment": ("signature-malformed", replace(PLAIN, target=TARGET + "#fragment")),
    "path that is an address": (
        "signature-malformed",
        replace(PLAIN, target="http://doorbell/cmodel"),
    ),
    "path that turns into a host": (
        "signature-malformed",
        replace(PLAIN, target="@other" + TARGET),
    ),
    "altered method": ("signature-invalid", replace(PLAIN, method="PUT")),
    "altered type": ("signature-invalid", PLAIN.also(Content_Type="application/json")),
    "garbled signature": ("signature-invalid", PLAIN.also(Signature=f"doorbell=:{'A' * 86}==:")),
    "short signature": ("signature-invalid", PLAIN.also(Signature="doorbell=:AAAA:")),
    "empty signature": ("signature-invalid", PLAIN.also(Signature="doorbell=::")),
    "signature of another request": (
        "signature-invalid",
        PLAIN.also(Signature=sent().headers["Signature"]),
    ),
    "other key": ("signature-invalid", by_hand(identity=STRANGER)),
    "unknown key": ("signature-unknown-key", sent(STRANGER)),
    "key id that is none": ("signature-malformed", by_hand(keyid="../../etc")),
    "wrong audience": ("signature-wrong-audience", sent(audience="main")),
    "longer audience": ("signature-wrong-audience", sent(audience="aggregator 2")),
    "other protocol": ("signature-wrong-audience", by_hand(tag="doorbell/2 aggregator")),
    "a year late": ("signature-expired", replace(PLAIN, now=NOW + 31_536_000)),
    "just too late": ("signature-expired", replace(PLAIN, now=NOW + 600.5)),
    "a year early": ("signature-from-the-future", replace(PLAIN, now=NOW - 31_536_000)),
    "just too early": ("signature-from-the-future", replace(PLAIN, now=NOW - 300.5)),
    "good for too long": ("signature-malformed", by_hand(expires=NOW + 601)),
    "good for no time": ("signature-malformed", by_hand(expires=NOW)),
    "expires before created": ("signature-malformed", by_hand(expires=NOW - 1)),
    "created is text": ("signature-malformed", by_hand(created="now")),
    "created beyond any calendar": (
        "signature-from-the-future",
        by_hand(created=10**15 - 301, expires=10**15 - 1),
    ),
    "negative created": ("signature-expired", by_hand(created=-(10**14), expires=300 - 10**14)),
    "short nonce": ("signature-malformed", by_hand(nonce="AA")),
    "hmac-sha256": ("signature-malformed", by_hand(alg="hmac-sha256")),
    "rsa-pss-sha512": ("signature-malformed", by_hand(alg="rsa-pss-sha512")),
    "unknown parameter": ("signature-malformed", by_hand(context="x")),
    "component twice": ("signature-malformed", by_hand((*COVERED, "@path"))),
    "component of an answer": ("signature-malformed", by_hand((*COVERED, "@status"))),
    "more components": ("signature-malformed", by_hand((*COVERED, "@authority"))),
    "body without type": ("signature-incomplete", by_hand(COVERED[:-1]).without("Content-Type")),
    "other order": ("signature-malformed", by_hand(reversed(COVERED))),
    "nothing covered": ("signature-incomplete", by_hand(())),
    "two signatures": (
        "signature-malformed",
        PLAIN.also(
            Signature_Input=INPUT + ", " + INPUT.replace("door", "x", 1),
            Signature=SIGNATURE + ", " + SIGNATURE.replace("door", "x", 1),
        ),
    ),
    "one label twice": ("signature-malformed", PLAIN.also(Signature=SIGNATURE + ", " + SIGNATURE)),
    "other label": (
        "signature-malformed",
        PLAIN.also(
            Signature_Input=INPUT.replace("doorbell", "bell", 1),
            Signature=SIGNATURE.replace("doorbell", "bell"),
        ),
    ),
    "duplicate header": ("signature-malformed", PLAIN.also(signature=SIGNATURE)),
    "duplicate type": ("signature-malformed", PLAIN.also(CONTENT_TYPE=TYPE["Content-Type"])),
    "not ASCII": ("signature-malformed", PLAIN.also(Signature_Input="doorbell=\xff\xfe")),
    "not text": ("signature-malformed", PLAIN.also(Signature_Input="doorbell=(\x00)")),
    "no list": ("signature-malformed", PLAIN.also(Signature_Input="doorbell=1")),
    "signature is text": ("signature-malformed", PLAIN.also(Signature='doorbell="x"')),
    "empty Signature-Input": ("signature-malformed", PLAIN.also(Signature_Input="")),
    "huge Signature-Input": (
        "signature-malformed",
        PLAIN.also(Signature_Input="doorbell=(" + "1 " * 10**6 + ")"),
    ),
    **{
        f"{name} not covered": (
            "signature-incomplete",
            by_hand(part for part in COVERED if part != name),
        )
        for name in COVERED
    },
    **{f"no {name}": ("signature-incomplete", by_hand(drop=name)) for name in PARAMETERS},
}


@pytest.mark.parametrize(("slug", "attack"), ATTACKS.values(), ids=ATTACKS)
def test_attack_is_refused_with_its_reason_and_spends_nothing(
    receiver: Receiver, slug: str, attack: Sent
) -> None:
    with pytest.raises((NotSigned, BadSignature)) as refused:
        attack.verified(receiver)
    assert slug_of(refused.value) == slug
    PLAIN.verified(receiver)


@pytest.mark.parametrize("now", [NOW - 300, NOW, NOW + 600])
def test_replay_is_refused_after_a_restart_too(
    receiver: Receiver, tmp_path: Path, now: float
) -> None:
    PLAIN.verified(receiver)
    with closing(Nonces(tmp_path)) as nonces:
        for again in (receiver, replace(receiver, nonces=nonces)):
            with pytest.raises(BadSignature) as refused:
                replace(PLAIN, now=now).verified(again)
            assert slug_of(refused.value) == "signature-replayed"


@pytest.mark.parametrize("now", [NOW - 300, NOW, NOW + 300, NOW + 600])
def test_clock_may_be_off_by_300_seconds(receiver: Receiver, now: float) -> None:
    replace(PLAIN, now=now).verified(receiver)
    with pytest.raises(BadSignature, match="received before"):
        replace(PLAIN, now=now).verified(receiver)


def test_refusal_for_the_clock_says_by_how_much(receiver: Receiver) -> None:
    with pytest.raises(BadSignature, match=r"differ by 1000 s.*NTP"):
        replace(PLAIN, now=NOW - 1000).verified(receiver)
    with pytest.raises(BadSignature, match=r"expired 1000 s ago.*NTP"):
        replace(PLAIN, now=NOW + 1300).verified(receiver)


@pytest.mark.parametrize(
    "attack",
    [STRANGER, replace(PLAIN, target="/"), replace(PLAIN, now=0), PLAIN.without("Signature")],
)
def test_body_of_a_stranger_is_not_read(receiver: Receiver, attack: Sent | Identity) -> None:
    refused = sent(attack) if isinstance(attack, Identity) else attack
    with pytest.raises((NotSigned, BadSignature)):
        verify_request(
            refused.method, refused.target, refused.headers, pytest.fail, receiver, refused.now
        )


def test_key_that_is_taken_off_the_list_no_longer_calls(receiver: Receiver) -> None:
    revoked = replace(receiver, keys=lambda _: None)
    with pytest.raises(BadSignature, match="unknown key id"):
        PLAIN.verified(revoked)


ANSWER, ANSWER_BODY = {"Content-Type": "application/json"}, b'{"said": "kept"}'


def answered(
    receiver: Receiver, request: Sent, status: int = 200, identity: Identity = MAIN
) -> dict[str, str]:
    return ANSWER | sign_response(
        status, ANSWER, ANSWER_BODY, request.verified(receiver), identity, NOW + 1e6
    )


def test_signed_answer_holds_whatever_the_clocks_say(receiver: Receiver) -> None:
    request = sent()
    headers = answered(receiver, request, 409)
    verify_response(409, headers, ANSWER_BODY, request.headers, MAIN.public)
    assert headers["Signature-Input"].startswith(
        'doorbell=("@status" "content-digest" "signature";req;key="doorbell" "signature-input";req;key="doorbell"'
        ' "content-type");'
    )


def test_empty_answer_holds(receiver: Receiver) -> None:
    request = sent()
    headers = sign_response(204, {}, b"", request.verified(receiver), MAIN, NOW)
    verify_response(204, headers, b"", request.headers, MAIN.public)


def test_answer_to_another_request_is_refused(receiver: Receiver) -> None:
    first, second = sent(), sent()
    headers = answered(receiver, first)
    with pytest.raises(BadSignature) as refused:
        verify_response(200, headers, ANSWER_BODY, second.headers, MAIN.public)
    assert slug_of(refused.value) == "signature-invalid"


Change = Callable[[dict[str, str]], dict[str, Any]]
FORGERIES: dict[str, tuple[str, Change]] = {
    "status": ("signature-invalid", lambda headers: {"status": 201}),
    "body": ("digest-mismatch", lambda headers: {"body": b'{"said": "lost"}'}),
    "type": (
        "signature-invalid",
        lambda headers: {"headers": headers | {"Content-Type": "text/html"}},
    ),
    "no type": (
        "signature-malformed",
        lambda headers: {
            "headers": {name: value for name, value in headers.items() if name != "Content-Type"}
        },
    ),
    "other service": ("signature-wrong-key", lambda headers: {"public": STRANGER.public}),
    "unsigned": ("signature-missing", lambda headers: {"headers": ANSWER}),
    "the request itself": ("signature-incomplete", lambda headers: {"headers": PLAIN.headers}),
    "other key under our name": (
        "signature-invalid",
        lambda headers: {
            "headers": headers
            | {"Signature": f"doorbell=:{base64.b64encode(STRANGER.sign(b'')).decode()}:"}
        },
    ),
}


@pytest.mark.parametrize(("slug", "change"), FORGERIES.values(), ids=FORGERIES)
def test_forged_answer_is_refused_with_its_reason(
    receiver: Receiver, slug: str, change: Change
) -> None:
    request = sent()
    headers = answered(receiver, request)
    genuine = {
        "status": 200,
        "headers": headers,
        "body": ANSWER_BODY,
        "asked": request.headers,
        "public": MAIN.public,
    }
    verify_response(**genuine)  # type: ignore[arg-type]
    with pytest.raises((NotSigned, BadSignature)) as refused:
        verify_response(**(genuine | change(headers)))
    assert slug_of(refused.value) == slug


def test_answer_is_no_request(receiver: Receiver) -> None:
    headers = answered(replace(receiver), sent(), identity=DEVICE)
    with pytest.raises(BadSignature) as refused:
        Sent(headers=headers, body=ANSWER_BODY).verified(receiver)
    assert slug_of(refused.value) == "signature-incomplete"


FIELD = st.one_of(
    st.text(max_size=80), st.binary(max_size=80).map(lambda data: data.decode("latin-1"))
)
PIECES = st.lists(
    st.sampled_from(
        [
            "doorbell",
            "=",
            "(",
            ")",
            '"@method"',
            '"@path"',
            '"@query"',
            '"content-digest"',
            '"content-type"',
            " ",
            ";",
            "created",
            "expires",
            "nonce",
            "keyid",
            "alg",
            "tag",
            ";created=1",
            '="ed25519"',
            ",",
            ":",
            ":AA==:",
            "?1",
            "@1",
            "-",
            "1.5",
            "9" * 16,
            '%"',
            '%"%ff"',
            "\\",
            '"',
            ";req",
            ";key=",
            '"x"',
            ";sf",
            ";bs",
            ";tr",
            "*",
            "\x7f",
        ]
    ),
    max_size=40,
).map("".join)

SPLICED = st.tuples(st.integers(9, len(INPUT)), PIECES).map(
    lambda at: INPUT[: at[0]] + at[1] + INPUT[at[0] :]
)


@settings(deadline=None, max_examples=300)
@given(
    inputs=st.one_of(FIELD, PIECES.map("doorbell=(".__add__), SPLICED),
    signature=st.one_of(st.just(SIGNATURE), FIELD, PIECES),
    digest=st.one_of(st.just(PLAIN.headers["Content-Digest"]), FIELD),
    target=st.one_of(st.just(TARGET), FIELD.map("/".__add__), FIELD),
    method=st.one_of(st.just("POST"), FIELD),
)
@example("doorbell=(" + "(" * 900, SIGNATURE, "", TARGET, "POST")
@example('doorbell=("@path";bs;key=1)', SIGNATURE, "", TARGET, "POST")
def test_garbage_raises_only_the_typed_errors(
    inputs: str, signature: str, digest: str, target: str, method: str
) -> None:
    headers = TYPE | {"Signature-Input": inputs, "Signature": signature, "Content-Digest": digest}
    with TemporaryDirectory() as folder, closing(Nonces(Path(folder))) as nonces:
        receiver = Receiver("aggregator", {DEVICE.key_id: DEVICE.public}.get, nonces)
        with suppress(NotSigned, BadSignature):
            verify_request(method, target, headers, lambda: BODY, receiver, NOW)
        with suppress(NotSigned, BadSignature):
            verify_response(200, headers, BODY, PLAIN.headers, DEVICE.public)


@settings(deadline=None, max_examples=300)
@given(name=st.sampled_from(sorted(PLAIN.headers)), data=st.data())
def test_one_altered_character_never_holds(name: str, data: st.DataObject) -> None:
    text = PLAIN.headers[name]
    at = data.draw(st.integers(0, len(text) - 1))
    assume(
        name != "Signature" or text[at + 1 :] != "==:"
    )  # the last digit of base64 has bits that say nothing
    altered = (
        text[:at]
        + data.draw(st.characters(max_codepoint=255).filter(lambda new: new != text[at]))
        + text[at + 1 :]
    )
    with TemporaryDirectory() as folder, closing(Nonces(Path(folder))) as nonces:
        receiver = Receiver("aggregator", {DEVICE.key_id: DEVICE.public}.get, nonces)
        with pytest.raises((NotSigned, BadSignature)):
            verify_request(
                "POST", TARGET, PLAIN.headers | {name: altered}, lambda: BODY, receiver, NOW
            )


def test_fingerprint_is_what_a_request_is_known_by(receiver: Receiver) -> None:
    assert f'keyid="{fingerprint(DEVICE.public)}"' in PLAIN.headers["Signature-Input"]
    assert 'tag="doorbell/1 aggregator"' in PLAIN.headers["Signature-Input"]
