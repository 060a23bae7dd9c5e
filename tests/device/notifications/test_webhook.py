"""The owner's webhook: signed as the standard says, tried again where that helps, and silent about
its address.
"""

from __future__ import annotations

import base64
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from device.notifications.channel import ChannelClosed, NotDelivered
from device.notifications.notification import Notification
from device.notifications.notifier import MAX_AGE_S, Notifier
from device.notifications.webhook import Webhook
from device.store.notifications import DeliveryStore
from device.store.store import DeviceStore
from device.vision.prediction import Prediction
from shared.errors import SettingsError
from tests.device.tls import write_certificate
from tests.owners import SECRET, Server
from tests.ports import free_port

DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "home-assistant.md"
PATH = "/hook/hidden-in-the-path?token=hidden-in-the-query"
ANSWER = Prediction(0.93, True, 0.8, "a" * 64)
RING = Notification(17, time.time(), "device-1", "button", {"cat": ANSWER})


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as running:
        yield running


def notifier_of(webhook: Webhook, folder: Path, *events: Notification, **changed: Any) -> Notifier:
    """Return what tells a webhook of these events."""
    store = DeliveryStore(DeviceStore(folder).database)
    return Notifier(
        webhook,
        store,
        lambda after: next((each for each in events if each.id > after), None),
        **changed,
    )


def test_message_is_one_that_another_implementation_verifies(server: Server) -> None:
    Webhook(server.url + PATH, SECRET).deliver(RING)
    ((path, headers, body),) = server.got
    assert path == PATH
    assert standardwebhooks.Webhook(SECRET).verify(body, headers) == {
        "type": "doorbell.ring",
        "timestamp": RING.facts()["at"],
        "data": {
            "id": 17,
            "at": RING.facts()["at"],
            "device": "device-1",
            "source": "button",
            "answers": {
                "cat": {"score": 0.93, "verdict": True, "threshold": 0.8, "version": "a" * 64}
            },
        },
    }
    assert headers["Content-Type"] == "application/json"
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(body.replace(b"true", b"false"), headers)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(SECRET).verify(body, headers | {"Webhook-Id": "other"})


def test_message_is_one_that_the_lines_in_the_documentation_verify(server: Server) -> None:
    Webhook(server.url, SECRET).deliver(RING)
    ((_, sent, body),) = server.got
    headers, names = {name.lower(): value for name, value in sent.items()}, {}
    exec(DOCUMENTATION.read_text().split("```python\n")[1].split("```")[0], names)
    assert names["verify"](SECRET, headers, body)
    assert not names["verify"](SECRET, headers, body + b" ")
    assert not names["verify"](
        SECRET, headers | {"webhook-timestamp": str(int(time.time()) - 301)}, body
    )


def test_every_attempt_has_the_same_id_and_its_own_time(server: Server) -> None:
    now = [1_700_000_000.9]
    webhook = Webhook(server.url, SECRET, clock=lambda: now[0])
    server.answers = [500]
    with pytest.raises(NotDelivered):
        webhook.deliver(RING)
    now[0] += 60
    webhook.deliver(RING)
    webhook.deliver(replace(RING, id=18))
    first, second, other = (headers for _, headers, _ in server.got)
    assert first["Webhook-Id"] == second["Webhook-Id"] != other["Webhook-Id"]
    assert "." not in first["Webhook-Id"]
    assert [int(each["Webhook-Timestamp"]) for each in (first, second)] == [
        1_700_000_000,
        1_700_000_060,
    ]
    assert first["Webhook-Signature"] != second["Webhook-Signature"]


def test_picture_is_in_the_message_only_if_it_was_given(server: Server) -> None:
    webhook = Webhook(server.url, SECRET)
    webhook.deliver(RING)
    webhook.deliver(replace(RING, source="motion", picture=b"\xff\xd8jpeg"))
    plain, shown = server.bodies()
    assert "picture" not in plain["data"]
    assert shown["type"] == "doorbell.motion"
    assert base64.b64decode(shown["data"]["picture"]) == b"\xff\xd8jpeg"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(server: Server, status: int) -> None:
    server.answers = [status]
    with pytest.raises(NotDelivered, match=f"answered {status}, a redirect, which is not followed"):
        Webhook(server.url + PATH, SECRET).deliver(RING)
    assert [path for path, _, _ in server.got] == [PATH]


@pytest.mark.parametrize(("status", "least_s"), [(400, 0), (404, 0), (429, 21), (500, 0), (503, 0)])
def test_refused_delivery_is_repeated_after_retry_after(
    server: Server, status: int, least_s: float
) -> None:
    server.answers = [status]
    with pytest.raises(NotDelivered, match=f"answered {status}\\.") as caught:
        Webhook(server.url, SECRET).deliver(RING)
    assert caught.value.least_s == least_s


def test_410_closes_the_channel(server: Server) -> None:
    server.answers = [410]
    with pytest.raises(ChannelClosed, match="answered 410"):
        Webhook(server.url + PATH, SECRET).deliver(RING)


@pytest.mark.parametrize(
    "answer",
    [
        b"hidden-in-the-answer\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000,
        b"HTTP/1.1 200 " + b"a" * 100_000,
        b"HTTP/1.1 99999999999999999999 OK\r\n\r\n",
        b"",
    ],
    ids=["no-http", "many-fields", "long-line", "no-status", "nothing"],
)
def test_hostile_answer_is_a_failed_delivery(server: Server, answer: bytes) -> None:
    server.answers = [answer]
    with pytest.raises(NotDelivered) as caught:
        Webhook(server.url + PATH, SECRET).deliver(RING)
    assert "hidden" not in str(caught.value)


def test_body_of_the_answer_is_not_waited_for(server: Server) -> None:
    server.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nendless"]
    Webhook(server.url, SECRET, timeout_s=5).deliver(RING)


def test_slow_answer_is_cut_off_in_time() -> None:
    """Each byte comes soon enough, and the whole never."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def dribble() -> None:
        peer = listener.accept()[0]
        with peer:
            while not stop.wait(0.05):
                try:
                    peer.send(b"H")
                except OSError:
                    return

    thread = threading.Thread(target=dribble)
    thread.start()
    begun = time.monotonic()
    try:
        with pytest.raises(NotDelivered):
            Webhook(
                f"http://127.0.0.1:{listener.getsockname()[1]}/", SECRET, timeout_s=0.4
            ).deliver(RING)
        assert time.monotonic() - begun < 3
    finally:
        stop.set()
        thread.join()
        listener.close()


def test_ring_is_delivered_after_refused_connections_and_errors(tmp_path: Path) -> None:
    port = free_port()
    notifier = notifier_of(
        Webhook(f"http://localhost:{port}", SECRET), tmp_path, RING, replace(RING, id=18)
    )
    with pytest.raises(NotDelivered, match="refused"):
        notifier.deliver_pending()
    server = Server(answers=[500])
    with server.running(port):
        with pytest.raises(NotDelivered, match="answered 500"):
            notifier.deliver_pending()
        notifier.deliver_pending()
        notifier.deliver_pending()
    assert [body["data"]["id"] for body in server.bodies()] == [17, 17, 18]


def test_undelivered_event_is_dropped_after_ten_minutes(server: Server, tmp_path: Path) -> None:
    now = [RING.at]
    notifier = notifier_of(Webhook(server.url, SECRET), tmp_path, RING, clock=lambda: now[0])
    server.answers = [503]
    with pytest.raises(NotDelivered):
        notifier.deliver_pending()
    now[0] += MAX_AGE_S + 1
    notifier.deliver_pending()
    assert len(server.got) == 1


def test_slow_server_does_not_hold_up_the_ring(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        notifier = notifier_of(Webhook(address, SECRET, timeout_s=1), tmp_path, RING)
        stop = threading.Event()
        thread = threading.Thread(target=notifier.run, args=(stop,))
        thread.start()
        with silent.accept()[0]:
            begun = time.perf_counter()
            notifier.wake()
            assert time.perf_counter() - begun < 0.001
            stop.set()
        thread.join(5)
        assert not thread.is_alive()


def test_certificate_must_be_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with Server(tls=context).running() as server:
        with pytest.raises(NotDelivered, match="its certificate is not valid"):
            Webhook(server.url + PATH, SECRET).deliver(RING)
        assert server.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        with pytest.raises(NotDelivered, match="its certificate is not valid"):
            Webhook(server.url.replace("localhost", "127.0.0.1"), SECRET).deliver(RING)
        Webhook(server.url + PATH, SECRET).deliver(RING)
        assert len(server.got) == 1


def test_proxy_of_the_environment_is_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    Webhook(server.url, SECRET).deliver(RING)
    assert len(server.got) == 1


def test_user_and_password_of_the_address_are_sent_as_such(server: Server) -> None:
    Webhook(server.url.replace("://", "://me:p%40ss@"), SECRET).deliver(RING)
    assert server.got[0][1]["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()


@pytest.mark.parametrize("status", [200, 301, 404, 410, 500, 0])
def test_no_secret_is_ever_logged(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    address = (server.url if status else f"http://localhost:{free_port()}").replace(
        "://", "://me:hidden-password@"
    )
    server.answers = [status]
    notifier = notifier_of(Webhook(address + PATH, SECRET), tmp_path, RING)
    stop = threading.Event()
    thread = threading.Thread(target=notifier.run, args=(stop,))
    with caplog.at_level(logging.DEBUG):
        thread.start()
        deadline = time.monotonic() + 10
        while (
            not (caplog.records or notifier.deliveries.last(notifier.channel.name))
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        stop.set()
        thread.join(5)
    assert (caplog.text == "") == (status == 200)
    assert "hidden" not in caplog.text
    assert SECRET.removeprefix("whsec_") not in caplog.text


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ftp://host/hidden",
        "http:///hidden",
        "http://host:99999/hidden",
        "http://host:0/hidden",
        "http://host/hid den",
        "http://host/hidden\r\nX: y",
        "http://host/hidd\u00ebn",
        "//host/hidden",
    ],
)
def test_invalid_address_is_refused_without_being_quoted(address: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Webhook(address, SECRET)
    assert "hid" not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hidden",
        "whsec_",
        "whsec_hidden!",
        SECRET[6:],
        "whsec_" + base64.b64encode(bytes(23)).decode(),
    ],
)
def test_invalid_secret_is_refused_without_being_quoted(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Webhook("https://host/", secret)
    assert "hidden" not in str(caught.value)
