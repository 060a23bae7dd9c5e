"""MQTT and Home Assistant, with a broker in a process of its own: what appears there, what stays,
what never does.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from device.notifications.channel import NotDelivered
from device.notifications.home_assistant import Entities
from device.notifications.mqtt import Mqtt
from device.notifications.mqtt_connection import Broker, parse_broker
from device.notifications.notification import Notification
from device.notifications.notifier import Notifier
from device.store.notifications import DeliveryStore
from device.store.store import DeviceStore
from device.vision.prediction import Prediction
from shared.errors import InvalidMessage, SettingsError
from tests.device.tls import write_certificate
from tests.owners import Watcher, a_broker
from tests.ports import free_port

pytestmark = pytest.mark.heavy  # starts brokers

ROOT = Path(__file__).resolve().parents[3]
DEVICE = """
import json, sys, time
from device.notifications.home_assistant import Entities
from device.notifications.mqtt import Mqtt
from device.notifications.mqtt_connection import Broker

channel = Mqtt(Broker("localhost", int(sys.argv[1])), Entities(sys.argv[2], "device-1"), lambda: {"cat": 1})
channel.connect(lambda: None)
print("ready", flush=True)
time.sleep(60)
"""
CAT = Prediction(0.93, True, 0.8, "a" * 64)
DOG = Prediction(0.125, False, 0.5, "b" * 64)
RING = Notification(17, 1_700_000_000.5, "device-1", "button", {"cat": CAT, "dog": DOG})
PASSWORD = "hidden-password"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a broker that lets everybody in."""
    with a_broker(number := free_port()):
        yield number


@pytest.fixture
def identity() -> str:
    """Another device in every test, as they share the broker."""
    return secrets.token_hex(6)


@pytest.fixture
def watch(port: int, identity: str) -> Iterator[Callable[..., Watcher]]:
    """Return a maker of watchers of this test's device; the broker first tells them what it
    retained.
    """
    with contextlib.ExitStack() as made:

        def make(of: str = identity) -> Watcher:
            watcher = Watcher(port, of)
            made.callback(watcher.close)
            return watcher

        yield make


@pytest.fixture
def channel_of(port: int, identity: str) -> Iterator[Callable[..., Mqtt]]:
    """Return a maker of this test's device."""
    with contextlib.ExitStack() as made:

        def make(
            rounds: Mapping[str, int] | None = None, of: str = identity, **changed: Any
        ) -> Mqtt:
            known = {"cat": 3, "dog": 4} if rounds is None else rounds
            channel = Mqtt(
                Broker("localhost", port), Entities(of, "device-1", **changed), lambda: known
            )
            made.callback(channel.close)
            return channel

        yield make


def connected(channel: Mqtt, woken: Callable[[], None] = lambda: None) -> Mqtt:
    channel.connect(woken)
    return channel


def retained(watch: Callable[..., Watcher], identity: str) -> dict[str, str]:
    """Return what the broker tells who comes now; a message of our own marks the end of it."""
    watcher = watch()
    watcher.say(f"doorbell/{identity}/end", mark := secrets.token_hex(4))
    return {topic: payload for topic, payload, kept in watcher.until_of("/end", mark) if kept}


ENTITY = {"platform": str, "unique_id": str, "name": (str, type(None))}
REQUIRED: dict[str, dict[str, Any]] = {
    "event": ENTITY | {"state_topic": str, "event_types": list, "device_class": str},
    "binary_sensor": ENTITY | {"state_topic": str, "off_delay": int, "device_class": str},
    "sensor": ENTITY | {"state_topic": str},
    "image": ENTITY | {"image_topic": str, "content_type": str},
}
"""What the schemas of homeassistant/components/mqtt ask of each platform, and what we use of the
rest.
"""

OPTIONAL = {"unit_of_measurement", "suggested_display_precision", "state_class", "entity_category"}


def test_home_assistant_finds_what_it_requires(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    connected(channel_of(pictures=True, page="http://door.local:8001/"))
    kept = retained(watch, identity)
    document = json.loads(kept[f"homeassistant/device/doorbell_{identity}/config"])
    assert re.fullmatch("[a-zA-Z0-9_-]+", f"doorbell_{identity}")
    device = document.pop("device")
    assert isinstance(device.pop("sw_version"), str)
    assert device == {
        "identifiers": [f"doorbell_{identity}"],
        "name": "Doorbell device-1",
        "manufacturer": "Doorbell Federation",
        "model": "Smart doorbell",
        "configuration_url": "http://door.local:8001/",
    }
    assert document.pop("origin").keys() == {"name", "sw_version"}
    parts = document.pop("components")
    assert document == {
        "availability_topic": f"doorbell/{identity}/availability",
        "payload_available": "online",
        "payload_not_available": "offline",
        "qos": 1,
    }
    assert kept[document["availability_topic"]] == "online"
    for part in parts.values():
        fields = REQUIRED[part["platform"]]
        assert fields.keys() <= part.keys() <= fields.keys() | OPTIONAL
        assert all(isinstance(part[name], kind) for name, kind in fields.items())
    topics = [
        value for part in parts.values() for name, value in part.items() if name.endswith("_topic")
    ]
    assert (
        len(set(topics))
        == len(topics)
        == len(parts)
        == len({part["unique_id"] for part in parts.values()})
    )
    assert not any(set("+#") & set(topic) for topic in topics)
    kinds = {key: part["platform"] for key, part in parts.items()}
    assert kinds == {
        "ring": "event",
        "picture": "image",
        "verdict-cat": "binary_sensor",
        "score-cat": "sensor",
        "round-cat": "sensor",
        "verdict-dog": "binary_sensor",
        "score-dog": "sensor",
        "round-dog": "sensor",
    }
    assert parts["ring"]["device_class"] == "doorbell"
    assert parts["ring"]["event_types"] == [
        "ring",
        "motion",
    ]  # without "ring", none from Home Assistant 2027.4 on
    assert parts["verdict-cat"]["off_delay"] == 30
    score = {name: parts["score-cat"][name] for name in ("unit_of_measurement", "state_class")}
    assert score == {"unit_of_measurement": "%", "state_class": "measurement"}
    assert parts["score-cat"]["suggested_display_precision"] == 0
    assert parts["round-cat"]["entity_category"] == "diagnostic"
    assert parts["picture"]["content_type"] == "image/jpeg"


def test_documentation_names_the_entities_as_home_assistant_does() -> None:
    """It makes an entity's id of the device's name and the entity's own, which is empty for the
    main one.
    """
    document = Entities("a", "device-1", pictures=True).document(["cat"])
    named = {
        f"{part['platform']}."
        + re.sub(
            "[^a-z0-9]+", "_", f"{document['device']['name']} {part['name'] or ''}".lower().strip()
        )
        for part in document["components"].values()
    }
    text = (ROOT / "docs" / "how-to" / "home-assistant.md").read_text()
    assert set(re.findall(r"^\| `([a-z_]+\.[a-z0-9_]+)` \|", text, re.MULTILINE)) == named
    automation = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert automation["triggers"][0]["entity_id"] in named


def test_unique_ids_outlive_a_restart_and_a_new_name(identity: str) -> None:
    one, other = (
        Entities(identity, name).document(["cat"])["components"]
        for name in ("device-1", "front-door")
    )
    assert {part["unique_id"] for part in one.values()} == {
        part["unique_id"] for part in other.values()
    }


def test_ring_is_an_event_after_what_the_sensors_say(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    watcher, channel = watch(), connected(channel_of())
    watcher.until_of("/dog/verdict", "OFF")
    watcher.heard.clear()
    channel.deliver(RING)
    heard = watcher.until(lambda heard: any(topic.endswith("/ring") for topic, _, _ in heard))
    base = f"doorbell/{identity}"
    event = json.loads(heard.pop()[1])
    assert heard == [
        (f"{base}/cat/verdict", "ON", False),
        (f"{base}/cat/score", "93.00", False),
        (f"{base}/dog/verdict", "OFF", False),
        (f"{base}/dog/score", "12.50", False),
    ]
    assert event == {
        "event_type": "ring",
        "id": 17,
        "at": "2023-11-14T22:13:20.500+00:00",
        "device": "device-1",
        "source": "button",
        "seen": ["cat"],
        "scores": {"cat": 0.93, "dog": 0.125},
    }


def test_who_comes_later_sees_scores_and_rounds_but_no_visitor(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    connected(channel_of()).deliver(RING)
    base, kept = f"doorbell/{identity}", retained(watch, identity)
    assert kept.pop(f"homeassistant/device/doorbell_{identity}/config")
    assert kept == {
        f"{base}/availability": "online",
        f"{base}/cat/round": "3",
        f"{base}/cat/score": "93.00",
        f"{base}/cat/verdict": "OFF",
        f"{base}/dog/round": "4",
        f"{base}/dog/score": "12.50",
        f"{base}/dog/verdict": "OFF",
    }


@pytest.mark.parametrize(
    ("source", "kind"), [("button", "ring"), ("upload", "ring"), ("motion", "motion")]
)
def test_event_has_a_type_that_was_announced(source: str, kind: str) -> None:
    assert replace(RING, source=source).kind == kind
    assert kind in Entities("a", "b").document([])["components"]["ring"]["event_types"]


def test_picture_is_published_only_if_allowed_and_never_retained(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    shown, watcher = replace(RING, picture=b"\xff\xd8 a visitor"), watch()
    channel = connected(channel_of())
    channel.deliver(shown)
    watcher.until(lambda heard: any(topic.endswith("/ring") for topic, _, _ in heard))
    assert not any("visitor" in payload for _, payload, _ in watcher.heard)
    assert "picture" not in watcher.documents()[-1]["components"]
    channel.close()
    connected(channel_of(pictures=True)).deliver(shown)
    heard = watcher.until(lambda heard: sum(topic.endswith("/ring") for topic, _, _ in heard) == 2)
    assert [topic for topic, payload, _ in heard if "visitor" in payload] == [
        f"doorbell/{identity}/picture"
    ]
    assert "picture" in watcher.documents()[-1]["components"]
    assert not any("visitor" in payload for payload in retained(watch, identity).values())


def test_killed_device_is_offline(port: int, watch: Callable[..., Watcher], identity: str) -> None:
    watcher = watch()
    started = subprocess.Popen(
        [sys.executable, "-c", DEVICE, str(port), identity],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        watcher.until_of("/availability", "online")
        assert started.poll() is None
    finally:
        started.send_signal(signal.SIGKILL)
        started.communicate()
    watcher.until_of("/availability", "offline")
    assert retained(watch, identity)[f"doorbell/{identity}/availability"] == "offline"


def test_device_that_ends_says_so(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    watcher, woken = watch(), threading.Event()
    channel = connected(channel_of(), woken.set)
    channel.close()
    watcher.until_of("/availability", "offline")
    assert not woken.is_set()


def test_device_is_announced_again_when_home_assistant_starts(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    watcher, woken = watch(), threading.Event()
    watcher.say("homeassistant/status", "online", retain=True)
    channel = connected(channel_of(), woken.set)
    channel.deliver(RING)
    watcher.say("homeassistant/status", "offline", retain=True)
    connected(channel)
    watcher.until_of("/dog/verdict", "OFF", times=2)
    assert len(watcher.documents()) == 1
    watcher.say("homeassistant/status", "online")
    assert woken.wait(10)
    connected(channel)
    watcher.until(lambda _: len(watcher.documents()) == 2)
    assert watcher.documents()[0] == watcher.documents()[1]
    assert (
        sum(topic.endswith("/verdict") for topic, _, _ in watcher.heard) == 4
    )  # two of them the ring's


def test_detector_that_goes_is_removed(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    rounds, watcher = {"cat": 3, "dog": 4}, watch()
    channel = connected(channel_of(rounds))
    channel.deliver(RING)
    del rounds["dog"]
    rounds["bird"] = 1
    connected(channel)
    watcher.until(lambda _: len(watcher.documents()) == 3)
    _, removing, last = (document["components"] for document in watcher.documents())
    gone = {"verdict-dog": "binary_sensor", "score-dog": "sensor", "round-dog": "sensor"}
    assert removing == last | {key: {"platform": platform} for key, platform in gone.items()}
    assert {"verdict-bird", "verdict-cat"} < last.keys()
    assert not gone.keys() & last.keys()
    kept = retained(watch, identity)
    assert not [topic for topic in kept if "/dog/" in topic]
    assert kept[f"doorbell/{identity}/bird/verdict"] == "OFF"
    channel.deliver(replace(RING, id=18))
    assert not [topic for topic in retained(watch, identity) if "/dog/" in topic]


def test_detector_that_went_while_the_device_was_off_is_removed(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    connected(channel_of(pictures=True)).close()
    watcher, woken = watch(), threading.Event()
    channel = connected(channel_of({"cat": 3}), woken.set)
    assert woken.wait(10)
    connected(channel)
    watcher.until(
        lambda _: any(
            {"platform": "sensor"} in each["components"].values() for each in watcher.documents()
        )
    )
    connected(channel)
    kept = retained(watch, identity)
    parts = json.loads(kept[f"homeassistant/device/doorbell_{identity}/config"])["components"]
    assert parts.keys() == {"ring", "verdict-cat", "score-cat", "round-cat"}
    assert not [topic for topic in kept if "/dog/" in topic]


@pytest.mark.parametrize(
    "found",
    [
        b"\xff\x00",
        b"[" * 5000,
        b"{}",
        b'{"components": 7}',
        b'{"components": {"verdict-../x": {}, "ring-x": {}, "": {}}}',
        json.dumps({"components": {"verdict-x": {}}, "long": "x" * (1 << 18)}).encode(),
    ],
    ids=["bytes", "deep", "empty", "number", "names", "long"],
)
def test_what_somebody_else_left_at_the_broker_does_no_harm(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str, found: bytes
) -> None:
    watcher = watch()
    watcher.say(f"homeassistant/device/doorbell_{identity}/config", found, retain=True)
    watcher.until(lambda heard: heard)
    watcher.heard.clear()
    watcher.say("homeassistant/status", found)
    channel = connected(channel_of())
    channel.deliver(RING)
    connected(channel)
    channel.deliver(replace(RING, id=18))
    watcher.until(lambda heard: sum(topic.endswith("/ring") for topic, _, _ in heard) == 2)
    assert len(watcher.documents()) == 1
    assert retained(watch, identity).keys() >= {f"doorbell/{identity}/cat/score"}


def test_two_devices_do_not_meet(
    channel_of: Callable[..., Mqtt], watch: Callable[..., Watcher], identity: str
) -> None:
    other = identity + "_2"
    mine, its = connected(channel_of()), connected(channel_of(of=other))
    watcher = watch(other)
    watcher.until_of("/availability", "online")
    watcher.heard.clear()
    mine.deliver(RING)
    mine.close()
    its.deliver(replace(RING, id=99))
    heard = watcher.until(lambda heard: any(topic.endswith("/ring") for topic, _, _ in heard))
    assert [
        json.loads(payload)["id"] for topic, payload, _ in heard if topic.endswith("/ring")
    ] == [99]
    assert not any(payload == "offline" for _, payload, _ in heard)
    ids = [
        {part["unique_id"] for part in Entities(each, "d").document(["cat"])["components"].values()}
        for each in (identity, other)
    ]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"answers": {"cat/#": CAT}},
        {"answers": {"cat": replace(CAT, score=float("nan"))}},
        {"device": "+"},
    ],
    ids=["topic", "nan", "device"],
)
def test_hostile_answers_are_not_published(
    channel_of: Callable[..., Mqtt],
    watch: Callable[..., Watcher],
    identity: str,
    changed: dict[str, Any],
) -> None:
    channel = connected(channel_of())
    with pytest.raises(InvalidMessage):
        channel.deliver(replace(RING, **changed))
    assert not [topic for topic in retained(watch, identity) if topic.endswith("/score")]


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "x" * 33])
def test_topics_are_made_of_checked_names(name: str) -> None:
    with pytest.raises(InvalidMessage):
        Entities(name, "device-1")
    with pytest.raises(InvalidMessage):
        Entities("a", "device-1").document([name])


@pytest.mark.parametrize("prefix", ["", "a//b", "/a", "a/", "+", "a/#", "$SYS", "a b"])
def test_prefix_of_home_assistant_is_one_of_topics(prefix: str) -> None:
    assert Entities("a", "device-1", prefix="home/Assistant").birth == "home/Assistant/status"
    with pytest.raises(SettingsError):
        Entities("a", "device-1", prefix=prefix)


class Held(random.Random):
    """Lets nothing be tried again before it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def uniform(self, a: float, b: float) -> float:
        self.may.wait(10)
        return 0.05


def test_broker_that_was_away_gets_every_event_once_and_in_order(
    identity: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, events, stop, pauses = free_port(), [RING], threading.Event(), Held()
    channel = Mqtt(
        Broker("localhost", port), Entities(identity, "device-1"), lambda: {"cat": 3}, timeout_s=2
    )
    notifier = Notifier(
        channel,
        DeliveryStore(DeviceStore(tmp_path).database),
        lambda after: next((each for each in events if each.id > after), None),
        clock=lambda: RING.at,
        rng=pauses,
    )
    thread = threading.Thread(target=notifier.run, args=(stop,))

    def rings(watcher: Watcher) -> list[int]:
        return [
            json.loads(payload)["id"]
            for topic, payload, _ in watcher.heard
            if topic.endswith("/ring")
        ]

    try:
        with a_broker(port):
            watcher = Watcher(port, identity)
            thread.start()
            watcher.until(lambda _: rings(watcher) == [17])
            watcher.close()
        deadline = time.monotonic() + 10
        while (
            not (gone := "has ended the connection" in caplog.text) and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        assert gone  # long before it would look by itself
        for number in (18, 19, 20):
            events.append(replace(RING, id=number))
            begun = time.perf_counter()
            notifier.wake()
            assert time.perf_counter() - begun < 0.001
        with a_broker(port):
            watcher = Watcher(port, identity)
            pauses.may.set()
            watcher.until(lambda _: 20 in rings(watcher))
            events.append(replace(RING, id=21))
            notifier.wake()
            watcher.until(lambda _: 21 in rings(watcher))
            assert rings(watcher) == [18, 19, 20, 21]
            assert watcher.heard[0][0].endswith("/config")
            watcher.close()
    finally:
        stop.set()
        pauses.may.set()
        thread.join(5)
    assert notifier.deliveries.last(notifier.channel.name) == 21


def test_wrong_password_is_reported_without_it(
    tmp_path: Path, identity: str, caplog: pytest.LogCaptureFixture
) -> None:
    from pwdlib import PasswordHash  # noqa: PLC0415 - amqtt's own
    from pwdlib.hashers.argon2 import Argon2Hasher  # noqa: PLC0415

    hashed = PasswordHash((Argon2Hasher(),)).hash(PASSWORD)
    (tmp_path / "passwords").write_text(f"door:{hashed}\n")
    plugins = {
        "amqtt.plugins.authentication.FileAuthPlugin": {
            "password_file": str(tmp_path / "passwords")
        }
    }
    with a_broker(port := free_port(), plugins), caplog.at_level(logging.DEBUG):
        for password in (PASSWORD + "-wrong", PASSWORD):
            broker = parse_broker(f"mqtt://door:{password}@localhost:{port}")
            assert PASSWORD not in repr(broker) + str(broker)
            channel = Mqtt(broker, Entities(identity, "device-1"), dict)
            notifier = Notifier(
                channel, DeliveryStore(DeviceStore(tmp_path).database), lambda _: None
            )
            if password == PASSWORD:
                notifier.deliver_pending()
                channel.close()
                continue
            with pytest.raises(NotDelivered):
                notifier.deliver_pending()
            said = f"The broker at localhost:{port} refuses the user name or the password."
            assert said in caplog.text
    assert PASSWORD not in caplog.text


def test_certificate_of_the_broker_must_be_valid(
    tmp_path: Path, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = write_certificate(tmp_path)
    with a_broker(port := free_port(), ssl=True, certfile=str(certificate), keyfile=str(key)):
        broker = parse_broker(f"mqtts://localhost:{port}")
        channel = Mqtt(broker, Entities(identity, "device-1"), dict)
        with pytest.raises(NotDelivered, match="its certificate is not valid"):
            channel.connect(lambda: None)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        connected(channel).close()


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, b"\x20\x02\x00\x03"],
    ids=["nothing", "http", "bytes", "refusal"],
)
def test_what_is_no_broker_is_given_up_in_time(identity: str, said: bytes) -> None:
    """It accepts, says this, and then nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        broker = Broker("127.0.0.1", listener.getsockname()[1])
        channel = Mqtt(broker, Entities(identity, "device-1"), dict, timeout_s=0.5)
        peers: list[socket.socket] = []

        def accept() -> None:
            peers.append(listener.accept()[0])
            peers[0].sendall(said)

        thread = threading.Thread(target=accept)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(NotDelivered, match="The broker at"):
            channel.connect(lambda: None)
        assert time.monotonic() - begun < 5
        thread.join()
        peers[0].close()
        assert [each for each in threading.enumerate() if "paho" in each.name] == []


def test_broker_that_confirms_nothing_is_given_up_in_time(identity: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        channel = Mqtt(
            Broker("127.0.0.1", listener.getsockname()[1]),
            Entities(identity, "device-1"),
            dict,
            timeout_s=0.5,
        )
        peers: list[socket.socket] = []

        def accept() -> None:
            peers.append(listener.accept()[0])
            peers[0].sendall(b"\x20\x02\x00\x00")

        thread = threading.Thread(target=accept)
        thread.start()
        begun = time.monotonic()
        with pytest.raises(NotDelivered, match="did not confirm"):
            channel.connect(lambda: None)
        assert time.monotonic() - begun < 5
        thread.join()
        peers[0].close()


@pytest.mark.parametrize(
    ("address", "broker"),
    [
        ("mqtt://broker", Broker("broker", 1883)),
        ("mqtts://broker/", Broker("broker", 8883, True)),
        ("mqtts://me:p%40%3A%2Fss@[::1]:1234", Broker("::1", 1234, True, "me", "p@:/ss")),
        ("mqtt://me@broker", Broker("broker", 1883, False, "me", None)),
    ],
)
def test_address_of_a_broker(address: str, broker: Broker) -> None:
    assert parse_broker(address) == broker


@pytest.mark.parametrize(
    "address",
    [
        "",
        "broker",
        "http://hidden@broker",
        "mqtt://:hidden@",
        "mqtt://hidden@broker:99999",
        "mqtt://broker:0",
        "mqtt://broker/hidden",
        "mqtt://broker?hidden",
        "mqtt://hid den@broker",
        "mqtt://hidden\n@broker",
    ],
)
def test_invalid_address_is_refused_without_being_quoted(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_broker(address)
    assert "hid" not in str(caught.value)
