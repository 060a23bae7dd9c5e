"""One connection to the owner's MQTT broker.

It speaks MQTT 3.1.1, which every broker understands, through paho-mqtt, the Eclipse project's own
client: Home Assistant speaks through it too, it needs nothing else, and it has types. Every
connection is a new one with a clean session: paho's own reconnecting would send again what was
dropped meanwhile.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from device.notifications.channel import NotDelivered
from device.notifications.home_assistant import OFFLINE, ONLINE, Entities
from shared.errors import SettingsError

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
"""URL scheme to default port; mqtts is TLS."""

_KEEP_ALIVE_S = 30
_CONFIRMATION_POLL_S = 0.1
_MAX_DOCUMENT_BYTES = 1 << 18
_WRONG_CREDENTIALS = ("Bad user name or password", "Not authorized")


@dataclass(frozen=True)
class Broker:
    """Where an MQTT broker is, and the credentials for it."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"The broker at {self.host}:{self.port}"


def parse_broker(address: str) -> Broker:
    """Return the broker that an address names, "mqtts://user:password@host:port".

    Args:
        address: mqtts is TLS, port 8883; mqtt is not, port 1883. Characters of user and password
            may be percent-encoded (%40).

    Raises:
        SettingsError: It is not the address of a broker; it is not quoted.
    """
    with suppress(ValueError):  # such as a port that is not a number
        parts = urlsplit(address)
        if address.isprintable() and " " not in address and _names_broker(parts):
            user = None if parts.username is None else unquote(parts.username)
            password = None if parts.password is None else unquote(parts.password)
            port = parts.port or PORTS[parts.scheme]
            return Broker(parts.hostname or "", port, parts.scheme == "mqtts", user, password)
    raise SettingsError(
        "The MQTT broker's address is not a URL of one.",
        kept="",
        todo="It looks like mqtts://user:password@host:port.",
    )


def _names_broker(parts: SplitResult) -> bool:
    if parts.scheme not in PORTS or not parts.hostname or parts.port == 0:
        return False
    return parts.path in ("", "/") and not parts.query and not parts.fragment


@dataclass(frozen=True)
class Message:
    """What is published: with `retain`, the broker shows it to later subscribers too."""

    topic: str
    payload: str | bytes
    retain: bool


class BrokerConnection:
    """One connection to a broker. paho's thread writes the attributes.

    Args:
        broker: The broker.
        entities: The device as Home Assistant knows it.
        timeout_s: Seconds to wait for each answer of the broker.
        wake: Is called when the channel should look at the connection again.

    Attributes:
        lost: Whether it is over.
        asked: Whether Home Assistant has started, and needs to be told of the device again.
        known: Keys of components that the broker retained from earlier connections, and that are
            not removed yet.
        settled: Whether the device was announced over it; from then on its end wakes the channel.
    """

    def __init__(
        self,
        broker: Broker,
        entities: Entities,
        timeout_s: float,
        wake: Callable[[], None],
    ) -> None:
        self.lost = False
        self.asked = False
        self.settled = False
        self.known: frozenset[str] = frozenset()
        self._broker = broker
        self._entities = entities
        self._timeout_s = timeout_s
        self._wake = wake
        self._answered = threading.Event()
        self._refusal = ""
        self._client = self._make_client()

    def _make_client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"doorbell-{self._entities.identity}",
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = self._timeout_s
        # The last will: the broker publishes it whenever the connection ends, even by a power cut.
        client.will_set(self._entities.availability, OFFLINE, qos=1, retain=True)
        client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.tls:
            client.tls_set_context(ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def open(self) -> None:
        """Connect, and subscribe to Home Assistant's birth message and the retained document.

        Raises:
            NotDelivered: The broker does not answer, or refuses.
        """
        try:
            self._client.connect(self._broker.host, self._broker.port, _KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            raise NotDelivered(f"{self._broker} cannot be reached: {_reason(error)}.") from None
        self._client.loop_start()
        if not self._answered.wait(self._timeout_s):
            raise NotDelivered(f"{self._broker} does not answer.")
        if self._refusal:
            raise NotDelivered(f"{self._broker} {self._refusal}")
        self._client.subscribe([(self._entities.birth, 1), (self._entities.discovery, 1)])

    def publish(self, messages: Iterable[Message]) -> None:
        """Publish messages in this order, and return when the broker has confirmed them all.

        Raises:
            NotDelivered: It does not confirm them in time, or the connection is lost.
        """
        # Quality of service 1: the broker acknowledges every message (MQTT 3.1.1, section 4.3.2).
        published = [
            self._client.publish(each.topic, each.payload, qos=1, retain=each.retain)
            for each in messages
        ]
        deadline = time.monotonic() + self._timeout_s
        confirmed = False
        with suppress(RuntimeError, ValueError):  # some could not even be queued
            for message in published:
                self._wait_for(message, deadline)
            confirmed = all(message.is_published() for message in published)
        if not confirmed:
            raise NotDelivered(f"{self._broker} did not confirm what was published.")

    def _wait_for(self, message: paho.MQTTMessageInfo, deadline: float) -> None:
        # In short waits: paho does not end a wait when the connection is lost.
        while not message.is_published() and not self.lost and time.monotonic() < deadline:
            message.wait_for_publish(_CONFIRMATION_POLL_S)

    def drop(self) -> None:
        """End the connection without a DISCONNECT, so that the broker publishes the last will."""
        self.settled = False
        with suppress(OSError):
            connected = self._client.socket()
            if isinstance(connected, socket.socket):
                connected.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def _on_connect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, _: object
    ) -> None:
        if reason.is_failure:
            self._refusal = f"refuses: {reason}."
            if str(reason) in _WRONG_CREDENTIALS:
                self._refusal = "refuses the user name or the password."
        self._answered.set()

    def _on_disconnect(self, *_: object) -> None:
        self.lost = True
        self._refusal = self._refusal or "ends the connection at once."
        self._answered.set()
        if self.settled:
            self._wake()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == self._entities.birth:
            # A retained one is of a start in the past.
            if message.payload == ONLINE.encode() and not message.retain:
                self.asked = True
        elif message.topic == self._entities.discovery and message.retain:
            self._read_document(message.payload)
        if self.asked or self.known:
            self._wake()

    def _read_document(self, payload: bytes | bytearray) -> None:
        """Note which components an earlier connection announced; anybody may have put it there."""
        if len(payload) > _MAX_DOCUMENT_BYTES:
            return
        with suppress(ValueError, RecursionError):
            self.known |= self._entities.known(json.loads(payload))


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    detail = error.strerror if isinstance(error, OSError) else ""
    return (detail or "the connection failed").lower()
