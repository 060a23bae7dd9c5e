"""Whoever is killed, wherever: once the step is repeated, the round ends with the same model bit
for bit.

So do rounds that run by themselves, where the main server is killed in whatever decides what comes
next, and nobody repeats anything: it is started again, and goes on from what is written down.

`pytest` runs a few of the cases; `make test-kill` runs them all. A case names the step, who is
killed in it, and the point where that happens; `fragile.py` describes the points. SIGKILL takes a
process and not the machine: what a power cut may do to unsynced files is not shown here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODULES = {
    "BlobStore": "shared.storage.blobs",
    "Identity": "shared.security.identity",
    "Membership": "shared.security.joining",
    "Learner": "device.training.training",
}
# What a case calls `Store.step` of a victim: a method, or a function that takes a connection.
_VERSIONS, _ROUNDS = "main_server.store.versions", "main_server.store.rounds"
_PUBLICATION, _DEVICES = "main_server.store.publication", "main_server.store.devices"
_MEMBERS, _RUNS = "main_server.store.members", "main_server.store.runs"
MAIN_STEPS = {
    "__init__": "main_server.store.store:Store.open",
    "invite": f"{_MEMBERS}:invite",
    "admit": f"{_MEMBERS}:admit",
    "add_version": f"{_VERSIONS}:add_version",
    "release": f"{_VERSIONS}:release",
    "open_round": f"{_ROUNDS}:add_round",
    "vouch": f"{_ROUNDS}:vouch",
    "ask": f"{_ROUNDS}:ask_for_updates",
    "make_due": f"{_ROUNDS}:make_due",
    "note_device": f"{_DEVICES}:note_device",
    "note_delivery": f"{_DEVICES}:note_delivery",
    "keep_plain_update": "main_server.store.contributions:keep_plain_update",
    "publish": f"{_PUBLICATION}:publish",
    "judge": f"{_PUBLICATION}:judge",
    "note_status": f"{_PUBLICATION}:note_status",
    "start_run": f"{_RUNS}:start_run",
    "move_run": f"{_RUNS}:move_run",
}
DEVICE_STEPS = {
    "add_training": "device.store.trainings:TrainingStore.add",
    "keep_update": "device.store.trainings:TrainingStore.keep_update",
    "note_sent": "device.store.trainings:TrainingStore.record_sent",
    "propose": "device.store.models:ModelStore.propose",
    "hold": "device.store.models:ModelStore.activate",
    "remember_rounds": "device.store.rounds:RoundStore.remember",
}
AT_START = {"Identity.open", "Store.__init__", "Store.invite"}


@dataclass(frozen=True)
class Case:
    """Who is killed in which step, and where.

    Attributes:
        step: Name of the step.
        victim: Who is killed, by itself or called by another.
        point: "Class.method:moment" or "/address:moment".
        whom: "service", or "process": one of two workers, or the training child, and the service
            goes on.
        topology: "secure" or "direct".
        round: Number of the round.
    """

    step: str
    victim: str
    point: str
    whom: str = "service"
    topology: str = "secure"
    round: int = 1

    def __str__(self) -> str:
        where = self.point.replace("/", "").replace(":", ".")
        also = [self.topology] * (self.topology != "secure") + [f"round{self.round}"] * (
            self.round > 1
        )
        return "-".join(
            [*also, self.step, self.victim, where, *["one-process"] * (self.whom == "process")]
        )

    @property
    def at_start(self) -> bool:
        """Whether the victim dies as it starts for the very first time, before the step, which is
        its first.
        """
        return self.point.rpartition(":")[0] in AT_START

    @property
    def in_child(self) -> bool:
        """Whether the training child alone is killed."""
        return self.whom == "process" and self.point.startswith("Learner.")

    @property
    def variables(self) -> dict[str, str]:
        """What the victim's environment says of the kill."""
        workers = {"WEB_CONCURRENCY": "2"} if self.whom == "process" and not self.in_child else {}
        return workers | {
            "KILL_POINT": self.point if self.point.startswith("/") else self._place(),
            "KILL_WHOM": self.whom,
        }

    def _place(self) -> str:
        """Return the point with the module that it is in."""
        path, _, moment = self.point.rpartition(":")
        name, _, step = path.partition(".")
        if name != "Store":
            return f"{MODULES[name]}:{self.point}"
        if self.victim == "aggregator":
            return f"sec_agg.store.store:{self.point}"
        steps = MAIN_STEPS if self.victim == "main" else DEVICE_STEPS
        return f"{steps[step]}:{moment}"


def at(step: str, victim: str, *points: str, **more: Any) -> list[Case]:
    """Return a case for each point of a victim in a step; "a|b" after the last colon are several
    moments.
    """
    cases = []
    for point in points:
        place, _, moments = point.rpartition(":")
        cases += [Case(step, victim, f"{place}:{moment}", **more) for moment in moments.split("|")]
    return cases


FEW = [
    *at("train-1", "device1", "Store.add_training:commit"),
    *at("send-1", "device1", "Store.keep_update:after"),
    *at("send-1", "aggregator", "Store.keep_update:commit"),
    *at("add-up", "aggregator", "BlobStore.put:temporary", "Store.freeze:after"),
    *at("hand-over", "main", "Store.publish:commit", "/secagg_model:answer"),
    *at("hand-over", "main", "Store.publish:after", whom="process"),
]
MORE = [
    # The first start of a service: keys, tables, local join codes.
    *at("announce-2", "main", "Store.__init__:commit", "Store.invite:commit"),
    *at("announce-1", "device1", "Identity.open:temporary"),
    *at("send-1", "aggregator", "Identity.open:renamed", "Store.__init__:after"),
    # The first device joins, and round 1 is opened for it.
    *at(
        "announce-2",
        "main",
        "BlobStore.put:temporary",
        "Store.add_version:commit",
        "Store.open_round:after",
    ),
    # The second device joins.
    *at("announce-1", "main", "Store.admit:commit", "/join:answer"),
    *at("announce-1", "device1", "Membership.save:temporary|after"),
    # It trains, and says so.
    *at("train-1", "device1", "BlobStore.put:temporary", "Store.hold:commit"),
    *at("train-1", "device1", "Learner.train:before", "Learner.train:progress#5", whom="process"),
    *at("train-1", "device1", "Learner.train:progress#5", "BlobStore.put:temporary#2"),
    *at("train-1", "device1", "Store.add_training:before|after", "/modeltrain:answer"),
    *at("train-1", "main", "/model:answer", "/clientstatus:answer"),
    *at("ready-1", "main", "Store.note_device:before|commit|after", "/clientstatus:answer"),
    *at("announce-1", "device1", "Store.remember_rounds:before|commit|after"),
    *at("ready-1", "device1", "Store.remember_rounds:after", "/sendstatus:answer"),
    # It sends; the aggregator joins, and hears of the round.
    *at(
        "send-1",
        "device1",
        "BlobStore.put:before|temporary|renamed",
        "Store.keep_update:before|commit",
    ),
    *at("send-1", "device1", "Store.note_sent:before|commit|after", "/sendmodel:answer"),
    *at("send-1", "aggregator", "Membership.save:before|temporary|renamed|after"),
    *at("send-1", "aggregator", "Store.remember_round:before|commit|after"),
    *at(
        "send-1",
        "aggregator",
        "BlobStore.put:before|temporary|renamed",
        "Store.keep_update:before|after",
    ),
    *at("send-1", "aggregator", "/cmodel:arrival", "/cmodel:answer"),
    *at("send-1", "aggregator", "Store.keep_update:after", whom="process"),
    *at("send-1", "main", "/join:arrival", "Store.admit:before|commit|after", "/join:answer"),
    *at("send-1", "main", "/roster:answer", "/round:answer"),
    *at("send-2", "aggregator", "Store.keep_update:before|commit|after", "/cmodel:answer"),
    *at("send-2", "device2", "Store.keep_update:after", "Store.note_sent:before"),
    # The aggregator adds up, once.
    *at(
        "add-up", "main", "/roster:answer", "Store.vouch:before|commit|after", "/check_seeds:answer"
    ),
    *at("add-up", "main", "Store.vouch:after", whom="process"),
    *at("add-up", "aggregator", "Store.freeze:before|commit", "BlobStore.put:before|renamed"),
    *at("add-up", "aggregator", "Store.keep_sum:before|commit|after", "/aggregate_models:answer"),
    *at("add-up", "aggregator", "Store.freeze:after", "Store.keep_sum:after", whom="process"),
    # The main server takes the sum, steps the model and publishes it.
    *at("hand-over", "main", "/secagg_model:arrival", "BlobStore.put:before|temporary|renamed"),
    *at("hand-over", "main", "Store.publish:before|after"),
    *at(
        "hand-over",
        "aggregator",
        "Store.note_delivery:before|commit|after",
        "/send_model_secagg:answer",
    ),
    *at("hand-over", "aggregator", "Store.note_delivery:before", whom="process"),
    # It gives it to the devices.
    *at("deliver", "main", "Store.release:before|commit|after"),
    *at(
        "deliver", "main", "Store.note_delivery:before|commit|after", "Store.note_delivery:after#2"
    ),
    *at("deliver", "main", "/send_model_clients:answer"),
    *at("deliver", "main", "Store.note_delivery:after", whom="process"),
    *at("deliver", "device1", "/aggmodel:arrival", "BlobStore.put:before|temporary|renamed"),
    *at("deliver", "device1", "Store.propose:before|commit|after"),
    *at("deliver", "device1", "Store.hold:before|commit|after", "/aggmodel:answer"),
    *at("deliver", "device2", "Store.hold:after"),
    *at("measure-1", "device1", "/performance:answer"),
    # The second round starts from the model of the first.
    *at("announce-2", "main", "Store.open_round:commit|after", round=2),
    *at("send-1", "aggregator", "Store.remember_round:commit", round=2),
    *at("add-up", "aggregator", "Store.freeze:after", round=2),
    *at("hand-over", "main", "Store.publish:commit|after", round=2),
    *at("deliver", "device2", "Store.hold:commit", round=2),
    # Without an aggregator.
    *at(
        "send-1",
        "main",
        "BlobStore.put:temporary",
        "Store.keep_plain_update:before|commit|after",
        topology="direct",
    ),
    *at("send-2", "main", "/cmodel:answer", topology="direct"),
    *at(
        "add-up",
        "main",
        "BlobStore.put:renamed",
        "Store.publish:before|commit|after",
        topology="direct",
    ),
    *at("add-up", "main", "/aggregate_models:answer", topology="direct"),
    *at("deliver", "device1", "Store.hold:commit", topology="direct"),
]

IN_RUN = [
    "Store.judge:commit",
    # The run begins, and the devices are asked.
    *(f"Store.start_run:{moment}" for moment in ("before", "commit", "after")),
    "/run:answer",
    *(f"Store.ask:{moment}" for moment in ("before", "commit", "after")),
    # A device says what it has, and is told what to do; later as well as the first time.
    *(
        f"Store.note_status:{moment}"
        for moment in ("before", "commit", "after", "commit#2", "after#5")
    ),
    *("/work:arrival", "/work:answer", "/work:answer#3"),
    # The updates are there: the round is to be summed, and is.
    *(f"Store.make_due:{moment}" for moment in ("before", "commit", "after")),
    *(f"Store.publish:{moment}" for moment in ("before", "commit", "after")),
    "/secagg_model:answer",
    # What the devices say of the new version is weighed, and the next round is opened.
    *(f"Store.judge:{moment}" for moment in ("before", "after", "before#2", "commit#2", "after#2")),
    *(f"Store.open_round:{moment}" for moment in ("before", "commit", "after")),
    *(
        f"Store.{step}:{moment}#2"
        for step in ("ask", "make_due", "publish")
        for moment in ("commit", "after")
    ),
    # The last round is over.
    *(f"Store.move_run:{moment}" for moment in ("before", "commit", "after")),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "point" in metafunc.fixturenames:
        every = metafunc.config.getoption("every_kill", False)
        points = IN_RUN if every else [pytest.param(IN_RUN[0], marks=pytest.mark.long)]
        metafunc.parametrize(
            "point", points, ids=lambda point: point.replace("/", "").replace(":", ".")
        )
    if "case" in metafunc.fixturenames:
        cases = FEW + MORE * bool(metafunc.config.getoption("every_kill", False))
        # One topology and round after the other, since each is run undisturbed first.
        cases = sorted(cases, key=lambda case: (case.topology != "secure", case.round))
        metafunc.parametrize("case", cases, ids=str)


def test_killed_there_the_round_ends_with_the_same_model(
    case: Case, undisturbed: Callable[[str], Any], tmp_path: Path
) -> None:
    run, mark = undisturbed(case.topology), tmp_path / "mark"
    federation, fragile = run.federation, case.variables | {"KILL_MARK": str(mark)}
    expected = run.outcome(case.round)
    assert not federation.groups
    try:
        run.put(case.round, case.step)
        if case.at_start:
            _die_at_start(run, case, fragile)
        else:
            _die_in_step(run, case, fragile)
        federation.done(*run.steps[case.step])
        assert run.finish(case.step) == expected
    finally:
        federation.end()


def _die_at_start(run: Any, case: Case, fragile: dict[str, str]) -> None:
    """Start the victim without anything that it ever kept; it dies of it, and is started again."""
    federation = run.federation
    federation.forget(case.victim)
    federation.launch(case.victim, **fragile)
    federation.await_death(case.victim)
    assert Path(fragile["KILL_MARK"]).exists(), (
        f"{case.point} was never reached:\n{federation.logs()}"
    )
    federation.begin(*run.services)


def _die_in_step(run: Any, case: Case, fragile: dict[str, str]) -> None:
    """Do the step, and start again whoever died of it."""
    federation, (service, path) = run.federation, run.steps[case.step]
    federation.launch(case.victim, **fragile)
    federation.begin(*[other for other in run.services if other != case.victim])
    federation.await_health(case.victim)
    answer = federation.step(service, path)
    assert Path(fragile["KILL_MARK"]).exists(), (
        f"{case.point} was never reached: {answer and answer.text}"
    )
    if case.whom == "service":
        federation.await_death(case.victim)
        federation.begin(case.victim)
    if case.in_child:
        assert (
            answer is not None
            and answer.status_code == 500
            and "was killed by SIGKILL" in answer.text
        )
    elif service == case.victim:
        assert answer is None
    elif case.whom == "process":
        assert answer is not None and answer.status_code == 200, (
            "the other worker answers the next attempt"
        )
    else:
        assert answer is not None and answer.status_code in (200, 503)


def test_killed_there_the_run_ends_with_the_same_model(
    point: str, by_themselves: Any, tmp_path: Path
) -> None:
    expected, mark = by_themselves.expected, tmp_path / "mark"
    fragile = Case("run", "main", point).variables | {"KILL_MARK": str(mark)}
    try:
        found, gates = by_themselves.run("main", **fragile)
        assert mark.exists(), f"{point} was never reached"
        assert found == expected[0]
        assert gates == expected[1]
    finally:
        by_themselves.federation.end()
