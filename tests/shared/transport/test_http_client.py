"""The client against a real server on a real socket: retries, typed refusals, and nothing but our
own errors.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shared.errors import (
    BadSignature,
    DoorbellError,
    Forbidden,
    InvalidMessage,
    NotFound,
    NotSigned,
    OutOfOrder,
    PeerUnreachable,
)
from shared.security.identity import Identity
from shared.security.signing import Receiver, Verified, sign_response, verify_request
from shared.storage.nonces import Nonces
from shared.transport.http_client import CONTAINER_TYPE, HttpClient
from shared.transport.http_client import Peer as Service

Headers = dict[str, str]


@dataclass
class Peer:
    """A server that gives the answers it was told, the last one for ever, and remembers what it was
    asked.
    """

    url: str = ""
    answers: list[tuple[int, Headers, bytes]] = field(default_factory=list)
    requests: list[tuple[str, str, Headers, bytes]] = field(default_factory=list)
    sign: Callable[[int, Headers, bytes], Headers] = lambda *_: {}

    def answer(
        self, status: int, message: object = None, body: bytes = b"", **headers: str
    ) -> None:
        if message is not None:
            body, headers = (
                json.dumps(message).encode(),
                {"Content-Type": "application/json"} | headers,
            )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, named, body))

    def next_answer(self) -> tuple[int, Headers, bytes]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def peer() -> Iterator[Peer]:
    told = Peer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told.requests.append((self.command, self.path, dict(self.headers), body))
            status, headers, answer = told.next_answer()
            headers = headers | told.sign(status, headers, answer)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(answer))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)
            if "Content-Length" in headers:
                self.close_connection = True

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    yield told
    server.shutdown()
    server.server_close()


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def client(slept: list[float]) -> HttpClient:
    return HttpClient(timeout_s=5, sleep=slept.append)


@pytest.fixture
def nobody() -> str:
    """Return the address of a port where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_get_asks_for_json_and_brings_the_answer(peer: Peer, client: HttpClient) -> None:
    peer.answer(200, {"status": "ok"})
    reply = client.get(f"{peer.url}/healthz")
    assert reply.json == {"status": "ok"}
    assert reply.body == b'{"status": "ok"}'
    assert (reply.bytes_up, reply.bytes_down) == (0, len(reply.body))
    method, path, headers, body = peer.requests[0]
    assert (method, path, headers["Accept"], body) == ("GET", "/healthz", "application/json", b"")


def test_post_carries_the_container_untouched(peer: Peer, client: HttpClient) -> None:
    container = bytes(range(256)) * 100
    peer.answer(200, {})
    assert client.post(f"{peer.url}/cmodel", container).bytes_up == len(container)
    method, path, headers, body = peer.requests[0]
    assert (method, path, headers["Content-Type"], body) == (
        "POST",
        "/cmodel",
        CONTAINER_TYPE,
        container,
    )


def test_post_json_carries_the_message(peer: Peer, client: HttpClient) -> None:
    peer.answer(200, {})
    client.post_json(f"{peer.url}/clientstatus", {"device": "device-1", "round": None})
    method, _, headers, body = peer.requests[0]
    assert (method, headers["Content-Type"]) == ("POST", "application/json")
    assert json.loads(body) == {"device": "device-1", "round": None}


def test_answer_that_is_a_container_has_no_json(peer: Peer, client: HttpClient) -> None:
    peer.answer(200, body=b"{}", Content_Type=CONTAINER_TYPE)
    reply = client.get(peer.url)
    assert (reply.body, reply.json) == (b"{}", None)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "cut short", "no text", "nested"]
)
def test_answer_that_says_json_and_is_none_has_no_json(
    peer: Peer, client: HttpClient, body: bytes
) -> None:
    peer.answer(200, body=body, Content_Type="application/json")
    reply = client.get(peer.url)
    assert (reply.body, reply.json) == (body, None)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_server_that_was_just_starting_is_asked_again(
    peer: Peer, client: HttpClient, slept: list[float], status: int
) -> None:
    peer.answer(status)
    peer.answer(status)
    peer.answer(200, {"said": "done"})
    assert client.post(peer.url, b"update").json == {"said": "done"}
    assert [body for *_, body in peer.requests] == [b"update"] * 3
    assert len(slept) == 2
    assert slept[1] > slept[0] > 0


def test_server_that_stays_down_is_unreachable(
    peer: Peer, client: HttpClient, slept: list[float]
) -> None:
    peer.answer(503, {"detail": "The main server does not answer."})
    with pytest.raises(PeerUnreachable, match="The main server does not answer"):
        client.get(peer.url)
    assert (len(peer.requests), len(slept)) == (3, 2)


@pytest.mark.parametrize("content_type", ["application/json", "application/problem+json"])
def test_peer_whose_disk_is_full_is_quoted_and_not_asked_again(
    peer: Peer, client: HttpClient, slept: list[float], content_type: str
) -> None:
    peer.answer(
        507,
        {"detail": "The disk is full. What was stored before is kept."},
        Content_Type=content_type,
    )
    with pytest.raises(PeerUnreachable) as refused:
        client.post(peer.url, b"update")
    assert str(refused.value) == "The disk is full. What was stored before is kept."
    assert refused.value.status == 503
    assert (len(peer.requests), slept) == (1, [])


def test_full_disk_without_our_words_is_not_a_service_of_ours(
    peer: Peer, client: HttpClient
) -> None:
    peer.answer(507, body=b"<html>", Content_Type="text/html")
    with pytest.raises(PeerUnreachable, match="answered 507"):
        client.get(peer.url)


def test_as_many_attempts_are_made_as_were_asked_for(peer: Peer, slept: list[float]) -> None:
    peer.answer(503)
    with pytest.raises(PeerUnreachable):
        HttpClient(attempts=5, sleep=slept.append).get(peer.url)
    assert (len(peer.requests), len(slept)) == (5, 4)


@pytest.mark.parametrize(
    ("status", "refusal"),
    [(400, InvalidMessage), (401, Forbidden), (403, Forbidden), (404, NotFound), (409, OutOfOrder)],
)
@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/problem+json", "application/json; charset=utf-8"],
)
def test_refusal_keeps_its_kind_and_the_peers_own_words(
    peer: Peer,
    client: HttpClient,
    slept: list[float],
    status: int,
    refusal: type[DoorbellError],
    content_type: str,
) -> None:
    peer.answer(status, {"detail": "device-2 is missing. Wait for it."}, Content_Type=content_type)
    with pytest.raises(DoorbellError) as refused:
        client.post(peer.url, b"update")
    assert type(refused.value) is refusal
    assert str(refused.value) == "device-2 is missing. Wait for it."
    assert (len(peer.requests), slept) == (1, [])


@pytest.mark.parametrize("status", [402, 405, 408, 413, 418, 422, 429, 500, 501, 505])
def test_any_other_error_is_not_what_a_service_of_ours_says(
    peer: Peer, client: HttpClient, status: int
) -> None:
    peer.answer(status, {"detail": "words of a stranger"})
    with pytest.raises(PeerUnreachable, match=f"{peer.url} answered {status}") as refused:
        client.get(f"{peer.url}/path?secret=1")
    assert "stranger" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>Bad gateway</html>", "text/html"),
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"null", "application/json"),
        (b'"x"', "application/json"),
        (b"{}", "application/json"),
        (b'{"detail":1}', "application/json"),
        (b'{"detail":"x"}', "text/plain"),
    ],
)
def test_error_without_our_words_is_not_from_a_service_of_ours(
    peer: Peer, client: HttpClient, status: int, body: bytes, content_type: str
) -> None:
    peer.answer(status, body=body, Content_Type=content_type)
    with pytest.raises(PeerUnreachable, match=f"answered {status}"):
        client.get(peer.url)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("location", ["/elsewhere", "http://192.0.2.1/", "http://[", None])
def test_redirect_is_not_followed(
    peer: Peer, client: HttpClient, status: int, location: str | None
) -> None:
    peer.answer(status, **({} if location is None else {"Location": location}))
    with pytest.raises(PeerUnreachable):
        client.post(f"{peer.url}/cmodel", b"update")
    assert {path for _, path, *_ in peer.requests} == {"/cmodel"}


def test_redirect_to_bytes_that_are_no_text_is_refused(peer: Peer, client: HttpClient) -> None:
    peer.answer(302, Location="/\xff\xfe")
    with pytest.raises(PeerUnreachable):
        client.get(peer.url)


def test_nobody_listening_is_unreachable_after_every_attempt(
    nobody: str, client: HttpClient, slept: list[float]
) -> None:
    with pytest.raises(PeerUnreachable, match=f"No answer from {nobody}") as refused:
        client.get(f"{nobody}/healthz")
    assert refused.value.status == 503
    assert len(slept) == 2


def test_peer_that_accepts_and_says_nothing_is_unreachable(slept: list[float]) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(PeerUnreachable, match="No answer"):
            HttpClient(timeout_s=0.1, attempts=2, sleep=slept.append).get(url)
    assert len(slept) == 1


def test_answer_cut_short_is_not_taken(peer: Peer, client: HttpClient) -> None:
    peer.answer(200, body=b"half", Content_Length="8")
    with pytest.raises(PeerUnreachable):
        client.get(peer.url)


def test_answer_that_does_not_unpack_is_not_taken(peer: Peer, client: HttpClient) -> None:
    peer.answer(200, body=b"no gzip", Content_Encoding="gzip")
    with pytest.raises(PeerUnreachable):
        client.get(peer.url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "http://",
        "http://[::1",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        f"http://{'a' * 70}.b",
        "ftp://a",
    ],
    ids=lambda url: url[:20],
)
def test_address_that_is_none_is_unreachable(client: HttpClient, url: str) -> None:
    with pytest.raises(PeerUnreachable):
        client.get(url)


def test_no_proxy_of_the_environment_sees_an_update(
    peer: Peer, nobody: str, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    peer.answer(200, {})
    client.post(peer.url, b"update")
    assert len(peer.requests) == 1


def test_session_can_be_replaced(slept: list[float]) -> None:
    class Session:
        trust_env = True

        def request(self, *_: object, **options: Any) -> None:
            assert options["allow_redirects"] is False
            assert options["timeout"] == 7
            raise ValueError("as urllib3 does for some names")

    session: Any = Session()
    with pytest.raises(PeerUnreachable):
        HttpClient(timeout_s=7, session=session, sleep=slept.append).get("http://localhost")
    assert session.trust_env is False


# --- signed requests and answers

DEVICE, MAIN, OTHER = (Identity.from_private(bytes([number]) * 32) for number in (1, 2, 3))


@pytest.fixture
def main(peer: Peer) -> Service:
    return Service("main-server", peer.url, MAIN.public)


@pytest.fixture
def device(slept: list[float]) -> HttpClient:
    return HttpClient(DEVICE, timeout_s=5, sleep=slept.append)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with closing(Nonces(tmp_path)) as nonces:
        yield Receiver("main-server", {DEVICE.key_id: DEVICE.public}.get, nonces)


def verified(peer: Peer, receiver: Receiver, number: int = -1) -> Verified:
    """Verify a request as the service that received it does."""
    method, path, headers, body = peer.requests[number]
    return verify_request(method, path, headers, lambda: body, receiver, time.time())


def nonce(peer: Peer, number: int) -> str:
    return peer.requests[number][2]["Signature-Input"].partition('nonce="')[2][:22]


def signing(
    peer: Peer, receiver: Receiver, key: Identity = MAIN
) -> Callable[[int, Headers, bytes], Headers]:
    """Return what signs a peer's answers to the request that it received last."""
    return lambda status, headers, body: sign_response(
        status, headers, body, verified(peer, receiver), key, time.time()
    )


def test_request_to_a_service_is_signed_for_it(
    peer: Peer, device: HttpClient, receiver: Receiver, main: Service
) -> None:
    peer.answer(200, {"said": "done"})
    peer.sign = signing(peer, receiver)
    assert device.post(f"{peer.url}/cmodel?detector=a%20b", b"update", main).json == {
        "said": "done"
    }
    assert device.post_json(f"{peer.url}/clientstatus", {"a": 1}, main).json == {"said": "done"}
    assert device.get(f"{peer.url}/round/package", main).json == {"said": "done"}
    bodies = [body for *_, body in peer.requests]
    assert bodies == [b"update", b'{"a": 1}', b""]
    assert [method for method, *_ in peer.requests] == ["POST", "POST", "GET"]
    assert len({nonce(peer, number) for number in range(3)}) == 3


@pytest.mark.parametrize("path", ["", "/", "/a b", "/%61?b=%2f&c=é", "/a?", "/a?%7E~", "/a/../b"])
def test_what_is_signed_is_what_goes_onto_the_wire(
    peer: Peer, device: HttpClient, receiver: Receiver, path: str
) -> None:
    peer.answer(200, {})
    device.get(f"{peer.url}{path}", Service("main-server", peer.url))
    assert verified(peer, receiver).key_id == DEVICE.key_id


def test_header_fields_of_ones_own_go_along(
    peer: Peer, device: HttpClient, receiver: Receiver
) -> None:
    peer.answer(200, {})
    device.post(peer.url, b"model", Service("main-server", peer.url), {"Doorbell-Manifest": "word"})
    assert peer.requests[0][2]["Doorbell-Manifest"] == "word"
    assert verified(peer, receiver).body == b"model"


def test_without_a_receiver_or_a_key_nothing_is_signed(
    peer: Peer, client: HttpClient, device: HttpClient
) -> None:
    peer.answer(200, {})
    device.get(peer.url)
    client.get(peer.url, Service("main-server", peer.url))
    for _, _, headers, _ in peer.requests:
        assert not {"signature", "signature-input", "content-digest"} & {
            name.lower() for name in headers
        }


def test_signature_is_made_at_the_clients_time(peer: Peer, slept: list[float]) -> None:
    peer.answer(200, {})
    HttpClient(DEVICE, sleep=slept.append, clock=lambda: 1234.9).get(
        peer.url, Service("main-server", peer.url)
    )
    assert "created=1234;" in peer.requests[0][2]["Signature-Input"]


def test_answer_is_not_looked_at_where_no_key_is_known(peer: Peer, device: HttpClient) -> None:
    peer.answer(200, {"said": "done"})
    assert device.get(peer.url, Service("secure-aggregator", peer.url)).json == {"said": "done"}


@pytest.mark.parametrize("status", [200, 201, 400, 404, 409])
def test_answer_that_is_not_signed_comes_from_nobody_we_know(
    peer: Peer, device: HttpClient, main: Service, slept: list[float], status: int
) -> None:
    peer.answer(status, {"detail": "words of a stranger"})
    with pytest.raises(
        PeerUnreachable, match=f"{peer.url} is not the main-server of this federation"
    ) as refused:
        device.post(peer.url, b"update", main)
    assert isinstance(refused.value.__cause__, NotSigned)
    assert "stranger" not in str(refused.value)
    assert (len(peer.requests), slept) == (1, [])


@pytest.mark.parametrize("status", [200, 400, 404, 409])
def test_answer_signed_with_another_key_comes_from_somebody_else(
    peer: Peer, device: HttpClient, main: Service, receiver: Receiver, status: int
) -> None:
    peer.answer(status, {"detail": "words of a stranger"})
    peer.sign = signing(peer, receiver, OTHER)
    with pytest.raises(
        PeerUnreachable, match="is not the main-server of this federation"
    ) as refused:
        device.post(peer.url, b"update", main)
    assert isinstance(refused.value.__cause__, BadSignature)
    assert refused.value.__cause__.slug == "signature-wrong-key"
    assert "stranger" not in str(refused.value)


@pytest.mark.parametrize("altered", ["status", "body", "type"])
def test_answer_altered_on_its_way_is_not_taken(
    peer: Peer, device: HttpClient, main: Service, receiver: Receiver, altered: str
) -> None:
    sign = signing(peer, receiver)
    genuine = {
        "status": (200, {"Content-Type": "application/json"}, b"{}"),
        "body": (201, {"Content-Type": "application/json"}, b"[]"),
        "type": (201, {"Content-Type": "text/plain"}, b"{}"),
    }
    peer.sign = lambda *_: sign(*genuine[altered])
    peer.answer(201, body=b"{}", Content_Type="application/json")
    with pytest.raises(PeerUnreachable, match="is not the main-server") as refused:
        device.post(peer.url, b"update", main)
    assert isinstance(refused.value.__cause__, BadSignature)


def test_answer_to_another_request_is_not_taken(
    peer: Peer, device: HttpClient, main: Service, receiver: Receiver
) -> None:
    kept: list[Headers] = []

    def sign_once(status: int, headers: Headers, body: bytes) -> Headers:
        kept.append(
            kept[0]
            if kept
            else sign_response(status, headers, body, verified(peer, receiver), MAIN, 0)
        )
        return kept[0]

    peer.answer(200, {"said": "done"})
    peer.sign = sign_once
    assert device.post(peer.url, b"update", main).json == {"said": "done"}
    with pytest.raises(PeerUnreachable, match="is not the main-server"):
        device.post(peer.url, b"update", main)


@pytest.mark.parametrize(
    ("status", "refusal"), [(400, InvalidMessage), (404, NotFound), (409, OutOfOrder)]
)
def test_signed_refusal_keeps_its_kind_and_words(
    peer: Peer,
    device: HttpClient,
    main: Service,
    receiver: Receiver,
    status: int,
    refusal: type[DoorbellError],
) -> None:
    peer.answer(status, {"detail": "device-2 is missing."})
    peer.sign = signing(peer, receiver)
    with pytest.raises(DoorbellError) as refused:
        device.post(peer.url, b"update", main)
    assert type(refused.value) is refusal
    assert str(refused.value) == "device-2 is missing."


@pytest.mark.parametrize("status", [401, 403])
def test_who_refuses_a_signature_cannot_sign_and_is_heard_all_the_same(
    peer: Peer, device: HttpClient, main: Service, slept: list[float], status: int
) -> None:
    peer.answer(status, {"detail": "porch was revoked: it was stolen."})
    with pytest.raises(Forbidden) as refused:
        device.post(peer.url, b"update", main)
    assert str(refused.value) == "porch was revoked: it was stolen."
    assert refused.value.status == 403
    assert (len(peer.requests), slept) == (1, [])


def test_each_attempt_is_signed_anew(
    peer: Peer, device: HttpClient, main: Service, receiver: Receiver, slept: list[float]
) -> None:
    peer.answer(503)
    peer.answer(502)
    peer.answer(200, {"said": "done"})
    peer.sign = signing(peer, receiver)
    assert device.post(peer.url, b"update", main).json == {"said": "done"}
    assert len({nonce(peer, number) for number in range(3)}) == 3
    assert (
        len(peer.requests) == len({headers["Signature"] for *_, headers, _ in peer.requests}) == 3
    )
    assert len(slept) == 2


def test_first_answer_is_not_taken_for_the_second(
    peer: Peer, device: HttpClient, main: Service, receiver: Receiver
) -> None:
    asked: list[Verified] = []

    def sign(status: int, headers: Headers, body: bytes) -> Headers:
        asked.append(verified(peer, receiver))
        return sign_response(status, headers, body, asked[0], MAIN, time.time())

    peer.answer(503)
    peer.answer(200, {"said": "done"})
    peer.sign = sign
    with pytest.raises(PeerUnreachable, match="is not the main-server"):
        device.post(peer.url, b"update", main)
    assert len(asked) == 2
