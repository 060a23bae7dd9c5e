"""What contenders do when several threads of several processes try one step at once; see
`test_races.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import device.store.store
import main_server.store.store
import sec_agg.store.store
from device.store.records import Training
from main_server.store import members, publication, rounds, runs
from main_server.store.members import MemberRecord
from main_server.store.records import PASSED, Version
from main_server.store.runs import Run
from sec_agg.store.store import Stored
from shared.round.plan import RoundPlan
from shared.storage.nonces import open_nonces
from tests.main_store import write

NOW = 1_800_000_000.0
STORES: dict[str, Any] = {
    "main_server": main_server.store.store.Store.open,
    "sec_agg": sec_agg.store.store.Store,
    "device": device.store.store.DeviceStore,
}
THREADS = 4
_CONTENDERS: dict[str, Callable[..., Any]] = {}


def version(number: int, name: str, detector: str = "person") -> Version:
    return Version(name, detector, number, "porch-cnn", "signed", None, NOW)


def contender(step: Callable[..., Any]) -> Callable[..., Any]:
    """Make a step known by its name."""
    _CONTENDERS[step.__name__] = step
    return step


@contender
def publish(store: main_server.store.store.Store, me: int, current: RoundPlan) -> Any:
    return write(
        store,
        publication.publish,
        current,
        ("a", "b"),
        f"sum {me}",
        0,
        version(current.round, f"{me:064}"),
    ).aggregate


@contender
def judge(store: main_server.store.store.Store, me: int, judged: Version) -> Any:
    instead = version(judged.round + 1, f"{me:064}")
    return write(store, publication.judge, judged, PASSED, f"by {me}", NOW, instead)


@contender
def admit(store: main_server.store.store.Store, me: int, invitation: str) -> Any:
    return write(
        store,
        members.admit,
        invitation,
        MemberRecord(f"key {me}", f"device-{me}", "device", b"k" * 32, NOW, None),
        NOW,
    )


@contender
def start_run(store: main_server.store.store.Store, me: int, detector: str) -> Any:
    return write(store, runs.start_run, detector, me + 1, 1, NOW).id


@contender
def move_run(store: main_server.store.store.Store, me: int, run: Run) -> Any:
    return write(store, runs.move_run, run, "stopped", f"by {me}", NOW)


@contender
def open_round(store: main_server.store.store.Store, me: int, current: RoundPlan) -> Any:
    return write(store, rounds.add_round, current, NOW + me).plan.round


@contender
def make_due(store: main_server.store.store.Store, me: int, current: RoundPlan) -> Any:
    return write(store, rounds.make_due, current, NOW + me, "Everybody is there.")


@contender
def send_update(store: sec_agg.store.store.Store, me: int, current: RoundPlan) -> Any:
    return store.keep_update(
        current.detector, current.round, Stored(f"device-{me}", f"{me:064}", b"seed", "key"), NOW
    )


@contender
def freeze(
    store: sec_agg.store.store.Store, me: int, current: RoundPlan, seen: tuple[Stored, ...]
) -> Any:
    chosen = seen[me % 2 :]  # not all want the same cohort
    return store.freeze(
        current.detector, current.round, seen, {one.device: one.digest for one in chosen}
    )


@contender
def keep_sum(store: sec_agg.store.store.Store, me: int, current: RoundPlan) -> Any:
    return store.keep_sum(current.detector, current.round, f"sum {me}")


@contender
def hear_of_round(store: sec_agg.store.store.Store, me: int, current: RoundPlan) -> Any:
    return store.remember_round(current).state


@contender
def keep_update(store: device.store.store.DeviceStore, me: int, training: Training) -> Any:
    return store.trainings.keep_update(training, f"update {me}")


@contender
def spend(store: sec_agg.store.store.Store, me: int, spent: int) -> Any:
    nonces = open_nonces(store.database)
    return [nonces.spend("key", f"nonce {number}", int(NOW) + 600, NOW) for number in range(spent)]


@contender
def first_opening(store: Any, me: int) -> Any:
    return store.database.revision()


def run(
    step: str,
    service: str,
    folder: Path,
    url: str | None,
    place: int,
    processes: int,
    args: tuple[Any, ...],
) -> Any:
    """Open a store of one's own in this process, wait for the other processes, and try the step in
    every thread.
    """
    if step != "first_opening":
        store = STORES[service](folder, url)
    (folder / f"ready-{place}").touch()
    deadline = time.monotonic() + 60
    while len(list(folder.glob("ready-*"))) < processes and time.monotonic() < deadline:
        time.sleep(0.001)
    if step == "first_opening":
        store = STORES[service](folder, url)
    results: list[Any] = []
    start = threading.Barrier(THREADS)

    def work(me: int) -> None:
        start.wait(30)
        try:
            results.append(_CONTENDERS[step](store, me, *args))
        except Exception as error:
            results.append(error)

    threads = [
        threading.Thread(target=work, args=(place * THREADS + number,)) for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    store.database.close()
    return results
