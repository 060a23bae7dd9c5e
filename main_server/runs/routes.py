"""The main server's controls: runs, rollback and pins, for buttons and `python -m federation`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from flask import Flask, request

from main_server.context import MainServer
from main_server.members.devices import detectors
from main_server.models import rollback as versions
from main_server.runs import runs
from shared.errors import InvalidMessage
from shared.web.app import add_step
from shared.web.openapi import PICK, text
from shared.web.steps import Answer, Done, each

_NOBODY = (
    "No device has announced itself yet. Start the devices, or open /sendstatus on them; then try"
    " again."
)
_ROUNDS = {
    "name": "rounds",
    "in": "query",
    "description": "How many rounds; 1 without it.",
    "schema": text("([0-9]{1,6})?"),
}
_VERSION = {
    "name": "version",
    "in": "query",
    "required": True,
    "schema": text("[0-9a-f]{6,64}"),
    "description": "Name of a version, or how it begins.",
}


def add_controls(app: Flask, server: MainServer) -> None:
    """Add the controls' addresses to the main server's app."""

    def step(verb: Callable[[str], Done]) -> Callable[[str | None], Answer]:
        return each(partial(detectors, server), verb, _NOBODY)

    def run(picked: str | None) -> Answer:
        rounds = _whole_number(request.values.get("rounds") or "1")
        return step(lambda detector: runs.start(server, detector, rounds))(picked)

    def rollback(_: str | None) -> Answer:
        return _answer(versions.roll_back(server, request.values.get("version", "")))

    def pin(_: str | None) -> Answer:
        return _answer(versions.pin(server, request.values.get("version", "")))

    add_step(app, "/run", run, "Start a run of rounds.", (404,), takes=(PICK, _ROUNDS))
    add_step(app, "/stop_run", step(lambda name: runs.stop(server, name)), "Stop a run.")
    add_step(
        app,
        "/resume_run",
        step(lambda name: runs.resume(server, name)),
        "Go on with a run that was stopped.",
    )
    add_step(app, "/rollback", rollback, "Activate an earlier version again.", (404,), (_VERSION,))
    add_step(app, "/pin", pin, "Keep a detector at one version.", (404,), (_VERSION,))
    add_step(
        app,
        "/unpin",
        step(lambda name: versions.unpin(server, name)),
        "Let rounds change a model again.",
    )


def _answer(done: Done) -> Answer:
    return Answer(200, done.said, done.figures)


def _whole_number(text_: str) -> int:
    if not text_.isascii() or not text_.isdecimal() or len(text_) > 6:
        raise InvalidMessage(
            "The number of rounds is a whole number.", todo="Say how many, rounds=10 for instance."
        )
    return int(text_)
