"""The camera's process: `python -m device.camera.camera_child`. A camera library that hangs or
crashes does so in here.

The first line of standard input is JSON: `frames_per_s`, `patience_s`, and `source`, which may hold
a password and so is no argument, which other users of the machine could read. Standard output
carries messages (`device/camera/camera_pipe.py`): pictures, and in the end the reason why there are
no more. It ends itself when standard input closes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from device.camera.camera_pipe import FRAME, REASON, Lost, send

_LARGEST_WIDTH_PX = 1280
_QUALITY = 85
_FASTEST_VIDEO = 120.0  # frames per second; a file that states more is damaged
_USUAL_VIDEO = 25.0
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_COMPLAINT = re.compile(r": ([A-Z0-9][A-Za-z0-9 ()'-]{3,80})$", re.MULTILINE)


def main() -> None:
    """Read pictures until there are no more, or standard input closes."""
    # Ctrl-C is for the web process, which then closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wire = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints goes to the log, not among the pictures
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        for picture in _pictures(order["source"], order["frames_per_s"], order["patience_s"]):
            send(wire, FRAME, _jpeg(picture))
    except Lost as lost:
        reason = str(lost)
    except Exception as error:  # whatever a library throws must become a few words
        reason = f"its pictures cannot be read ({type(error).__name__})"
    with suppress(OSError):  # the web process may be gone
        send(wire, REASON, reason.encode())
    os._exit(0)  # a library's own end could hang


def _end_with_the_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def _pictures(source: str, frames_per_s: float, patience_s: float) -> Iterator[Any]:
    if Path(source).is_dir():
        return _folder(Path(source), frames_per_s)
    if source.isdecimal():
        return _live(_opened(int(source), cv2.CAP_ANY, patience_s), frames_per_s, patience_s)
    if "://" in source:
        return _live(_opened(source, cv2.CAP_FFMPEG, patience_s), frames_per_s, patience_s)
    if not Path(source).exists():
        raise Lost("there is no such file or folder")
    if Path(source).is_char_device():
        return _live(_opened(source, cv2.CAP_ANY, patience_s), frames_per_s, patience_s)
    return _video(source, frames_per_s, patience_s)


def _folder(folder: Path, frames_per_s: float) -> Iterator[Any]:
    """Play a folder's pictures in the order of their names, over and over."""
    pace = _Pace(frames_per_s)
    while True:
        shown = 0
        for path in sorted(path for path in folder.glob("*") if path.suffix.lower() in _SUFFIXES):
            picture = cv2.imread(str(path))
            if picture is not None:
                shown += 1
                pace.wait()
                yield picture
        if not shown:
            raise Lost("the folder has no picture that can be read")


def _video(file: str, frames_per_s: float, patience_s: float) -> Iterator[Any]:
    """Play a video file at its own speed, over and over."""
    capture = _opened(file, cv2.CAP_FFMPEG, patience_s)
    due = _Pace(frames_per_s)
    stated = capture.get(cv2.CAP_PROP_FPS)
    pace = _Pace(stated if 1 <= stated <= _FASTEST_VIDEO else _USUAL_VIDEO)
    while True:
        shown = 0
        while capture.grab():
            pace.wait()
            shown += 1
            if due.passed():
                yield _retrieved(capture)
        if not shown:
            raise Lost("it has no picture that can be read")
        capture = _opened(file, cv2.CAP_FFMPEG, patience_s)


def _live(capture: Any, frames_per_s: float, patience_s: float) -> Iterator[Any]:
    """Take every frame at once, so that none is old, and pass on as many as are wanted."""
    due = _Pace(frames_per_s)
    last = time.monotonic()
    while capture.grab():
        if due.passed():
            yield _retrieved(capture)
        last = time.monotonic()
    late = time.monotonic() - last >= patience_s
    raise Lost(f"it has sent nothing for {patience_s:g} s" if late else "the stream ended")


def _retrieved(capture: Any) -> Any:
    taken, picture = capture.retrieve()
    if not taken:
        raise Lost("what it sends is no picture")
    return picture


def _opened(source: int | str, backend: int, patience_s: float) -> Any:
    """Open a source; what the library writes to standard error says why that fails."""
    capture = cv2.VideoCapture()
    begun = time.monotonic()
    patience_ms = int(1000 * patience_s)
    limits: list[int] = []
    if backend == cv2.CAP_FFMPEG:
        limits += [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience_ms]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience_ms]
        limits += [cv2.CAP_PROP_N_THREADS, 1]
    with tempfile.TemporaryFile() as told, Path(os.devnull).open("wb") as nowhere:
        os.dup2(told.fileno(), 2)
        opened = capture.open(source, backend, limits)
        os.dup2(nowhere.fileno(), 2)  # a stream with errors would fill the log
        told.seek(0)
        complaints = _COMPLAINT.findall(told.read().decode(errors="replace"))
    if opened:
        return capture
    if time.monotonic() - begun >= patience_s:
        raise Lost(f"it does not answer within {patience_s:g} s")
    raise Lost(_why_not(source, complaints))


def _why_not(source: int | str, complaints: list[str]) -> str:
    """Return why a source could not be opened.

    Args:
        source: The source.
        complaints: What the library wrote, the last one last.
    """
    if complaints:
        last = complaints[-1]
        is_acronym = last[:2].isupper()  # such as "HTTP error 404"
        return last if is_acronym else last[0].lower() + last[1:]
    if isinstance(source, int):
        return "there is no such camera, or another program uses it"
    if "://" in source:
        return "it sends no video, or wants another password"
    return "it is no video that can be played"


class _Pace:
    """So many frames per second, without catching up after a pause."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1.0 / per_s
        self._due = time.monotonic()

    def passed(self) -> bool:
        """Return whether the next frame is due; it then counts as taken."""
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = max(self._due + self._gap_s, now)
        return True

    def wait(self) -> None:
        """Wait until the next frame is due."""
        while not self.passed():
            time.sleep(max(0.0, self._due - time.monotonic()))


def _jpeg(picture: Any) -> bytes:
    height, width = picture.shape[:2]
    if width > _LARGEST_WIDTH_PX:
        size = (_LARGEST_WIDTH_PX, max(1, round(height * _LARGEST_WIDTH_PX / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


if __name__ == "__main__":
    main()
