"""The web process's handle on a camera: starts the process that reads it, keeps the newest picture,
replaces it.

The process (`device/camera/camera_child.py`) is started at the first snapshot, and goes when this
process goes, however that ends, because its standard input closes. One that cannot open it, ends,
or has no new picture for a while is replaced, with growing pauses. Whoever asks for a picture waits
for at most as long as he said.

An address may hold a password. It travels by standard input; what is logged, shown or raised names
the host alone.
"""

from __future__ import annotations

import json
import logging
import math
import random
import re
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
    """A picture that a camera took: `jpeg`, at most 1280 px wide, and `at`, in seconds since 1970."""

    jpeg: bytes = field(repr=False)
    at: float


class Camera:
    """A camera that is read in a process of its own; every method may be called from any thread.

    Args:
        source: What its owner wrote: "0" for the first camera of the machine, an address (rtsp,
            rtmp, http), a video file, or a folder, whose pictures are played over and over.
        frames_per_s: So many pictures are taken at most; a folder is played at that speed.
        patience_s: Seconds without a new picture after which the process is replaced.
        command: What to start; tests may start something else.

    Raises:
        SettingsError: This names no camera.
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
            raise SettingsError(
                "This names no camera.",  # and is not repeated: there may be a password in it
                kept="No camera was opened.",
                todo=f"Name a number, a file, a folder, or an address that begins with {', '.join(_SCHEMES)}.",
            )
        self._source, self._command = source, command
        self._shown = f"camera {source}" if source.isdecimal() else f"camera at {shown(source)}"
        self._frames_per_s, self._patience_s = frames_per_s, max(patience_s, 1.5 / frames_per_s)
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._newest: tuple[Frame, float] | None = (
            None  # and when it was taken, by the monotonic clock
        )
        self._reason: str | None = None
        self._since = time.time()

    def __repr__(self) -> str:
        return f"<{self._shown}>"

    @property
    def pid(self) -> int | None:
        """Process id of the process that reads the camera, or None if there is none."""
        child = self._child
        return None if child is None or child.poll() is not None else child.pid

    def start(self) -> None:
        """Begin to read the camera, unless it is being read; this does not wait for it."""
        with self._changed:
            if self._thread is None:
                self._stop = threading.Event()
                self._since, self._reason, self._newest = time.time(), None, None
                self._thread = threading.Thread(
                    target=self._keep_reading, args=(self._stop,), name="camera"
                )
                self._thread.daemon = True
                self._thread.start()

    def stop(self) -> None:
        """Stop reading the camera, and wait until its process has ended; the next snapshot starts
        it again.
        """
        with self._changed:
            thread, self._thread, self._newest = self._thread, None, None
            self._stop.set()
            self._since, self._reason = time.time(), None
            if self._child is not None:
                self._child.kill()
        if thread is not None:
            thread.join()

    def snapshot(self, max_age_s: float = 1.0, timeout_s: float = 2.0, after: float = 0.0) -> Frame:
        """Return a picture, starting to read the camera if it is not read yet.

        Args:
            max_age_s: An older picture will not do.
            timeout_s: How long to wait for one that will.
            after: Nor will one that was taken at this time or before, in seconds since 1970.

        Raises:
            NoPicture: There was none in that time.
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
        """Return how the camera is, in words, and since when, in seconds since 1970."""
        with self._changed:
            if self._thread is None:
                return "not in use", self._since
            if self._reason is not None:
                form = "%H:%M" if time.time() - self._since < _DAY_S else "%Y-%m-%d %H:%M"
                clock = time.strftime(form, time.localtime(self._since))
                return f"no picture since {clock}: {self._reason}", self._since
            return "connecting" if self._newest is None else "watching", self._since

    def gives_pictures(self) -> bool | None:
        """Return whether the camera gives pictures now; None while it is not in use, or has yet to
        answer.
        """
        with self._changed:
            return False if self._reason is not None else True if self._newest is not None else None

    def _no_picture(self) -> NoPicture:
        reason = self._reason or "it has not sent one in time"
        return NoPicture(
            f"The {self._shown} gives no picture: {reason}.",
            kept="It is tried again by itself, and the rest of the device goes on.",
            todo="See that it has power and a network, and that its address and password are right.",
        )

    def _keep_reading(self, stop: threading.Event) -> None:
        pauses = BackOff(random.Random())  # nosec B311 # pauses need no secrecy
        while not stop.is_set():
            begun = time.monotonic()
            try:
                self._read(stop)
            except Lost as lost:
                self._note(stop, str(lost))
            except Exception as error:  # such as a machine without room for one more process
                _log.exception("the %s could not be read", self._shown)
                self._note(stop, f"it could not be read ({type(error).__name__})")
            if time.monotonic() - begun > 2 * self._patience_s:
                pauses.reset()
            stop.wait(min(pauses.next(), _LONGEST_PAUSE_S))

    def _read(self, stop: threading.Event) -> None:
        """Start the process, and take what it sends until there is no more.

        Raises:
            Lost: There is no more.
        """
        with self._changed:
            if stop.is_set():
                return
            child = self._child = subprocess.Popen(  # nosec B603 # a fixed command, no shell
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
            )
        pipes = cast(tuple[IO[bytes], IO[bytes]], (child.stdin, child.stdout))
        try:
            self._order(pipes[0])
            with Receiver(pipes[1]) as receiver:
                patience_s = 2 * self._patience_s  # the process has to start first
                while True:
                    kind, stamp, body = receiver.next(patience_s)
                    if kind == REASON:
                        raise Lost(body.decode(errors="replace"))
                    self._keep(stop, body, stamp)
                    patience_s = self._patience_s
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

    def _order(self, pipe: IO[bytes]) -> None:
        order = {
            "source": self._source,
            "frames_per_s": self._frames_per_s,
            "patience_s": 0.8 * self._patience_s,
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
            if stop is not self._stop or stop.is_set():
                return
            frame = Frame(jpeg, time.time() - age)
            if self._newest is None or self._reason is not None:
                self._since = frame.at
                _log.info("the %s gives pictures", self._shown)
            self._newest, self._reason = (frame, taken), None
            self._changed.notify_all()

    def _note(self, stop: threading.Event, reason: str) -> None:
        with self._changed:
            if stop is not self._stop or stop.is_set():
                return
            if self._reason is None:
                self._since = self._newest[0].at if self._newest is not None else self._since
            if self._reason != reason:
                _log.warning("the %s gives no picture: %s", self._shown, reason)
            self._reason = reason


def shown(source: str) -> str:
    """Return what may be shown of a camera's source: without user, password and whatever follows a
    plain path.
    """
    if "://" not in source:
        return source
    scheme, rest = source.split("://", 1)
    authority, path = re.fullmatch(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr] # it does
    if "@" in path:  # of a password with a slash in it, or of a query: who knows where the host is
        return f"{scheme}://…"
    plain = re.match(r"[\w./~-]*", path, re.ASCII)
    return f"{scheme}://{authority.rsplit('@', 1)[-1]}{plain.group() if plain else ''}"


def _end_of(child: subprocess.Popen[bytes]) -> str:
    """Say how a process ended that has closed its output."""
    try:
        code = child.wait(1.0)
    except subprocess.TimeoutExpired:
        return "its process sends nothing any more"
    return (
        f"its process was killed by {signal.Signals(-code).name}"
        if code < 0
        else "its process ended"
    )
