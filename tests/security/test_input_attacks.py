"""Attacks by form: bytes, numbers, paths and framing that no honest caller sends."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

Field = Any
JSON = ("Content-Type", "application/json")
INVALID = (400, "invalid-message")


def head(*lines: str, method: str = "POST", path: str = "/join", host: str = "localhost") -> bytes:
    fields = ("Accept: application/json", "Content-Type: application/json", *lines)
    return "\r\n".join([f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode(
        "latin-1"
    )


# -- framing: what gunicorn has to refuse
# ------------------------------------------------------------------------

CHUNKED = "Transfer-Encoding: chunked"
SMUGGLED = b"GET /aggregate_models HTTP/1.1\r\nHost: localhost\r\n\r\n"
FRAMES: list[tuple[str, bytes, set[int]]] = [
    (
        "both lengths",
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
        {400},
    ),
    (
        "both lengths, other order",
        head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
        {400},
    ),
    (
        "two Content-Lengths",
        head("Content-Length: 2", "Content-Length: 60") + b"{}" + SMUGGLED,
        {400},
    ),
    ("Content-Lengths in a list", head("Content-Length: 2, 2") + b"{}", {400}),
    ("negative Content-Length", head("Content-Length: -1"), {400}),
    ("Content-Length with a plus", head("Content-Length: +2") + b"{}", {400}),
    ("Content-Length in hexadecimal", head("Content-Length: 0x2") + b"{}", {400}),
    ("Content-Length of words", head("Content-Length: two") + b"{}", {400}),
    ("Content-Length of other digits", head("Content-Length: \xb2") + b"{}", {400}),
    ("Content-Length with an underscore", head("Content-Length: 1_0") + b"{}", {400}),
    ("Transfer-Encoding twice", head(CHUNKED, "Transfer-Encoding: identity") + b"0\r\n\r\n", {400}),
    ("Transfer-Encoding hidden", head("Transfer-Encoding: xchunked") + b"0\r\n\r\n", {400, 501}),
    (
        "Transfer-Encoding with a tab",
        head("Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n",
        {400, 501},
    ),
    (
        "Transfer-Encoding with gzip",
        head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        {400, 501},
    ),
    ("chunk of negative length", head(CHUNKED) + b"-1\r\n{}\r\n0\r\n\r\n", {400}),
    ("chunk of no length", head(CHUNKED) + b"zz\r\n{}\r\n0\r\n\r\n", {400}),
    ("chunk of no length, and a request behind it", head(CHUNKED) + b"zz\r\n" + SMUGGLED, {400}),
    ("chunks without end", head(CHUNKED) + b"2\r\n{}\r\n", {400}),
    ("chunk cut short", head(CHUNKED) + b"20\r\n{}", {400}),
    ("chunk longer than it says", head(CHUNKED) + b"1\r\n{}\r\n0\r\n\r\n", {400}),
    ("body cut short", head("Content-Length: 20") + b"{}", {400}),
    ("chunk of 2^64", head(CHUNKED) + b"ffffffffffffffffff\r\n{}", {400, 413}),
    ("space before the colon", head("Content-Length : 2") + b"{}", {400}),
    ("folded field", head("X-A: b\r\n c") + b"{}", {400}),
    ("bare line feed", head("X-A: b\nX-B: c") + b"{}", {400}),
    ("NUL in a field", head("X-A: \0") + b"{}", {400}),
    ("two Hosts", head("Host: evil.example", method="GET", path="/"), {400, 403}),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", {400, 403}),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", {400, 403}),
    ("HTTP/9.9", b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", {400, 505}),
    ("HTTP/0.9", b"GET /\r\n\r\n", {400}),
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    (
        "whole address of another host",
        head(method="GET", path="http://evil.example/", host="evil.example"),
        {400, 403},
    ),
    ("long address", head(method="GET", path="/" + "a" * 5000), {400, 414}),
    ("long field", head("X-A: " + "b" * 9000), {400, 431}),
    ("many fields", head(*["X-A: b"] * 200), {400, 431}),
    (
        "PROXY protocol",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + head(method="GET", path="/"),
        {400},
    ),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
]


@pytest.mark.parametrize(
    ("data", "statuses"), [pytest.param(*row[1:], id=row[0]) for row in FRAMES]
)
def test_a_misframed_request_is_refused_and_ends_the_connection(
    field: Field, data: bytes, statuses: set[int]
) -> None:
    before = field.state()
    answers = field.send_raw("main", data)
    assert len(answers) <= 1, "nothing was smuggled in behind it"
    assert all(answer.status in statuses for answer in answers), answers
    assert answers or data.startswith(b"\x16")
    assert field.state() == before


def test_two_requests_in_a_row_are_two(field: Field) -> None:
    """The control for the smuggling shapes: `send_raw` does see a second answer."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
    assert [answer.status for answer in field.send_raw("main", request * 2)] == [200, 200]


# -- size
# -------------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_before_it_is_read(field: Field) -> None:
    """The main server here takes 2 MB; the body is never sent, and the answer comes all the same."""
    started = time.monotonic()
    (answer,) = field.send_raw("main", head("Content-Length: 3000000"))
    assert (answer.status, answer.kind) == (413, "http")
    (answer,) = field.send_raw("main", head(f"Content-Length: {10**30}"))
    assert answer.status in {400, 413}
    assert time.monotonic() - started < 5


def test_a_signed_body_over_the_limit_is_refused(field: Field) -> None:
    message = field.container(field.key_of("aggregator"), "main", "/secagg_model", bytes(3 << 20))
    field.refuses(message, 413, "http")


def test_a_chunked_body_without_end_is_cut_off(field: Field) -> None:
    before, sent = field.resident("main"), 0
    with socket.create_connection(("localhost", field.ports["main"]), timeout=10) as raw:
        raw.sendall(head(CHUNKED))
        chunk = b"10000\r\n" + b"[" * 0x10000 + b"\r\n"
        try:
            for _ in range(2000):
                raw.sendall(chunk)
                sent += len(chunk)
        except OSError:
            pass
    assert sent < 40 << 20, "the service went on reading far beyond its limit"
    assert field.resident("main") - before < 64 << 20


def multipart(parts: int, size: int = 1) -> tuple[tuple[tuple[str, str], ...], bytes]:
    one = b'--b\r\nContent-Disposition: form-data; name="detector"\r\n\r\n' + b"x" * size + b"\r\n"
    return (("Content-Type", "multipart/form-data; boundary=b"),), one * parts + b"--b--\r\n"


@pytest.mark.parametrize(("parts", "size"), [(20_000, 1), (1, 1_000_000)])
def test_a_form_bomb_does_not_reach_a_step(
    field: Field, message: Any, parts: int, size: int
) -> None:
    fields, body = multipart(parts, size)
    field.refuses(message("main", "POST", "/aggregate_models", body, fields), 413, "http")


@pytest.mark.parametrize("service", ["main", "aggregator", "device1"])
def test_a_form_is_no_message(field: Field, message: Any, service: str) -> None:
    fields, body = multipart(500)
    path = {"main": "/join", "aggregator": "/cmodel", "device1": "/aggmodel"}[service]
    outcome = INVALID if service == "main" else (401, "signature-missing")
    field.refuses(message(service, "POST", path, body, fields), *outcome)


# -- JSON
# -------------------------------------------------------------------------------------------------------

BOMBS: list[tuple[str, bytes]] = [
    ("deep list", b"[" * 900_000),
    ("deep list, closed", b"[" * 100_000 + b"]" * 100_000),
    ("deep object", b'{"a":' * 200_000),
    ("huge number", b"9" * 1_000_000),
    ("huge exponent", b"1e999999999"),
    ("NaN", b"NaN"),
    ("infinity", b'{"name": -Infinity}'),
    ("a member twice", b'{"name": "a", "name": "b"}'),
    ("half a surrogate", b'{"name": "\\ud800"}'),
    ("UTF-16", '{"name": "a"}'.encode("utf-16")),
    ("no UTF-8", b'{"name": "\xff"}'),
    ("NUL bytes", b"\0" * 1000),
    ("nothing", b""),
    ("text", b'"join me"'),
    ("many members", json.dumps({str(n): n for n in range(100_000)}).encode()),
    ("a prototype", b'{"__proto__": {"role": "main-server"}, "__class__": 1}'),
]


@pytest.mark.parametrize(
    "path", ["/join", "/clientstatus", "/check_seeds", "/new_key", "/performance"]
)
@pytest.mark.parametrize("body", [pytest.param(row[1], id=row[0]) for row in BOMBS])
def test_a_json_bomb_is_refused(
    field: Field, message: Any, signer: Any, path: str, body: bytes
) -> None:
    bomb, started = message("main", "POST", path, body, (JSON,)), time.monotonic()
    if path != "/join":
        who = field.key_of("aggregator") if path == "/check_seeds" else field.members["mallory"]
        bomb = signer(bomb, who.identity, "main-server")
    field.refuses(bomb, *INVALID)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "text/html"]
)
def test_json_by_another_name_is_not_json(field: Field, message: Any, kind: str) -> None:
    """A browser can send these to any site without asking; none of them joins anything."""
    field.refuses(message("main", "POST", "/join", b"{}", (("Content-Type", kind),)), *INVALID)


# -- paths
# ------------------------------------------------------------------------------------------------------

PATHS = [
    ("main", "/static/../../main_server/routes.py"),
    ("main", "/static/..%2f..%2fmain_server%2froutes.py"),
    ("main", "/static/%2e%2e/%2e%2e/etc/passwd"),
    ("main", "/static/..%5c..%5csettings.py"),
    ("main", "/static//etc/passwd"),
    ("main", "/static/%00"),
    ("main", "/static/style.css%00.png"),
    ("main", "/static/"),
    ("main", "/static"),
    ("main", "//evil.example/"),
    ("main", "/../../etc/passwd"),
    ("main", "/main-server/identity.key"),
    ("main", "/model/..%2f..%2fidentity.key"),
    ("main", "/model/"),
    ("main", "/login"),
    ("main", "/logout"),
    ("main", "/metrics/"),
    ("main", "/console"),
    ("main", "/.git/config"),
    ("device1", "/plot/../../x.png"),
    ("device1", "/plot/..%2f..%2fx.png"),
    ("device1", "/plot/%2fetc%2fpasswd.png"),
    ("device1", "/plot/nothing.png"),
    ("device1", "/static/../../device/routes.py"),
    ("device1", "/static/..%2f..%2fwsgi1.py"),
    ("device1", "/pictures/face/client_1/train/face/0.png"),
    ("aggregator", "/static/..%2f..%2fsec_agg%2froutes.py"),
    ("aggregator", "/roster"),
    ("aggregator", "/blobs/"),
]


@pytest.mark.parametrize(("service", "path"), PATHS)
def test_no_file_is_handed_out(field: Field, message: Any, service: str, path: str) -> None:
    before = field.state()
    answer = field.send(message(service, "GET", path))
    assert answer.status in {400, 404, 308, 405}, answer.body[:300]
    assert b"import" not in answer.body
    assert b"root:" not in answer.body
    assert "evil" not in answer.headers.get("location", "")
    assert field.state() == before


@pytest.mark.parametrize(
    "name", ["face%00", "FACE", "a" * 40, "%2e%2e", "fa ce".replace(" ", "%20"), "%C3%A9"]
)
def test_no_plot_is_named_by_a_request(field: Field, message: Any, name: str) -> None:
    field.refuses(message("device1", "GET", f"/plot/{name}.png"), *INVALID)


def test_what_is_public_is_there(field: Field, message: Any) -> None:
    answer = field.send(message("main", "GET", "/static/style.css"))
    assert answer.status == 200
    assert "x-content-type-options" in answer.headers


@pytest.mark.parametrize("service", ["main", "aggregator", "device1", "guarded"])
def test_health_tells_no_secret(field: Field, message: Any, service: str) -> None:
    said = field.takes(message(service, "GET", "/healthz")).json
    assert set(said) <= {
        "service",
        "status",
        "topology",
        "device",
        "doing",
        "trainer_pid",
        "joined",
        "version",
    }


# -- log lines
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["%0d%0aroot logged in", "\x1b[2J", "%1b[2J"])
def test_nobody_writes_lines_into_the_log(field: Field, what: str) -> None:
    path = f"/clientstatus/{what}".replace(" ", "%20")
    field.send_raw("main", head("Content-Length: 0", path=path))
    field.send_raw("main", head("Content-Length: 0", f"X-Forwarded-For: {what}"))
    log = field.log("main")
    assert "\nroot logged in" not in log
    assert "\x1b" not in log


# -- slowness
# ---------------------------------------------------------------------------------------------------


def _half_open(field: Field, service: str, count: int, data: bytes) -> list[socket.socket]:
    sockets = [
        socket.create_connection(("localhost", field.ports[service]), timeout=10)
        for _ in range(count)
    ]
    for raw in sockets:
        raw.sendall(data)
    return sockets


@pytest.mark.parametrize(
    "data", [b"GET / HT", b"POST /join HTTP/1.1\r\nHost: localhost\r\nX-A: ", b""], ids=repr
)
def test_a_few_slow_callers_do_not_stop_a_service(field: Field, message: Any, data: bytes) -> None:
    sockets = _half_open(field, "device2", 4, data)
    try:
        started = time.monotonic()
        field.takes(message("device2", "GET", "/healthz"))
        assert time.monotonic() - started < 5
    finally:
        for raw in sockets:
            raw.close()
