"""Disks and databases that fail under real services: a clear sentence each time, and everything
kept.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests

from main_server.store.contributions import plain_updates
from main_server.store.devices import all_devices
from main_server.store.members import all_members
from main_server.store.rounds import newest_round
from main_server.store.store import Store
from shared.errors import DoorbellError, StorageFailed, StorageUnavailable
from shared.round.plan import RoundPlan, parse_round_plan
from shared.security.identity import Identity
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient
from tests.e2e.conftest import Federation, MakeFederation
from tests.main_store import read
from tests.ports import free_port
from tests.updates import plain_update

PROJECT = Path(__file__).resolve().parents[2]
LIKE_ANYBODY = (
    ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
)
MODULES = [["main_server"], ["sec_agg"], ["device", "--id", "1"]]


def start_in_vain(home: Path, module: list[str], port: int | None = None, **variables: str) -> str:
    """Start a service that cannot start, and return what it says."""
    command = [
        *LIKE_ANYBODY,
        sys.executable,
        "-m",
        *module,
        "--bind",
        f"localhost:{port or free_port()}",
    ]
    environment = {**os.environ, "DOORBELL_HOME": str(home), **variables}
    ended = subprocess.run(
        command,
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0 and "Traceback" not in ended.stderr
    return ended.stderr


class Member:
    """A device that has joined a main server over real HTTP."""

    def __init__(self, federation: Federation, name: str) -> None:
        self.name, self.url = name, federation.url("main")
        folder = federation.home / "devices" / name
        identity = Identity.open(folder / "identity.key")
        http = HttpClient(identity, 10, 1)
        codes = federation.home / "main-server"
        self.enrolment = Enrolment(identity, "device", name, folder, self.url, http, None, codes)

    def announce(self) -> RoundPlan:
        message = {"address": f"http://{self.name}", "detectors": {"person": None}}
        reply = self.enrolment.http.post_json(
            f"{self.url}/clientstatus", message, self.enrolment.main()
        )
        return parse_round_plan(reply.json["rounds"]["person"])

    def send(self) -> str:
        """Send a plain update, and return what is said."""
        current = self.announce()
        body = plain_update(
            np.full(current.size, 0.01, np.float32), 10, current, self.name
        ).to_bytes()
        reply = self.enrolment.http.post(f"{self.url}/cmodel", body, self.enrolment.main())
        return str(reply.json["said"])


@pytest.fixture(scope="module")
def direct(make_federation: MakeFederation) -> Federation:
    return make_federation("main", DOORBELL_TOPOLOGY="direct", DOORBELL_ARCHITECTURE="porch-cnn")


def worker_of(federation: Federation) -> psutil.Process:
    (worker,) = psutil.Process(federation.processes["main"].pid).children()
    return worker


def kept(federation: Federation) -> tuple[Any, ...]:
    store = Store.open(federation.home / "main-server")
    try:
        with store.read() as connection:
            newest = newest_round(connection, "person")
            updates = plain_updates(connection, newest.plan) if newest else {}
            return all_members(connection), newest, updates
    finally:
        store.database.close()


def test_full_disk_is_said_and_nothing_is_lost(direct: Federation) -> None:
    one, two = Member(direct, "one"), Member(direct, "two")
    assert "is kept" in one.send()
    two.announce()
    before, worker = kept(direct), worker_of(direct)
    worker.rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    try:
        with pytest.raises(
            DoorbellError, match=r"No message can be taken.*What was stored before is kept"
        ) as failed:
            two.announce()
        assert str(direct.home) not in str(failed.value)
        assert requests.get(direct.url("main", "/healthz"), timeout=5).ok
    finally:
        worker.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert kept(direct) == before
    assert "is kept" in two.send()
    assert set(kept(direct)[2]) == {"one", "two"} and worker_of(direct) == worker


def test_database_on_a_full_disk_says_so(tmp_path: Path) -> None:
    program = (
        "import resource, sys\nfrom pathlib import Path\nfrom main_server.store.devices import note_device\n"
        "from main_server.store.records import Device\n"
        "from main_server.store.store import Store\n"
        "store = Store.open(Path(sys.argv[1]))\nresource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
        "try:\n    with store.write() as it: note_device(it, Device('a', 'http://a', 1.0), {'person': None})\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    Store.open(tmp_path).database.close()
    said = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (
        said.stdout.startswith(StorageFailed.__name__)
        and "What was stored before is kept." in said.stdout
    )
    assert read(Store.open(tmp_path), all_devices) == ()


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder that may be read and not written."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module[0])
def test_service_whose_folder_cannot_be_made_says_so(
    closed: Path, tmp_path: Path, module: list[str]
) -> None:
    said = start_in_vain(closed, module)
    assert str(closed) in said and "What was stored before is kept" in said
    assert "own its folder" in said or "Give this service's user the right to it" in said
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}" in start_in_vain(tmp_path / "file" / "home", module)


def test_database_that_may_not_be_written_says_so(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom main_server.store.devices import note_device\n"
        "from main_server.store.records import Device\n"
        "from main_server.store.store import Store\n"
        "store = Store.open(Path(sys.argv[1]))\nstore.database.close()\n"
        "for path in Path(sys.argv[1]).iterdir(): path.chmod(0o400)\nPath(sys.argv[1]).chmod(0o500)\n"
        "try:\n    with store.write() as it: note_device(it, Device('a', 'http://a', 1.0), {'person': None})\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    said = subprocess.run(
        [*LIKE_ANYBODY, sys.executable, "-c", program, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    tmp_path.chmod(0o700)
    assert said.stdout.startswith(StorageFailed.__name__), said.stdout
    assert "cannot be written" in said.stdout or "cannot be opened" in said.stdout
    assert "this service's user" in said.stdout


def test_postgresql_may_go_and_come_back_while_services_run(
    postgresql: Any, make_federation: MakeFederation
) -> None:
    with postgresql.database() as url:
        federation = make_federation(
            "main", DATABASE_URL=url, DOORBELL_TOPOLOGY="direct", DOORBELL_ARCHITECTURE="porch-cnn"
        )
        one, two = Member(federation, "one"), Member(federation, "two")
        assert "is kept" in one.send()
        worker = worker_of(federation)
        postgresql.stop()
        try:
            with pytest.raises(
                DoorbellError,
                match=r"on PostgreSQL does not answer\. What was stored before is kept",
            ):
                one.announce()
            step = federation.step("main", "/aggregate_models")
            assert step.status_code == StorageUnavailable.status and "does not answer" in step.text
            said = start_in_vain(federation.home / "other", ["main_server"], DATABASE_URL=url)
            assert "on PostgreSQL does not answer" in said and "fix DATABASE_URL" in said
        finally:
            postgresql.start()
        assert "is kept" in two.send()
        assert "Round 1 is finished" in federation.done("main", "/aggregate_models")
        assert worker_of(federation) == worker
        federation.stop("main")


def test_second_copy_on_the_same_port_is_named(direct: Federation, tmp_path: Path) -> None:
    said = start_in_vain(tmp_path, ["main_server"], direct.ports["main"])
    assert "a copy of this service may be running" in said and "Booting worker" not in said
    assert requests.get(direct.url("main", "/healthz"), timeout=5).ok
    assert not (tmp_path / "main-server").exists()


@pytest.mark.parametrize(
    ("off", "said"), [(-3600, "its sender's clock is slow"), (3600, "the sender's is ahead")]
)
def test_clock_that_is_an_hour_off_is_named_and_harms_nothing(
    direct: Federation, off: int, said: str
) -> None:
    member = Member(direct, f"late{off % 7}")
    member.announce()
    before = kept(direct)
    wrong = HttpClient(member.enrolment.identity, 10, 1, clock=lambda: time.time() + off)
    with pytest.raises(DoorbellError, match=said):
        wrong.post_json(
            f"{member.url}/clientstatus",
            {"address": "http://x", "detectors": {}},
            member.enrolment.main(),
        )
    assert kept(direct) == before
    member.announce()
