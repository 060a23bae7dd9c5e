"""The doorbell's addresses: ring, look at what happened, and say what was right.

For the device's owner alone.
"""

from __future__ import annotations

from dataclasses import asdict

from flask import Flask, Response, request

from device.bell.labelling import delete, label, take_back, wanted_event
from device.bell.ring import MAX_PICTURE_BYTES, Bell, ring
from device.camera.camera import Camera
from device.store.events import Event
from shared.errors import InvalidMessage, NotFound
from shared.names import checked_name
from shared.web.app import add_step
from shared.web.live import render_page
from shared.web.openapi import HTML, JPEG, SENTENCE, STRING, Operation, declare
from shared.web.steps import Answer

SHOWN = 24
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
    {"name": name, "in": "query", "schema": STRING, "description": said}
    for name, said in (
        ("detector", "What was seen."),
        ("word", "labelled or new."),
        ("before", "An event's number."),
    )
)


def add_bell_routes(app: Flask, bell: Bell, camera: Camera | None) -> None:
    """Add them to a device's app."""
    app.config["DOORBELL_NAV"].append(("/events", "Events"))

    def do_ring(_: str | None) -> Answer:
        picture = _sent_picture()
        event, done = ring(bell, "upload" if picture is not None else "button", picture)
        answers = {name: asdict(answer) for name, answer in event.answers.items()}
        return Answer(200, done.said, {"event": event.id, "at": event.at, "answers": answers})

    def do_label(_: str | None) -> Answer:
        event = wanted_event(bell.events, request.values.get("event", ""))
        labels = _labels(bell, event)
        label(bell.device, bell.events, event, labels)
        said = ", ".join(name if applies else f"no {name}" for name, applies in labels.items())
        return Answer(
            200,
            f"Learned: {said}. The next training uses it.",
            {"event": event.id, "labels": labels},
        )

    def do_undo(_: str | None) -> Answer:
        event = wanted_event(bell.events, request.values.get("event", ""))
        take_back(bell.device, bell.events, event)
        return Answer(200, "Taken back: this picture is not learned from.", {"event": event.id})

    def do_delete(_: str | None) -> Answer:
        event = wanted_event(bell.events, request.values.get("event", ""))
        delete(bell.device, bell.events, event)
        return Answer(200, "The event and its picture are gone.", {"event": event.id})

    add_step(
        app, "/ring", do_ring, "Look, answer, keep and tell.", (413, 422, 503, 507), (), SENTENCE
    )
    add_step(
        app,
        "/label",
        do_label,
        "Say what an event's picture shows.",
        (404, 507),
        (_EVENT, _WORD, _SHOWS),
        SENTENCE,
    )
    add_step(app, "/unlabel", do_undo, "Take that back.", (404, 507), (_EVENT,), SENTENCE)
    add_step(
        app,
        "/delete_event",
        do_delete,
        "Remove an event and its picture.",
        (404, 507),
        (_EVENT,),
        SENTENCE,
    )

    def show_events() -> Response:
        return Response(render_page(app, "events.html", lambda: events_page(bell, camera)))

    def show_picture(number: int) -> Response:
        event = bell.events.event(number)
        if event is None:
            raise NotFound(
                "There is no such event here; it may have been deleted.", todo="Open /events again."
            )
        return Response(bell.events.picture(event), mimetype="image/jpeg")

    app.add_url_rule("/events", "events", show_events)
    app.add_url_rule("/event/<int:number>.jpg", "event_picture", show_picture)
    declare(
        app.extensions,
        "events",
        GET=Operation("Show what happened.", {}, HTML, (), "operator", _FILTERS),
    )
    declare(
        app.extensions,
        "event_picture",
        GET=Operation("Show its picture.", {}, JPEG, (404, 507), "operator"),
    )


def events_page(bell: Bell, camera: Camera | None) -> dict[str, object]:
    """Return what `events.html` is to show; the request may filter."""
    known = bell.device.detectors()
    wanted = request.args.get("detector", "")
    detector = wanted if wanted in known else None
    labelled = {"labelled": True, "new": False}.get(request.args.get("word", ""))
    before = request.args.get("before", "")
    older = int(before) if before.isascii() and before.isdecimal() and len(before) < 16 else None
    events = bell.events.events(SHOWN + 1, detector, labelled, older)
    count, size = bell.events.size()
    chosen = {
        "detector": detector,
        "word": request.args.get("word") if labelled is not None else None,
    }
    query = "&".join(f"{name}={value}" for name, value in chosen.items() if value)
    return {
        "events": events[:SHOWN],
        "older": f"/events?{query}{'&' if query else ''}before={events[SHOWN - 1].id}"
        if len(events) > SHOWN
        else None,
        "detectors": known,
        "chosen": chosen,
        "count": count,
        "size": size,
        "bell": bell,
        "camera": camera,
        "here": f"/events?{query}" if query else "/events",
    }


def _sent_picture() -> bytes | None:
    """Return the picture that came with the request: a form's file, or the body itself; None where
    there is none.

    Raises:
        InvalidMessage: Something else came: the camera must not answer for it.
    """
    request.max_content_length = MAX_PICTURE_BYTES
    if request.mimetype.startswith("image/"):
        return request.get_data(cache=False) or None
    file = request.files.get("picture")
    if file is not None:
        return file.read() or None
    if request.content_length and (request.files or request.mimetype != "multipart/form-data"):
        raise InvalidMessage(
            "There is a body, but no picture in it.",
            todo='Send it as a file in the form\'s field "picture", or as the body with a type such as image/jpeg.',
        )
    return None


def _labels(bell: Bell, event: Event) -> dict[str, bool]:
    word, shows = request.values.get("word"), request.values.getlist("shows")
    if word in ("right", "wrong"):
        if not event.answers:
            raise InvalidMessage(
                "No detector answered then.", todo="Say with shows=DETECTOR what the picture shows."
            )
        return {name: answer.verdict == (word == "right") for name, answer in event.answers.items()}
    if word not in (None, "", "shows"):
        raise InvalidMessage(
            "The word is right, wrong, or shows.", todo="Say right, wrong, or shows=DETECTOR."
        )
    wanted = {checked_name(name, "detector") for name in shows if name}
    return {
        name: name in wanted for name in sorted({*bell.device.detectors(), *event.answers, *wanted})
    }
