"""One sum per round and detector, ever: no order and no repetition of requests yields a second one.

Two sums over cohorts that differ by one device would give that device away by subtraction. A state
machine plays devices, operator, pruning and restarts against the real aggregator and the real main
server, and looks at every container the aggregator has sent or written.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from main_server.store.rounds import find_round
from sec_agg.pruning import prune
from shared.errors import InvalidMessage, OutOfOrder
from shared.round.payloads import parse_aggregate
from tests.main_store import read
from tests.updates import masked_update

CMODEL = "http://aggregator/cmodel"
DEVICES = st.sampled_from(["a", "b", "c"])


class Rounds(RuleBasedStateMachine):
    """Any requests in any order; `uploads` and `summed` are what the machine itself remembers."""

    def __init__(self, make_federation: Callable[..., Any], announced: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copytree(announced, self.folder, dirs_exist_ok=True)
        self.federation = make_federation(self.folder)
        self.uploads: dict[tuple[int, str], list[bytes]] = {}
        self.cohorts: dict[int, list[str]] = {}
        self.emitted: dict[tuple[str, int], set[bytes]] = {}
        self.seen: set[str] = set()
        self.restarted = False

    @property
    def round(self) -> int:
        newest = self.federation.aggregator.store.newest_round("package")
        return newest.round if newest else 0

    @rule(device=DEVICES, scale=st.sampled_from([0.0, 0.01]), broken=st.integers(0, 9))
    def send_fresh_bytes(self, device: str, scale: float, broken: int) -> None:
        current = self.federation.announce(device)
        delta = np.full(current.size, scale, np.float32)
        update = masked_update(delta, 10, current, device, self.federation.rng)
        body = (
            update.to_bytes()
            if broken
            else type(update)(**(vars(update) | {"sealed_seed": bytes(1168)})).to_bytes()
        )
        frozen = current.round in self.cohorts
        try:
            self.federation.device(device).post(CMODEL, body)
        except OutOfOrder:
            assert frozen
        else:
            assert not frozen
            self.uploads.setdefault((current.round, device), []).append(body)

    @rule(data=st.data())
    def send_earlier_bytes_again(self, data: st.DataObject) -> None:
        if not self.uploads:
            return
        number, device = data.draw(st.sampled_from(sorted(self.uploads)))
        body = data.draw(st.sampled_from(self.uploads[number, device]))
        newest = body == self.uploads[number, device][-1]
        try:
            self.federation.device(device).post(CMODEL, body)
        except OutOfOrder:
            assert number < self.round or not newest
        else:
            assert newest or number not in self.cohorts
            self.uploads[number, device].append(body)

    @rule()
    def check_seeds(self) -> None:
        message = {"detector": "package", "round": self.round, "sealed_seeds": {}}
        try:
            assert self.federation.as_aggregator.post_json(
                "http://main/check_seeds", message
            ).json == {"refused": {}}
        except (OutOfOrder, InvalidMessage):
            published = read(self.federation.main.store, find_round, "package", self.round)
            assert published is None or published.state != "open"

    @rule()
    def aggregate(self) -> None:
        number = max(self.round, 1)
        try:
            done = self.federation.step("aggregator", "aggregate_models")
        except OutOfOrder as error:
            assert number not in self.cohorts
            assert "updates it needs" in str(error)
        else:
            assert done["round"] == number
            assert self.cohorts.setdefault(number, done["devices"]) == done["devices"]
            assert len(done["devices"]) >= 2

    @rule()
    def hand_over(self) -> None:
        try:
            done = self.federation.step("aggregator", "send_model_secagg")
        except OutOfOrder:
            assert self.round not in self.cohorts
        else:
            assert f"Round {self.round} is finished" in done["said"]
            assert read(
                self.federation.main.store, find_round, "package", self.round
            ).cohort == tuple(self.cohorts[self.round])

    @rule(device=DEVICES)
    def announce(self, device: str) -> None:
        opened = self.federation.announce(device).round
        assert opened >= self.round
        assert opened == max((number for number in self.cohorts), default=0) + (
            self._published() or not self.cohorts
        )

    @rule(old=st.booleans())
    def prune(self, old: bool) -> None:
        if old:
            for path in (self.folder / "aggregator" / "blobs").iterdir():
                os.utime(path, (0, 0))
        prune(self.federation.aggregator.store, self.federation.aggregator.blobs)
        needed = {
            sha256(sent[-1]).hexdigest()
            for (number, _), sent in self.uploads.items()
            if number == self.round
        }
        left = {path.name for path in (self.folder / "aggregator" / "blobs").iterdir()}
        assert needed <= left
        spent = {sha256(body).hexdigest() for body in self._of_rounds_handed_over()}
        assert not old or not spent & left

    @precondition(lambda self: not self.restarted)
    @rule()
    def restart(self) -> None:
        self.restarted = True
        self.federation.start()

    @invariant()
    def never_two_sums_of_one_round(self) -> None:
        blobs = self.folder / "aggregator" / "blobs"
        fresh = {path.name for path in blobs.iterdir()} - self.seen
        self.seen |= fresh
        sent = self.federation.network.sent("main/secagg_model")
        for body in [(blobs / name).read_bytes() for name in fresh] + sent:
            try:
                emitted = parse_aggregate(body)
            except InvalidMessage:
                continue
            self.emitted.setdefault((emitted.detector, emitted.round), set()).add(body)
        self.federation.network.log.clear()
        assert all(len(containers) == 1 for containers in self.emitted.values())

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def _of_rounds_handed_over(self) -> list[bytes]:
        """Return the updates of rounds that are over, as far as the aggregator knows of a newer
        one.
        """
        store = self.federation.aggregator.store
        over = {
            number
            for number in self.cohorts
            if number < self.round and store.round("package", number).delivered
        }
        return [
            body for (number, _), sent in self.uploads.items() if number in over for body in sent
        ]

    def _published(self) -> bool:
        newest = read(
            self.federation.main.store, find_round, "package", max(self.cohorts, default=0)
        )
        return newest is not None and newest.state == "published"


def test_no_order_of_requests_yields_two_sums_of_one_round(
    make_federation: Callable[..., Any], tmp_path: Path
) -> None:
    beginning = make_federation(
        tmp_path
    )  # every example goes on from here, so that keys are made and joined once
    for device in ("a", "b", "c"):
        beginning.announce(device)
    run_state_machine_as_test(
        lambda: Rounds(make_federation, tmp_path),
        settings=settings(
            max_examples=50,
            stateful_step_count=18,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking would take minutes
        ),
    )
