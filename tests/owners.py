"""What an owner has at home: an MQTT broker in a process of its own, who listens there, and an HTTP
server.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import paho.mqtt.client as paho

BROKER = """
import asyncio, json, sys
from amqtt.broker import Broker

class Steady(dict):  # amqtt 0.12.1 awaits while it goes through its subscriptions, and others subscribe meanwhile
    def __iter__(self):
        return iter(list(self.keys()))
    def items(self):
        return list(super().items())

async def main():
    broker = Broker(json.loads(sys.argv[1]))
    broker._subscriptions = Steady()
    await broker.start()
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
ANONYMOUS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
Message = tuple[str, str, bool]


def start_broker(
    port: int, plugins: Mapping[str, Any] = ANONYMOUS, **listener: Any
) -> subprocess.Popen[str]:
    """Start a broker, and return when it listens."""
    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}", **listener}},
        "plugins": plugins,
    }
    started = subprocess.Popen(
        [sys.executable, "-c", BROKER, json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert started.stdout and started.stdout.readline() == "ready\n"
    return started


@contextlib.contextmanager
def a_broker(port: int, *args: Any, **listener: Any) -> Iterator[subprocess.Popen[str]]:
    """A broker while the block runs."""
    started = start_broker(port, *args, **listener)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


class Watcher:
    """Listens to the broker as Home Assistant does."""

    def __init__(self, port: int, identity: str) -> None:
        self.heard: list[Message] = []
        self._mine = (f"doorbell/{identity}/", f"homeassistant/device/doorbell_{identity}/")
        self._news, subscribed = threading.Condition(), threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self.client.on_message = self._hear
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("localhost", port)
        self.client.loop_start()
        self.client.subscribe(
            [(f"doorbell/{identity}/#", 1), (f"homeassistant/device/doorbell_{identity}/config", 1)]
        )
        assert subscribed.wait(10)

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if not message.topic.startswith(
            self._mine
        ):  # amqtt shows what is retained to who did not ask for it
            return
        with self._news:
            self.heard.append(
                (message.topic, message.payload.decode(errors="replace"), bool(message.retain))
            )
            self._news.notify_all()

    def until(self, heard: Callable[[list[Message]], Any]) -> list[Message]:
        """Wait until this is true of what was heard, and return all of it."""
        with self._news:
            assert self._news.wait_for(lambda: heard(self.heard), 10), self.heard
            return list(self.heard)

    def until_of(self, topic: str, payload: str, times: int = 1) -> list[Message]:
        return self.until(
            lambda heard: sum(m[0].endswith(topic) and m[1] == payload for m in heard) >= times
        )

    def documents(self) -> list[dict[str, Any]]:
        return [
            json.loads(payload)
            for topic, payload, _ in self.heard
            if topic.endswith("/config") and payload
        ]

    def rings(self) -> list[int]:
        """Return the numbers of the rings that were published."""
        rings = [payload for topic, payload, _ in self.heard if topic.endswith("/ring")]
        return [json.loads(payload)["id"] for payload in rings]

    def say(self, topic: str, payload: str | bytes, retain: bool = False) -> None:
        self.client.publish(topic, payload, 1, retain).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@dataclass
class Server:
    """An HTTP server of the owner's; answers as `answers` say, then 204."""

    url: str = ""
    answers: list[bytes | int] = field(default_factory=list)
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[Server]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, dict(self.headers), body))
                answer = outer.answers.pop(0) if outer.answers else 204
                if isinstance(answer, bytes):
                    self.wfile.write(answer)
                    return
                self.send_response(answer)
                if 300 <= answer < 400:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                if answer == 429:
                    self.send_header("Retry-After", "21")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        server = HTTPServer(("127.0.0.1", port), Handler)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if self.tls:
            server.socket = self.tls.wrap_socket(server.socket, server_side=True)
        self.url = f"http{'s' if self.tls else ''}://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def bodies(self) -> list[Any]:
        """Return what was posted, as data."""
        return [json.loads(body) for _, _, body in self.got]

    def until(self, count: int, timeout_s: float = 30.0) -> None:
        """Wait until so many requests have come."""
        deadline = time.monotonic() + timeout_s
        while len(self.got) < count:
            assert time.monotonic() < deadline, self.bodies()
            time.sleep(0.01)
