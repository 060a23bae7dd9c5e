"""The client against a real server on a real socket: retries, typed refusals, and nothing but our own errors."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared.errors import DoorbellError, InvalidMessage, NotFound, OutOfOrder, PeerUnreachable
from shared.http_client import CONTAINER_TYPE, HttpClient

Headers = dict[str, str]


@dataclass
class Peer:
    """A server that gives the answers it was told, the last one for ever, and remembers what it was asked."""

    url: str = ""
    answers: list[tuple[int, Headers, bytes]] = field(default_factory=list)
    requests: list[tuple[str, str, Headers, bytes]] = field(default_factory=list)

    def answer(self, status: int, message: object = None, body: bytes = b"", **headers: str) -> None:
        if message is not None:
            body, headers = json.dumps(message).encode(), {"Content-Type": "application/json"} | headers
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
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
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
    assert (method, path, headers["Content-Type"], body) == ("POST", "/cmodel", CONTAINER_TYPE, container)


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


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000], ids=["empty", "cut short", "no text", "nested"])
def test_answer_that_says_json_and_is_none_has_no_json(peer: Peer, client: HttpClient, body: bytes) -> None:
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


def test_server_that_stays_down_is_unreachable(peer: Peer, client: HttpClient, slept: list[float]) -> None:
    peer.answer(503, {"detail": "The main server does not answer."})
    with pytest.raises(PeerUnreachable, match="The main server does not answer"):
        client.get(peer.url)
    assert (len(peer.requests), len(slept)) == (3, 2)


def test_as_many_attempts_are_made_as_were_asked_for(peer: Peer, slept: list[float]) -> None:
    peer.answer(503)
    with pytest.raises(PeerUnreachable):
        HttpClient(attempts=5, sleep=slept.append).get(peer.url)
    assert (len(peer.requests), len(slept)) == (5, 4)


@pytest.mark.parametrize(("status", "refusal"), [(400, InvalidMessage), (404, NotFound), (409, OutOfOrder)])
@pytest.mark.parametrize(
    "content_type", ["application/json", "application/problem+json", "application/json; charset=utf-8"]
)
def test_refusal_keeps_its_kind_and_the_peers_own_words(
    peer: Peer, client: HttpClient, slept: list[float], status: int, refusal: type[DoorbellError], content_type: str
) -> None:
    peer.answer(status, {"detail": "device-2 is missing. Wait for it."}, Content_Type=content_type)
    with pytest.raises(DoorbellError) as refused:
        client.post(peer.url, b"update")
    assert type(refused.value) is refusal
    assert str(refused.value) == "device-2 is missing. Wait for it."
    assert (len(peer.requests), slept) == (1, [])


@pytest.mark.parametrize("status", [401, 403, 405, 408, 413, 418, 422, 429, 500, 501, 505])
def test_any_other_error_is_not_what_a_service_of_ours_says(peer: Peer, client: HttpClient, status: int) -> None:
    peer.answer(status, {"detail": "words of a stranger"})
    with pytest.raises(PeerUnreachable, match=f"{peer.url} answered {status}") as refused:
        client.get(f"{peer.url}/path?secret=1")
    assert "stranger" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("status", [400, 404, 409, 500])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"<html>Bad gateway</html>", "text/html"), (b"", "application/json"), (b"{", "application/json"),
     (b"[]", "application/json"), (b"null", "application/json"), (b'"x"', "application/json"),
     (b"{}", "application/json"), (b'{"detail":1}', "application/json"), (b'{"detail":"x"}', "text/plain")],
)  # fmt: skip
def test_error_without_our_words_is_not_from_a_service_of_ours(
    peer: Peer, client: HttpClient, status: int, body: bytes, content_type: str
) -> None:
    peer.answer(status, body=body, Content_Type=content_type)
    with pytest.raises(PeerUnreachable, match=f"answered {status}"):
        client.get(peer.url)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.parametrize("location", ["/elsewhere", "http://192.0.2.1/", "http://[", None])
def test_redirect_is_not_followed(peer: Peer, client: HttpClient, status: int, location: str | None) -> None:
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
    ["", "nonsense", "http://", "http://[::1", "http://127.0.0.1:port", "http://127.0.0.1:99999",
     f"http://{'a' * 70}.b", "ftp://a"],
    ids=lambda url: url[:20],
)  # fmt: skip
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
