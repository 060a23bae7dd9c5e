"""The owner's MQTT broker is told of every ring, in the way that Home Assistant understands.

paho-mqtt, the Eclipse project's own client: Home Assistant speaks through it too, it needs nothing
else, and it has types. MQTT 3.1.1, as every broker understands it. Every connection is a new one
without a past: paho's own reconnecting would send again what was given up meanwhile.

An ON of a sensor is not retained, an OFF is: who comes later never sees a visitor who has left.
Events are not retained either (Home Assistant would ignore them), and no picture stays at the
broker.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from device.notifications.home_assistant import OFFLINE, ONLINE, Entities
from device.notifications.notification import Happening
from device.notifications.notifier import NotTold
from shared.errors import SettingsError

_KEEP_ALIVE_S = 30
_MAX_DOCUMENT_BYTES = 1 << 18
_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Broker:
    """Where an MQTT broker is, and who we are there."""

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
        address: mqtts is TLS, port 8883; mqtt is not, port 1883. Signs in user and password may be
            escaped (%40).

    Raises:
        SettingsError: It is none; it is not quoted.
    """
    with suppress(ValueError):  # such as a port that is no number
        parts = urlsplit(address)
        plain = (
            address.isprintable() and " " not in address and not parts.query and not parts.fragment
        )
        if (
            plain
            and parts.scheme in _PORTS
            and parts.hostname
            and parts.path in ("", "/")
            and parts.port != 0
        ):
            user, password = (
                None if part is None else unquote(part) for part in (parts.username, parts.password)
            )
            return Broker(
                parts.hostname,
                parts.port or _PORTS[parts.scheme],
                parts.scheme == "mqtts",
                user,
                password,
            )
    raise SettingsError(
        "The MQTT broker's address is none.", kept="", todo="It is mqtts://user:password@host:port."
    )


@dataclass(frozen=True)
class _Message:
    topic: str
    payload: str | bytes
    retain: bool


class Mqtt:
    """Tells an MQTT broker, and so Home Assistant.

    Args:
        broker: Which.
        entities: What Home Assistant is to see.
        rounds: Returns the detectors that have a model, each with the round of it.
        timeout_s: Seconds to wait for each answer of the broker.
    """

    name = "mqtt"

    def __init__(
        self,
        broker: Broker,
        entities: Entities,
        rounds: Callable[[], Mapping[str, int]],
        timeout_s: float = 10.0,
    ) -> None:
        self._broker, self._entities, self._rounds, self._timeout_s = (
            broker,
            entities,
            rounds,
            timeout_s,
        )
        self._connection: _Connection | None = None
        self._announced: Mapping[str, int] = {}

    def ready(self, wake: Callable[[], None]) -> None:
        """Be connected, and have announced the device as it is now; raises as `Teller.ready` does."""
        rounds, connection = dict(self._rounds()), self._connection
        if connection is not None and connection.lost:
            self._drop()
            raise NotTold(f"{self._broker} has ended the connection.")
        with self._dropped_unless_told():
            if connection is None:
                connection = self._connection = _Connection(
                    self._broker, self._entities, self._timeout_s, wake
                )
                connection.open()
            self._announce(connection, rounds)
            connection.settled = True
        if connection.lost:  # before its end was news
            wake()

    def tell(self, happening: Happening) -> None:
        """Publish an event, after what the sensors say of it; raises as `Teller.tell` does."""
        facts, entities, connection = happening.facts(), self._entities, self._connection
        if connection is None:
            raise NotTold(f"{self._broker} is not connected.")
        answers = facts.pop("answers")
        messages = []
        for detector in filter(self._announced.__contains__, answers):
            answer = answers[detector]
            yes, score = answer["verdict"], f"{100 * answer['score']:.2f}"
            messages.append(
                _Message(entities.topic("verdict", detector), "ON" if yes else "OFF", not yes)
            )
            messages.append(_Message(entities.topic("score", detector), score, True))
        if entities.pictures and happening.picture is not None:
            messages.append(_Message(entities.topic("picture"), happening.picture, False))
        seen = [detector for detector, answer in answers.items() if answer["verdict"]]
        scores = {detector: answer["score"] for detector, answer in answers.items()}
        event = {"event_type": happening.kind} | facts | {"seen": seen, "scores": scores}
        messages.append(_Message(entities.topic("ring"), json.dumps(event), False))
        with self._dropped_unless_told():
            connection.publish(messages)

    def close(self) -> None:
        """End the connection; the broker says that the device is gone, as it does whenever that
        happens.
        """
        self._drop()

    def _announce(self, connection: _Connection, rounds: Mapping[str, int]) -> None:
        """Publish what the device consists of, and remove what it no longer consists of, unless all
        that is known.
        """
        entities, before, new = self._entities, self._announced, not connection.settled
        gone = (connection.known | entities.components(before)) - entities.components(rounds)
        if not (new or gone or connection.asked or rounds != before):
            return
        connection.asked, messages = False, []
        if gone:
            messages.append(
                _Message(entities.discovery, json.dumps(entities.document(rounds, gone)), True)
            )
            messages += [_Message(topic, b"", True) for topic in entities.topics_of(gone)]
        messages.append(_Message(entities.discovery, json.dumps(entities.document(rounds)), True))
        messages.append(_Message(entities.availability, ONLINE, True))
        for detector, number in rounds.items():
            messages.append(_Message(entities.topic("round", detector), str(number), True))
            if new or detector not in before:
                messages.append(_Message(entities.topic("verdict", detector), "OFF", True))
        connection.publish(messages)
        connection.known -= gone
        self._announced = rounds

    @contextmanager
    def _dropped_unless_told(self) -> Iterator[None]:
        try:
            yield
        except NotTold:
            self._drop()
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.drop()


class _Connection:
    """One connection to a broker; what paho's thread finds out stands in its attributes.

    Attributes:
        lost: Whether it is over.
        asked: Whether Home Assistant has started, and wants to be told again.
        known: Keys of components that the broker knew before this connection, and that were not
            removed yet.
        settled: Whether the device was announced by it; from then on its end is news.
    """

    def __init__(
        self, broker: Broker, entities: Entities, timeout_s: float, wake: Callable[[], None]
    ) -> None:
        self.lost, self.asked, self.settled = False, False, False
        self.known: frozenset[str] = frozenset()
        self._broker, self._entities, self._timeout_s, self._wake = (
            broker,
            entities,
            timeout_s,
            wake,
        )
        self._answered, self._refused = threading.Event(), ""
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"doorbell-{entities.identity}",
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = timeout_s
        client.will_set(entities.availability, OFFLINE, qos=1, retain=True)
        client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set_context(ssl.create_default_context())
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_message = self._on_message
        self._client = client

    def open(self) -> None:
        """Connect, and ask for what Home Assistant says and what was announced before.

        Raises:
            NotTold: The broker does not answer, or refuses.
        """
        try:
            self._client.connect(self._broker.host, self._broker.port, _KEEP_ALIVE_S)
        except (OSError, ValueError) as error:
            raise NotTold(f"{self._broker} cannot be reached: {_why(error)}.") from None
        self._client.loop_start()
        if not self._answered.wait(self._timeout_s):
            raise NotTold(f"{self._broker} does not answer.")
        if self._refused:
            raise NotTold(f"{self._broker} {self._refused}")
        self._client.subscribe([(self._entities.birth, 1), (self._entities.discovery, 1)])

    def publish(self, messages: Iterable[_Message]) -> None:
        """Publish messages in this order, and return when the broker has them.

        Raises:
            NotTold: It does not say so in time, or the connection is lost.
        """
        sent = [
            self._client.publish(each.topic, each.payload, qos=1, retain=each.retain)
            for each in messages
        ]
        deadline, confirmed = time.monotonic() + self._timeout_s, False
        with suppress(RuntimeError, ValueError):  # some were not even sent
            for message in sent:
                while not message.is_published() and not self.lost and time.monotonic() < deadline:
                    message.wait_for_publish(0.1)
            confirmed = all(message.is_published() for message in sent)
        if not confirmed:
            raise NotTold(f"{self._broker} did not confirm what it was told.")

    def drop(self) -> None:
        """End it without taking leave, whatever state it is in, so that the broker publishes the
        last will.
        """
        self.settled = False
        with suppress(OSError):
            if isinstance(connected := self._client.socket(), socket.socket):
                connected.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def _on_connect(
        self, _client: object, _data: object, _flags: object, reason: ReasonCode, _: object
    ) -> None:
        if reason.is_failure:
            names = {"Bad user name or password", "Not authorized"}
            refused = (
                "refuses the user name or the password."
                if str(reason) in names
                else f"refuses: {reason}."
            )
            self._refused = refused
        self._answered.set()

    def _on_disconnect(self, *_: object) -> None:
        self.lost = True
        self._refused = self._refused or "ends the connection at once."
        self._answered.set()
        if self.settled:
            self._wake()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if (
            message.topic == self._entities.birth
            and message.payload == ONLINE.encode()
            and not message.retain
        ):
            self.asked = True
        elif message.topic == self._entities.discovery and message.retain:
            with suppress(ValueError, RecursionError):
                if len(message.payload) <= _MAX_DOCUMENT_BYTES:
                    self.known |= self._entities.known(json.loads(message.payload))
        if self.asked or self.known:
            self._wake()


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate does not hold ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return (
        (error.strerror if isinstance(error, OSError) else "") or "the connection failed"
    ).lower()
