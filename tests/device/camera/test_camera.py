"""Cameras, read by real processes: what they show, what goes wrong with them, and what nobody may
see.
"""

from __future__ import annotations

import http.server
import logging
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import textwrap
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from device.camera.camera import Camera, NoPicture
from device.camera.source import redacted
from shared.errors import SettingsError

pytestmark = pytest.mark.heavy  # starts a process for each camera

ROOT = Path(__file__).resolve().parents[3]
SECRET = "s3cr3t@w:rd"
JPEG = bytes(cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1])
SAYING = f"""
    import os, struct, sys, time

    JPEG = bytes.fromhex("{JPEG.hex()}")
    order = sys.stdin.readline()

    def say(kind, body, length=None, stamp=None):
        header = struct.pack(">BdI", kind, stamp or time.monotonic(), len(body) if length is None else length)
        os.write(1, header + body)

"""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device.camera.camera._LONGEST_PAUSE_S", 0.1)


@pytest.fixture
def make() -> Iterator[Callable[..., Camera]]:
    made: list[Camera] = []

    def make_one(source: object = "0", **options: Any) -> Camera:
        made.append(Camera(str(source), **options))
        return made[-1]

    yield make_one
    for camera in made:
        camera.stop()


@pytest.fixture
def saying(make: Callable[..., Camera], tmp_path: Path) -> Callable[..., Camera]:
    """Make a camera whose process is a small script."""

    def make_one(script: str, **options: Any) -> Camera:
        file = tmp_path / "child.py"
        file.write_text(textwrap.dedent(SAYING) + textwrap.dedent(script))
        return make(command=(sys.executable, "-S", str(file)), **options)

    return make_one


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def pixels(jpeg: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def write(path: Path, level: int, width: int = 64) -> None:
    cv2.imwrite(str(path), np.full((48, width, 3), level, np.uint8))


def write_video(path: Path, levels: list[int], width: int = 64, frames_per_s: float = 25.0) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), frames_per_s, (width, 48))
    for level in levels:
        video.write(np.full((48, width, 3), level, np.uint8))
    video.release()


def all_of(camera: Camera, count: int) -> tuple[list[int], list[float]]:
    """Return of so many pictures, none of them missed, how bright they are and when they were
    taken.
    """
    kept: list[tuple[bytes, float]] = []
    keep = camera._keep

    def note(stop: threading.Event, jpeg: bytes, taken: float) -> None:
        kept.append((jpeg, taken))
        keep(stop, jpeg, taken)

    camera._keep = note  # type: ignore[method-assign]
    camera.start()
    until(lambda: len(kept) >= count)
    return [round(float(pixels(jpeg).mean())) for jpeg, _ in kept], [taken for _, taken in kept]


def test_nothing_runs_before_the_first_snapshot_and_nothing_after_stop(
    make: Callable[..., Camera], tmp_path: Path
) -> None:
    write(tmp_path / "1.png", 40)
    camera = make(tmp_path)
    assert (camera.pid, camera.state()[0], camera.gives_pictures()) == (None, "not in use", None)
    begun = time.time()
    frame = camera.snapshot(timeout_s=20.0)
    assert begun <= frame.at <= time.time()
    pid = camera.pid
    assert pid is not None
    assert (camera.state()[0], camera.gives_pictures()) == ("watching", True)
    camera.stop()
    assert (camera.pid, camera.state()[0], camera.gives_pictures()) == (None, "not in use", None)
    assert not psutil.pid_exists(pid)  # nor as a zombie
    assert camera.snapshot(timeout_s=20.0).at > frame.at


def test_folder_is_played_in_the_order_of_names_over_and_over_at_its_speed(
    make: Callable[..., Camera], tmp_path: Path
) -> None:
    for name, level in (("c.png", 150), ("a.jpg", 50), ("b.png", 100)):
        write(tmp_path / name, level)
    (tmp_path / "b2.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("nor this")
    camera = make(tmp_path, frames_per_s=10.0)
    levels, taken = all_of(camera, 7)
    assert levels[:7] == [50, 100, 150, 50, 100, 150, 50]
    assert taken[6] - taken[0] == pytest.approx(0.6, abs=0.3)


def test_video_is_played_over_and_over_and_shrunk(
    make: Callable[..., Camera], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "porch.avi", [60, 180], width=1600)
    camera = make(tmp_path / "porch.avi", frames_per_s=25.0)
    levels, _ = all_of(camera, 6)
    assert {round(level, -1) for level in levels} == {60, 180}  # the codec keeps them roughly
    assert pixels(camera.snapshot(timeout_s=20.0).jpeg).shape == (38, 1280, 3)
    assert "gives no picture" not in caplog.text


def test_no_more_pictures_than_wanted_are_taken_of_a_fast_source(
    make: Callable[..., Camera], tmp_path: Path
) -> None:
    write_video(tmp_path / "porch.avi", list(range(0, 250)), frames_per_s=100.0)
    camera = make(tmp_path / "porch.avi", frames_per_s=10.0)
    levels, taken = all_of(camera, 6)
    assert taken[5] - taken[0] > 0.4
    assert (
        levels[5] - levels[0] >= 30
    )  # of a hundred a second, five times a tenth of a second: none is old


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param("gone.mp4", "there is no such file or folder", id="no-file"),
        pytest.param("empty", "the folder has no picture that can be read", id="empty-folder"),
        pytest.param("notes.mp4", "it is no video that can be played", id="no-video"),
        pytest.param("rtsp://127.0.0.1:9/porch", "connection refused", id="refused"),
        pytest.param("77", "there is no such camera, or another program uses it", id="no-camera"),
    ],
)
def test_source_that_cannot_be_read_is_named_with_the_reason(
    make: Callable[..., Camera], tmp_path: Path, source: str, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.mp4").write_text("This is no video." * 100)
    camera = make(tmp_path / source if "." in source[-4:] or source == "empty" else source)
    camera.start()
    until(lambda: "no picture" in camera.state()[0])
    with pytest.raises(NoPicture, match=f"gives no picture: {reason}") as caught:
        camera.snapshot(timeout_s=0.05)
    assert caught.value.status == 503
    words, since = camera.state()
    assert words == f"no picture since {time.strftime('%H:%M', time.localtime(since))}: {reason}"
    assert camera.gives_pictures() is False


def test_source_that_appears_later_is_found_by_itself(
    make: Callable[..., Camera], tmp_path: Path
) -> None:
    camera = make(tmp_path / "later")
    camera.start()
    until(lambda: "no such file" in camera.state()[0])
    (tmp_path / "later").mkdir()
    write(tmp_path / "later" / "1.png", 70)
    assert pixels(camera.snapshot(timeout_s=20.0).jpeg).mean() == pytest.approx(70, abs=1)
    assert camera.state()[0] == "watching"


def test_camera_that_is_gone_for_days_is_told_with_the_day(
    make: Callable[..., Camera], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = make(tmp_path / "gone.mp4")
    camera.start()
    until(lambda: "no such file" in camera.state()[0])
    day, now = time.strftime("%Y-%m-%d", time.localtime(camera.state()[1])), time.time()
    monkeypatch.setattr("device.camera.camera.time.time", lambda: now + 90_000.0)
    assert camera.state()[0].startswith(f"no picture since {day} ")


def test_snapshot_waits_no_longer_than_it_may(saying: Callable[..., Camera]) -> None:
    camera = saying("time.sleep(60)")
    begun = time.monotonic()
    with pytest.raises(NoPicture, match="has not sent one in time"):
        camera.snapshot(timeout_s=0.3)
    assert time.monotonic() - begun < 2.0
    assert (camera.state()[0], camera.gives_pictures()) == ("connecting", None)


def test_old_picture_is_not_given_for_a_new_one(saying: Callable[..., Camera]) -> None:
    camera = saying("say(1, JPEG)\ntime.sleep(60)")
    first = camera.snapshot(timeout_s=20.0)
    assert camera.snapshot(max_age_s=60.0, timeout_s=0.05) is first
    for fussy in ({"max_age_s": 0.0}, {"max_age_s": 60.0, "after": first.at}):
        with pytest.raises(NoPicture):
            camera.snapshot(timeout_s=0.05, **fussy)


def test_frozen_process_is_replaced(saying: Callable[..., Camera]) -> None:
    camera = saying("say(1, JPEG)\ntime.sleep(60)", patience_s=0.3)
    first = camera.snapshot(timeout_s=20.0)
    frozen = camera.pid
    until(lambda: "it is frozen" in camera.state()[0])
    assert camera.state()[1] == first.at
    assert camera.snapshot(timeout_s=20.0, after=first.at).at > first.at
    assert frozen is not None
    assert not psutil.pid_exists(frozen)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("os.kill(os.getpid(), 11)", "its process was killed by SIGSEGV"),
        ("sys.exit(3)", "its process ended"),
        ("os.close(1); time.sleep(60)", "its process sends nothing any more"),
        (
            "os.write(1, b'Warning: this is no picture at all')",
            "what its process sends is no picture",
        ),
        ("say(1, b'', length=4_000_000_000)", "what its process sends is no picture"),
        ("say(1, b'GIF89a')", "what its process sends is no picture"),
        ("say(1, JPEG, stamp=float('nan'))", "what its process sends is no picture"),
        ("say(1, JPEG, stamp=time.monotonic() + 3600)", "what its process sends is no picture"),
        ("say(1, JPEG, length=len(JPEG) + 1)", "its process ended"),
        ("say(2, b'it rains \\xff')", "it rains \ufffd"),
    ],
    ids=[
        "crash",
        "exit",
        "closed",
        "garbage",
        "oversized",
        "gif",
        "nan",
        "future",
        "cut-short",
        "reason",
    ],
)
def test_what_a_process_does_wrong_is_said_and_it_is_started_again(
    saying: Callable[..., Camera], tmp_path: Path, script: str, reason: str
) -> None:
    again = tmp_path / "again"
    first_time = (
        f"if not os.path.exists({str(again)!r}):\n"
        f"    open({str(again)!r}, 'w').close()\n"
        f"    {script}\n"
        "    sys.exit()"
    )
    camera = saying(f"{first_time}\nwhile True:\n    say(1, JPEG)\n    time.sleep(0.05)")
    noted: list[str] = []
    note = camera._note_failure
    camera._note_failure = lambda stop, why: (noted.append(why), note(stop, why))[1]  # type: ignore[method-assign]
    assert camera.snapshot(timeout_s=20.0).jpeg == JPEG
    assert noted == [reason]


def test_process_that_has_ended_is_no_zombie(
    saying: Callable[..., Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device.camera.camera._LONGEST_PAUSE_S", 60.0)
    monkeypatch.setattr(
        "device.camera.camera.BackOff.next", lambda _: 60.0
    )  # the next start would clear it away
    camera = saying("say(2, b'it rains')")
    camera.start()
    until(lambda: "it rains" in camera.state()[0])
    assert psutil.STATUS_ZOMBIE not in [child.status() for child in psutil.Process().children()]


def test_lengths_are_checked_before_anything_is_allocated(saying: Callable[..., Camera]) -> None:
    before = psutil.Process().memory_info().rss
    camera = saying("say(1, JPEG * 10, length=(1 << 32) - 1)\ntime.sleep(60)")
    camera.start()
    until(lambda: "no picture" in camera.state()[0])
    assert psutil.Process().memory_info().rss - before < 100e6


def test_many_threads_may_ask_at_once(make: Callable[..., Camera], tmp_path: Path) -> None:
    write(tmp_path / "1.png", 40)
    camera = make(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        frames = list(pool.map(lambda _: camera.snapshot(timeout_s=20.0), range(32)))
    assert all(pixels(frame.jpeg).shape == (48, 64, 3) for frame in frames)
    assert (
        len(
            [
                child
                for child in psutil.Process().children()
                if "device.camera.camera_child" in child.cmdline()
            ]
        )
        == 1
    )


class _Stream(http.server.BaseHTTPRequestHandler):
    """An IP camera as cheap as they come: pictures one after another in one answer, for who has the
    password.
    """

    def do_GET(self) -> None:
        if (
            self.headers.get("Authorization")
            != "Basic " + b64encode(f"porch:{SECRET}".encode()).decode()
        ):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="porch"')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        on: threading.Event = self.server.on  # type: ignore[attr-defined]
        part = (
            f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(JPEG)}\r\n\r\n".encode()
            + JPEG
            + b"\r\n"
        )
        try:
            while on.is_set():
                if not self.server.frozen.is_set():  # type: ignore[attr-defined]
                    self.wfile.write(part)
                time.sleep(0.02)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


class _Ip(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Stream)
        self.on, self.frozen = threading.Event(), threading.Event()
        self.on.set()
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def end(self) -> None:
        self.on.clear()
        self.shutdown()
        self.server_close()


def test_network_camera_that_vanishes_and_comes_back(
    make: Callable[..., Camera], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = _Ip()
    port = server.server_port
    camera = make(f"http://porch:{quote(SECRET)}@127.0.0.1:{port}/video?pwd=hidden")
    first = camera.snapshot(timeout_s=20.0)
    assert pixels(first.jpeg).mean() == pytest.approx(90, abs=2)
    pid = camera.pid
    assert pid is not None
    process = psutil.Process(pid)
    visible = [*process.cmdline(), *process.environ().values(), repr(camera), repr(first)]
    server.end()
    until(lambda: "connection refused" in camera.state()[0])
    with pytest.raises(NoPicture) as caught:
        camera.snapshot(timeout_s=0.05, after=camera.state()[1])
    visible += [
        str(caught.value),
        repr(caught.value),
        camera.state()[0],
        repr(caught.value.problem()),
        caplog.text,
    ]
    server = _Ip(port)
    assert camera.snapshot(timeout_s=20.0, after=first.at).at > first.at
    server.end()
    assert f"The camera at http://127.0.0.1:{port}/video gives no picture" in str(caught.value)
    assert (
        f"camera at http://127.0.0.1:{port}/video gives no picture: connection refused"
        in caplog.text
    )
    for piece in (SECRET, "s3cr3t", "w%3Ard", "w:rd", "pwd", "hidden"):
        assert not [text for text in visible if piece in text]


def test_network_camera_that_freezes_is_opened_again(make: Callable[..., Camera]) -> None:
    server = _Ip()
    camera = make(
        f"http://porch:{quote(SECRET)}@127.0.0.1:{server.server_port}/video", patience_s=2.0
    )
    first = camera.snapshot(timeout_s=20.0)
    server.frozen.set()
    until(lambda: "it has sent nothing for 1.6 s" in camera.state()[0])
    server.frozen.clear()
    assert camera.snapshot(timeout_s=20.0, after=first.at + 1.6).at > first.at
    server.end()


def test_address_that_never_answers_is_given_up(make: Callable[..., Camera]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        camera = make(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/porch", patience_s=2.0)
        camera.start()
        until(lambda: "no picture" in camera.state()[0])
        assert camera.state()[0].endswith("it does not answer within 1.6 s")


@pytest.mark.parametrize(
    ("source", "may_be_seen"),
    [
        ("rtsp://admin:p@ss:w@rd@10.0.0.7:554/stream", "rtsp://10.0.0.7:554/stream"),
        ("rtsp://admin:pa@ss/w#rd@10.0.0.7:554/stream", "rtsp://…"),
        ("http://10.0.0.7/video?pwd=pa@ss", "http://…"),
        ("rtsp://10.0.0.7/user=admin&password=x&channel=1", "rtsp://10.0.0.7/user"),
        ("http://[fd00::1]:8080/video.mjpg?token=abc", "http://[fd00::1]:8080/video.mjpg"),
        ("porch.mp4", "porch.mp4"),
        ("0", "0"),
    ],
    ids=["userinfo", "slash", "at", "path", "query", "file", "number"],
)
def test_what_is_shown_of_an_address(source: str, may_be_seen: str) -> None:
    assert redacted(source) == may_be_seen


@pytest.mark.parametrize(
    "source",
    ["", "ftp://host/x", "concat:a|b://x", "FILE:///etc/passwd", "me:s3cr3t@rtsp://host"],
    ids=range(5),
)
def test_other_addresses_are_refused_at_once_and_not_repeated(source: str) -> None:
    with pytest.raises(SettingsError, match="DOORBELL_CAMERA is not a camera source") as caught:
        Camera(source)
    assert not source or source not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_process_goes_when_its_parent_is_killed(tmp_path: Path) -> None:
    write(tmp_path / "1.png", 40)
    program = f"""
        from device.camera.camera import Camera
        camera = Camera({str(tmp_path)!r}, frames_per_s=0.01)  # it does not notice by a picture that nobody takes
        camera.snapshot(timeout_s=20.0)
        print(camera.pid, flush=True)
        input()
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(
        lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    )  # of whoever adopted it


def test_header_is_as_the_small_scripts_write_it() -> None:
    from device.camera import camera_pipe  # noqa: PLC0415

    assert camera_pipe._HEADER.format == struct.Struct(">BdI").format
