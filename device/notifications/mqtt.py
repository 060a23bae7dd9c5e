"""The MQTT channel: publishes every ring to the owner's broker, as Home Assistant understands it.

An ON of a sensor is not retained, an OFF is: a later subscriber never sees a visitor who has left.
Events are not retained either (Home Assistant would ignore them), and no picture stays at the
broker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from device.notifications.channel import NotDelivered, Sender, name_for
from device.notifications.home_assistant import ONLINE, Entities
from device.notifications.mqtt_connection import (
    PORTS,
    Broker,
    BrokerConnection,
    Message,
    parse_broker,
)
from device.notifications.notification import Notification


class Mqtt:
    """Publishes to an MQTT broker, and so to Home Assistant.

    Args:
        broker: The broker.
        entities: The device as Home Assistant is to see it.
        rounds: Returns the detectors with an active model, each with that model's round.
        name: The channel's name; None derives it from the address.
        timeout_s: Seconds to wait for each answer of the broker.
    """

    schemes: ClassVar[tuple[str, ...]] = tuple(PORTS)

    def __init__(
        self,
        broker: Broker,
        entities: Entities,
        rounds: Callable[[], Mapping[str, int]],
        name: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.address = f"mqtt://{broker.host}:{broker.port}"
        self.name = name or name_for("mqtt", self.address)
        self._broker = broker
        self._entities = entities
        self._rounds = rounds
        self._timeout_s = timeout_s
        self._connection: BrokerConnection | None = None
        self._announced: Mapping[str, int] = {}

    @classmethod
    def from_url(cls, url: str, sender: Sender, name: str | None = None) -> Mqtt:
        """Make the channel of `mqtts://user:password@host:port`."""
        entities = Entities(sender.identity, sender.device, sender.pictures, sender.page)
        return cls(parse_broker(url), entities, sender.rounds, name)

    def __repr__(self) -> str:
        return f"<Mqtt {self.address}>"

    def connect(self, wake: Callable[[], None]) -> None:
        """Be connected, and have announced the device as it is now.

        Args:
            wake: Is called when the connection ends, and when Home Assistant starts.

        Raises:
            NotDelivered: The broker is not reached, refuses, or has ended the connection.
        """
        rounds = dict(self._rounds())
        connection = self._connection
        if connection is not None and connection.lost:
            self._drop()
            raise NotDelivered(f"{self._broker} has ended the connection.")
        with self._dropped_on_failure():
            if connection is None:
                connection = BrokerConnection(self._broker, self._entities, self._timeout_s, wake)
                self._connection = connection
                connection.open()
            self._announce(connection, rounds)
            connection.settled = True
        if connection.lost:  # it ended before it was settled, and so woke nobody
            wake()

    def deliver(self, notification: Notification) -> None:
        """Publish what the sensors say of a ring, and then the ring's event.

        Raises:
            NotDelivered: The broker did not confirm it.
            InvalidMessage: A name or a number of the notification is not valid.
        """
        facts = notification.facts()
        answers = facts.pop("answers")
        connection = self._connection
        if connection is None:
            raise NotDelivered(f"{self._broker} is not connected.")
        messages: list[Message] = []
        for detector, answer in answers.items():
            if detector in self._announced:
                messages += self._states(detector, answer)
        if self._entities.pictures and notification.picture is not None:
            messages.append(Message(self._entities.topic("picture"), notification.picture, False))
        event = {"event_type": notification.kind} | facts | _summary(answers)
        messages.append(Message(self._entities.topic("ring"), json.dumps(event), False))
        with self._dropped_on_failure():
            connection.publish(messages)

    def close(self) -> None:
        """End the connection; the broker then publishes that the device is offline."""
        self._drop()

    def _states(self, detector: str, answer: Mapping[str, Any]) -> tuple[Message, Message]:
        """Return what a detector's sensors say of a ring."""
        verdict = "ON" if answer["verdict"] else "OFF"
        percent = f"{100 * answer['score']:.2f}"
        return (
            Message(self._entities.topic("verdict", detector), verdict, not answer["verdict"]),
            Message(self._entities.topic("score", detector), percent, True),
        )

    def _announce(self, connection: BrokerConnection, rounds: Mapping[str, int]) -> None:
        """Publish the device's components, and remove former ones, unless the broker has all that.

        Args:
            connection: Where to.
            rounds: Detector to the round of its active model.
        """
        before = self._announced
        new = not connection.settled
        former = connection.known | self._entities.components(before)
        gone = former - self._entities.components(rounds)
        if not (new or gone or connection.asked or rounds != before):
            return
        # Before publishing: Home Assistant may ask again while this is on its way.
        connection.asked = False
        messages = self._removal(gone, rounds) if gone else []
        messages.append(self._discovery(rounds))
        messages.append(Message(self._entities.availability, ONLINE, True))
        for detector, number in rounds.items():
            messages.append(Message(self._entities.topic("round", detector), str(number), True))
            if new or detector not in before:
                messages.append(Message(self._entities.topic("verdict", detector), "OFF", True))
        connection.publish(messages)
        connection.known -= gone
        self._announced = rounds

    def _removal(self, gone: frozenset[str], rounds: Mapping[str, int]) -> list[Message]:
        """Return what removes components from Home Assistant, and their retained messages."""
        cleared = [Message(topic, b"", True) for topic in self._entities.topics_of(gone)]
        return [self._discovery(rounds, gone), *cleared]

    def _discovery(self, rounds: Mapping[str, int], gone: frozenset[str] = frozenset()) -> Message:
        document = json.dumps(self._entities.document(rounds, gone))
        return Message(self._entities.discovery, document, True)

    @contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except NotDelivered:
            self._drop()
            raise

    def _drop(self) -> None:
        connection = self._connection
        self._connection = None
        if connection is not None:
            connection.drop()


def _summary(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    """Return the attributes of the event entity that come of the detectors' answers."""
    seen = [detector for detector, answer in answers.items() if answer["verdict"]]
    scores = {detector: answer["score"] for detector, answer in answers.items()}
    return {"seen": seen, "scores": scores}
