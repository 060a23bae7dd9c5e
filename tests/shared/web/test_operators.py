"""Who may press the buttons: every refusal and every permission, one row each."""

from __future__ import annotations

import hmac
import logging
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from werkzeug.test import create_environ, run_wsgi_app

from device.app import create_app as device_app
from device.settings import DeviceSettings
from main_server.app import create_app as main_app
from main_server.settings import MainSettings
from sec_agg.app import create_app as aggregator_app
from sec_agg.settings import AggregatorSettings
from shared.errors import InvalidMessage, SettingsError
from shared.settings import OperatorSettings
from shared.transport.addresses import check_bind
from shared.web.app import add_message, add_step, make_app
from shared.web.operators import (
    LOGIN_S,
    check_cookie,
    cookie_key,
    cookie_name,
    local_path,
    make_cookie,
)
from shared.web.steps import Answer

PROJECT = Path(__file__).resolve().parents[3]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
TOKEN, OTHER_TOKEN = "correct-horse-battery=staple", "another-token-of-some-length"
SECRET_OF_THE_PAGE = "porch camera at number 12"
FORMS = [
    ("*/*", "text/plain"),
    (BROWSER, "text/html"),
    ("application/json", "application/problem+json"),
]
Headers = dict[str, str]


@dataclass
class Service:
    """An app with a step, a page and a message, and what its step did."""

    app: Flask
    trained: list[str | None] = field(default_factory=list)

    def ask(
        self, path: str = "/train", method: str = "GET", peer: str = "127.0.0.1", **more: Any
    ) -> Any:
        """Send one request without the test client's own Host and cookies."""
        headers = {"Host": "localhost:8000"} | more.pop("headers", {})
        client = self.app.test_client(use_cookies=False)
        return client.open(
            path, method=method, headers=headers, environ_overrides={"REMOTE_ADDR": peer}, **more
        )

    def login(self, client: FlaskClient, token: str = TOKEN, **more: Any) -> Any:
        return client.post("/login", data={"token": token} | more.pop("data", {}), **more)

    def cookie(self, token: str = TOKEN, expires_in: int = 60) -> Headers:
        key = cookie_key(token)
        return {
            "Cookie": f"{cookie_name(cookie_key(TOKEN))}={make_cookie(key, int(time.time()) + expires_in)}"
        }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Service]:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "page.html").write_text(
        '{% extends "base.html" %}{% block main %}' + SECRET_OF_THE_PAGE + "{% endblock %}"
    )

    def make(token: str | None = None, proxies: int = 0) -> Service:
        app = make_app(
            "Test service", templates, dict, dict, 100_000, OperatorSettings(token, proxies)
        )
        service = Service(app)

        def train(detector: str | None) -> Answer:
            service.trained.append(detector)
            return Answer(200, "trained")

        def message() -> Response:
            raise InvalidMessage("It is no message.")

        def broken(_: str | None) -> Answer:
            raise RuntimeError("nobody planned for this")

        add_step(app, "/train", train)
        add_step(app, "/broken", broken)
        add_message(app, "/message/<version>", message_of(message), ["GET", "POST"])
        return service

    return make


def message_of(view: Callable[[], Response]) -> Callable[..., Response]:
    def message(version: str) -> Response:
        return view()

    return message


@pytest.fixture
def local(make: Callable[..., Service]) -> Service:
    return make()


@pytest.fixture
def guarded(make: Callable[..., Service]) -> Service:
    return make(TOKEN)


# What a browser sends when its user did it, and when somebody else did.
OWN_WILL: list[Headers] = [
    {},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8000"},
    {"Origin": "http://LOCALHOST:8000"},
    {"Host": "localhost", "Origin": "http://localhost"},
    {"Host": "localhost:80", "Origin": "http://localhost"},
    {"Host": "localhost:443", "Origin": "https://localhost:443"},
]
NOT_HIS_WILL: list[Headers] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"},
    {"Sec-Fetch-Site": "SAME-ORIGIN, cross-site"},
    {"Sec-Fetch-Site": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:8003"},
    {"Origin": "http://localhost:80001"},
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": "http://localhost:8000.evil.example"},
    {"Origin": "http://evil.example/http://localhost:8000"},
    {"Origin": "file://localhost:8000"},
    {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Purpose": "prefetch"},
    {"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Site": "none"},
    {"Purpose": "prefetch"},
    {"Purpose": "Prerender"},
    {"X-Purpose": "preview"},
    {"X-Moz": "prefetch"},
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", OWN_WILL)
def test_without_a_token_the_operator_of_this_machine_is_let_in(
    local: Service, headers: Headers, method: str
) -> None:
    assert local.ask(method=method, headers=headers).text == "trained\n"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("headers", NOT_HIS_WILL)
def test_without_a_token_no_other_site_and_no_prefetch_trains(
    local: Service, headers: Headers, method: str
) -> None:
    assert local.ask(method=method, headers=headers).status_code == 403
    assert local.trained == []


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:9", "127.0.0.1:8000", "127.255.3.4", "[::1]", "[::1]:8000"]
)
def test_loopback_name_is_answered(local: Service, host: str) -> None:
    assert local.ask(headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:80:80",
        "",
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost,evil.example",
        "localhost ",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "::1",
        "[::2]:8000",
        "[fe80::1]",
        "[::1",
        "localhost:",
        "localhost:http",
        "128.0.0.1",
        "\u0131ocalhost",
    ],
)
def test_foreign_name_is_refused(local: Service, host: str) -> None:
    response = local.ask(headers={"Host": host})
    assert response.status_code == 403
    assert "answers to the name localhost only" in response.text and "evil" not in response.text
    assert local.trained == []


def test_request_without_a_host_is_refused(local: Service) -> None:
    environ = create_environ("/train") | {"REMOTE_ADDR": "127.0.0.1"}
    assert run_wsgi_app(local.app, environ)[1].startswith("200")
    del environ["HTTP_HOST"]  # HTTP/1.0
    assert run_wsgi_app(local.app, environ)[1].startswith("403")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", ""])
def test_peer_on_this_machine_is_answered(local: Service, peer: str) -> None:
    assert local.ask(peer=peer).status_code == 200


@pytest.mark.parametrize(
    "peer", ["192.168.1.7", "10.0.0.1", "::2", "::ffff:10.0.0.1", "fe80::1%lo", "unknown"]
)
@pytest.mark.parametrize("path", ["/train", "/", "/nowhere"])
def test_peer_elsewhere_is_refused_without_a_token(local: Service, peer: str, path: str) -> None:
    response = local.ask(path, peer=peer)
    assert response.status_code == 403
    assert "its own machine only" in response.text and "DOORBELL_OPERATOR_TOKEN" in response.text
    assert local.trained == []


@pytest.mark.parametrize(
    "name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
)
@pytest.mark.parametrize("proxies", [0, 1])
def test_without_a_token_nobody_comes_through_a_proxy(
    make: Callable[..., Service], name: str, proxies: int
) -> None:
    service = make(proxies=proxies)
    response = service.ask(headers={name: "127.0.0.1"})
    assert response.status_code == 403 and "through a proxy" in response.text
    assert service.trained == []


@pytest.mark.parametrize(("accept", "mimetype"), FORMS)
def test_refusal_is_a_sentence_in_every_form_and_shows_no_page(
    local: Service, accept: str, mimetype: str
) -> None:
    response = local.ask("/", headers={"Accept": accept, "Sec-Fetch-Site": "cross-site"})
    assert (response.status_code, response.mimetype) == (403, mimetype)
    assert "Another site led here" in response.text
    assert SECRET_OF_THE_PAGE not in response.text and "<form" not in response.text


def test_without_a_token_there_is_nothing_to_log_in_to(local: Service) -> None:
    assert local.ask("/login").status_code == 404
    assert local.ask("/login", "POST").status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("token", [None, TOKEN])
def test_messages_health_and_style_are_no_operators(
    make: Callable[..., Service], token: str | None, method: str
) -> None:
    service = make(token)
    strange = {
        "headers": {"Host": "main:80", "Sec-Fetch-Site": "cross-site", "Origin": "null"},
        "peer": "10.0.0.9",
    }
    assert service.ask("/message/1", method, **strange).text.startswith("It is no message.")
    assert service.ask("/healthz", **strange).status_code == 200
    assert service.ask("/static/style.css", **strange).status_code == 200


@pytest.mark.parametrize("path", ["/message/1", "/static/nothing"])
def test_stranger_gets_no_page_with_the_error_of_an_open_address(
    guarded: Service, path: str
) -> None:
    response = guarded.ask(path, headers={"Accept": BROWSER}, peer="10.0.0.9")
    assert response.status_code in (400, 404) and response.mimetype == "text/html"
    assert SECRET_OF_THE_PAGE not in response.text and "<form" not in response.text


def test_headers_alone_do_not_train(local: Service) -> None:
    assert local.ask(method="HEAD").status_code == 405
    assert local.trained == []


# With a token.


@pytest.mark.parametrize("path", ["/train", "/", "/nowhere", "/logout"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize(("accept", "mimetype"), FORMS)
def test_without_the_token_nothing_is_shown_or_done(
    guarded: Service, path: str, method: str, accept: str, mimetype: str
) -> None:
    response = guarded.ask(path, method, headers={"Accept": accept})
    assert (response.status_code, response.mimetype) == (401, mimetype)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "This service answers to its operator only." in response.text
    assert ('action="/login"' in response.text) == (mimetype == "text/html")
    assert SECRET_OF_THE_PAGE not in response.text and guarded.trained == []
    if response.is_json:
        assert response.json["type"] == "urn:doorbell:problem:login-required"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.parametrize(
    "headers", [{}, {"Host": "bell.example.org"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_bearer_is_let_in_under_any_name(guarded: Service, scheme: str, headers: Headers) -> None:
    bearer = {"Authorization": f"{scheme} {TOKEN}"}
    assert guarded.ask(headers=bearer | headers, peer="203.0.113.5").text == "trained\n"
    page = guarded.ask("/", headers=bearer | headers | {"Accept": BROWSER})
    assert SECRET_OF_THE_PAGE in page.text and "/logout" not in page.text


@pytest.mark.parametrize(
    "shown",
    [
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {OTHER_TOKEN}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \u00e9",
        f"Bearer{TOKEN}",
        f"Bearer\t{TOKEN}",
    ],
)
def test_anything_but_the_token_is_refused(guarded: Service, shown: str) -> None:
    response = guarded.ask(headers={"Authorization": shown})
    assert response.status_code == 401 and guarded.trained == []


@pytest.mark.parametrize("place", ["query", "form"])
def test_token_in_an_address_or_a_form_is_not_looked_at(guarded: Service, place: str) -> None:
    where = (
        {"query_string": {"token": TOKEN}}
        if place == "query"
        else {"data": {"token": TOKEN}, "method": "POST"}
    )
    assert guarded.ask(**where).status_code == 401


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", OWN_WILL)
def test_login_cookie_is_let_in(guarded: Service, headers: Headers, method: str) -> None:
    assert guarded.ask(method=method, headers=guarded.cookie() | headers).text == "trained\n"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("headers", NOT_HIS_WILL)
def test_login_cookie_does_nothing_for_another_site_or_a_prefetch(
    guarded: Service, headers: Headers, method: str
) -> None:
    assert guarded.ask(method=method, headers=guarded.cookie() | headers).status_code == 403
    assert guarded.trained == []


def test_login_cookie_is_good_under_any_name_and_beside_another_scheme(guarded: Service) -> None:
    named = {
        "Host": "bell.example.org",
        "Origin": "https://bell.example.org",
        "Authorization": "Basic cHJveHk6eA==",
    }
    assert guarded.ask(headers=guarded.cookie() | named, peer="203.0.113.5").status_code == 200


def test_wrong_bearer_is_not_mended_by_a_cookie(guarded: Service) -> None:
    assert (
        guarded.ask(headers=guarded.cookie() | {"Authorization": "Bearer wrong"}).status_code == 401
    )


def test_login_gives_a_cookie_that_works_and_logout_takes_it_back(guarded: Service) -> None:
    client = guarded.app.test_client()
    assert 'name="token" type="password"' in client.get("/login").text
    response = guarded.login(client)
    assert (response.status_code, response.headers["Location"]) == (303, "/")
    page = client.get("/", headers={"Accept": BROWSER})
    assert (
        page.status_code == 200
        and SECRET_OF_THE_PAGE in page.text
        and 'action="/logout"' in page.text
    )
    assert client.post("/logout", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.get("/logout").status_code == 405
    assert client.get("/train").status_code == 200
    assert client.post("/logout").headers["Location"] == "/login"
    assert client.get("/train").status_code == 401


def _attributes(response: Any) -> set[str]:
    return {part.strip() for part in response.headers["Set-Cookie"].split(";")[1:]} - {""}


@pytest.mark.parametrize(("proxies", "secure"), [(1, True), (0, False)])
def test_cookie_is_kept_from_scripts_and_other_sites_and_from_plain_http(
    make: Callable[..., Service], proxies: int, secure: bool
) -> None:
    service = make(TOKEN, proxies)
    https = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.5"}
    response = service.login(service.app.test_client(), headers=https)
    attributes = {part for part in _attributes(response) if not part.startswith("Expires=")}
    assert attributes == {"HttpOnly", "SameSite=Strict", "Max-Age=604800", "Path=/"} | (
        {"Secure"} if secure else set()
    )


def test_cookie_ends_after_a_week() -> None:
    key = cookie_key(TOKEN)
    cookie = make_cookie(key, 1_000_000 + LOGIN_S)
    assert check_cookie(key, cookie, 1_000_000 + LOGIN_S - 1)
    assert not check_cookie(key, cookie, 1_000_000 + LOGIN_S)
    assert LOGIN_S == 604_800


def test_login_cookie_expires_a_week_after_the_login(guarded: Service) -> None:
    before = int(time.time())
    cookie = guarded.login(guarded.app.test_client()).headers["Set-Cookie"].split(";")[0]
    name, _, value = cookie.partition("=")
    assert name == cookie_name(cookie_key(TOKEN))
    assert before + LOGIN_S <= int(value.split(".")[0]) <= int(time.time()) + LOGIN_S


def _forgeries() -> dict[str, str]:
    key, soon = cookie_key(TOKEN), int(time.time()) + 3600
    good = make_cookie(key, soon)
    expiry, mac = good.split(".")
    return {
        "mac changed": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "expiry changed": f"{soon + 1}.{mac}",
        "zero in front": f"0{good}",
        "expired": make_cookie(key, int(time.time()) - 1),
        "expires now": make_cookie(key, int(time.time())),
        "another token": make_cookie(cookie_key(OTHER_TOKEN), soon),
        "the token as key": f"{soon}.{hmac.digest(TOKEN.encode(), expiry.encode(), 'sha256').hex()}",
        "no mac": f"{expiry}.",
        "no expiry": f".{mac}",
        "mac cut": good[:-2],
        "mac in capitals": f"{expiry}.{mac.upper()}",
        "another digit": good.replace("1", "\u0661"),
        "negative": make_cookie(key, -soon),
        "far too long": "9" * 5000 + f".{mac}",
        "the token": TOKEN,
        "empty": "",
        "quoted": f'"{good}x"',
    }


@pytest.mark.parametrize("forgery", _forgeries())
def test_forged_or_expired_cookie_is_refused(guarded: Service, forgery: str) -> None:
    cookie = _forgeries()[forgery].encode().decode("latin-1")
    response = guarded.ask(headers={"Cookie": f"{cookie_name(cookie_key(TOKEN))}={cookie}"})
    assert response.status_code == 401 and guarded.trained == []


def test_changed_token_voids_every_login(make: Callable[..., Service], guarded: Service) -> None:
    key = cookie_key(TOKEN)
    value = make_cookie(key, int(time.time()) + 60)
    assert guarded.ask(headers={"Cookie": f"{cookie_name(key)}={value}"}).status_code == 200
    for name in (cookie_name(key), cookie_name(cookie_key(OTHER_TOKEN))):
        assert make(OTHER_TOKEN).ask(headers={"Cookie": f"{name}={value}"}).status_code == 401


def test_services_with_different_tokens_on_one_host_do_not_log_each_other_out() -> None:
    assert cookie_name(cookie_key(TOKEN)) != cookie_name(cookie_key(OTHER_TOKEN))


ELSEWHERE = [
    "//evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "https://evil.example",
    "https:evil.example",
    "javascript:alert(1)",
    "evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/a\r\nSet-Cookie: x=y",
    "/a\\..\\\\evil.example",
    " //evil.example",
    "/é",
    "",
    None,
    "/ a",
    "/\x7f",
    "///evil",
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_login_leads_nowhere_else(guarded: Service, target: str | None) -> None:
    assert local_path(target) == "/"
    response = guarded.login(guarded.app.test_client(), data={"next": target} if target else {})
    assert (response.status_code, response.headers["Location"]) == (303, "/")


@pytest.mark.parametrize(
    "target", ["/", "/performance", "/modeltrain?detector=face&x=%20", "/plot/face.png"]
)
def test_login_leads_back_to_a_page_of_the_service(guarded: Service, target: str) -> None:
    assert (
        guarded.login(guarded.app.test_client(), data={"next": target}).headers["Location"]
        == target
    )


@pytest.mark.parametrize(
    ("headers", "path", "target"),
    [
        ({"Sec-Fetch-Site": "none"}, "/train?detector=face", "/train?detector=face"),
        ({"Sec-Fetch-Site": "same-origin"}, "/train", "/train"),
        ({"Sec-Fetch-Site": "cross-site"}, "/train", "/"),
        ({"Sec-Fetch-Site": "none"}, "/%2Fevil.example", "/evil.example"),
        ({}, "/train", "/"),
    ],
)
def test_login_goes_on_only_to_what_the_operator_asked_for(
    guarded: Service, headers: Headers, path: str, target: str
) -> None:
    page = guarded.ask(path, headers=headers | {"Accept": BROWSER}).text
    assert re.findall(r'name="next" type="hidden" value="([^"]*)"', page) == [target]
    assert (
        f'value="{target}"'
        in guarded.ask("/login", "POST", data={"next": target}, headers={"Accept": BROWSER}).text
    )
    assert 'value="/"' in guarded.ask("/login?next=/train").text


@pytest.mark.parametrize("headers", NOT_HIS_WILL)
def test_another_site_cannot_use_up_the_attempts(guarded: Service, headers: Headers) -> None:
    for _ in range(12):
        assert guarded.ask("/login", "POST", headers=headers).status_code == 403
    assert guarded.login(guarded.app.test_client()).status_code == 303


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + " ", OTHER_TOKEN, "x" * 9000])
def test_wrong_login_gives_no_cookie_and_shows_the_form_again(guarded: Service, token: str) -> None:
    response = guarded.login(guarded.app.test_client(), token, headers={"Accept": BROWSER})
    assert response.status_code == 401 and "Set-Cookie" not in response.headers
    assert "That is not the operator token." in response.text and "<form" in response.text


def test_login_reads_no_more_than_a_login_needs(guarded: Service) -> None:
    assert guarded.login(guarded.app.test_client(), "x" * 10_000).status_code == 413


class Clock:
    """The library that counts attempts asks the process's clock; here it can be put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_s, really = 0.0, time.time
        monkeypatch.setattr(time, "time", lambda: really() + self.ahead_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def _log_in(service: Service, token: str, peer: str) -> Any:
    return service.ask("/login", "POST", peer, data={"token": token})


def _bear(service: Service, token: str, peer: str) -> Any:
    return service.ask("/train", "POST", peer, headers={"Authorization": f"Bearer {token}"})


@pytest.mark.parametrize("attempt", [_log_in, _bear], ids=["login", "bearer"])
def test_ten_wrong_tokens_a_minute_are_enough(
    clock: Clock, guarded: Service, attempt: Callable[..., Any]
) -> None:
    peer = "203.0.113.5"
    assert [attempt(guarded, f"wrong {number}", peer).status_code for number in range(10)] == [
        401
    ] * 10
    for token in ("wrong", TOKEN):
        response = attempt(guarded, token, peer)
        assert response.status_code == 429
        assert 50 <= int(response.headers["Retry-After"]) <= 60
        assert "Try again in" in response.text
    assert attempt(guarded, TOKEN, "203.0.113.6").status_code in (200, 303)
    clock.ahead_s += 30
    assert 20 <= int(attempt(guarded, TOKEN, peer).headers["Retry-After"]) <= 30
    clock.ahead_s += 31
    assert attempt(guarded, TOKEN, peer).status_code in (200, 303)


def test_logins_are_limited_even_if_they_succeed_and_the_window_moves(
    clock: Clock, guarded: Service
) -> None:
    for _ in range(5):
        assert _log_in(guarded, TOKEN, "::1").status_code == 303
    clock.ahead_s += 40
    for _ in range(5):
        assert _log_in(guarded, TOKEN, "::1").status_code == 303
    assert _log_in(guarded, TOKEN, "::1").status_code == 429
    clock.ahead_s += 21
    assert [_log_in(guarded, TOKEN, "::1").status_code for _ in range(6)] == [303] * 5 + [429]


def test_right_bearer_is_never_limited(guarded: Service) -> None:
    assert {_bear(guarded, TOKEN, "203.0.113.5").status_code for _ in range(40)} == {200}


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("unknown", "10.0.0.1", False),
    ],
)
def test_attempts_are_counted_per_address_and_per_ipv6_network(
    guarded: Service, first: str, second: str, together: bool
) -> None:
    for _ in range(10):
        _bear(guarded, "wrong", first)
    assert _bear(guarded, "wrong", second).status_code == (429 if together else 401)


@pytest.mark.parametrize(("proxies", "limited"), [(0, True), (1, False), (2, True)])
def test_as_many_proxies_are_believed_as_there_are(
    make: Callable[..., Service], proxies: int, limited: bool
) -> None:
    service = make(TOKEN, proxies)
    statuses = []
    for number in range(12):
        forwarded = {
            "X-Forwarded-For": f"198.51.100.1, 10.1.1.{number}",
            "Authorization": "Bearer wrong",
        }
        statuses.append(service.ask(headers=forwarded, peer="10.0.0.1").status_code)
    assert (429 in statuses) == limited


def test_origin_is_compared_with_the_name_that_a_trusted_proxy_reports(
    make: Callable[..., Service],
) -> None:
    service = make(TOKEN, 1)
    forwarded = {
        "X-Forwarded-For": "203.0.113.5",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "bell.example.org",
    }
    for more, status in (
        ({"Origin": "https://bell.example.org"}, 200),
        ({"Origin": "https://bell.example.org", "X-Forwarded-Port": "443"}, 200),
        ({"Origin": "http://bell.example.org"}, 403),
        ({"Origin": "http://localhost:8000"}, 403),
    ):
        assert service.ask(headers=service.cookie() | forwarded | more).status_code == status


def test_tokens_and_cookies_are_compared_in_constant_time(
    guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Any] = []

    def compare(left: Any, right: Any) -> bool:
        compared.append((left, right))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert guarded.ask(headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 401
    assert len({len(side) for side in compared[-1]}) == 1  # digests: not even the length shows
    assert guarded.login(guarded.app.test_client()).status_code == 401
    assert guarded.ask(headers=guarded.cookie()).status_code == 401
    assert len(compared) == 3


def test_token_is_in_no_log_page_error_or_repr(
    make: Callable[..., Service],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    settings = OperatorSettings.read({"DOORBELL_OPERATOR_TOKEN": TOKEN})
    assert settings.token == TOKEN
    with caplog.at_level(logging.DEBUG):
        service = make(TOKEN)
        client = service.app.test_client()
        answers = [
            service.login(client, data={"next": "//" + TOKEN}),
            service.login(client, TOKEN + "x"),
            client.get("/", headers={"Accept": BROWSER}),
            service.ask("/broken", headers={"Authorization": f"Bearer {TOKEN}"}),
            service.ask(headers={"Authorization": f"Bearer {TOKEN}x"}),
        ]
    assert [answer.status_code for answer in answers] == [303, 401, 200, 500, 401]
    said = "".join(f"{answer.text}{answer.headers}" for answer in answers)
    everything = (
        said
        + caplog.text
        + "".join(capfd.readouterr())
        + repr(settings)
        + str(settings)
        + repr(service.app)
    )
    assert TOKEN not in everything


# Settings and where to listen.


@pytest.mark.parametrize(
    "token", ["x" * 19, "x" * 1001, "x y" * 20, "x" * 20 + "\n", "x" * 20 + "é", " " * 30, "\t"]
)
def test_unusable_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(SettingsError) as refused:
        OperatorSettings.read({"DOORBELL_OPERATOR_TOKEN": token})
    assert refused.value.happened.startswith("DOORBELL_OPERATOR_TOKEN cannot be used: it needs 20")
    assert token not in "".join(traceback.format_exception(refused.value)).replace("\n", "")


@pytest.mark.parametrize("token", ["x" * 20, "!" * 1000, TOKEN])
def test_token_of_twenty_characters_is_taken(token: str) -> None:
    assert OperatorSettings.read({"DOORBELL_OPERATOR_TOKEN": token}) == OperatorSettings(token, 0)


@pytest.mark.parametrize(
    "environ", [{}, {"DOORBELL_OPERATOR_TOKEN": "", "DOORBELL_TRUSTED_PROXIES": ""}]
)
def test_no_token_and_no_proxy_is_the_default(environ: dict[str, str]) -> None:
    assert OperatorSettings.read(environ) == OperatorSettings(None, 0)


@pytest.mark.parametrize("text", ["0", "5"])
def test_number_of_proxies_is_read(text: str) -> None:
    assert OperatorSettings.read({"DOORBELL_TRUSTED_PROXIES": text}).trusted_proxies == int(text)


@pytest.mark.parametrize("text", ["6", "-1", "one", "1.0", " 1", "*"])
def test_bad_number_of_proxies_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match="DOORBELL_TRUSTED_PROXIES cannot be "):
        OperatorSettings.read({"DOORBELL_TRUSTED_PROXIES": text})


LOCAL_ADDRESSES = [
    ("localhost", 8000),
    ("127.0.0.1", 80),
    ("127.3.2.1", 80),
    ("::1", 8000),
    "/run/bell.sock",
    "bell.sock",
]
REACHABLE = [
    ("0.0.0.0", 8000),
    ("", 8000),
    ("::", 8000),
    ("192.168.1.2", 80),
    ("bell.local", 80),
    ("127.1", 80),
    ("localhost.example.org", 80),
    ("fe80::1%eth0", 80),
    3,
]


@pytest.mark.parametrize("address", LOCAL_ADDRESSES)
def test_loopback_address_needs_no_token(address: object) -> None:
    check_bind([address], None)


@pytest.mark.parametrize("address", REACHABLE)
def test_any_other_address_needs_a_token(address: object) -> None:
    with pytest.raises(SettingsError) as refused:
        check_bind([*LOCAL_ADDRESSES, address], None)
    said = str(refused.value)
    assert re.fullmatch(
        r"This service does not start on .+ without DOORBELL_OPERATOR_TOKEN, as .+ localhost\.",
        said,
    )
    check_bind([*LOCAL_ADDRESSES, address], TOKEN)


# What every answer carries.


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/train", 200),
        ("/nowhere", 404),
        ("/healthz", 200),
        ("/message/1", 400),
        ("/broken", 500),
        ("/static/style.css", 200),
        ("/static/nothing", 404),
    ],
)
@pytest.mark.parametrize("accept", [accept for accept, _ in FORMS])
def test_every_answer_carries_the_headers_that_protect_a_browser(
    local: Service, path: str, status: int, accept: str
) -> None:
    response = local.ask(path, headers={"Accept": accept})
    assert response.status_code == status
    policy = dict(
        part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "script-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in response.headers["Permissions-Policy"]
    assert "Strict-Transport-Security" not in response.headers
    assert ("no-store" in response.headers["Cache-Control"]) == (path != "/static/style.css")


def test_refusals_carry_them_too(guarded: Service, local: Service) -> None:
    for response in (guarded.ask(), guarded.ask("/login"), local.ask(peer="10.0.0.1")):
        assert "Content-Security-Policy" in response.headers
        assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("proxies", "https"), [(0, False), (1, True)])
def test_https_is_insisted_on_only_where_a_trusted_proxy_says_so(
    make: Callable[..., Service], proxies: int, https: bool
) -> None:
    response = make(TOKEN, proxies).ask("/login", headers={"X-Forwarded-Proto": "https"})
    assert ("Strict-Transport-Security" in response.headers) == https


def test_no_template_needs_inline_script_or_style() -> None:
    templates = sorted(PROJECT.glob("*/templates/*.html"))
    assert len(templates) >= 6
    for template in templates:
        assert not re.search(
            r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+\s*=|javascript:", template.read_text()
        )


# The services themselves.

ADDRESSES: dict[str, tuple[list[str], list[tuple[str, str]]]] = {
    "device": (
        [
            "/",
            "/modeltrain",
            "/sendstatus",
            "/sendmodel",
            "/performance",
            "/plot/face.png",
            "/report",
            "/report/face.csv",
            "/report/face.png",
            "/report/face/mistakes/local/0.jpg",
        ],
        [("POST", "/aggmodel")],
    ),
    "main": (
        ["/", "/aggregate_models", "/send_model_clients", "/report", "/report.csv"],
        [
            ("POST", "/clientstatus"),
            ("GET", "/round/face"),
            ("GET", "/model/" + "0" * 64),
            ("POST", "/performance"),
            ("POST", "/check_seeds"),
            ("POST", "/secagg_model"),
            ("POST", "/cmodel"),
        ],
    ),
    "aggregator": (["/", "/aggregate_models", "/send_model_secagg"], [("POST", "/cmodel")]),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_each_service_guards_its_steps_and_lets_its_messages_pass(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOORBELL_OPERATOR_TOKEN", TOKEN)
    environ = {"DOORBELL_HOME": str(tmp_path)}
    app = {
        "device": lambda: device_app(1, DeviceSettings.read(1, environ)),
        "main": lambda: main_app(MainSettings.read(environ)),
        "aggregator": lambda: aggregator_app(AggregatorSettings.read(environ)),
    }[name]()
    client, wants_json = app.test_client(), {"Accept": "application/json"}
    pages, messages = ADDRESSES[name]
    for path in pages:
        for method in ("GET", "POST"):
            assert client.open(path, method=method).status_code == 401
    for method, path in messages:
        response = client.open(path, method=method, headers=wants_json)
        assert response.json["type"] != "urn:doorbell:problem:login-required", path
        assert response.status_code in (400, 401, 403, 404), path
