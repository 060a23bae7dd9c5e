"""Who may press the buttons, over real sockets: on this machine without a token, elsewhere with
one, or not at all.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.e2e.conftest import Federation, MakeFederation
from tests.ports import free_port

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = "correct-horse-battery-staple"
STEP = "/send_model_clients"
NOT_READY = "No device has announced itself yet."


def _gunicorn(home: Path, bind: str, **variables: str) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("gunicorn")), "--bind", bind, "wsgi3:app"]
    environment = {**os.environ, "DOORBELL_HOME": str(home), **variables}
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _wait_until_up(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/healthz", timeout=2).ok:
                return
        time.sleep(0.05)
    raise AssertionError("the service did not start")


@pytest.fixture(scope="module")
def local(make_federation: MakeFederation) -> Federation:
    return make_federation("main")


@pytest.fixture(scope="module")
def reachable(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A main server on every address, with a token."""
    port = free_port()
    process = _gunicorn(
        tmp_path_factory.mktemp("home"), f"0.0.0.0:{port}", DOORBELL_OPERATOR_TOKEN=TOKEN
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(url, process)
        yield url, process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("bind", ["0.0.0.0:{port}", "[::]:{port}", ":{port}"])
def test_service_does_not_start_where_others_reach_it_without_a_token(
    tmp_path: Path, bind: str
) -> None:
    port = free_port()
    process = _gunicorn(tmp_path / "home", bind.format(port=port), DOORBELL_OPERATOR_TOKEN="")
    _, said = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert "without DOORBELL_OPERATOR_TOKEN, as other machines could press its buttons" in said
    assert "Traceback" not in said and "Listening at" not in said and "Booting worker" not in said
    assert not (tmp_path / "home").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_unusable_token_stops_the_service_and_is_not_shown(tmp_path: Path) -> None:
    process = _gunicorn(
        tmp_path, f"localhost:{free_port()}", DOORBELL_OPERATOR_TOKEN="hunter2-hunter2"
    )
    _, said = process.communicate(timeout=30)
    assert process.returncode not in (0, None)
    assert (
        "DOORBELL_OPERATOR_TOKEN cannot be used" in said
        and "hunter2" not in said
        and "Traceback" not in said
    )


def test_unix_socket_is_local(tmp_path: Path) -> None:
    path = tmp_path / "main.sock"
    process = _gunicorn(tmp_path, f"unix:{path}", DOORBELL_OPERATOR_TOKEN="")
    try:
        command = [
            "curl",
            "-sS",
            "--retry",
            "60",
            "--retry-all-errors",
            "--retry-delay",
            "1",
            "--unix-socket",
            str(path),
        ]
        https = [
            "-H",
            "X-Forwarded-Proto: https",
            "-i",
        ]  # a proxy of which nobody told the service is not believed
        run = subprocess.run(
            [*command, *https, f"http://localhost{STEP}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert NOT_READY in run.stdout and "Strict-Transport-Security" not in run.stdout
        run = subprocess.run(
            [*command[:2], *command[7:], f"http://evil.example{STEP}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "answers to the name localhost only" in run.stdout
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_plain_curl_needs_nothing_on_this_machine(local: Federation) -> None:
    for more in ([], ["-X", "POST"]):
        run = subprocess.run(
            ["curl", "-sS", *more, local.url("main", STEP)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.startswith(NOT_READY)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example"},
        {"Sec-Purpose": "prefetch"},
        {"X-Forwarded-For": "127.0.0.1"},
    ],
)
def test_other_sites_other_names_prefetches_and_proxies_are_refused(
    local: Federation, method: str, headers: dict[str, str]
) -> None:
    response = requests.request(method, local.url("main", STEP), headers=headers, timeout=30)
    assert response.status_code == 403 and NOT_READY not in response.text


def test_messages_of_other_services_pass(
    local: Federation, reachable: tuple[str, subprocess.Popen[str]]
) -> None:
    for url in (local.url("main"), reachable[0]):
        headers = {"Accept": "application/json", "Host": "main.example.org"}
        problem = requests.post(f"{url}/clientstatus", data=b"", headers=headers, timeout=30).json()
        assert problem["type"] not in (
            "urn:doorbell:problem:refused",
            "urn:doorbell:problem:login-required",
        )


def test_with_a_token_nothing_is_done_without_it(
    reachable: tuple[str, subprocess.Popen[str]],
) -> None:
    url, _ = reachable
    response = requests.post(url + STEP, timeout=30)
    assert response.status_code == 401 and response.headers["WWW-Authenticate"] == "Bearer"
    assert NOT_READY not in response.text
    page = requests.get(url, headers={"Accept": "text/html"}, timeout=30)
    assert (
        page.status_code == 401
        and 'action="/login"' in page.text
        and "Keeps the global models" not in page.text
    )


def test_bearer_works_with_curl(
    reachable: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    header = tmp_path / "header"
    header.write_text(f"Authorization: Bearer {TOKEN}\n")
    command = [
        "curl",
        "-sS",
        "-w",
        "%{http_code}",
        "-H",
        f"@{header}",
        "-H",
        "Accept: text/html",
        f"{reachable[0]}/",
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.endswith("200") and "Keeps the global models" in run.stdout


def test_login_lasts_for_the_session_and_ends_with_logout(
    reachable: tuple[str, subprocess.Popen[str]],
) -> None:
    url, _ = reachable
    browser = {"Accept": "text/html", "Sec-Fetch-Site": "same-origin", "Origin": url}
    with requests.Session() as session:
        assert (
            session.post(
                f"{url}/login", data={"token": "x" * 30}, headers=browser, timeout=30
            ).status_code
            == 401
        )
        page = session.post(f"{url}/login", data={"token": TOKEN}, headers=browser, timeout=30)
        assert (page.status_code, page.url) == (
            200,
            f"{url}/",
        ) and "Keeps the global models" in page.text
        assert NOT_READY in session.post(url + STEP, headers=browser, timeout=30).text
        other = session.post(
            url + STEP, headers=browser | {"Sec-Fetch-Site": "cross-site"}, timeout=30
        )
        assert other.status_code == 403
        session.post(f"{url}/logout", headers=browser, timeout=30)
        assert session.get(url + STEP, timeout=30).status_code == 401


def test_token_is_in_no_process_arguments(reachable: tuple[str, subprocess.Popen[str]]) -> None:
    master = psutil.Process(reachable[1].pid)
    processes = [master, *master.children(recursive=True)]
    assert len(processes) >= 2
    assert all(TOKEN not in " ".join(process.cmdline()) for process in processes)


def test_oversized_address_and_headers_are_refused(local: Federation) -> None:
    long = requests.get(local.url("main", "/healthz?" + "x" * 3000), timeout=30)
    many = requests.get(
        local.url("main", "/healthz"), headers={f"X-{n}": "y" for n in range(70)}, timeout=30
    )
    large = requests.get(local.url("main", "/healthz"), headers={"X-Large": "y" * 9000}, timeout=30)
    assert [response.status_code // 100 for response in (long, many, large)] == [4, 4, 4]
