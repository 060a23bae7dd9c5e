"""Automatic rounds: a run opens rounds, asks the devices, waits, has them summed, and goes on.

    start, stop, resume  what an operator asks for
    advance              what is next, for every run; called over and over, by every process,
                         and after any restart

Everything is decided from what is written down, and every decision is one transaction that only the
first can make, so it does not matter who advances a run, how often, or who was killed in between.
"""

from __future__ import annotations

import logging

from main_server.context import MainServer
from main_server.members.device_status import is_online
from main_server.models.gate import judge
from main_server.rounds.rounds import aggregate_plain, check_not_pinned, current_round, open_round
from main_server.store.records import Round
from main_server.store.runs import FINISHED, RUNNING, STOPPED, Run
from main_server.store.states import FAILED, OPEN
from shared.errors import DoorbellError, InvalidMessage, OutOfOrder
from shared.names import MAIN_SERVER
from shared.round.plan import RoundPlan
from shared.telemetry.logs import round_id, under
from shared.web.steps import Done

MAX_ROUNDS = 100_000
_MAX_FAILURES = 3
_MAX_PENDING = 4
_log = logging.getLogger(__name__)


def start(server: MainServer, detector: str, rounds: int) -> Done:
    """Start a run of so many rounds of one detector.

    Raises:
        InvalidMessage: That is no number of rounds.
        NotFound: No device takes part in that detector.
        OutOfOrder: One is running already, or the detector is pinned.
    """
    if not 1 <= rounds <= MAX_ROUNDS:
        raise InvalidMessage(
            f"A run has from 1 to {MAX_ROUNDS} rounds.",
            todo="Say how many, rounds=10 for instance.",
        )
    check_not_pinned(server, detector)
    settings, _ = current_round(server, detector)
    first, begun, before = settings.round, server.clock(), _newest(server, detector)
    run = before or server.store.start_run(detector, rounds, first, begun)
    if before or (run.rounds, run.first_round, run.started_at) != (
        rounds,
        first,
        begun,
    ):  # another was faster
        raise OutOfOrder(
            f"A run of {detector} is going on already: {_progress(server, run)}.",
            kept="It goes on.",
            todo="Stop it first, or wait until it is done.",
        )
    _ask_anew(server, settings)
    return Done(
        f"A run of {rounds} rounds has begun with round {first}.",
        {"rounds": rounds, "first_round": first},
    )


def stop(server: MainServer, detector: str) -> Done:
    """Stop a detector's run; the open round stays open, and what was sent is kept.

    Raises:
        OutOfOrder: None is running.
    """
    run = _newest(server, detector)
    if run is None or not server.store.move_run(
        run, STOPPED, "Stopped by the operator.", server.clock()
    ):
        raise OutOfOrder(
            f"No run of {detector} is going on.", todo="Start one: python -m federation run."
        )
    return Done(
        f"The run is stopped: {_progress(server, run)}. What was sent is kept; resume goes on from here."
    )


def resume(server: MainServer, detector: str) -> Done:
    """Go on with a detector's run that was stopped.

    Raises:
        OutOfOrder: None was stopped, or the detector is pinned.
    """
    check_not_pinned(server, detector)
    run = _newest(server, detector, STOPPED)
    if run is None or not server.store.move_run(run, RUNNING, "", server.clock()):
        raise OutOfOrder(
            f"No run of {detector} was stopped.", todo="Start one: python -m federation run."
        )
    _ask_anew(
        server, open_round(server, detector)
    )  # a new one: after sums that failed it would stop again otherwise
    return Done(f"The run goes on: {_progress(server, run)}.")


def advance(server: MainServer) -> None:
    """Do what is next: judge new versions, and take every run one step further."""
    for detector in server.store.detectors():
        for version in server.store.versions(detector, _MAX_PENDING):
            try:
                judge(server, version)
            except DoorbellError as error:
                _log.warning("the gate of %s waits: %s", detector, error)
    for run in server.store.runs():
        if run.state == RUNNING:
            try:
                _advance(server, run)
            except DoorbellError as error:
                _log.warning("the run of %s waits: %s", run.detector, error)


def done(server: MainServer, run: Run) -> int:
    """Return how many rounds of a run are done."""
    return server.store.published_since(run.detector, run.first_round)


def _advance(server: MainServer, run: Run) -> None:
    now, store = server.clock(), server.store
    version = store.newest_version(run.detector)
    if (
        version is not None and version.released_at is None
    ):  # made by hand, or while the run was stopped
        store.release(version.version, now)
        version = store.newest_version(run.detector)
    if version is not None and not judge(server, version):
        return  # devices are still to say what they make of it
    if done(server, run) >= run.rounds:
        store.move_run(run, FINISHED, f"All {run.rounds} rounds are done.", now)
        return
    last = store.rounds(run.detector, _MAX_FAILURES, run.first_round)
    if len(last) == _MAX_FAILURES and all(each.state == FAILED for each in last):
        store.move_run(
            run, STOPPED, f"The sums of {_MAX_FAILURES} rounds in a row made no sense.", now
        )
        return
    settings = open_round(server, run.detector)
    current = store.round(run.detector, settings.round)
    if current is None or current.state != OPEN:
        return
    if current.asked_at is None or current.asked_at > now:  # later than now: the clock was set back
        store.ask(settings, now, current.asked_at)
    elif current.due_at is None and (why := _why_due(server, current, now)):
        store.make_due(settings, now, why)
    elif current.due_at is not None and _is_stuck(server, current, now):
        store.give_up(
            settings,
            now,
            f"Round {settings.round} is given up: too few updates came, and something failed.",
        )
    elif (
        current.due_at is not None
        and settings.receiver == MAIN_SERVER
        and _has_enough(server, current)
    ):
        with under(round_id(run.detector, settings.round)):
            _sum_plain(server, current)


def _why_due(server: MainServer, current: Round, now: float) -> str | None:
    """Return why a round is to be summed now, or None while it is waited for more updates."""
    settings, store = current.settings, server.store
    sent = store.sent(settings)
    target = server.settings.target_cohort
    if target is not None and len(sent) >= max(target, settings.min_cohort):
        return f"{len(sent)} updates are there, as many as are wanted."
    there = {device.name for device in store.devices() if is_online(device, now)}
    parts = [
        part for part in store.participations(settings.detector) if part.device in there | set(sent)
    ]
    waited_for = [
        p.device for p in parts if p.device not in sent and p.setback_round != settings.round
    ]
    if target is None and not waited_for and len(sent) >= settings.min_cohort:
        return f"All {len(sent)} devices that are there have sent their updates."
    if now - (current.asked_at or now) >= server.settings.round_deadline_s:
        return f"The deadline is over; {len(sent)} devices said that they sent their updates."
    return None


def _has_enough(server: MainServer, current: Round) -> bool:
    return len(server.store.sent(current.settings)) >= current.settings.min_cohort


def _is_stuck(server: MainServer, current: Round, now: float) -> bool:
    """Return whether a due round lacks updates of devices that failed, and that only another round
    asks again.
    """
    settings, due_for = current.settings, abs(now - (current.due_at or now))
    if _has_enough(server, current) or due_for < server.settings.round_deadline_s:
        return False
    failed = {
        p.device
        for p in server.store.participations(settings.detector)
        if p.setback_round == settings.round
    }
    return any(
        device.name in failed and is_online(device, now) for device in server.store.devices()
    )


def _ask_anew(server: MainServer, settings: RoundPlan) -> None:
    """Let the deadline of a round that was asked for before, by a run that stopped, begin now."""
    current = server.store.round(settings.detector, settings.round)
    if current is not None and current.asked_at is not None:
        server.store.ask(settings, server.clock(), current.asked_at)


def _sum_plain(server: MainServer, current: Round) -> None:
    try:
        aggregate_plain(server, current.settings.detector)
    except InvalidMessage:
        server.store.fail(current.settings, "", server.clock())
        raise


def _newest(server: MainServer, detector: str, state: str = RUNNING) -> Run | None:
    return next(
        (run for run in server.store.runs() if run.detector == detector and run.state == state),
        None,
    )


def _progress(server: MainServer, run: Run) -> str:
    return f"{done(server, run)} of {run.rounds} rounds are done"
