"""Attacks on the operators' buttons, through a browser or around it: nobody else presses them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from shared.web.operators import cookie_key, cookie_name, make_cookie

Field = Any
STEPS = {
    "main": ("/aggregate_models", "/send_model_clients"),
    "aggregator": ("/aggregate_models", "/send_model_secagg"),
    "device1": ("/modeltrain", "/sendstatus", "/sendmodel", "/performance"),
    "device2": ("/modeltrain", "/sendstatus", "/sendmodel", "/performance"),
}
PAGES = {
    "main": ("/",),
    "aggregator": ("/",),
    "device1": ("/", "/plot/face.png"),
    "device2": ("/",),
}
TWISTS: list[tuple[str, tuple[tuple[str, str], ...]]] = [
    ("foreign Host", (("Host", "evil.example"),)),
    ("foreign Host with our port", (("Host", "evil.example:{port}"),)),
    ("rebound Host", (("Host", "localhost.evil.example:{port}"),)),
    ("Host that ends like ours", (("Host", "evillocalhost:{port}"),)),
    ("Host of a wildcard name", (("Host", "127.0.0.1.nip.io:{port}"),)),
    ("Host with a user", (("Host", "localhost@evil.example"),)),
    ("Host with a dot", (("Host", "localhost.:{port}"),)),
    ("Host as a number", (("Host", "2130706433"),)),
    ("Host in octal", (("Host", "0177.0.0.1"),)),
    ("Host that means every address", (("Host", "0.0.0.0:{port}"),)),
    ("Host of a link-local address", (("Host", "[fe80::1]:{port}"),)),
    ("no Host", (("Host", ""),)),
    ("Host of a list", (("Host", "localhost, evil.example"),)),
    ("Host with a space", (("Host", "localhost evil.example"),)),
    ("Sec-Fetch-Site cross-site", (("Sec-Fetch-Site", "cross-site"),)),
    ("Sec-Fetch-Site same-site", (("Sec-Fetch-Site", "same-site"),)),
    ("Sec-Fetch-Site unknown", (("Sec-Fetch-Site", "friendly"),)),
    ("Sec-Fetch-Site empty", (("Sec-Fetch-Site", ""),)),
    ("Sec-Fetch-Site twice", (("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site"))),
    ("foreign Origin", (("Origin", "http://evil.example"),)),
    ("Origin null", (("Origin", "null"),)),
    ("Origin empty", (("Origin", ""),)),
    ("Origin of another port", (("Origin", "http://localhost:1"),)),
    ("Origin of another name of this machine", (("Origin", "http://127.0.0.1:{port}"),)),
    ("Origin of another scheme", (("Origin", "file://localhost:{port}"),)),
    ("Origin that begins like ours", (("Origin", "http://localhost:{port}.evil.example"),)),
    ("prefetch", (("Sec-Purpose", "prefetch"),)),
    ("prerender", (("Sec-Purpose", "prefetch;prerender"),)),
    ("older prefetch", (("Purpose", "prefetch"),)),
    ("oldest prefetch", (("X-Moz", "prefetch"),)),
    ("preview", (("X-Purpose", "preview"),)),
    ("X-Forwarded-For", (("X-Forwarded-For", "127.0.0.1"),)),
    ("X-Forwarded-Host", (("Host", "evil.example"), ("X-Forwarded-Host", "localhost"))),
    ("Forwarded", (("Forwarded", "for=127.0.0.1;host=localhost"),)),
    ("X-Real-IP", (("X-Real-IP", "127.0.0.1"),)),
    ("Via", (("Via", "1.1 proxy"),)),
]


@pytest.mark.parametrize("service", STEPS)
@pytest.mark.parametrize("fields", [pytest.param(row[1], id=row[0]) for row in TWISTS])
def test_nobody_but_the_operator_presses_a_button(
    field: Field, message: Any, service: str, fields: tuple[tuple[str, str], ...]
) -> None:
    before = field.state()
    sent = tuple((name, value.format(port=field.ports[service])) for name, value in fields)
    for method in ("GET", "POST"):
        for path in (*STEPS[service], *(PAGES[service] if method == "GET" else ())):
            answer = field.send(message(service, method, path, fields=sent))
            assert (answer.status, answer.kind) in [(403, "refused"), (400, "server")], (
                path,
                answer.body,
            )
            assert (
                answer.kind == "server"
                or answer.headers["cross-origin-resource-policy"] == "same-origin"
            )
            assert "access-control-allow-origin" not in answer.headers
    assert field.state() == before


@pytest.mark.parametrize("service", STEPS)
@pytest.mark.parametrize(
    "method", ["HEAD", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "CONNECT", "BREW"]
)
def test_no_other_method_does_a_step(field: Field, message: Any, service: str, method: str) -> None:
    before = field.state()
    for path in STEPS[service]:
        answer = field.send(message(service, method, path))
        assert answer.status in ({200} if method == "OPTIONS" else {405, 400}), (
            path,
            answer.status,
        )
    assert field.state() == before


@pytest.mark.parametrize("service", STEPS)
def test_the_operator_himself_is_let_in(field: Field, message: Any, service: str) -> None:
    own = f"http://localhost:{field.ports[service]}"
    for fields in (
        (),
        (("Sec-Fetch-Site", "none"),),
        (("Origin", own), ("Sec-Fetch-Site", "same-origin")),
    ):
        field.takes(message(service, "GET", "/", fields=fields))
    for host in ("127.0.0.1", "[::1]", "LOCALHOST:9"):
        field.takes(message(service, "GET", "/", fields=(("Host", host),)))


@pytest.mark.parametrize(
    "path",
    [
        "/aggregate_models?detector=..%2f..%2fetc",
        "/aggregate_models?detector=face%00",
        "/aggregate_models?detector=A",
        f"/aggregate_models?detector={'a' * 1500}",
        "/send_model_secagg?detector=%ff",
        "/send_model_secagg?detector=%0d%0ax",
    ],
)
def test_a_step_takes_no_detector_that_is_no_name(field: Field, message: Any, path: str) -> None:
    field.refuses(message("aggregator", "POST", path), 400, "invalid-message")


def test_an_answer_says_nothing_that_a_browser_would_run(field: Field, message: Any) -> None:
    answer = field.send(
        message(
            "main",
            "GET",
            "/aggregate_models?detector=%3Cscript%3Ealert(1)%3C/script%3E",
            fields=(("Accept", "text/html"),),
        )
    )
    assert answer.status == 400
    assert b"<script>alert" not in answer.body


# -- behind a token
# ---------------------------------------------------------------------------------------------


def with_token(message: Any, path: str = "/", method: str = "GET", **fields: str) -> Any:
    named = tuple((name.replace("_", "-"), value) for name, value in fields.items())
    return message("guarded", method, path, fields=named)


def login_cookie(token: str, seconds: float = 3600) -> str:
    key = cookie_key(token)
    return f"{cookie_name(key)}={make_cookie(key, int(time.time() + seconds))}"


def cookies(field: Field) -> dict[str, str]:
    name = cookie_name(cookie_key(field.token))
    good = login_cookie(field.token).partition("=")[2]
    digest = good.partition(".")[2]
    return {
        "forged": f"{name}={int(time.time()) + 999}.{'0' * 64}",
        "expired": login_cookie(field.token, -1),
        "made with another token": f"{name}={login_cookie('x' * 30).partition('=')[2]}",
        "prolonged": f"{name}=999999999999.{digest}",
        "without a digest": f"{name}={good.partition('.')[0]}.",
        "under another name": f"doorbell_00000000={good}",
        "of Arabic digits": f"{name}=٣.{digest}".encode().decode("latin-1"),
        "of great length": f"{name}={'9' * 7000}.{digest}",
        "with more": f"{name}={good}0",
    }


@pytest.mark.parametrize(
    "which",
    [
        "forged",
        "expired",
        "made with another token",
        "prolonged",
        "without a digest",
        "under another name",
        "of Arabic digits",
        "of great length",
        "with more",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cookie_that_is_no_login_opens_nothing(
    field: Field, message: Any, which: str, method: str
) -> None:
    field.refuses(
        with_token(message, "/aggregate_models", method, Cookie=cookies(field)[which]),
        401,
        "login-required",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic b3A6b3A="},
        {"Authorization": "bearer \xff\xfe"},
        {"X_Forwarded_For": "127.0.0.1"},
        {"Host": "localhost"},
    ],
    ids=repr,
)
def test_without_the_token_nothing_opens(
    field: Field, message: Any, fields: dict[str, str]
) -> None:
    field.refuses(with_token(message, "/aggregate_models", "POST", **fields), 401, "login-required")


def test_the_token_in_the_address_opens_nothing(field: Field, message: Any) -> None:
    field.refuses(with_token(message, f"/?token={field.token}"), 401, "login-required")


@pytest.mark.parametrize(
    "fields",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Sec_Purpose": "prefetch"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_operators_cookie_works_for_no_other_site(
    field: Field, message: Any, fields: dict[str, str], method: str
) -> None:
    cookie = login_cookie(field.token)
    refused = with_token(message, "/aggregate_models", method, Cookie=cookie, **fields)
    field.refuses(refused, 403, "refused")


def test_the_token_and_the_cookie_open(field: Field, message: Any) -> None:
    field.takes(with_token(message, Authorization=f"Bearer {field.token}"))
    field.takes(with_token(message, Cookie=login_cookie(field.token)))


def log_in(message: Any, token: str, where: str = "/", **fields: str) -> Any:
    form = f"token={token}&next={where}".encode()
    named = tuple((name.replace("_", "-"), value) for name, value in fields.items())
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    return message("guarded", "POST", "/login", form, (kind, *named))


@pytest.mark.parametrize(
    "where", ["//evil.example", "/%5Cevil.example", "http://evil.example", "/%0d%0aSet-Cookie:a"]
)
def test_a_login_leads_nowhere_else(field: Field, message: Any, where: str) -> None:
    answer = field.send(log_in(message, field.token, where))
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(answer.headers["set-cookie"].split("; "))


def test_another_site_logs_nobody_in(field: Field, message: Any) -> None:
    field.refuses(log_in(message, field.token, Origin="http://evil.example"), 403, "refused")


def test_a_login_of_great_length_is_not_read(field: Field, message: Any) -> None:
    field.refuses(log_in(message, "x" * 20_000), 413, "http")


def test_the_token_cannot_be_guessed_fast(field: Field, message: Any) -> None:
    """Another X-Forwarded-For each time does not help: no proxy is trusted here.

    Who sits elsewhere is let in.
    """
    statuses = []
    for guess in range(14):
        fields = {"Authorization": f"Bearer guess-{guess}", "X_Forwarded_For": f"203.0.113.{guess}"}
        answer = field.send(with_token(message, "/aggregate_models", "POST", **fields), "127.8.8.8")
        statuses.append((answer.status, answer.kind))
    assert set(statuses) <= {(401, "login-required"), (429, "too-many-attempts")}
    assert statuses[-4:] == [(429, "too-many-attempts")] * 4
    answer = field.send(log_in(message, field.token), "127.8.8.8")
    assert (answer.status, answer.kind) == (429, "too-many-attempts"), (
        "not even the token is told from a guess now"
    )
    assert int(answer.headers["retry-after"]) > 0
    field.takes(with_token(message, Authorization=f"Bearer {field.token}"))
