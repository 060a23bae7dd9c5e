"""How fast the pages come and how heavy they are, when a federation has a long past.

The databases of both servers are filled with what 100 devices and 1,000 rounds leave there, after
old things were let go of; the processes are real.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urljoin

import numpy as np
import requests
from msgspec import structs
from playwright.sync_api import sync_playwright

from benchmarks.figure import Figure
from benchmarks.services import services
from dataset.porch import drawing as porch
from main_server.context import MainServer
from main_server.models.pruning import KEPT_ROUNDS
from main_server.rounds.opening import open_round
from main_server.settings import MainSettings
from sec_agg.pruning import LISTED_ROUNDS
from sec_agg.settings import AggregatorSettings
from sec_agg.store.store import Store
from shared.round.plan import RoundPlan
from shared.storage.blobs import BlobStore
from shared.storage.database import Database
from tests.updates import masked_update

DETECTORS, DEVICES, ROUNDS, EVENTS = ("animal", "package", "person", "vehicle"), 100, 250, 10_000
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
PAINTS = 9
TIMES, LIMIT_MS, LIMIT_BYTES = 30, 100, 150_000
HTML = {"Accept": "text/html"}
_LOADED = re.compile(r'(?:src|<link[^>]* href)="([^"]+)"')

Rows = Iterator[dict[str, Any]]


def figures() -> list[Figure]:
    """Fill the databases, start the services, and ask for their pages."""
    with TemporaryDirectory() as folder:
        home, data = Path(folder) / "home", Path(folder) / "pictures"
        porch.write_default(data)
        variables = {"DOORBELL_HOME": str(home), "DOORBELL_DATA": str(data)}
        _fill(variables)
        with services(home, variables, "main server", "aggregator", "device 1") as addresses:
            answers = [
                figure for name, address in addresses.items() for figure in _page(name, address)
            ]
            return [*answers, *_first_paints(addresses)]


def _page(name: str, address: str) -> list[Figure]:
    session, seconds = requests.Session(), []
    for _ in range(TIMES + 1):
        begun = time.perf_counter()
        page = session.get(f"{address}/", headers=HTML, timeout=60)
        seconds.append(time.perf_counter() - begun)
        page.raise_for_status()
    median, slowest = (
        statistics.median(seconds[1:]) * 1e3,
        max(seconds[1:]) * 1e3,
    )  # the first one reads the templates
    loaded = {
        urljoin(address, unescape(each))
        for each in _LOADED.findall(page.text)
        if not each.startswith("data:")
    }
    others = sum(len(session.get(each, timeout=60).content) for each in loaded)
    whole = len(page.content) + others
    return [
        Figure(
            f"{name}: its page, median and slowest of {TIMES}",
            f"{median:.0f} ms, {slowest:.0f} ms",
            f"<= {LIMIT_MS} ms",
            slowest <= LIMIT_MS,
        ),
        Figure(
            f"{name}: page alone, and with all {len(loaded)} that it loads",
            f"{len(page.content) / 1e3:.1f} kB, {whole / 1e3:.1f} kB",
            f"<= {LIMIT_BYTES / 1e3:.0f} kB",
            whole <= LIMIT_BYTES,
        ),
    ]


def _first_paints(addresses: Mapping[str, str]) -> list[Figure]:
    """Open each page in a warm Chromium, and ask it when the first contents were painted."""
    chromium = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    )
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, address in addresses.items():
            page, paints = browser.new_page(), []
            for _ in range(PAINTS + 1):
                page.goto(address)
                while (paint := page.evaluate(_PAINTED)) is None:
                    page.wait_for_timeout(5)
                paints.append(paint)
            page.close()
            median = statistics.median(paints[1:])
            found.append(
                Figure(
                    f"{name}: first contents painted, median of {PAINTS}",
                    f"{median:.0f} ms",
                    f"<= {LIMIT_MS} ms",
                    median <= LIMIT_MS,
                )
            )
        browser.close()
    return found


def _fill(variables: Mapping[str, str]) -> None:
    server = MainServer.open(MainSettings.read(variables))
    opened = [open_round(server, detector) for detector in DETECTORS]
    _replace(server.store.database, _main_rows(opened, server.clock()))
    server.store.database.close()
    mine = AggregatorSettings.read(variables)
    store, rng = Store(mine.folder), np.random.default_rng(0)
    body = masked_update(
        np.zeros(opened[0].size, np.float32), 1, opened[0], "device-000", rng
    ).to_bytes()
    digest = BlobStore(mine.folder / "blobs").put(body)
    _replace(store.database, _aggregator_rows(opened, digest, server.clock()))
    store.database.close()


def _replace(database: Database, rows: Mapping[str, Rows]) -> None:
    with database.write() as connection:
        for name, table in database.tables(connection).items():
            if name in rows:
                connection.execute(table.delete())
                database.fill(connection, table, rows[name])


def _names(count: int = DEVICES) -> Iterator[str]:
    return (f"device-{number:03}" for number in range(count))


def _main_rows(opened: list[RoundPlan], now: float) -> dict[str, Rows]:
    """Return the rows of the main server's tables: every round is over but each detector's newest,
    which waits.
    """
    rng = np.random.default_rng(1)
    versions = {each.detector: [secrets.token_hex(32) for _ in range(ROUNDS)] for each in opened}
    listed = range(ROUNDS - KEPT_ROUNDS + 1, ROUNDS + 1)
    cohort = '["' + '", "'.join(_names()) + '"]'
    said = "97.2% before, 97.3% after, on 2400 validation pictures of 100 devices."

    def when(number: int) -> float:
        return now - 60.0 * (ROUNDS - number)

    def round_row(each: RoundPlan, number: int) -> dict[str, Any]:
        over = number < ROUNDS
        settings, who = (
            structs.replace(each, round=number).to_json(),
            cohort if over else "[]",
        )
        return {
            "detector": each.detector,
            "round": number,
            "settings": json.dumps(settings),
            "vouched": who,
            "state": "published" if over else "open",
            "cohort": who,
            "clamped": 0,
            "opened_at": when(number),
            "asked_at": when(number),
            "closed_at": when(number) + 42.5 if over else None,
            "bytes_up": 340_000,
            "bytes_down": 33_000_000,
        }

    def version_row(each: RoundPlan, number: int) -> dict[str, Any]:
        return {
            "version": versions[each.detector][number],
            "detector": each.detector,
            "round": number,
            "architecture": each.architecture,
            "manifest": "m" * 700,
            "made_at": when(number),
            "gate": "passed",
            "released_at": when(number),
            "said": said,
            "forgotten": number < ROUNDS - 20,
            "scored_by": DEVICES,
            "accuracy": 1 - 0.4 / (1 + number / 20) - 0.02 * rng.random(),
            "scored_pictures": 2400,
        }

    def event_row(number: int) -> dict[str, Any]:
        name, detector = f"device-{number % DEVICES:03}", DETECTORS[number % len(DETECTORS)]
        event = {
            "id": number + 1,
            "at": now - EVENTS + number,
            "kind": "sent",
            "detector": detector,
            "round": ROUNDS,
        }
        return event | {"device": name, "said": f"{name} has sent its update for round {ROUNDS}."}

    numbers = [(each, number) for each in opened for number in range(1, ROUNDS + 1)]
    return {
        "devices": (
            {
                "name": name,
                "address": f"http://{name}.example:8001",
                "last_seen": now - at,
                "waiting": True,
            }
            for at, name in enumerate(_names())
        ),
        "participations": (
            {
                "device": name,
                "detector": each.detector,
                "trained_round": ROUNDS - 1,
                "delivered": versions[each.detector][-1],
            }
            for each in opened
            for name in _names()
        ),
        "rounds": (round_row(each, number) for each, number in numbers),
        "versions": (version_row(each, number - 1) for each, number in numbers),
        "contributions": (
            {
                "detector": each.detector,
                "round": number,
                "device": name,
                "sent_at": when(number) + 9,
            }
            for each in opened
            for number in listed
            for name in _names(DEVICES if number < ROUNDS else DEVICES // 2)
        ),
        "scores": (
            {"version": version, "device": name, "accuracy": 0.97, "pictures": 24}
            for each in opened
            for version in versions[each.detector][-20:]
            for name in _names()
        ),
        "runs": (
            {
                "id": at,
                "detector": each.detector,
                "rounds": 2 * ROUNDS,
                "first_round": 1,
                "state": "stopped",
                "said": "Stopped by the operator.",
                "started_at": now,
            }
            for at, each in enumerate(opened, 1)
        ),
        "events": (event_row(number) for number in range(EVENTS)),
    }


def _aggregator_rows(opened: list[RoundPlan], digest: str, now: float) -> dict[str, Rows]:
    """Return the rows of the aggregator's tables: the newest round of each detector is open, and
    half have sent.
    """

    def round_row(each: RoundPlan, number: int) -> dict[str, Any]:
        shared = ("detector", "base_version", "size", "min_cohort", "cohort_cap")
        over = number < ROUNDS
        state = (
            {"state": "summed", "aggregate": "f" * 64}
            if over
            else {"state": "open", "aggregate": None}
        )
        return (
            {name: getattr(each, name) for name in shared}
            | {"round": number, "delivered": over}
            | state
        )

    def update_row(each: RoundPlan, number: int, name: str) -> dict[str, Any]:
        kept = (
            {"digest": digest, "sealed_seed": b"s" * 80}
            if number == ROUNDS
            else {"digest": "", "sealed_seed": b""}
        )
        row = {"detector": each.detector, "round": number, "device": name, "key_id": "k" * 43}
        return (
            row
            | kept
            | {
                "in_cohort": number < ROUNDS,
                "received_at": now - 60.0 * (ROUNDS - number),
            }
        )

    return {
        "rounds": (round_row(each, number) for each in opened for number in range(1, ROUNDS + 1)),
        "updates": (
            update_row(each, number, name)
            for each in opened
            for number in range(ROUNDS - LISTED_ROUNDS + 1, ROUNDS + 1)
            for name in _names(DEVICES if number < ROUNDS else DEVICES // 2)
        ),
    }
