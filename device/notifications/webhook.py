"""The owner's own address is told of every ring, signed as Standard Webhooks says
(github.com/standard-webhooks).

One POST on a connection of its own. Redirects are not followed, no proxy is asked, nothing of the
answer but its status and one header field is used, and however slowly it comes, an attempt ends in
time. The address may carry a secret, so no more of it than scheme and host is ever written down.
"""

from __future__ import annotations

import base64
import hmac
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import SplitResult, unquote, urlsplit

from device.notifications.notification import Happening
from device.notifications.notifier import WORTH_TELLING_S, NotTold, Unwanted
from shared import __version__
from shared.errors import SettingsError

_GONE = 410


class Webhook:
    """Tells an HTTP server.

    Args:
        address: Where, "https://...".
        secret: What signs, "whsec_...".
        timeout_s: Seconds that an attempt may take.
        clock: Seconds since the epoch.

    Raises:
        SettingsError: One of them is not what it should be; neither is quoted.
    """

    name = "webhook"

    def __init__(
        self,
        address: str,
        secret: str,
        timeout_s: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key, parts = _key(secret), _parts(address)
        self._timeout_s, self._clock = timeout_s, clock
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"doorbell-federation/{__version__}",
        }
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(user).decode()}"

    def ready(self, wake: Callable[[], None]) -> None:
        """Nothing has to be ready."""

    def close(self) -> None:
        """Nothing is held."""

    def tell(self, happening: Happening) -> None:
        """Send an event, with its picture in base64 if it has one; raises as `Teller.tell` does."""
        facts = happening.facts()
        if happening.picture is not None:
            facts["picture"] = base64.b64encode(happening.picture).decode()
        message = {"type": f"doorbell.{happening.kind}", "timestamp": facts["at"], "data": facts}
        status, again = self._post(json.dumps(message, allow_nan=False).encode(), happening)
        if status == _GONE:
            raise Unwanted(f"{self._where} answered 410, which says so.")
        if 300 <= status < 400:
            raise NotTold(
                f"{self._where} answered {status}, a redirect, which is not followed: mend the address."
            )
        if not 200 <= status < 300:
            raise NotTold(f"{self._where} answered {status}.", _seconds(again))

    def _post(self, body: bytes, happening: Happening) -> tuple[int, str]:
        """Return the answer's status, and its field Retry-After."""
        # the same in every attempt
        number = f"{happening.device}_{happening.id}_{round(1000 * happening.at)}"
        stamp = str(int(self._clock()))
        digest = hmac.digest(self._key, f"{number}.{stamp}.".encode() + body, "sha256")
        signed = {"Webhook-Id": number, "Webhook-Timestamp": stamp}
        signed["Webhook-Signature"] = f"v1,{base64.b64encode(digest).decode()}"
        connection = self._connection()
        watchdog = threading.Timer(self._timeout_s, _cut, (connection,))
        watchdog.start()
        try:
            connection.request(
                "POST", self._target, body, self._headers | signed | {"Connection": "close"}
            )
            response = connection.getresponse()
            return response.status, response.headers.get("Retry-After", "")
        except (OSError, HTTPException, ValueError) as error:
            raise NotTold(f"{self._where} could not be told: {_why(error)}.") from None
        finally:
            watchdog.cancel()
            connection.close()

    def _connection(self) -> HTTPConnection:
        if self._tls is None:
            return HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)


def _parts(address: str) -> SplitResult:
    """Return the parts of an address."""
    with suppress(ValueError):  # such as a port that is no number
        parts = urlsplit(address)
        fit = address.isascii() and address.isprintable() and " " not in address and parts.port != 0
        if fit and parts.scheme in ("http", "https") and parts.hostname:
            return parts
    raise SettingsError(
        "The webhook's address is none.",
        kept="",
        todo="It begins with http:// or https://, and other letters than a to z are escaped in it.",
    )


def _key(secret: str) -> bytes:
    """Return the key that a secret spells."""
    with suppress(ValueError):
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        if secret.startswith("whsec_") and 24 <= len(key) <= 64:
            return key
    raise SettingsError(
        "The webhook's secret is none.",
        kept="",
        todo="It is whsec_ and then 24 to 64 random bytes in base64.",
    )


def _cut(connection: HTTPConnection) -> None:
    """End a connection in whose answer another thread waits."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _why(error: Exception) -> str:
    """Return what went wrong, without anything that the address or the peer says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, OSError):
        return (error.strerror or "the connection failed").lower()
    return "it does not answer as a web server does"


def _seconds(text: str) -> float:
    """Return how long a server asks to be left alone, as far as that is a number."""
    return min(float(text), WORTH_TELLING_S) if text.isascii() and text.isdecimal() else 0.0
