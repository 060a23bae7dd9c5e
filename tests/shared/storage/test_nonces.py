"""A nonce is spent once, whoever else tries at the same moment, and is forgotten when it no longer
matters.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sec_agg.store.store import Store
from shared.storage.nonces import SWEEP_EVERY, Nonces, SharedNonces, open_nonces

NOW = 1_800_000_000.5
LATER = 1_800_000_600
NONCES, THREADS, PROCESSES = 40, 8, 2

RACER = """
import sys, threading
from pathlib import Path
from shared.storage.nonces import Nonces
nonces, won, start = Nonces(Path(sys.argv[1])), [], threading.Barrier(int(sys.argv[2]))
def work():
    start.wait()
    for number in range(int(sys.argv[3])):
        if nonces.spend("key", f"nonce {number}", 1_800_000_600, 1_800_000_000.5):
            won.append(number)
threads = [threading.Thread(target=work) for _ in range(int(sys.argv[2]))]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*won)
"""


def remembered(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "nonces.sqlite3")) as connection:
        return int(connection.execute("SELECT count(*) FROM nonces").fetchone()[0])


def test_nonce_is_spent_once(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    assert [nonces.spend("key", "nonce", LATER, NOW) for _ in range(3)] == [True, False, False]


def test_same_nonce_of_another_key_is_another_nonce(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    assert nonces.spend("a", "nonce", LATER, NOW)
    assert nonces.spend("b", "nonce", LATER, NOW)


def test_of_many_threads_and_processes_exactly_one_spends_each_nonce(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path), str(THREADS), str(NONCES)]
    racers = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(PROCESSES)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [int(number) for racer in racers for number in racer.communicate(timeout=60)[0].split()]
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    assert sorted(won) == list(range(NONCES))


@pytest.mark.parametrize("folder", range(60))
def test_new_folder_bears_many_first_openings_at_once(tmp_path: Path, folder: int) -> None:
    start, won = threading.Barrier(THREADS), []

    def work() -> None:
        with closing(Nonces(tmp_path / str(folder))) as nonces:
            start.wait(30)
            won.append(nonces.spend("key", "nonce", LATER, NOW))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * (THREADS - 1) + [True]


def test_restart_forgets_nothing(tmp_path: Path) -> None:
    Nonces(tmp_path).spend("key", "nonce", LATER, NOW)
    assert not Nonces(tmp_path).spend("key", "nonce", LATER, NOW)


def test_killed_process_forgets_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from shared.storage.nonces import Nonces;"
        f"Nonces(Path(sys.argv[1])).spend('key', 'nonce', {LATER}, {NOW}); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=False,
        cwd=Path(__file__).parents[3],
        timeout=60,
    )
    assert killed.returncode == -9
    assert not Nonces(tmp_path).spend("key", "nonce", LATER, NOW)


def test_forked_worker_opens_its_own_connection(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    assert nonces.spend("key", "parent", LATER, NOW)
    worker = os.fork()
    if worker == 0:
        inherited = nonces._connection
        good = not nonces.spend("key", "parent", LATER, NOW) and nonces.spend(
            "key", "child", LATER, NOW
        )
        good &= nonces._connection is not inherited
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0
    assert not nonces.spend("key", "child", LATER, NOW)


def test_nonce_is_remembered_until_its_request_is_refused_for_its_age(tmp_path: Path) -> None:
    Nonces(tmp_path).spend("key", "nonce", LATER, NOW)
    assert not Nonces(tmp_path).spend(
        "key", "nonce", LATER, float(LATER)
    )  # a new one sweeps before it spends
    assert Nonces(tmp_path).spend("key", "nonce", LATER, LATER + 0.001)


def test_memory_does_not_grow_for_ever(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    for second in range(10 * SWEEP_EVERY):
        nonces.spend("key", str(second), LATER + second, NOW + second)
    assert remembered(tmp_path) < 2 * SWEEP_EVERY + LATER - NOW


def test_no_request_waits_for_the_disk(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    nonces.spend("key", "nonce", LATER, NOW)
    assert nonces._connection
    assert nonces._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert nonces._connection.execute("PRAGMA synchronous").fetchone() == (1,)


def test_closing_is_harmless(tmp_path: Path) -> None:
    nonces = Nonces(tmp_path)
    nonces.close()
    assert nonces.spend("key", "nonce", LATER, NOW)
    nonces.close()
    assert not nonces.spend("key", "nonce", LATER, NOW)


@given(tries=st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=3))))
@settings(deadline=None, max_examples=30)
def test_spending_agrees_with_a_set(tries: list[tuple[str, str]]) -> None:
    spent: set[tuple[str, str]] = set()
    with TemporaryDirectory() as folder, closing(Nonces(Path(folder))) as nonces:
        for attempt in tries:
            assert nonces.spend(*attempt, LATER, NOW) is (attempt not in spent)
            spent.add(attempt)


@pytest.fixture
def shared_nonces(tmp_path: Path, database_url: str) -> Iterator[SharedNonces]:
    store = Store(tmp_path, database_url)
    nonces = open_nonces(store.database)
    assert isinstance(nonces, SharedNonces)
    yield nonces
    store.database.close()


ON_POSTGRESQL = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@ON_POSTGRESQL
def test_shared_nonce_is_spent_once_per_key_and_until_it_expires(
    shared_nonces: SharedNonces,
) -> None:
    assert [shared_nonces.spend("a", "nonce", LATER, NOW) for _ in range(3)] == [True, False, False]
    assert shared_nonces.spend("b", "nonce", LATER, NOW)
    shared_nonces._calls = 0  # as after a restart: a new one sweeps before it spends
    assert not shared_nonces.spend("a", "nonce", LATER, float(LATER))
    shared_nonces._calls = 0
    assert shared_nonces.spend("a", "nonce", LATER, LATER + 0.001)


@ON_POSTGRESQL
def test_shared_memory_does_not_grow_for_ever(shared_nonces: SharedNonces) -> None:
    for second in range(SWEEP_EVERY + 1):
        shared_nonces.spend("key", str(second), int(NOW) + second, NOW + 2 * second)
    with shared_nonces._database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM nonces").scalar() == 1


@ON_POSTGRESQL
def test_sweeping_and_spending_at_once_end_well(shared_nonces: SharedNonces) -> None:
    start, won = threading.Barrier(THREADS), []

    def work(me: int) -> None:
        start.wait(30)
        for number in range(40):
            shared_nonces._calls = 0
            won.append(shared_nonces.spend("key", f"{number}", LATER, LATER + number % 2))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == THREADS * 40


def test_service_on_one_machine_keeps_its_nonces_in_its_folder(tmp_path: Path) -> None:
    assert isinstance(open_nonces(Store(tmp_path).database), Nonces)
