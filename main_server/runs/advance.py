"""What is next for every run: ask the devices, wait, have the updates summed, go on.

Called over and over, by every process, and after any restart. Everything is decided from what is
written down, and every decision is one transaction that only the first can make. So it does not
matter who advances a run, how often, or who was killed in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from main_server.context import MainServer
from main_server.members.device_status import is_online
from main_server.models.gate import judge
from main_server.rounds.direct import aggregate_plain
from main_server.rounds.opening import open_round
from main_server.store.contributions import sent_updates
from main_server.store.devices import all_detectors, all_devices, participations
from main_server.store.records import Round, Version
from main_server.store.rounds import (
    abandon_round,
    ask_for_updates,
    count_published,
    fail_round,
    find_round,
    make_due,
    newest_rounds,
)
from main_server.store.runs import FINISHED, RUNNING, STOPPED, Run, move_run, newest_runs
from main_server.store.states import FAILED, OPEN
from main_server.store.store import Connection
from main_server.store.versions import newest_version, newest_versions, release
from shared.errors import DoorbellError, InvalidMessage
from shared.names import MAIN_SERVER
from shared.telemetry.logs import round_id, under

# One sum may fail by chance, as when a device clamps wildly; three in a row have a cause.
_MAX_FAILURES = 3
# So many versions may wait at the gate: a newer one closes those before it.
_MAX_PENDING = 4
_log = logging.getLogger(__name__)

_Step = Callable[[Connection], None]


class _Ending(NamedTuple):
    state: str
    said: str


def advance(server: MainServer) -> None:
    """Judge new versions, and take every run one step further."""
    with server.store.read() as connection:
        detectors = all_detectors(connection)
        versions = [newest_versions(connection, name, _MAX_PENDING) for name in detectors]
        runs = newest_runs(connection)
    for version in (each for of_detector in versions for each in of_detector):
        try:
            judge(server, version)
        except DoorbellError as error:
            _log.warning("the gate of %s waits: %s", version.detector, error)
    for run in runs:
        if run.state != RUNNING:
            continue
        try:
            _advance(server, run)
        except DoorbellError as error:
            _log.warning("the run of %s waits: %s", run.detector, error)


def _advance(server: MainServer, run: Run) -> None:
    version = _released_version(server, run.detector)
    if version is not None and not judge(server, version):
        return  # devices have still to report how well it does
    with server.store.read() as connection:
        ending = _ending(connection, run)
    if ending is not None:
        with server.store.write() as connection:
            move_run(connection, run, ending.state, ending.said, server.clock())
        return
    plan = open_round(server, run.detector)
    with server.store.read() as connection:
        current = find_round(connection, run.detector, plan.round)
        if current is None or current.state != OPEN:
            return
        sent = sent_updates(connection, plan)
        step = _next_step(server, connection, current, set(sent))
    # What is written holds only if the round is still as it was read: the first one wins.
    if step is not None:
        with server.store.write() as connection:
            step(connection)
    elif _is_to_be_summed_here(current, len(sent)):
        with under(round_id(run.detector, plan.round)):
            _sum_plain(server, current)


def _released_version(server: MainServer, detector: str) -> Version | None:
    """Return the newest version, and give it to the devices if they are not given it already.

    It was made by hand, or while the run was stopped.
    """
    with server.store.read() as connection:
        version = newest_version(connection, detector)
    if version is None or version.released_at is not None:
        return version
    with server.store.write() as connection:
        release(connection, version.version, server.clock())
        return newest_version(connection, detector)


def _ending(connection: Connection, run: Run) -> _Ending | None:
    """Return how a run ends that is done, or whose last rounds failed; None if it goes on."""
    if count_published(connection, run.detector, run.first_round) >= run.rounds:
        return _Ending(FINISHED, f"All {run.rounds} rounds are done.")
    last = newest_rounds(connection, run.detector, _MAX_FAILURES, run.first_round)
    if len(last) == _MAX_FAILURES and all(each.state == FAILED for each in last):
        return _Ending(STOPPED, f"{_MAX_FAILURES} consecutive rounds failed to unmask.")
    return None


def _next_step(
    server: MainServer, connection: Connection, current: Round, sent: set[str]
) -> _Step | None:
    """Return what is to be written of an open round now, or None.

    Args:
        server: The main server.
        connection: The transaction in which the round was read.
        current: The round.
        sent: The devices whose updates were sent.
    """
    plan = current.plan
    now = server.clock()
    # Asked later than now: the clock was set back, and the deadline would be too far away.
    if current.asked_at is None or current.asked_at > now:
        return partial(ask_for_updates, plan=plan, at=now, before=current.asked_at)
    if current.due_at is None:
        why = _why_due(server, connection, current, sent)
        return partial(make_due, plan=plan, at=now, said=why) if why is not None else None
    if len(sent) < plan.min_cohort and _is_stuck(server, connection, current):
        said = f"Round {plan.round} is abandoned: too few updates came, and a device failed."
        return partial(abandon_round, plan=plan, at=now, said=said)
    return None


def _is_to_be_summed_here(current: Round, sent: int) -> bool:
    """Return whether plain updates are to be averaged; sums are the aggregator's, who asks."""
    is_due = current.asked_at is not None and current.due_at is not None
    is_enough = sent >= current.plan.min_cohort
    return is_due and is_enough and current.plan.receiver == MAIN_SERVER


def _why_due(
    server: MainServer, connection: Connection, current: Round, sent: set[str]
) -> str | None:
    """Return why a round is to be summed now, or None while it waits for more updates."""
    plan = current.plan
    now = server.clock()
    target = server.settings.target_cohort
    if target is not None and len(sent) >= max(target, plan.min_cohort):
        return f"{len(sent)} updates are there, as many as are wanted."
    if target is None and len(sent) >= plan.min_cohort:
        online = {each.name for each in all_devices(connection) if is_online(each, now)}
        waited_for = [
            part.device
            for part in participations(connection, plan.detector)
            if part.device in online - sent and part.setback_round != plan.round
        ]
        if not waited_for:
            return f"All {len(sent)} devices that are online have sent their updates."
    if now - (current.asked_at or now) >= server.settings.round_deadline_s:
        return f"Deadline reached with {len(sent)} updates."
    return None


def _is_stuck(server: MainServer, connection: Connection, current: Round) -> bool:
    """Return whether a due round lacks updates of devices that failed.

    Only another round asks them again.
    """
    now = server.clock()
    # Either way: the clock may have been set back.
    if abs(now - (current.due_at or now)) < server.settings.round_deadline_s:
        return False
    parts = participations(connection, current.plan.detector)
    failed = {part.device for part in parts if part.setback_round == current.plan.round}
    devices = all_devices(connection)
    return any(device.name in failed and is_online(device, now) for device in devices)


def _sum_plain(server: MainServer, current: Round) -> None:
    try:
        aggregate_plain(server, current.plan.detector)
    except InvalidMessage:
        # The same updates would fail again and again: the run goes on with the next round.
        with server.store.write() as connection:
            fail_round(connection, current.plan, "", server.clock())
        raise
