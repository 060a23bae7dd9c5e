"""The doctor finds what is wrong, says how to fix it, changes nothing, and finds nothing wrong
where nothing is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sqlite3
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from email.message import Message
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from werkzeug.serving import make_server

import device.app
import device.context
import federation.__main__ as command_line
import main_server.app
import sec_agg.app
from device.camera.camera import Camera
from device.metrics import gauges
from device.settings import DeviceSettings
from federation.doctor import (
    checks,
    checks_network,
    checks_settings,
    checks_state,
    doctor,
)
from federation.doctor.checks import Finding, Setup
from federation.doctor.checks_camera import cameras
from federation.doctor.checks_members import memberships
from federation.doctor.checks_network import WORRYING_S, network
from main_server.settings import MainSettings
from main_server.store import publication
from main_server.store.devices import note_device
from main_server.store.members import Invitation, MemberRecord, admit, invite
from main_server.store.publication import rename
from main_server.store.records import Device
from main_server.store.store import Store
from main_server.store.tables import MIGRATIONS
from sec_agg.settings import AggregatorSettings
from shared import __version__
from shared.security.identity import Identity
from shared.security.joining import JoinCode
from shared.security.signing import CLOCK_TOLERANCE_S
from shared.storage.database import Database
from shared.telemetry.metrics import expose
from tests.main_store import write

PROJECT = Path(__file__).resolve().parents[3]
MAIN, AGGREGATOR, DEVICE = "main-server", "secure-aggregator", "devices/device-1"


@contextmanager
def serving(app: Any, port: int) -> Iterator[None]:
    """Answer at a port while the block runs."""
    server = make_server("127.0.0.1", port, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


@contextmanager
def answering(
    body: bytes = b"hello", ahead_s: float = 0.0, status: int = 200, kind: str = "text/plain"
) -> Iterator[str]:
    """Yield the address of a small HTTP server, by a clock of its own, that says the same to
    everybody.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + ahead_s, usegmt=True)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def health(service: str = "Secure aggregator", **more: str) -> bytes:
    return json.dumps({"service": service, "status": "ok", "version": __version__} | more).encode()


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:  # all at once, so that no two are the same
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a federation that runs: main server, aggregator and device 1 answer;
    device 2 has joined.
    """
    home, (main, aggregator, first) = tmp_path_factory.mktemp("home"), free_ports(3)
    for client in ("client_1", "client_2"):
        for split in ("train", "valid", "test"):
            for name in ("parcel", "not_parcel"):
                (folder := home / "pictures" / "parcel" / client / split / name).mkdir(parents=True)
                (folder / "1.png").write_bytes(b"a picture, for those who count files")
    environ = {
        "DOORBELL_HOME": str(home),
        "DOORBELL_MAIN_URL": f"http://localhost:{main}",
        "DOORBELL_AGGREGATOR_URL": f"http://localhost:{aggregator}",
        "DOORBELL_DEVICE_URL": f"http://localhost:{first}",
        "DOORBELL_DEVICE_NAME": "device-1",
    }
    mine = DeviceSettings.read(1, environ)
    apps = {
        main: main_server.app.create_app(MainSettings.read(environ)),
        aggregator: sec_agg.app.create_app(AggregatorSettings.read(environ)),
        first: device.app.create_app(1, mine),
    }
    with ExitStack() as stack:
        for port, app in apps.items():
            stack.enter_context(serving(app, port))
        sec_agg.app.open_enrolment(AggregatorSettings.read(environ)).main()
        second = DeviceSettings.read(2, environ | {"DOORBELL_DEVICE_NAME": "device-2"})
        device.context.open_enrolment(second).main()
        assert (
            apps[first].test_client().post("/sendstatus", headers={"Host": "localhost"}).status_code
            == 200
        )
        yield environ


@pytest.fixture
def home(up: dict[str, str], tmp_path: Path) -> Path:
    """A copy of what the services keep, for one test to spoil."""
    return Path(shutil.copytree(up["DOORBELL_HOME"], tmp_path / "home"))


@pytest.fixture
def environ(up: dict[str, str], home: Path) -> dict[str, str]:
    """The environment over that copy, while the services run over theirs."""
    return up | {"DOORBELL_HOME": str(home)}


@pytest.fixture
def stopped(home: Path) -> dict[str, str]:
    """The environment over that copy, at addresses where nobody answers."""
    main, aggregator, first = free_ports(3)
    return {
        "DOORBELL_HOME": str(home),
        "DOORBELL_MAIN_URL": f"http://localhost:{main}",
        "DOORBELL_AGGREGATOR_URL": f"http://localhost:{aggregator}",
        "DOORBELL_DEVICE_URL": f"http://localhost:{first}",
        "DOORBELL_DEVICE_NAME": "device-1",
    }


def about(findings: Iterator[Finding], where: str) -> Finding:
    """Return the one finding about something that is not in order; or the one that there is."""
    found = [finding for finding in findings if finding.where == where]
    problems = [finding for finding in found if finding.state != "ok"] or found
    assert len(problems) == 1, found
    assert problems[0].state == "ok" or problems[0].todo
    return problems[0]


def snapshot(folder: Path) -> dict[str, Any]:
    return {
        str(path): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def test_running_federation_has_nothing_wrong(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("DOORBELL_")]:
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert command_line.main(["doctor", "--json"]) == 0
    findings = [Finding(**found) for found in json.loads(capsys.readouterr().out)]
    assert [finding for finding in findings if finding.state == "wrong"] == []
    services = [MAIN, AGGREGATOR, DEVICE]
    expected = {
        f"{what} of {name}"
        for what in ("address", "clock", "keys", "database")
        for name in services
    }
    expected |= {
        f"{what} of {name}"
        for what in ("membership", "standing")
        for name in [*services[1:], "devices/device-2"]
    }
    in_order = {finding.where for finding in findings if finding.state == "ok"}
    assert expected | {"pictures of device-1", "devices", "settings"} <= in_order
    assert not [finding for finding in findings if finding.where.startswith("version of")]
    assert command_line.main(["doctor"]) == 0
    assert "ok       keys of main-server: They are there" in capsys.readouterr().out


def test_whoever_has_something_wrong_gets_exit_code_1_and_reads_how_to_mend_it(
    stopped: dict[str, str],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (home / MAIN / "identity.key").chmod(0o644)
    monkeypatch.setattr(doctor, "examine", lambda: checks_state.keys(Setup.read(stopped)))
    assert command_line.main(["doctor"]) == 1
    said = capsys.readouterr().out.splitlines()
    path = home / MAIN / "identity.key"
    assert (
        f"wrong    keys of main-server: Others on this machine may read the secret in {path}."
        in said
    )
    assert any(line.startswith(f"         Run: chmod 600 '{path}'.") for line in said)


def test_stopped_federation_has_nothing_wrong_and_stays_as_it_is(
    stopped: dict[str, str], home: Path
) -> None:
    for path in home.rglob("state.sqlite3"):
        with closing(sqlite3.connect(path)) as database:  # as a service leaves it that ends
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (home / MAIN).chmod(0o750)
    before = snapshot(home)
    findings = list(doctor.examine(stopped))
    assert [finding for finding in findings if finding.state == "wrong"] == []
    assert about(iter(findings), f"address of {MAIN}").said.startswith("It is not running; port ")
    after = snapshot(home)
    side = {path for path in before | after if path.endswith(("-wal", "-shm"))}  # SQLite's own
    assert {path: after.get(path) for path in before.keys() | after.keys() if path not in side} == {
        path: before[path] for path in before if path not in side
    }


def test_where_nothing_has_run_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    ports = dict(
        zip(
            ("DOORBELL_MAIN_URL", "DOORBELL_AGGREGATOR_URL", "DOORBELL_DEVICE_URL"),
            free_ports(3),
            strict=True,
        )
    )
    environ = {"DOORBELL_HOME": str(tmp_path / "new")} | {
        name: f"http://localhost:{port}" for name, port in ports.items()
    }
    findings = list(doctor.examine(environ))
    assert [finding for finding in findings if finding.state == "wrong"] == []
    assert about(iter(findings), "pictures of device-2").todo.endswith("python -m dataset draw.")
    assert not (tmp_path / "new").exists()


def test_version_is_that_of_the_project() -> None:
    assert (
        tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"] == __version__
    )


# What is installed, what the environment says, the disk


def test_packages_that_lack_or_differ_are_named(tmp_path: Path) -> None:
    (tmp_path / "pins.txt").write_text(
        "nobody-has-this==1.0\nflask==0.1\nrequests[socks]==2.0\npytest\n# flask==9\n"
        'not-for-us==1.0; platform_machine == "abacus"\n'
    )
    findings = [
        finding
        for finding in checks.installation(tmp_path / "pins.txt")
        if finding.where == "packages"
    ]
    assert [finding.state for finding in findings] == ["wrong", "warning", "warning"]
    assert findings[0].said == "nobody-has-this 1.0 is not installed."
    assert "flask is of version 3" in findings[1].said and "'flask==0.1'" in findings[1].todo


def test_without_a_checkout_the_pins_are_those_that_pip_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that every installation has, and of the extras what somebody installed."""
    about_us = Message()
    requires = [
        "flask==0.1",
        'requests==0.2; extra == "train"',
        'nobody-has-this==1.0; extra == "train"',
    ]
    about_us["Provides-Extra"] = "train"
    monkeypatch.setattr(
        checks.metadata, "requires", lambda _: [*requires, 'none==1; platform_machine == "abacus"']
    )
    monkeypatch.setattr(checks.metadata, "metadata", lambda _: about_us)
    findings = [
        finding
        for finding in checks.installation(tmp_path / "none.txt")
        if finding.where == "packages"
    ]
    assert [finding.said.partition(" ")[0] for finding in findings] == ["flask", "requests"]
    assert {finding.state for finding in findings} == {"warning"}


def test_python_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "OLDEST_PYTHON", (4, 0))
    assert about(checks.installation(), "Python").state == "wrong"


@pytest.mark.parametrize(
    ("changed", "state", "said"),
    [
        (
            {"DOORBELL_MIN_COHRT": "3"},
            "wrong",
            "is not a setting; did you mean DOORBELL_MIN_COHORT?",
        ),
        (
            {"DOORBELL_COLOUR_OF_DOOR": "red"},
            "warning",
            "DOORBELL_COLOUR_OF_DOOR is not a setting.",
        ),
        ({"DOORBELL_SEED": "-1"}, "wrong", "from 0 to 4294967295. It is read by the main server."),
        (
            {"DOORBELL_TRAIN_AT": "noon"},
            "wrong",
            "a time of day looks like 03:30. It is read by devices.",
        ),
        (
            {"DOORBELL_OPERATOR_TOKEN": "short"},
            "wrong",
            "none of them a space. It is read by operators.",
        ),
        (
            {"DOORBELL_WATCH": "yes"},
            "wrong",
            "DOORBELL_WATCH is yes, and there is no camera. It is read by devices.",
        ),
        ({"DOORBELL_DEVICE2_PORT": "8002"}, "ok", "Set are: DOORBELL_DEVICE2_PORT."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_variables_that_cannot_be_read_or_that_nobody_reads(
    changed: dict[str, str], state: str, said: str
) -> None:
    finding = about(checks_settings.settings(changed), "settings")
    assert finding.state == state and finding.said.endswith(said)


def test_settings_that_cannot_be_read_end_the_examination(tmp_path: Path) -> None:
    findings = list(doctor.examine({"DOORBELL_HOME": str(tmp_path), "DOORBELL_SEED": "x"}))
    assert (findings[-1].where, findings[-1].todo) == (
        "services",
        "Fix the settings, then run it again.",
    )


@pytest.mark.parametrize(
    ("changed", "state", "said"),
    [
        (
            {"DOORBELL_MAIN_URL": "http://main.example.org"},
            "warning",
            "everybody on the way can read it",
        ),
        ({"DOORBELL_MAIN_URL": "https://main.example.org"}, "", ""),
        (
            {"DOORBELL_AGGREGATOR_URL": "http://10.0.0.9:8003"},
            "warning",
            "URL is http://10.0.0.9:8003",
        ),
        ({"DOORBELL_DEVICE1_PORT": "9001"}, "wrong", "others look for that service on port 8001."),
        ({"DOORBELL_AGGREGATOR_PORT": "9003"}, "wrong", "DOORBELL_AGGREGATOR_PORT is 9003"),
        (
            {
                "DOORBELL_AGGREGATOR_PORT": "9003",
                "DOORBELL_AGGREGATOR_URL": "http://localhost:9003",
            },
            "",
            "",
        ),
        ({"PORT": "80", "DOORBELL_MAIN_URL": "https://main.example.org"}, "", ""),
        (
            {"DOORBELL_JOIN_CODE": "doorbell-oops"},
            "wrong",
            "DOORBELL_JOIN_CODE is not a join code.",
        ),
        (
            {"DOORBELL_TARGET_COHORT": "2", "DOORBELL_MIN_COHORT": "4"},
            "warning",
            "DOORBELL_TARGET_COHORT is 2",
        ),
        ({"DOORBELL_S3_ENDPOINT": "http://localhost:9000"}, "warning", "without DOORBELL_BLOBS"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_contradict_one_another(
    changed: dict[str, str], state: str, said: str, tmp_path: Path
) -> None:
    findings = list(
        checks_settings.contradictions(Setup.read({"DOORBELL_HOME": str(tmp_path)} | changed))
    )
    assert [finding.state for finding in findings] == [state] * bool(state)
    assert not state or said in findings[0].said


@pytest.mark.parametrize(
    ("free_mb", "files", "state"),
    [
        (2000, 10**6, "ok"),
        (900, 10**6, "warning"),
        (99, 10**6, "wrong"),
        (2000, 9000, "warning"),
        (2000, 99, "wrong"),
        (900, 99, "wrong"),
    ],
)
def test_disk_that_is_nearly_full(
    free_mb: int, files: int, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    room = SimpleNamespace(f_bavail=free_mb << 8, f_frsize=4096, f_files=10**7, f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    assert about(checks.disk(tmp_path), f"disk of {tmp_path}").state == state


def test_disk_that_does_not_count_files_is_not_short_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda _: SimpleNamespace(f_bavail=1 << 20, f_frsize=4096, f_files=0, f_favail=0),
    )
    assert about(checks.disk(tmp_path), f"disk of {tmp_path}") == Finding(
        f"disk of {tmp_path}", "ok", "4.0 GB are free."
    )


def test_home_that_cannot_be_written_or_is_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert about(checks.disk(tmp_path / "file"), f"disk of {tmp_path / 'file'}").state == "wrong"
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    assert about(checks.disk(tmp_path), f"disk of {tmp_path}").state == "wrong"


def test_files_that_a_killed_writer_left_are_counted_once_they_are_old(home: Path) -> None:
    left = home / DEVICE / ".membership.json.0a1b2c3d"
    left.write_bytes(b"half a membership")
    assert about(checks.disk(home), f"disk of {home}").state == "ok", "somebody may be writing it"
    os.utime(left, (time.time() - 7200,) * 2)
    findings = [finding for finding in checks.disk(home) if finding.state == "warning"]
    assert [
        str(left) in finding.said and "have left 1 files" in finding.said for finding in findings
    ] == [True]


def test_folder_of_somebody_else_is_told_and_left_alone(
    stopped: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, access = home / MAIN, os.access

    def as_another_user(path: Any, mode: int) -> bool:
        inside = Path(path).is_relative_to(closed) and (Path(path) != closed or mode != os.F_OK)
        return not inside and access(path, mode)

    monkeypatch.setattr(os, "access", as_another_user)
    findings = list(doctor.examine(stopped))
    assert f"{closed} cannot be looked into from here." in about(iter(findings), "services").said
    assert not [finding for finding in findings if finding.where == f"keys of {MAIN}"]


def test_file_that_cannot_be_read_ends_one_check_only(
    stopped: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", "pictures/parcel")

    monkeypatch.setattr(checks_state.layout, "detectors", refuse)
    findings = list(doctor.examine(stopped))
    assert (
        about(iter(findings), "services").said
        == "pictures/parcel cannot be looked at: Permission denied."
    )
    assert about(iter(findings), f"address of {MAIN}").state == "ok"


# Cameras


def camera_finding(
    source: str, stopped: dict[str, str], url: str | None = None, **changed: str
) -> Finding:
    found = stopped | ({} if url is None else {"DOORBELL_DEVICE_URL": url}) | changed
    return about(cameras(Setup.read(found | {"DOORBELL_CAMERA": source})), "camera of device-1")


@pytest.fixture
def folder_camera(tmp_path: Path) -> Iterator[Camera]:
    """A real camera, whose process plays a folder that has nothing to play yet."""
    (tmp_path / "porch").mkdir()
    camera = Camera(str(tmp_path / "porch"))
    yield camera
    camera.stop()


def test_doctor_asks_the_running_device_whether_its_camera_gives_pictures(
    stopped: dict[str, str], folder_camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device.camera.camera._LONGEST_PAUSE_S", 0.1)
    here = device.context.Device.open(DeviceSettings.read(1, stopped))
    source = str(tmp_path / "porch")

    def asked() -> Finding:
        with answering(expose(lambda: gauges(here, folder_camera))) as url:
            return camera_finding(source, stopped, url)

    assert (asked().state, "none has tried yet" in asked().said) == ("ok", True)
    for gives, state, said in (
        (False, "wrong", f"It is {source}, and the device gets no picture from it."),
        (True, "ok", "It gives pictures."),
    ):
        if gives:
            cv2.imwrite(str(tmp_path / "porch" / "1.png"), np.full((48, 64, 3), 90, np.uint8))
        folder_camera.start()
        deadline = time.monotonic() + 20
        while folder_camera.gives_pictures() is not gives:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert (asked().state, asked().said) == (state, said)


@pytest.mark.parametrize(
    ("source", "state", "said"),
    [
        (
            "/nowhere/porch.mp4",
            "wrong",
            "There is no /nowhere/porch.mp4, as far as can be seen from here.",
        ),
        ("77", "wrong", "There is no /dev/video77, as far as can be seen from here."),
        ("ftp://admin:s3cr3t@host/x", "wrong", "DOORBELL_CAMERA is not a camera source."),
        (
            "rtsp://admin:s3cr3t@10.0.0.7/porch?pwd=s3cr3t",
            "ok",
            "It is rtsp://10.0.0.7/porch. No device tells",
        ),
        (str(PROJECT / "tests"), "ok", f"It is {PROJECT / 'tests'}. No device tells"),
    ],
    ids=["file", "number", "scheme", "address", "folder"],
)
def test_camera_of_a_device_that_does_not_run(
    source: str, state: str, said: str, stopped: dict[str, str]
) -> None:
    finding = camera_finding(source, stopped)
    assert finding.state == state and finding.said.startswith(said)
    assert "s3cr3t" not in f"{finding}"


def test_camera_that_the_services_user_may_not_read(
    stopped: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    (tmp_path / "video0").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK and access(path, mode))
    finding = camera_finding(str(tmp_path / "video0"), stopped)
    assert finding.state == "warning" and "in the group video" in finding.todo


def test_token_is_shown_to_a_device_of_this_machine_alone(stopped: dict[str, str]) -> None:
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(302)
            self.send_header("Location", f"http://0.0.0.0:{server.server_port}/metrics")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server, token = ThreadingHTTPServer(("127.0.0.1", 0), Handler), "the-operator-of-this-test"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for host in ("localhost", "0.0.0.0"):  # the second leads here too, but its name does not say so
        camera_finding(
            "rtsp://10.0.0.7/porch",
            stopped,
            f"http://{host}:{server.server_port}",
            DOORBELL_OPERATOR_TOKEN=token,
        )
    server.shutdown()
    server.server_close()
    assert seen == [f"Bearer {token}", None]


def test_device_without_a_camera_has_nothing_to_be_looked_at(stopped: dict[str, str]) -> None:
    assert list(cameras(Setup.read(stopped))) == []


# The services' own state


def spoil_key(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda home: (home / name).write_bytes(data) and None


@pytest.mark.parametrize(
    ("where", "spoil", "said"),
    [
        (
            MAIN,
            lambda home: (home / MAIN / "identity.key").chmod(0o640),
            "Others on this machine may read the secret",
        ),
        (
            MAIN,
            lambda home: (home / MAIN / "sealing.key").chmod(0o604),
            "Others on this machine may read the secret",
        ),
        (MAIN, lambda home: (home / MAIN / "sealing.key").unlink(), "sealing.key is not there"),
        (MAIN, spoil_key(f"{MAIN}/sealing.key", b"x"), "a sealing key has 96 bytes, not 1"),
        (
            AGGREGATOR,
            lambda home: (home / AGGREGATOR / "identity.key").unlink(),
            "identity.key is not there",
        ),
        (DEVICE, spoil_key(f"{DEVICE}/identity.key", b"x" * 31), "it has 31 bytes, not 32"),
        (
            DEVICE,
            spoil_key(f"{DEVICE}/identity.key.next", b"x"),
            "A change of key was not finished",
        ),
    ],
    ids=["open", "open-sealing", "no-sealing", "short-sealing", "none", "short", "half-changed"],
)
def test_key_that_cannot_be_used(
    where: str, spoil: Callable[[Path], None], said: str, stopped: dict[str, str], home: Path
) -> None:
    assert {finding.state for finding in checks_state.keys(Setup.read(stopped))} == {"ok"}
    spoil(home)
    finding = about(checks_state.keys(Setup.read(stopped)), f"keys of {where}")
    assert finding.state == ("warning" if "change" in said else "wrong")
    assert said in finding.said


def test_key_of_another_user_than_its_folder(
    stopped: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, stat = Setup.read(stopped), Path.stat

    def other_owner(path: Path, **options: bool) -> Any:
        found = stat(path, **options)
        return (
            os.stat_result([*found[:4], found.st_uid + 1, *found[5:]])
            if path.name == "identity.key"
            else found
        )

    monkeypatch.setattr(Path, "stat", other_owner)
    finding = about(checks_state.keys(setup), f"keys of {DEVICE}")
    assert "who cannot read it" in finding.said and finding.todo.startswith(
        "Run: chown --reference="
    )


def test_secret_that_gives_other_keys_than_those_on_the_disk(stopped: dict[str, str]) -> None:
    setup = Setup.read(stopped | {"DOORBELL_SECRET": "s" * 20})
    states = {
        finding.where: finding for finding in checks_state.keys(setup) if finding.state == "wrong"
    }
    assert set(states) == {f"keys of {MAIN}", f"keys of {AGGREGATOR}"}, "a device reads no secret"
    assert "DOORBELL_SECRET gives another key" in states[f"keys of {MAIN}"].said


def main_rows(home: Path, *statements: str) -> None:
    with closing(sqlite3.connect(home / MAIN / "state.sqlite3")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_database_of_an_older_version_names_the_upgrade(
    stopped: dict[str, str], home: Path
) -> None:
    for path in (home / MAIN).glob("state.sqlite3*"):
        path.unlink()
    old = Database.connect(home / MAIN, MIGRATIONS)
    with old.prepare() as (inside, connection):
        inside.migrate(connection, "0001")
    old.close()
    finding = about(checks_state.databases(Setup.read(stopped)), f"database of {MAIN}")
    assert finding.state == "wrong" and "python -m federation upgrade" in finding.todo
    assert "revision 0001" in finding.said
    assert about(memberships(Setup.read(stopped)), f"membership of {DEVICE}").state == "ok", (
        "what it says is not read"
    )


def test_database_of_a_newer_version_is_wrong(stopped: dict[str, str], home: Path) -> None:
    main_rows(home, "UPDATE alembic_version SET version_num = '9999'")
    finding = about(checks_state.databases(Setup.read(stopped)), f"database of {MAIN}")
    assert finding.state == "wrong" and "newer version (revision 9999" in finding.said


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_database_that_is_damaged(stopped: dict[str, str], home: Path) -> None:
    path = home / MAIN / "state.sqlite3"
    main_rows(home, "PRAGMA wal_checkpoint(TRUNCATE)")
    pages = path.stat().st_size // 4096
    with closing(sqlite3.connect(path)) as database:
        page = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'invitations'"
        ).fetchone()[0]
    assert 1 < page <= pages
    overwrite(path, (page - 1) * 4096, b"\xff" * 64)
    finding = about(checks_state.databases(Setup.read(stopped)), f"database of {MAIN}")
    assert finding.state == "wrong" and "is damaged" in finding.said and "restore" in finding.todo
    overwrite(path, 0, b"no database at all")
    finding = about(checks_state.databases(Setup.read(stopped)), f"database of {MAIN}")
    assert finding.state == "wrong" and "is damaged" in finding.said


def test_database_that_is_lost_is_told(stopped: dict[str, str], home: Path) -> None:
    for path in (home / DEVICE).glob("state.sqlite3*"):
        path.unlink()
    assert (
        about(checks_state.databases(Setup.read(stopped)), f"database of {DEVICE}").state
        == "warning"
    )


def test_clock_that_is_behind_the_newest_row(stopped: dict[str, str], home: Path) -> None:
    main_rows(home, f"UPDATE members SET joined_at = {time.time() + 3600}")
    finding = about(checks_state.databases(Setup.read(stopped)), f"database of {MAIN}")
    assert finding.state == "wrong" and "clock is 3,600 s behind" in finding.said


def test_postgresql_that_answers_is_empty_or_is_not_there(
    postgresql: Any, migrated: str, stopped: dict[str, str]
) -> None:
    def found(url: str, service: str = MAIN) -> Finding:
        return about(
            checks_state.databases(Setup.read(stopped | {"DATABASE_URL": url})),
            f"database of {service}",
        )

    with postgresql.database(migrated) as url:
        assert (found(url).state, "fits this version" in found(url).said) == ("ok", True)
    with postgresql.database() as url:
        assert (found(url).state, "is empty" in found(url).said) == ("ok", True)
    nowhere = f"postgresql://nobody@localhost:{free_ports(1)[0]}/none"
    assert (found(nowhere).state, "does not answer" in found(nowhere, AGGREGATOR).said) == (
        "wrong",
        True,
    )


def test_bucket_that_answers_and_one_that_refuses(
    stopped: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    lacking = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
    bucket = {"DOORBELL_BLOBS": "s3://bucket/doorbells"}

    def found(endpoint: str) -> Finding:
        setup = Setup.read(stopped | bucket | {"DOORBELL_S3_ENDPOINT": endpoint})
        return about(checks_state.blobs(setup), f"files of {MAIN}")

    with answering(lacking, status=404, kind="application/xml") as url:
        assert found(url) == Finding(f"files of {MAIN}", "ok", "s3://bucket/doorbells answers.")
    with answering(
        lacking.replace(b"NoSuchKey", b"AccessDenied"), status=403, kind="application/xml"
    ) as url:
        assert found(url).state == "wrong"


def test_blobs_that_cannot_be_written(
    stopped: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(checks_state.blobs(Setup.read(stopped))) == []
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != home / DEVICE / "blobs")
    assert about(checks_state.blobs(Setup.read(stopped)), f"files of {DEVICE}").state == "wrong"


@pytest.mark.parametrize(
    ("lost", "state", "said"),
    [
        ("parcel/client_1/valid/parcel/1.png", "warning", "in valid, the main server cannot ask"),
        ("parcel/client_1/test/not_parcel/1.png", "warning", "there are no figures of it"),
        ("parcel/client_1/train/parcel/1.png", "wrong", "it cannot train"),
        ("parcel/client_1", "warning", "There is no detector with a folder client_1"),
    ],
    ids=["valid", "test", "train", "all"],
)
def test_pictures_that_lack(
    lost: str, state: str, said: str, stopped: dict[str, str], home: Path
) -> None:
    finding = about(checks_state.pictures(Setup.read(stopped)), "pictures of device-1")
    assert (finding.state, finding.said) == ("ok", "parcel: train 2, valid 2, test 2.")
    path = home / "pictures" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    finding = about(checks_state.pictures(Setup.read(stopped)), "pictures of device-1")
    assert finding.state == state and said in finding.said


# Who has joined whom


def store_of(home: Path) -> Store:
    return Store.open(home / MAIN)


def revoke(home: Path) -> None:
    write(store_of(home), publication.revoke, "device-1", "It was sold.", time.time())


def forget(home: Path) -> None:
    main_rows(home, "DELETE FROM members WHERE name = 'device-1'")


def change_main(home: Path) -> None:
    (home / MAIN / "identity.key").write_bytes(b"another main server's key, of 32")


def mangle(home: Path) -> None:
    (home / DEVICE / "membership.json").write_text('{"name": 5}')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (revoke, "device-1 was revoked: It was sold."),
        (forget, "The main server knows nobody with the key of device-1."),
        (
            change_main,
            "It has joined another main server than the one on this machine: the keys differ.",
        ),
        (mangle, "membership.json is damaged, or cannot be read."),
    ],
    ids=["revoked", "forgotten", "other-main-server", "mangled"],
)
def test_device_whose_membership_is_worth_nothing(
    spoil: Callable[[Path], None], said: str, stopped: dict[str, str], home: Path
) -> None:
    assert (
        about(memberships(Setup.read(stopped)), f"membership of {DEVICE}").said
        == "It has joined, as device-1."
    )
    spoil(home)
    finding = about(memberships(Setup.read(stopped)), f"membership of {DEVICE}")
    assert finding.state == "wrong" and finding.said.endswith(said)


def test_other_main_server_is_told_where_its_database_cannot_be_read(
    stopped: dict[str, str], home: Path
) -> None:
    main_rows(home, "UPDATE alembic_version SET version_num = '9999'")
    change_main(home)
    assert (
        "the keys differ" in about(memberships(Setup.read(stopped)), f"membership of {DEVICE}").said
    )


def test_device_that_was_renamed_hears_of_it(stopped: dict[str, str], home: Path) -> None:
    write(store_of(home), rename, "device-1", "garden", time.time())
    finding = about(memberships(Setup.read(stopped)), f"membership of {DEVICE}")
    assert finding.state == "ok" and "The main server calls it garden" in finding.said


@pytest.mark.parametrize(
    "code", ["local", "none", "expired", "used up", "foreign", "for another role"]
)
def test_device_that_has_not_joined_needs_a_code_that_is_good(
    code: str, stopped: dict[str, str], home: Path
) -> None:
    (home / DEVICE / "membership.json").unlink()
    key_id = Identity.open(home / MAIN / "identity.key").key_id
    made = JoinCode.make(key_id)
    if code == "none":
        (home / MAIN / "local-join-code.device").unlink()
    if code in ("expired", "used up", "for another role"):
        role = "secure-aggregator" if code == "for another role" else "device"
        until = time.time() + (3600 if code != "expired" else -1)
        write(
            store_of(home),
            invite,
            Invitation(made.invitation, made.secret, role, int(code != "used up"), until),
        )  # type: ignore[arg-type]
    if code not in ("none", "local"):
        stopped = stopped | {"DOORBELL_JOIN_CODE": made.text}
    said = {
        "local": "It has not joined yet; it has a join code, and joins when it first needs to.",
        "none": "It has not joined, and there is no join code.",
        "expired": "It has not joined, and its join code is used up or has expired.",
        "used up": "It has not joined, and its join code is used up or has expired.",
        "foreign": "It has not joined, and its join code is none of this machine's main "
        "server for a device.",
    }
    finding = about(memberships(Setup.read(stopped)), f"membership of {DEVICE}")
    assert finding.said == said.get(code, said["foreign"])
    assert finding.state == ("ok" if code == "local" else "wrong")


def test_cohorts_that_so_few_devices_never_make(stopped: dict[str, str], home: Path) -> None:
    setup = Setup.read(stopped | {"DOORBELL_MIN_COHORT": "3", "DOORBELL_TARGET_COHORT": "4"})
    said = [finding.said for finding in memberships(setup) if finding.where == "settings"]
    assert said == [
        "DOORBELL_MIN_COHORT is 3, and 2 devices have joined: no round can end.",
        "DOORBELL_TARGET_COHORT is 4, and 2 devices have joined: every round waits for its "
        "deadline.",
    ]
    write(
        store_of(home), admit, "", MemberRecord("k", "x", "device", b"", 0.0, None), 0.0
    )  # by no code: nobody joins
    assert [
        finding for finding in memberships(Setup.read(stopped)) if finding.where == "settings"
    ] == []


# Over the network


def network_of(environ: dict[str, str], where: str) -> Finding:
    return about(network(Setup.read(environ)), where)


def test_port_that_somebody_has_who_does_not_answer(
    stopped: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks_network, "_TIMEOUT_S", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://localhost:{listener.getsockname()[1]}"
        finding = network_of(stopped | {"DOORBELL_AGGREGATOR_URL": url}, f"address of {AGGREGATOR}")
    assert finding.state == "wrong" and "is in use" in finding.said and "ss -ltnp" in finding.todo


@pytest.mark.parametrize(
    "body", [b"hello", b'{"service": 5}', b'["service"]'], ids=["text", "number", "list"]
)
def test_port_that_another_web_server_has(body: bytes, stopped: dict[str, str]) -> None:
    with answering(body) as url:
        finding = network_of(stopped | {"DOORBELL_AGGREGATOR_URL": url}, f"address of {AGGREGATOR}")
    assert finding.state == "wrong" and "not as a service of this project" in finding.said


def test_address_of_another_service(environ: dict[str, str]) -> None:
    crossed = environ | {"DOORBELL_AGGREGATOR_URL": environ["DOORBELL_MAIN_URL"]}
    finding = network_of(crossed, f"address of {AGGREGATOR}")
    assert (
        finding.state == "wrong"
        and "answers as Main server, not as Secure aggregator" in finding.said
    )


def test_main_server_elsewhere_that_does_not_answer(stopped: dict[str, str], home: Path) -> None:
    # no loopback address, though nobody is asked beyond this machine
    url = f"http://0.0.0.0:{free_ports(1)[0]}"
    assert network_of(stopped | {"DOORBELL_MAIN_URL": url}, f"address of {MAIN}").state == "wrong"


def test_without_an_aggregator_nobody_looks_for_it(stopped: dict[str, str], home: Path) -> None:
    shutil.rmtree(home / AGGREGATOR)
    assert network_of(stopped, f"address of {AGGREGATOR}").state == "warning"
    direct = Setup.read(stopped | {"DOORBELL_TOPOLOGY": "direct"})
    assert [finding for finding in network(direct) if AGGREGATOR in finding.where] == []


def test_main_server_that_should_be_here_and_never_ran(stopped: dict[str, str], home: Path) -> None:
    shutil.rmtree(home / MAIN)
    finding = network_of(stopped, f"address of {MAIN}")
    assert (
        finding.state == "warning" and "Services of this machine look for it there." in finding.said
    )


@pytest.mark.parametrize(
    ("off_s", "state"),
    [
        (0, "ok"),
        (WORRYING_S - 5, "ok"),
        (WORRYING_S + 5, "warning"),
        (-WORRYING_S - 5, "warning"),
        (CLOCK_TOLERANCE_S + 5, "wrong"),
        (-CLOCK_TOLERANCE_S - 5, "wrong"),
    ],
)
def test_clock_of_a_service_that_differs(off_s: float, state: str, stopped: dict[str, str]) -> None:
    with answering(health(), off_s) as url:
        finding = network_of(stopped | {"DOORBELL_AGGREGATOR_URL": url}, f"clock of {AGGREGATOR}")
    assert finding.state == state
    assert state == "ok" or ("ahead of" if off_s > 0 else "behind") in finding.said


def test_service_of_another_version(stopped: dict[str, str]) -> None:
    with answering(health(version="9.9")) as url:
        finding = network_of(stopped | {"DOORBELL_AGGREGATOR_URL": url}, f"version of {AGGREGATOR}")
    assert finding.state == "warning" and finding.said.startswith("It is of version 9.9; ")


def test_member_whose_key_the_main_server_does_not_know(
    environ: dict[str, str], home: Path
) -> None:
    shutil.rmtree(home / MAIN)  # as on a machine of its own
    (home / DEVICE / "identity.key").write_bytes(b"a key that nobody has seen yet..")
    finding = network_of(environ, f"standing of {DEVICE}")
    assert finding.state == "wrong" and "unknown key id" in finding.said


@pytest.mark.parametrize("who", [DEVICE, AGGREGATOR])
def test_main_server_that_is_not_the_one_that_was_joined(
    who: str, environ: dict[str, str], home: Path
) -> None:
    shutil.rmtree(home / MAIN)
    kept = json.loads((home / who / "membership.json").read_text())
    kept["main_public_key"] = "A" * 43 + "="
    (home / who / "membership.json").write_text(json.dumps(kept))
    finding = network_of(environ, f"standing of {who}")
    assert finding.state == "wrong" and "is not the main-server of this federation" in finding.said


def test_devices_that_cannot_be_called_matter_only_if_they_do_not_ask(
    environ: dict[str, str], home: Path
) -> None:
    nowhere = f"http://localhost:{free_ports(1)[0]}"
    assert (
        network_of(environ, "devices").said
        == "1 of 1 devices answer where they said they can be called."
    )
    write(store_of(home), note_device, Device("device-2", nowhere, time.time()), {})
    finding = network_of(environ, "devices")
    assert finding.state == "warning" and "device-2 do not" in finding.said
    main_rows(home, "UPDATE devices SET waiting = 1 WHERE name = 'device-2'")
    finding = network_of(environ, "devices")
    assert finding.state == "ok" and "device-2 ask for work by themselves." in finding.said


def test_every_documented_setting_is_known() -> None:
    page = (PROJECT / "docs" / "reference" / "settings.md").read_text()
    described = re.findall(r"^\| `(DOORBELL_\w+|DATABASE_URL)`", page, re.MULTILINE)
    assert len(described) > 50 and set(described) <= checks_settings.known_variables()
