"""The webhook channel: one POST per notification, signed as Standard Webhooks specifies
(github.com/standard-webhooks).

Each POST has a connection of its own. Redirects are not followed, no proxy is used, only the
answer's status and one header field are read, and however slowly the answer comes, an attempt ends
in time. The address may hold a secret, so only its scheme and host are ever logged.

In a channel's URL the signing secret is the fragment, `https://host/path#whsec_...`: no client ever
sends a fragment (RFC 3986, section 3.5), the query stays the receiver's, and the `+` of base64
needs no escape there.
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
from typing import ClassVar
from urllib.parse import SplitResult, unquote, urlsplit

from device.notifications.channel import ChannelClosed, NotDelivered, Sender, name_for
from device.notifications.notification import Notification
from device.notifications.notifier import MAX_AGE_S
from shared import __version__
from shared.errors import SettingsError

_GONE = 410
_SECRET_PREFIX = "whsec_"


class Webhook:
    """Delivers to an HTTP server.

    Args:
        address: Where to, "https://...".
        secret: The signing key, "whsec_...".
        name: The channel's name; None derives it from the address.
        timeout_s: Seconds that an attempt may take.
        clock: Seconds since the epoch.

    Raises:
        SettingsError: The address or the secret is not valid; neither is quoted.
    """

    schemes: ClassVar[tuple[str, ...]] = ("https", "http")

    def __init__(
        self,
        address: str,
        secret: str,
        name: str | None = None,
        timeout_s: float = 15.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = _key(secret)
        parts = _parts(address)
        host = parts.netloc.rpartition("@")[2]
        self._timeout_s = timeout_s
        self._clock = clock
        self._host = parts.hostname or ""
        self._port = parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._shown = f"{parts.scheme}://{host}"
        self._headers = _headers(parts)
        self.address = f"{self._shown}{self._target}"
        self.name = name or name_for("webhook", self.address)

    @classmethod
    def from_url(cls, url: str, sender: Sender, name: str | None = None) -> Webhook:
        """Make the channel of `https://user:password@host/path?query#whsec_...`."""
        address, _, secret = url.partition("#")
        return cls(address, secret, name)

    def __repr__(self) -> str:
        return f"<Webhook {self._shown}>"

    def connect(self, wake: Callable[[], None]) -> None:
        """Do nothing: every attempt has a connection of its own."""

    def close(self) -> None:
        """Do nothing: no connection outlives an attempt."""

    def deliver(self, notification: Notification) -> None:
        """Send a notification, with its picture in base64 if it has one.

        Raises:
            NotDelivered: The server is not reached, or does not answer 2xx.
            ChannelClosed: The server answers 410.
            InvalidMessage: A name or a number of the notification is not valid.
        """
        facts = notification.facts()
        if notification.picture is not None:
            facts["picture"] = base64.b64encode(notification.picture).decode()
        message = {"type": f"doorbell.{notification.kind}", "timestamp": facts["at"], "data": facts}
        body = json.dumps(message, allow_nan=False).encode()
        status, retry_after = self._post(body, notification)
        if status == _GONE:
            raise ChannelClosed(f"{self._shown} answered 410 (gone).")
        if 300 <= status < 400:
            raise NotDelivered(
                f"{self._shown} answered {status}, a redirect, which is not followed: "
                "fix the address."
            )
        if not 200 <= status < 300:
            raise NotDelivered(f"{self._shown} answered {status}.", _seconds(retry_after))

    def _post(self, body: bytes, notification: Notification) -> tuple[int, str]:
        """Return the answer's status, and its field Retry-After."""
        headers = self._headers | self._signature(body, notification)
        connection = self._connection()
        # The socket's time-out starts again with every byte; this one is for the whole attempt.
        watchdog = threading.Timer(self._timeout_s, _cut, (connection,))
        watchdog.start()
        try:
            connection.request("POST", self._target, body, headers)
            response = connection.getresponse()
            return response.status, response.headers.get("Retry-After", "")
        except (OSError, HTTPException, ValueError) as error:
            raise NotDelivered(f"{self._shown} could not be reached: {_reason(error)}.") from None
        finally:
            watchdog.cancel()
            connection.close()

    def _signature(self, body: bytes, notification: Notification) -> dict[str, str]:
        """Return the header fields of Standard Webhooks."""
        # The id is the same in every attempt, so that a receiver can drop what it has already.
        at_ms = round(1000 * notification.at)
        message_id = f"{notification.device}_{notification.id}_{at_ms}"
        timestamp = str(int(self._clock()))
        signed = f"{message_id}.{timestamp}.".encode() + body
        digest = hmac.digest(self._key, signed, "sha256")
        return {
            "Webhook-Id": message_id,
            "Webhook-Timestamp": timestamp,
            "Webhook-Signature": f"v1,{base64.b64encode(digest).decode()}",
        }

    def _connection(self) -> HTTPConnection:
        if self._tls is None:
            return HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)


def _parts(address: str) -> SplitResult:
    """Return the parts of an address."""
    with suppress(ValueError):  # such as a port that is not a number
        parts = urlsplit(address)
        plain = address.isascii() and address.isprintable() and " " not in address
        if plain and parts.scheme in Webhook.schemes and parts.hostname and parts.port != 0:
            return parts
    raise SettingsError(
        "The webhook's address is not a URL.",
        kept="",
        todo="It begins with https:// or http://, and has only ASCII characters (escape others).",
    )


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"doorbell-federation/{__version__}",
        "Connection": "close",
    }
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        encoded = base64.b64encode(credentials.encode()).decode()
        headers["Authorization"] = f"Basic {encoded}"
    return headers


def _key(secret: str) -> bytes:
    """Return the key that a secret encodes."""
    with suppress(ValueError):
        key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        if secret.startswith(_SECRET_PREFIX) and 24 <= len(key) <= 64:
            return key
    raise SettingsError(
        "The webhook's secret is missing or not valid.",
        kept="",
        todo="It is whsec_ and then 24 to 64 random bytes in base64; in a URL, after a #.",
    )


def _cut(connection: HTTPConnection) -> None:
    """End a connection on which another thread waits."""
    with suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


def _reason(error: Exception) -> str:
    """Return what failed, without anything that the address or the peer says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    if isinstance(error, OSError):
        return (error.strerror or "the connection failed").lower()
    return "its answer is not HTTP"


def _seconds(text: str) -> float:
    """Return the seconds of a Retry-After field, or 0 where it is not a number."""
    if not (text.isascii() and text.isdecimal()):
        return 0.0
    return min(float(text), MAX_AGE_S)
