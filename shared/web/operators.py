"""Who may press a service's buttons: its operator, and nobody through the operator's browser.

Without a token a service answers to this machine alone: a loopback peer that asks for a loopback
name (so no DNS rebinding), not on behalf of another site (no cross-site request forgery, by POST or
by GET), and not ahead of a click (prefetch). With `DOORBELL_OPERATOR_TOKEN` it answers to who shows
the token: `Authorization: Bearer TOKEN` (RFC 6750), or the cookie that `/login` gives for it.
Messages between services are not an operator's and pass by.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ipaddress import IPv6Address, IPv6Network

from flask import Flask, Response, current_app, g, render_template, request
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from werkzeug.middleware.proxy_fix import ProxyFix

from shared.errors import DoorbellError
from shared.settings import OperatorSettings
from shared.transport.addresses import is_loopback, parse_address
from shared.web.openapi import HTML, STRING, Operation, declare, record

MESSAGES = "doorbell.messages"  # key in app.extensions: the endpoints of messages between services
LOGIN_S = 7 * 24 * 3600
_ATTEMPTS = RateLimitItemPerMinute(10)
_OPEN = {"healthz", "openapi", "static", "login"}
_FORM = {"application/x-www-form-urlencoded": record(token=STRING)}
_SHOW_LOGIN = Operation("Ask for the token.", answer=HTML)
_LOG_IN = Operation("Take the token, and give a cookie.", _FORM, {}, (401, 403, 429), done=(303,))
_LOG_OUT = Operation("Take the cookie back.", answer={}, security="operator", done=(303,))
_PROXIED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip", "Via")
_PURPOSE = ("Sec-Purpose", "Purpose", "X-Purpose", "X-Moz")
_AHEAD = re.compile("prefetch|prerender|preview", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:[0-9]{1,5})?")
_COOKIE = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")
_LOCAL_PATH = re.compile(r"/(?!/)[!-\[\]-~]*")


class Refused(DoorbellError):
    """A request that is not the operator's own; browsers are shown `template`."""

    status = HTTPStatus.FORBIDDEN
    slug = "refused"
    template = "base.html"
    headers: Mapping[str, str] = {}


class LoginRequired(Refused):
    """A request without the operator token."""

    status = HTTPStatus.UNAUTHORIZED
    slug = "login-required"
    template = "login.html"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}

    def __init__(self, happened: str) -> None:
        super().__init__(
            happened,
            todo="Log in at /login, or send Authorization: Bearer with DOORBELL_OPERATOR_TOKEN.",
        )


class TooManyAttempts(Refused):
    """More attempts at the operator token than one address may make."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    slug = "too-many-attempts"

    def __init__(self, wait_s: int) -> None:
        super().__init__(
            "Too many attempts came from this address.", todo=f"Try again in {wait_s} s."
        )
        self.headers = {"Retry-After": str(wait_s)}


def install(app: Flask, settings: OperatorSettings, clock: Callable[[], float] = time.time) -> None:
    """Guard every address of `app` but messages, what is open to all: let in, or raise `Refused`.

    `g.operator` then says who came in: "local", "bearer" or "cookie". `/login` and `/logout` exist
    only with a token.
    """
    if settings.trusted_proxies:
        # X-Forwarded-For, -Proto, -Host and -Port; each proxy in front of it adds one value.
        trusted = [settings.trusted_proxies] * 4
        app.wsgi_app = ProxyFix(app.wsgi_app, *trusted)  # type: ignore[method-assign]
    if settings.token is None:
        admit: Callable[[], None] = _admit_this_machine
    else:
        desk = _Desk(settings.token, clock)
        app.add_url_rule("/login", "login", desk.login, methods=["GET", "POST"])
        app.add_url_rule("/logout", "logout", desk.logout, methods=["POST"])
        declare(app.extensions, "login", GET=_SHOW_LOGIN, POST=_LOG_IN)
        declare(app.extensions, "logout", POST=_LOG_OUT)
        admit = desk.admit

    def guard() -> None:
        messages = app.extensions.get(MESSAGES, ())
        if request.endpoint not in _OPEN and request.endpoint not in messages:
            admit()

    app.before_request(guard)


def local_path(target: str | None) -> str:
    """Return `target` if it is a path on this service, and otherwise "/".

    So a login cannot lead to another site (an open redirect, CWE-601).
    """
    is_local = target is not None and _LOCAL_PATH.fullmatch(target) is not None
    return target if target and is_local else "/"


def cookie_key(token: str) -> bytes:
    """Return the key that signs login cookies.

    It is derived from the token: another token makes another key, and so voids all cookies.
    """
    return hmac.digest(token.encode(), b"doorbell operator cookie 1", "sha256")


def cookie_name(key: bytes) -> str:
    """Return the cookie's name.

    Browsers do not tell ports apart: services with other tokens need other names.
    """
    return "doorbell_" + hmac.digest(key, b"name", "sha256").hex()[:8]


def make_cookie(key: bytes, expiry: int) -> str:
    """Return a login cookie that is good until `expiry`, in seconds since the epoch."""
    return f"{expiry}.{hmac.digest(key, str(expiry).encode(), 'sha256').hex()}"


def check_cookie(key: bytes, cookie: str, now: float) -> bool:
    """Return whether a cookie was made with `key` and has not expired."""
    parts = _COOKIE.fullmatch(cookie)
    if parts is None:
        return False
    expiry = int(parts[1])
    is_genuine = hmac.compare_digest(make_cookie(key, expiry), cookie)
    return is_genuine and now < expiry


class _Desk:
    """Checks the operator's token or cookie.

    It keeps a digest of the token, and counts attempts in this process's memory.
    """

    def __init__(self, token: str, clock: Callable[[], float]) -> None:
        self._digest = _digest(token)
        self._key = cookie_key(token)
        self._clock = clock
        self._cookie = cookie_name(self._key)
        self._attempts = Attempts()

    def admit(self) -> None:
        """Let in who shows the token or a login cookie."""
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            self._check(shown.strip(), count_always=False)
            g.operator = "bearer"
        elif check_cookie(self._key, request.cookies.get(self._cookie, ""), self._clock()):
            _refuse_other_sites()
            g.operator = "cookie"
        else:
            # Typed, or clicked on a page of ours: the login leads on to it.
            is_own = request.headers.get("Sec-Fetch-Site") in ("none", "same-origin")
            if request.method == "GET" and is_own:
                g.next = local_path(request.full_path.rstrip("?"))
            raise LoginRequired("This service answers to its operator only.")

    def login(self) -> Response:
        """Show the form; take the token and give the cookie."""
        if request.method != "POST":
            return Response(render_template("login.html", service=current_app.name))
        _refuse_other_sites()
        request.max_content_length = 10_000
        g.next = local_path(request.form.get("next"))
        self._check(request.form.get("token", ""), count_always=True)
        response = Response(status=HTTPStatus.SEE_OTHER, headers={"Location": g.next})
        response.set_cookie(
            self._cookie,
            make_cookie(self._key, int(self._clock()) + LOGIN_S),
            max_age=LOGIN_S,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    def logout(self) -> Response:
        """Take the cookie back."""
        response = Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/login"})
        is_secure = request.is_secure
        response.delete_cookie(self._cookie, secure=is_secure, httponly=True, samesite="Strict")
        return response

    def _check(self, shown: str, *, count_always: bool) -> None:
        """Compare what was shown with the token; past ten failures a minute even it is refused.

        Args:
            shown: What the request has for a token.
            count_always: Whether a right one counts as an attempt too.
        """
        right = hmac.compare_digest(_digest(shown), self._digest)
        self._attempts.check(count=count_always or not right)
        if not right:
            raise LoginRequired("That is not the operator token.")


class Attempts:
    """Attempts at a secret, ten a minute from one address; counted in this process's memory."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, *, count: bool) -> None:
        """Refuse if this request's address has made too many attempts.

        Args:
            count: Whether this one is an attempt.

        Raises:
            TooManyAttempts: There were ten within a minute.
        """
        allows = self._limiter.hit if count else self._limiter.test
        if not allows(_ATTEMPTS, _peer()):
            reset = self._limiter.get_window_stats(_ATTEMPTS, _peer()).reset_time
            raise TooManyAttempts(max(1, math.ceil(reset - time.time())))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _peer() -> str:
    """Return whose attempts are counted together: an IPv4 address, or an IPv6 network of /64.

    One customer has a /64, and could take a new address of it for each attempt.
    """
    address = parse_address(request.remote_addr or "")
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address)


def _admit_this_machine() -> None:
    peer = request.remote_addr  # empty on a Unix socket, where the file's permissions decide
    if (peer and not is_loopback(peer)) or any(name in request.headers for name in _PROXIED):
        raise Refused(
            "Without an operator token this service answers to its own machine only.",
            todo="Set DOORBELL_OPERATOR_TOKEN where the service runs to use it from elsewhere or"
            " through a proxy.",
        )
    host = _HOST.fullmatch(request.headers.get("Host", "").lower())
    if host is None or not is_loopback(host[1].strip("[]")):
        raise Refused(
            "Without an operator token this service answers to the name localhost only.",
            todo="Open it as localhost, or set DOORBELL_OPERATOR_TOKEN where it runs.",
        )
    _refuse_other_sites()
    g.operator = "local"


def _refuse_other_sites() -> None:
    """Refuse what a browser does by itself or for another site.

    It sends the operator's cookie, but not the operator's will (cross-site request forgery).
    """
    if any(_AHEAD.search(request.headers.get(name, "")) for name in _PURPOSE):
        raise Refused(
            "This service does nothing ahead of a click.", todo="Open the address itself."
        )
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("none", "same-origin") or not _is_own_origin():
        raise Refused(
            "Another site led here, and other sites press no buttons of this service.",
            todo="Type the address into the browser, or use the service's own page.",
        )


def _is_own_origin() -> bool:
    own = f"{request.scheme}://{request.host}"
    scheme, _, host = request.headers.get("Origin", own).lower().partition("://")
    # Without X-Forwarded-Proto this may be http although the browser speaks https with a proxy.
    schemes = ("https",) if request.is_secure else ("http", "https")
    return scheme in schemes and host == request.host.lower()
