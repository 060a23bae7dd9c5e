"""The web process's side of a camera: starts the process that reads it, keeps the newest picture,
and replaces a process that fails.

The process (`device/camera/camera_child.py`) is started at the first snapshot, and ends when this
process ends, in whatever way, because its standard input closes. One that cannot open the camera,
ends, or has no new picture for a while is replaced, with growing pauses. A snapshot waits for at
most its time-out.

A URL may hold a password. It travels by standard input; logs, pages and errors name the host alone.
"""

from __future__ import annotations

import json
import logging
import math
import random
import signal
import subprocess  # nosec B404
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import IO, cast

from device.camera.camera_pipe import REASON, Lost, Receiver
from device.camera.source import redacted
from shared.errors import DoorbellError, SettingsError
from shared.transport.backoff import BackOff

FRAMES_PER_S = 5.0
_CHILD = (sys.executable, "-m", "device.camera.camera_child")
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https")
_PATIENCE_S = 10.0
_LONGEST_PAUSE_S = 15.0
_DAY_S = 86400.0
_log = logging.getLogger(__name__)


class NoPicture(DoorbellError):
    """The camera gives no picture at the moment."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    slug = "camera"


@dataclass(frozen=True)
class Frame:
    """A picture that a camera took.

    Attributes:
        jpeg: A JPEG, at most 1280 px wide.
        at: Seconds since the epoch.
    """

    jpeg: bytes = field(repr=False)
    at: float


class Camera:
    """A camera that is read in a process of its own; every method may be called from any thread.

    Args:
        source: "0" for the first camera of the machine, a URL (rtsp, rtmp, http), a video file, or
            a folder, whose pictures are played in a loop.
        frames_per_s: Most pictures that are taken in a second; a folder is played at that speed.
        patience_s: Seconds without a new picture after which the process is replaced.
        command: What to start; tests may start something else.

    Raises:
        SettingsError: The source is not valid; it is not quoted.
    """

    def __init__(
        self,
        source: str,
        frames_per_s: float = FRAMES_PER_S,
        patience_s: float = _PATIENCE_S,
        command: Sequence[str] = _CHILD,
    ) -> None:
        scheme, found, _ = source.partition("://")
        if not source or (found and scheme not in _SCHEMES):
            # Not quoted: there may be a password in it.
            raise SettingsError(
                "DOORBELL_CAMERA is not a camera source.",
                kept="No camera was opened.",
                todo="Name a number, a file, a folder, or a URL that begins with "
                f"{', '.join(_SCHEMES)}.",
            )
        self._source = source
        self._command = command
        self._shown = f"camera {source}" if source.isdecimal() else f"camera at {redacted(source)}"
        self._frames_per_s = frames_per_s
        # Shorter, and a slow but steady camera would be replaced between two pictures.
        self._patience_s = max(patience_s, 1.5 / frames_per_s)
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        # With the time it was taken by the monotonic clock, which nobody puts back.
        self._newest: tuple[Frame, float] | None = None
        self._reason: str | None = None
        self._since = time.time()

    def __repr__(self) -> str:
        return f"<{self._shown}>"

    @property
    def pid(self) -> int | None:
        """Id of the process that reads the camera, or None if there is none."""
        child = self._child
        return None if child is None or child.poll() is not None else child.pid

    def start(self) -> None:
        """Begin to read the camera, unless it is being read; this does not wait for it."""
        with self._changed:
            if self._thread is not None:
                return
            self._stop = threading.Event()
            self._since = time.time()
            self._reason = None
            self._newest = None
            args = (self._stop,)
            self._thread = threading.Thread(target=self._keep_reading, args=args, daemon=True)
            self._thread.name = "camera"
            self._thread.start()

    def stop(self) -> None:
        """Stop reading the camera, and wait until its process has ended; the next snapshot starts
        it again.
        """
        with self._changed:
            thread = self._thread
            self._thread = None
            self._newest = None
            self._stop.set()
            self._since = time.time()
            self._reason = None
            if self._child is not None:
                self._child.kill()
        # Without the lock: the thread takes it before it ends.
        if thread is not None:
            thread.join()

    def snapshot(self, max_age_s: float = 1.0, timeout_s: float = 2.0, after: float = 0.0) -> Frame:
        """Return a picture, starting to read the camera if it is not read yet.

        Args:
            max_age_s: Greatest age of the picture, in seconds.
            timeout_s: How long to wait for it, in seconds.
            after: It was taken later than this, in seconds since the epoch.

        Raises:
            NoPicture: There was no such picture in time.
        """
        self.start()
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                now = time.monotonic()
                if self._newest is not None:
                    frame, taken = self._newest
                    if now - taken <= max_age_s and frame.at > after:
                        return frame
                if now >= deadline:
                    raise self._no_picture()
                self._changed.wait(deadline - now)

    def state(self) -> tuple[str, float]:
        """Return the camera's state in words, and its beginning in seconds since the epoch."""
        with self._changed:
            if self._thread is None:
                return "not in use", self._since
            if self._reason is not None:
                today = time.time() - self._since < _DAY_S
                form = "%H:%M" if today else "%Y-%m-%d %H:%M"
                clock = time.strftime(form, time.localtime(self._since))
                return f"no picture since {clock}: {self._reason}", self._since
            words = "connecting" if self._newest is None else "watching"
            return words, self._since

    def gives_pictures(self) -> bool | None:
        """Return whether the camera gives pictures; None while it is not in use or connecting."""
        with self._changed:
            if self._reason is not None:
                return False
            return None if self._newest is None else True

    def _no_picture(self) -> NoPicture:
        reason = self._reason or "it has not sent one in time"
        return NoPicture(
            f"The {self._shown} gives no picture: {reason}.",
            kept="It is tried again automatically, and the rest of the device works.",
            todo="Check its power and network, and the URL and password in DOORBELL_CAMERA.",
        )

    def _keep_reading(self, stop: threading.Event) -> None:
        pauses = BackOff(random.Random())  # nosec B311 # pauses need no secrecy
        while not stop.is_set():
            begun = time.monotonic()
            try:
                self._read(stop)
            except Lost as lost:
                self._note_failure(stop, str(lost))
            except Exception as error:  # such as a machine without room for one more process
                _log.exception("the %s could not be read", self._shown)
                self._note_failure(stop, f"it could not be read ({type(error).__name__})")
            # A process that worked for a while is replaced at once, and not after a long pause.
            if time.monotonic() - begun > 2 * self._patience_s:
                pauses.reset()
            stop.wait(min(pauses.next(), _LONGEST_PAUSE_S))

    def _read(self, stop: threading.Event) -> None:
        """Start the process, and keep the pictures that it sends until it fails.

        Raises:
            Lost: It failed.
        """
        with self._changed:
            if stop.is_set():
                return
            child = self._child = subprocess.Popen(  # nosec B603 # a fixed command, no shell
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        pipes = cast(tuple[IO[bytes], IO[bytes]], (child.stdin, child.stdout))
        orders, messages = pipes
        try:
            self._order(orders)
            self._receive(messages, stop)
        except EOFError:
            raise Lost(_end_of(child)) from None
        finally:
            child.kill()
            child.wait()
            for pipe in pipes:
                pipe.close()
            with self._changed:
                if self._child is child:
                    self._child = None

    def _receive(self, pipe: IO[bytes], stop: threading.Event) -> None:
        """Keep pictures until there are no more; raises `Lost` or `EOFError` then."""
        with Receiver(pipe) as receiver:
            patience_s = 2 * self._patience_s  # the process has to start first
            while True:
                kind, stamp, body = receiver.next(patience_s)
                if kind == REASON:
                    raise Lost(body.decode(errors="replace"))
                self._keep(stop, body, stamp)
                patience_s = self._patience_s

    def _order(self, pipe: IO[bytes]) -> None:
        order = {
            "source": self._source,
            "frames_per_s": self._frames_per_s,
            "patience_s": 0.8 * self._patience_s,  # so that it can say why before it is replaced
        }
        try:
            pipe.write(json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            raise EOFError from None

    def _keep(self, stop: threading.Event, jpeg: bytes, taken: float) -> None:
        age = time.monotonic() - taken
        if not jpeg.startswith(b"\xff\xd8\xff") or not math.isfinite(age) or age < 0:
            raise Lost("what its process sends is no picture")
        with self._changed:
            # The thread of a camera that was stopped, or started again since, changes nothing.
            if stop is not self._stop or stop.is_set():
                return
            frame = Frame(jpeg, time.time() - age)
            if self._newest is None or self._reason is not None:
                self._since = frame.at
                _log.info("the %s gives pictures", self._shown)
            self._newest = (frame, taken)
            self._reason = None
            self._changed.notify_all()

    def _note_failure(self, stop: threading.Event, reason: str) -> None:
        with self._changed:
            if stop is not self._stop or stop.is_set():
                return
            if self._reason is None and self._newest is not None:
                self._since = self._newest[0].at
            if self._reason != reason:
                _log.warning("the %s gives no picture: %s", self._shown, reason)
            self._reason = reason


def _end_of(child: subprocess.Popen[bytes]) -> str:
    """Return how a process ended that has closed its output."""
    try:
        code = child.wait(1.0)
    except subprocess.TimeoutExpired:
        return "its process sends nothing any more"
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return "its process ended"
