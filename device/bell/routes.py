"""The doorbell's endpoints, for the device's owner alone: ring, look at events, and label them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from flask import Flask, Response, request

from device.bell.doorbell import open_doorbell
from device.bell.labelling import delete, label, remove_label, wanted_event
from device.bell.page import Filter, events_page
from device.bell.ring import MAX_PICTURE_BYTES, Bell, ring
from device.camera.camera import Camera
from device.context import Device
from device.store.events import RingEvent
from shared.errors import InvalidMessage
from shared.names import checked_name
from shared.web.app import add_step
from shared.web.background import add_background
from shared.web.live import render_page
from shared.web.openapi import HTML, JPEG, SENTENCE, STRING, Operation, Schema, declare
from shared.web.steps import Answer

_SPLITS = {"train": "training split", "valid": "validation split", "test": "test split"}
_EVENT = {"name": "event", "in": "query", "required": True, "schema": STRING}
_WORD = {
    "name": "word",
    "in": "query",
    "description": "right, or wrong: about all detectors.",
    "schema": STRING,
}
_SHOWS = {
    "name": "shows",
    "in": "query",
    "description": "A detector that applies; may be repeated.",
    "schema": STRING,
}
_FILTERS = tuple(
    {"name": name, "in": "query", "schema": STRING, "description": description}
    for name, description in (
        ("detector", "What was detected, or labelled."),
        ("word", "labelled or new."),
        ("before", "An event's number."),
    )
)


def add_doorbell(app: Flask, device: Device, camera: Camera | None) -> Bell:
    """Add a device's doorbell to its app: its endpoints, and what runs beside them.

    Args:
        app: The device's app.
        device: The device.
        camera: Its camera, or None.

    Raises:
        SettingsError: A notification channel's URL is not valid.
        StorageFailed: The folder of the events cannot be made.
    """
    doorbell = open_doorbell(device, camera)
    for name, work in doorbell.background.items():
        add_background(app, name, work)
    app.config["DOORBELL_NAV"].append(("/events", "Events"))
    _add_steps(app, doorbell.bell)
    _add_pages(app, doorbell.bell, camera)
    return doorbell.bell


def _add_steps(app: Flask, bell: Bell) -> None:
    def do_ring(_: str | None) -> Answer:
        picture = _sent_picture()
        source = "button" if picture is None else "upload"
        event, done = ring(bell, source, picture)
        answers = {name: asdict(prediction) for name, prediction in event.answers.items()}
        return Answer(200, done.said, {"event": event.id, "at": event.at, "answers": answers})

    def do_label(_: str | None) -> Answer:
        event = _requested_event(bell)
        labels = _labels(bell, event)
        label(bell.device, bell.events, event, labels)
        named = ", ".join(name if applies else f"no {name}" for name, applies in labels.items())
        sentence = f"Label saved ({_SPLITS[event.split]}): {named}."
        return Answer(200, sentence, {"event": event.id, "labels": labels})

    def do_unlabel(_: str | None) -> Answer:
        event = _requested_event(bell)
        remove_label(bell.device, bell.events, event)
        return Answer(200, "Label removed.", {"event": event.id})

    def do_delete(_: str | None) -> Answer:
        event = _requested_event(bell)
        delete(bell.device, bell.events, event)
        return Answer(200, "RingEvent and picture deleted.", {"event": event.id})

    def step(
        path: str, verb: Callable[[str | None], Answer], summary: str, *parameters: Schema
    ) -> None:
        add_step(app, path, verb, summary, (404, 507), parameters, SENTENCE)

    add_step(
        app,
        "/ring",
        do_ring,
        "Predict, keep the event, notify the owner.",
        (413, 422, 503, 507),
        (),
        SENTENCE,
    )
    step("/label", do_label, "Say what an event's picture shows.", _EVENT, _WORD, _SHOWS)
    step("/unlabel", do_unlabel, "Remove an event's label.", _EVENT)
    step("/delete_event", do_delete, "Delete an event and its picture.", _EVENT)


def _add_pages(app: Flask, bell: Bell, camera: Camera | None) -> None:
    def show_events() -> Response:
        def page() -> dict[str, object]:
            return events_page(bell, camera, Filter.parse(request.args))

        return Response(render_page(app, "events.html", page))

    def show_picture(number: int) -> Response:
        event = wanted_event(bell.events, str(number))
        return Response(bell.events.picture(event), mimetype="image/jpeg")

    app.add_url_rule("/events", "events", show_events)
    app.add_url_rule("/event/<int:number>.jpg", "event_picture", show_picture)
    events = Operation("Show events.", {}, HTML, (), "operator", _FILTERS)
    picture = Operation("Show an event's picture.", {}, JPEG, (404, 507), "operator")
    declare(app.extensions, "events", GET=events)
    declare(app.extensions, "event_picture", GET=picture)


def _requested_event(bell: Bell) -> RingEvent:
    """Return the event that the request names.

    Raises:
        NotFound: There is no event of that number.
    """
    return wanted_event(bell.events, request.values.get("event", ""))


def _sent_picture() -> bytes | None:
    """Return the picture that came with the request: a form's file, or the body itself.

    Returns:
        A picture file, or None where nothing came.

    Raises:
        InvalidMessage: Something else came: the camera must not answer in its place.
    """
    # Before the body is read: Flask then refuses a longer one with 413.
    request.max_content_length = MAX_PICTURE_BYTES
    if request.mimetype.startswith("image/"):
        return request.get_data(cache=False) or None
    file = request.files.get("picture")
    if file is not None:
        return file.read() or None
    # A form without any file is what a browser sends where none was chosen.
    if request.content_length and (request.files or request.mimetype != "multipart/form-data"):
        raise InvalidMessage(
            "There is a body, but no picture in it.",
            todo='Send it as a file in the form\'s field "picture", '
            "or as the body with a type such as image/jpeg.",
        )
    return None


def _labels(bell: Bell, event: RingEvent) -> dict[str, bool]:
    """Return the labels that the request gives an event: detector to whether it applies.

    Raises:
        InvalidMessage: The word is unknown, or no detector answered that it could be about.
    """
    word = request.values.get("word")
    if word in ("right", "wrong"):
        return _labels_by_word(event, word)
    if word not in (None, "", "shows"):
        raise InvalidMessage(
            "The word is right, wrong, or shows.",
            todo="Say right, wrong, or shows=DETECTOR.",
        )
    shown = {checked_name(name, "detector") for name in request.values.getlist("shows") if name}
    named = {*bell.device.detectors(), *event.answers, *shown}
    return {name: name in shown for name in sorted(named)}


def _labels_by_word(event: RingEvent, word: str) -> dict[str, bool]:
    if not event.answers:
        raise InvalidMessage(
            "No detector answered this ring.",
            todo="Say with shows=DETECTOR what the picture shows.",
        )
    right = word == "right"
    return {name: prediction.verdict == right for name, prediction in event.answers.items()}
