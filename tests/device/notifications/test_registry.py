"""Notification channels are declared by URLs: several at once, each by itself, and no secret shown."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from device.notifications.channel import Channel, Sender
from device.notifications.notification import Notification
from device.notifications.notifier import Notifier
from device.notifications.registry import CHANNELS, open_channels
from device.settings import BellSettings
from device.store.notifications import DeliveryStore
from device.store.store import DeviceStore
from device.vision.prediction import Prediction
from shared.errors import SettingsError
from tests.owners import SECRET, Server, Watcher, a_broker
from tests.ports import free_port

OTHER_SECRET = "whsec_" + "b" * 43 + "="
CAT = Prediction(0.93, True, 0.8, "a" * 64)
RING = Notification(17, 1_700_000_000.5, "device-1", "button", {"cat": CAT})
HIDDEN = ("hidden", "whsec_")


def sender_of(identity: str = "device-1") -> Sender:
    return Sender(identity, "device-1", False, None, lambda: {"cat": 3})


def declared(sender: Sender | None = None, **variables: str) -> tuple[Channel, ...]:
    """Return the channels of an environment; `NOTIFY` is DOORBELL_NOTIFY."""
    environ = {f"DOORBELL_{name}": text for name, text in variables.items()}
    return open_channels(BellSettings.read(environ), sender or sender_of())


@contextlib.contextmanager
def running(notifiers: list[Notifier]) -> Iterator[None]:
    """Let notifiers run, each in its thread, while the block does."""
    stop = threading.Event()
    threads = [threading.Thread(target=each.run, args=(stop,)) for each in notifiers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_two_webhooks_and_a_broker_each_get_every_event_once_and_in_order(tmp_path: Path) -> None:
    """One webhook is down at first, and after a restart nothing is delivered again."""
    identity = secrets.token_hex(6)
    port, late_port = free_port(), free_port()
    events = [RING, replace(RING, id=18), replace(RING, id=19)]
    deliveries = DeliveryStore(DeviceStore(tmp_path).database)
    late = Server()

    def notifiers(url: str) -> list[Notifier]:
        urls = (
            f"mqtt://localhost:{port}, {url}/porch?a=1,2#{SECRET} "
            f"http://localhost:{late_port}/late#{OTHER_SECRET}"
        )
        return [
            Notifier(
                channel,
                deliveries,
                lambda after: next((each for each in events if each.id > after), None),
                clock=lambda: RING.at,
            )
            for channel in declared(sender_of(identity), NOTIFY=urls)
        ]

    with a_broker(port), Server().running() as server:
        watcher = Watcher(port, identity)
        first = notifiers(server.url)
        with running(first):
            server.until(3)
            watcher.until(lambda _: watcher.rings() == [17, 18, 19])
            with late.running(late_port):
                late.until(3)
        events.append(replace(RING, id=20))
        with late.running(late_port), running(notifiers(server.url)):
            server.until(4)
            late.until(4)
            watcher.until(lambda _: watcher.rings() == [17, 18, 19, 20])
        watcher.close()
    for each in (server, late):
        assert [body["data"]["id"] for body in each.bodies()] == [17, 18, 19, 20]
    assert {path for path, _, _ in server.got} == {"/porch?a=1,2"}
    assert {path for path, _, _ in late.got} == {"/late"}
    assert len({notifier.channel.name for notifier in first}) == 3
    assert {deliveries.last(notifier.channel.name) for notifier in first} == {20}


def test_older_variables_add_channels_under_the_names_that_databases_know() -> None:
    channels = declared(
        WEBHOOK="https://host/hook#part",
        WEBHOOK_SECRET=SECRET,
        MQTT="mqtt://broker",
        NOTIFY=f"https://other/hook#{SECRET}",
    )
    assert [channel.name for channel in channels[:2]] == ["webhook", "mqtt"]
    assert [channel.address for channel in channels] == [
        "https://host/hook",
        "mqtt://broker:1883",
        "https://other/hook",
    ]


def test_address_that_is_declared_twice_is_one_channel() -> None:
    channels = declared(
        MQTT="mqtt://me:hidden@broker",
        NOTIFY=f"mqtt://broker:1883 https://host/a#{SECRET} https://host/a#{OTHER_SECRET}",
    )
    assert [channel.name for channel in channels][:1] == ["mqtt"]
    assert [channel.address for channel in channels] == ["mqtt://broker:1883", "https://host/a"]


def test_name_outlives_new_credentials_and_tells_addresses_apart() -> None:
    before, after, other = (
        declared(NOTIFY=url)[0].name
        for url in (
            f"https://me:hidden@host/a#{SECRET}",
            f"https://me:changed@host/a#{OTHER_SECRET}",
            f"https://me:hidden@host/b#{SECRET}",
        )
    )
    assert before == after != other
    assert (
        declared(NOTIFY="mqtt://broker")[0].name == declared(NOTIFY="mqtt://me@broker:1883")[0].name
    )


@pytest.mark.parametrize("text", ["", " ", ",", "\n"])
def test_nothing_declared_is_no_channel(text: str) -> None:
    assert declared(NOTIFY=text) == ()


@pytest.mark.parametrize(
    "url",
    [
        "hidden",
        "ftp://hidden@host",
        "https://hidden@host/hidden",
        "https://host/hidden#whsec_hidden",
        "mqtt://hidden@host/hidden",
        "mqtt://[hidden",
        f"https://host/#{SECRET},hidden",
    ],
)
def test_invalid_url_is_refused_by_its_variable_without_being_quoted(url: str) -> None:
    with pytest.raises(SettingsError, match="DOORBELL_NOTIFY is not valid") as refused:
        declared(NOTIFY=f"mqtt://broker {url}")
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "url"), [("MQTT", f"https://host/#{SECRET}"), ("WEBHOOK", "mqtt://broker")]
)
def test_older_variable_takes_its_own_kind_alone(variable: str, url: str) -> None:
    environ = {variable: url} | ({"WEBHOOK_SECRET": SECRET} if variable == "WEBHOOK" else {})
    with pytest.raises(SettingsError, match=f"DOORBELL_{variable} is not valid"):
        declared(**environ)


def test_no_secret_is_shown_or_logged(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    urls = f"http://me:hidden@localhost:{port}/hidden?hidden#{SECRET} mqtt://me:hidden@localhost:{port}"
    settings = BellSettings.read({"DOORBELL_NOTIFY": urls})
    channels = open_channels(settings, sender_of())
    with caplog.at_level(logging.DEBUG):
        for channel in channels:
            notifier = Notifier(
                channel,
                InMemory(),
                lambda after: RING if after < RING.id else None,
                clock=lambda: RING.at,
            )
            with contextlib.suppress(Exception):
                notifier.deliver_pending()
    texts = [repr(settings), *(f"{channel!r} {channel.name}" for channel in channels), caplog.text]
    assert caplog.text.count("is failing") == 2
    assert not [text for text in texts if any(part in text for part in HIDDEN)]


class InMemory(DeliveryStore):
    """Remembers deliveries for a test."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def last(self, channel: str) -> int | None:
        return self._numbers.get(channel)

    def record(self, channel: str, event: int) -> None:
        self._numbers[channel] = event


def test_every_scheme_belongs_to_one_channel() -> None:
    schemes = [scheme for channel in CHANNELS for scheme in channel.schemes]
    assert sorted(schemes) == ["http", "https", "mqtt", "mqtts"]
