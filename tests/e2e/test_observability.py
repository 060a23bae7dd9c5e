"""Figures and logs of real gunicorn processes: counted once over all workers, also those that are
gone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Federation, MakeFederation

PROJECT = Path(__file__).resolve().parents[2]
WORKERS, ASKED = 3, 60


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers of the main server count."""
    return tmp_path_factory.mktemp("counted")


@pytest.fixture(scope="module")
def main(make_cold_federation: MakeFederation, counted: Path) -> Federation:
    """A main server of several workers, which logs JSON."""
    variables = {
        "WEB_CONCURRENCY": str(WORKERS),
        "PROMETHEUS_MULTIPROC_DIR": str(counted),
        "DOORBELL_LOG": "json",
    }
    return make_cold_federation("main", **variables)


def told(main: Federation, name: str, **labels: str) -> float:
    text = requests.get(main.url("main", "/metrics"), timeout=10).text
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())


def workers(main: Federation) -> list[psutil.Process]:
    return list(psutil.Process(main.processes["main"].pid).children())


def test_requests_are_counted_over_all_workers_and_their_deaths(
    main: Federation, counted: Path
) -> None:
    def ask(times: int) -> None:
        for number in range(times):  # each over a connection of its own
            name = f"ask-{number}"
            answer = requests.get(
                main.url("main", "/status"), headers={"X-Request-ID": name}, timeout=10
            )
            assert answer.headers["X-Request-ID"] == name
            requests.get(main.url("main", "/nowhere"), timeout=10)

    ask(ASKED)
    before = workers(main)
    assert len(before) == WORKERS
    assert told(main, "doorbell_http_requests_total", endpoint="status", status="200") == ASKED
    before[0].kill()
    deadline = time.monotonic() + 30
    while len(now := workers(main)) < WORKERS or before[0] in now:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ask(ASKED)
    assert told(main, "doorbell_http_requests_total", endpoint="status", status="200") == 2 * ASKED
    assert told(main, "doorbell_http_request_seconds_count", endpoint="status") == 2 * ASKED
    assert told(main, "doorbell_refusals_total", reason="http-404") == 2 * ASKED
    assert told(main, "doorbell_devices") == 0
    files = list(counted.glob("*/*.db"))
    assert len({path.stem.partition("_")[2] for path in files}) == WORKERS + 1, (
        "more than one of them counted"
    )
    assert all(path.stat().st_blocks * 512 >= 1 << 17 for path in files), (
        "a disk that is full later is no matter"
    )
    (folder,) = counted.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_log_is_json_but_for_gunicorns_first_line(main: Federation) -> None:
    requests.get(
        main.url("main", "/status?token=a-secret"), headers={"X-Request-ID": "log-1"}, timeout=10
    )
    first, *lines = main.log("main").splitlines()
    assert "Starting gunicorn" in first
    said = [json.loads(line) for line in lines]
    assert {"Main server", "gunicorn"} == {line["service"] for line in said}
    assert [line["path"] for line in said if line["request"] == "log-1"] == ["/status"]
    assert "a-secret" not in main.log("main")


def test_nothing_is_left_of_a_service_that_was_killed_or_stopped(
    main: Federation, counted: Path
) -> None:
    (killed,) = counted.iterdir()
    main.stop("main", sig=signal.SIGKILL)
    assert list(counted.iterdir()) == [killed]
    os.utime(killed, (0, 0))
    main.start("main")
    (mine,) = counted.iterdir()
    assert mine != killed and told(main, "doorbell_http_requests_total", endpoint="status") == 0
    os.utime(mine, (0, 0))
    main.start("device1")  # it leaves alone what a living service counts in
    assert len(list(counted.iterdir())) == 2
    main.stop("device1", "main")
    assert list(counted.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "DOORBELL_LOG",
            "xml",
            "DOORBELL_LOG cannot be 'xml': it must be 'text' or 'json'. The service was not started.",
        ),
        (
            "PROMETHEUS_MULTIPROC_DIR",
            "/nowhere/at/all",
            "No folder for /metrics can be made: /nowhere/at/all",
        ),
    ],
    ids=["log", "metrics"],
)
def test_service_that_could_not_log_or_count_says_why_and_does_not_start(
    main: Federation, tmp_path: Path, variable: str, value: str, said: str
) -> None:
    command = [
        str(Path(sys.executable).with_name("gunicorn")),
        "--bind",
        f"localhost:{main.ports['device1']}",
    ]
    environment = main.environment | {"DOORBELL_HOME": str(tmp_path), variable: value}
    run = subprocess.run(
        [*command, "wsgi3:app"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode != 0 and said in run.stderr and "Traceback" not in run.stderr
