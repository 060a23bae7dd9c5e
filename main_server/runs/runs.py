"""Automatic rounds: an operator starts, stops and resumes a run; `advance.py` takes it further."""

from __future__ import annotations

from main_server.context import MainServer
from main_server.models.rollback import check_not_pinned
from main_server.rounds.opening import current_round, open_round
from main_server.store.rounds import ask_for_updates, count_published, find_round
from main_server.store.runs import RUNNING, STOPPED, Run, move_run, newest_run, running_run
from main_server.store.runs import start_run as add_run
from main_server.store.store import Connection
from shared.errors import InvalidMessage, OutOfOrder
from shared.round.plan import RoundPlan
from shared.web.steps import Done

MAX_ROUNDS = 100_000


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
    plan, _ = current_round(server, detector)
    with server.store.write() as connection:
        running = running_run(connection, detector)
        if running is not None:
            raise OutOfOrder(
                f"A run of {detector} is going on already: {_progress(connection, running)}.",
                kept="It goes on.",
                todo="Stop it first, or wait until it is done.",
            )
        add_run(connection, detector, rounds, plan.round, server.clock())
        _ask_anew(connection, plan, server.clock())
    return Done(
        f"A run of {rounds} rounds has begun with round {plan.round}.",
        {"rounds": rounds, "first_round": plan.round},
    )


def stop(server: MainServer, detector: str) -> Done:
    """Stop a detector's run; the open round stays open, and what was sent is kept.

    Raises:
        OutOfOrder: None is running.
    """
    with server.store.write() as connection:
        run = running_run(connection, detector)
        if run is None:
            raise OutOfOrder(
                f"No run of {detector} is going on.", todo="Start one: python -m federation run."
            )
        move_run(connection, run, STOPPED, "Stopped by the operator.", server.clock())
        progress = _progress(connection, run)
    return Done(f"The run is stopped: {progress}. What was sent is kept; resume goes on from here.")


def resume(server: MainServer, detector: str) -> Done:
    """Go on with a detector's run that was stopped.

    Raises:
        OutOfOrder: None was stopped, or the detector is pinned.
    """
    check_not_pinned(server, detector)
    with server.store.write() as connection:
        run = newest_run(connection, detector)
        if run is None or run.state != STOPPED:
            raise OutOfOrder(
                f"No run of {detector} was stopped.", todo="Start one: python -m federation run."
            )
        move_run(connection, run, RUNNING, "", server.clock())
    # A new round: after sums that failed, the run would stop again at once otherwise.
    plan = open_round(server, detector)
    with server.store.write() as connection:
        _ask_anew(connection, plan, server.clock())
        progress = _progress(connection, run)
    return Done(f"The run goes on: {progress}.")


def _ask_anew(connection: Connection, plan: RoundPlan, now: float) -> None:
    """Let the deadline of a round that a stopped run had asked for begin now."""
    current = find_round(connection, plan.detector, plan.round)
    if current is not None and current.asked_at is not None:
        ask_for_updates(connection, plan, now, current.asked_at)


def _progress(connection: Connection, run: Run) -> str:
    done = count_published(connection, run.detector, run.first_round)
    return f"{done} of {run.rounds} rounds are done"
