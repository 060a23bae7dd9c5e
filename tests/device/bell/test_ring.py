"""Someone rings, over HTTP: answered, kept, told, labelled, undone, deleted."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import device.bell.doorbell
import device.vision.networks
from device.camera.camera import Camera
from device.context import Device
from device.rounds import participation
from device.store.events import EventStore
from device.vision.litert import answering_file
from device.vision.prediction import Prediction
from learning.architectures import EFFICIENTNET_LITE0_HEAD
from shared.errors import StorageFailed
from tests.pages import page_of, text_of

FEATURES = 1280
PORCH = np.full((72, 128, 3), 120, np.uint8)


class PretendBody:
    """A frozen body that gives every picture the same features."""

    def __init__(self, path: Path) -> None:
        """Nothing is loaded."""

    def run(self, pixels: Any, params: Any) -> Any:
        return np.full(FEATURES, 0.1, np.float32)


@pytest.fixture
def jpeg() -> bytes:
    return cv2.imencode(".jpg", PORCH)[1].tobytes()


@pytest.fixture
def client(federation: Any, doorbell: Device, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(device.vision.networks, "Network", PretendBody)
    doorbell.settings.cache.mkdir(parents=True)
    answering_file(doorbell.settings.cache, EFFICIENTNET_LITE0_HEAD).touch()
    return federation.network.apps[doorbell.settings.name].test_client()


@pytest.fixture
def watched(
    federation: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Any]]:
    """Return what makes a device with a camera, and returns its app; the camera is let go in the
    end.
    """
    made: list[Camera] = []
    monkeypatch.setattr("device.camera.camera._LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(
        device.bell.doorbell, "Camera", lambda source: made.append(Camera(source)) or made[-1]
    )

    def make(source: str) -> Any:
        return federation.network.apps[
            make_device(federation, 1, DOORBELL_CAMERA=source).settings.name
        ]

    yield make
    for camera in made:
        camera.stop()


@pytest.fixture
def ask(client: Any) -> Callable[..., Any]:
    """Return what asks the device as a script on this machine does."""

    def do(
        path: str,
        status: int = 200,
        method: str = "POST",
        accept: str = "application/json",
        **more: Any,
    ) -> Any:
        response = client.open(
            path, method=method, headers={"Accept": accept, "Host": "localhost"}, **more
        )
        assert response.status_code == status, response.text
        return response.json if "json" in response.mimetype else response.data

    return do


def test_ring_is_answered_and_kept_with_its_picture(
    ask: Any, doorbell: Device, jpeg: bytes
) -> None:
    participation.train(doorbell, "package")
    held = doorbell.store.models.active("package")
    said = ask("/ring", data=jpeg, content_type="image/jpeg")
    answer = said["answers"]["package"]
    assert held is not None and answer["version"] == held.version and 0 < answer["score"] < 1
    assert (
        answer["verdict"] == (answer["score"] >= answer["threshold"])
        and "package (" in said["said"]
    )
    assert ask(f"/event/{said['event']}.jpg", method="GET") == jpeg


def test_ring_is_kept_although_nothing_can_answer_yet(
    ask: Any, doorbell: Device, jpeg: bytes
) -> None:
    participation.train(doorbell, "package")
    next(doorbell.settings.cache.glob("*.tflite")).unlink()
    said = ask("/ring", data=jpeg, content_type="image/jpeg")
    assert said["answers"] == {} and "The frozen body is not on this machine yet." in said["said"]
    assert ask(f"/event/{said['event']}.jpg", method="GET") == jpeg


def test_picture_may_come_in_a_form(ask: Any, jpeg: bytes) -> None:
    said = ask("/ring", data={"picture": (io.BytesIO(jpeg), "porch.jpg")})
    assert said["answers"] == {} and "No model is active here yet" in said["said"]
    assert ask(f"/event/{said['event']}.jpg", method="GET") == jpeg


def test_picture_of_another_kind_is_kept_as_a_jpeg(ask: Any) -> None:
    number = ask("/ring", data=cv2.imencode(".png", PORCH)[1].tobytes(), content_type="image/png")[
        "event"
    ]
    kept = cv2.imdecode(
        np.frombuffer(ask(f"/event/{number}.jpg", method="GET"), np.uint8), cv2.IMREAD_COLOR
    )
    assert kept.shape == PORCH.shape and abs(float(kept.mean()) - 120) < 2
    assert ask(f"/event/{number}.jpg", method="GET").startswith(b"\xff\xd8\xff")


def test_ring_without_picture_and_camera_says_what_to_do(ask: Any) -> None:
    assert "set DOORBELL_CAMERA" in ask("/ring", 409)["detail"]
    assert ask("/events", method="GET", accept="text/html").count(b"<article") == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"no picture", 422), (b"\xff\xd8\xff" + bytes(100), 422), (bytes(17 << 20), 413)],
    ids=["text", "broken", "too long"],
)
def test_what_is_no_picture_is_refused_and_not_kept(ask: Any, body: bytes, status: int) -> None:
    ask("/ring", status, data=body, content_type="image/jpeg")
    assert ask("/events", method="GET", accept="text/html").count(b"<article") == 0


def test_owners_word_is_learned_and_taken_back(ask: Any, doorbell: Device, jpeg: bytes) -> None:
    number = ask("/ring", data=jpeg, content_type="image/jpeg")["event"]

    def learned() -> list[str]:
        return sorted(path.parent.name for path in doorbell.settings.data.rglob("event-*"))

    assert ask(f"/label?event={number}&shows=package")["labels"] == {"package": True}
    assert learned() == ["package"]
    assert ask(f"/label?event={number}&word=shows")["labels"] == {"package": False}
    assert learned() == ["not_package"]
    assert ask(f"/label?event={number}&shows=animal&shows=package")["labels"] == {
        "animal": True,
        "package": True,
    }
    assert learned() == ["animal", "package"]
    ask(f"/unlabel?event={number}")
    assert learned() == []
    ask(f"/delete_event?event={number}")
    ask(f"/event/{number}.jpg", 404, method="GET")
    ask(f"/label?event={number}&shows=package", 404)


def test_label_names_the_split_that_the_picture_joins(
    ask: Any, doorbell: Device, jpeg: bytes
) -> None:
    number = ask("/ring", data=jpeg, content_type="image/jpeg")["event"]
    sentence = ask(f"/label?event={number}&shows=package")["said"]
    (learned,) = doorbell.settings.data.rglob("event-*")
    split = {"train": "training", "valid": "validation", "test": "test"}[learned.parts[-3]]
    assert sentence == f"Label saved ({split} split): package."


def test_right_and_wrong_go_by_the_verdict(ask: Any, doorbell: Device, jpeg: bytes) -> None:
    number = ask("/ring", data=jpeg, content_type="image/jpeg")["event"]
    assert "No detector answered" in ask(f"/label?event={number}&word=right", 400)["detail"]
    participation.train(doorbell, "package")
    said = ask("/ring", data=jpeg, content_type="image/jpeg")
    verdict = said["answers"]["package"]["verdict"]
    assert ask(f"/label?event={said['event']}&word=right")["labels"] == {"package": verdict}
    assert ask(f"/label?event={said['event']}&word=wrong")["labels"] == {"package": not verdict}
    ask(f"/label?event={said['event']}&word=perhaps", 400)


@pytest.mark.parametrize("shows", ["../../etc", "Face", "a" * 40])
def test_detector_with_a_name_that_is_none_is_refused(
    ask: Any, doorbell: Device, jpeg: bytes, shows: str
) -> None:
    number = ask("/ring", data=jpeg, content_type="image/jpeg")["event"]
    ask(f"/label?event={number}", 400, data={"shows": shows})
    assert not list(doorbell.settings.data.rglob("event-*"))


def test_page_shows_events_and_filters_them(ask: Any, doorbell: Device, jpeg: bytes) -> None:
    numbers = [ask("/ring", data=jpeg, content_type="image/jpeg")["event"] for _ in range(3)]
    ask(f"/label?event={numbers[0]}&shows=package")

    def shown(query: str) -> list[int]:
        page = ask(f"/events{query}", method="GET", accept="text/html").decode()
        return [number for number in numbers if f'id="event-{number}"' in page]

    assert shown("") == numbers
    assert shown("?word=labelled") == numbers[:1] and shown("?word=new") == numbers[1:]
    assert shown("?detector=package") == numbers[:1]
    assert shown(f"?before={numbers[1]}") == numbers[:1]
    assert shown("?before=x&detector=%3Cscript%3E&word=%22") == numbers


def test_page_of_many_events_has_older_ones_behind_a_link(ask: Any, jpeg: bytes) -> None:
    numbers = [ask("/ring", data=jpeg, content_type="image/jpeg")["event"] for _ in range(26)]
    page = ask("/events", method="GET", accept="text/html").decode()
    assert f'href="/events?before={numbers[2]}"' in page and page.count("<article") == 24
    assert (
        ask(f"/events?before={numbers[2]}", method="GET", accept="text/html").count(b"<article")
        == 2
    )


def test_page_says_from_which_score_on_an_answer_is_yes(
    ask: Any, client: Any, doorbell: Device, jpeg: bytes
) -> None:
    events = EventStore(doorbell.store.database, doorbell.settings.folder / "events")
    answers = {
        "face": Prediction(0.614, True, 0.55, "a" * 64),
        "package": Prediction(0.6149, False, 0.6151, "b" * 64),
    }
    events.add(1e6, "button", jpeg, answers)
    said = text_of(page_of(client.application, "/events"))
    assert "face: yes, 61 % threshold 55 %" in said
    assert "package: no, 61.49 % threshold 61.51 %" in said, (
        "where they are close, it is seen which is greater"
    )


# The camera


def until_ok(ring: Callable[[], Any]) -> None:
    """Ring until the camera has given a picture: its process takes a moment to start."""
    end = time.monotonic() + 20
    while ring().status_code != 200:
        assert time.monotonic() < end


def how_it_is(app: Any) -> tuple[str, str, str | None]:
    """Return the digest of the page, what the page says of the camera, and what Prometheus is told
    of it.
    """
    html = page_of(app, "/events")
    digest, said = (
        re.search('data-seen="([0-9a-f]+)"', html),
        re.search('<div id="camera".*?</div>', html, re.DOTALL),
    )
    up = re.search(
        "^doorbell_camera_up (.+)$", app.test_client().get("/metrics").text, re.MULTILINE
    )
    assert digest is not None and said is not None
    return digest[1], text_of(said[0]), up[1] if up else None


def test_page_and_figures_tell_how_the_camera_is(
    watched: Callable[[str], Any], tmp_path: Path
) -> None:
    (folder := tmp_path / "porch").mkdir()
    cv2.imwrite(str(folder / "1.png"), PORCH)
    app = watched(str(folder))
    unused, said, up = how_it_is(app)
    assert (said, up) == ("Camera: not in use The first ring without a picture starts it.", None)
    until_ok(lambda: app.test_client().post("/ring", headers={"Host": "localhost"}))
    watching, said, up = how_it_is(app)
    assert said.startswith("Camera: watching since ") and up == "1.0" and watching != unused
    time.sleep(1.2)
    assert how_it_is(app)[0] == watching, (
        "an open page is not told every second that nothing has changed"
    )
    (folder / "1.png").unlink()
    end = time.monotonic() + 20
    while how_it_is(app)[2] != "0.0":
        assert time.monotonic() < end
    now = how_it_is(app)
    assert re.match(
        r"Camera: no picture since \d\d:\d\d: the folder has no picture that can be read It is",
        now[1],
    )
    assert now[0] != watching


def test_nobody_reads_the_cameras_password_or_asks_health_whether_it_is_blind(
    watched: Callable[[str], Any],
) -> None:
    app = watched("rtsp://admin:s3cr3t@127.0.0.1:9/porch?token=unkn0wn")
    client = app.test_client()
    end = time.monotonic() + 20
    while (
        "connection refused"
        not in (answer := client.post("/ring", headers={"Host": "localhost"})).text
    ):
        assert time.monotonic() < end
    assert "no picture since" in how_it_is(app)[1]
    texts = [
        answer.text,
        *(client.get(path, headers={"Host": "localhost"}).text for path in ("/events", "/metrics")),
    ]
    health = client.get("/healthz")
    assert not [text for text in (*texts, health.text) if re.search("s3cr3t|unkn0wn|admin:", text)]
    assert set(health.json) == {"service", "status", "version", "device", "doing", "trainer_pid"}


def test_device_without_a_camera_says_nothing_of_one(client: Any) -> None:
    assert how_it_is(client.application)[1:] == ("", None)


# What is kept of a picture, and by whom


def test_no_browser_keeps_a_picture_and_nothing_is_left_of_a_deleted_one(
    ask: Any, client: Any, federation: Any, doorbell: Device
) -> None:
    noise = np.random.default_rng(7).integers(0, 255, (72, 128, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    number = ask("/ring", data=jpeg, content_type="image/jpeg")["event"]
    ask(f"/label?event={number}&shows=package")
    (learned,) = doorbell.settings.data.rglob("event-*")
    thumbnail = f"/picture/package/{learned.parent.parent.name}/object/0.jpg"
    for path in (f"/event/{number}.jpg", thumbnail, "/events"):
        answer = client.get(path, headers={"Host": "localhost"})
        assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store", path

    def holding() -> list[Path]:
        files = [path for path in federation.folder.rglob("*") if path.is_file()]
        return [path for path in files if jpeg[1000:1064] in path.read_bytes()]

    assert len(holding()) == 2, "the event's and the one to learn from"
    ask(f"/delete_event?event={number}")
    assert holding() == []
    for path in (f"/event/{number}.jpg", thumbnail):
        assert client.get(path, headers={"Host": "localhost"}).status_code == 404, path


def test_detector_of_the_settings_can_be_learned_without_a_picture(
    federation: Any, make_device: Any
) -> None:
    doorbell = make_device(federation, 1, DOORBELL_DETECTORS="unsafe, vehicle")
    assert doorbell.detectors() == ("package", "unsafe", "vehicle")


def test_model_of_a_later_round_answers_the_next_ring(
    ask: Any, federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any, jpeg: bytes
) -> None:
    participation.train(doorbell, "package")
    before = ask("/ring", data=jpeg, content_type="image/jpeg")["answers"]["package"]["version"]
    finish_a_round(federation, doorbell, make_device(federation, 2))
    federation.step("main", "send_model_clients")
    after = ask("/ring", data=jpeg, content_type="image/jpeg")["answers"]["package"]["version"]
    held = doorbell.store.models.active("package")
    assert held is not None and held.version == after != before


def test_threshold_that_was_chosen_decides(ask: Any, doorbell: Device, jpeg: bytes) -> None:
    participation.train(doorbell, "package")
    score = ask("/ring", data=jpeg, content_type="image/jpeg")["answers"]["package"]["score"]
    for threshold in (score / 2, (1 + score) / 2):
        held = doorbell.store.models.active("package")
        assert held is not None
        with doorbell.store.database.write() as connection:
            connection.exec_driver_sql("DELETE FROM scores")
            row = (held.version, held.detector, held.round, 0.9, 4, threshold)
            connection.exec_driver_sql(
                "INSERT INTO scores (version, detector, round, accuracy, pictures, threshold) VALUES (?,?,?,?,?,?)",
                row,
            )
        answer = ask("/ring", data=jpeg, content_type="image/jpeg")["answers"]["package"]
        assert (answer["threshold"], answer["verdict"]) == (threshold, score >= threshold)


def test_events_beyond_the_limit_go_with_the_next_ring(
    federation: Any, make_device: Any, monkeypatch: pytest.MonkeyPatch, jpeg: bytes
) -> None:
    doorbell = make_device(federation, 1, DOORBELL_KEEP_MB=str(2.5 * len(jpeg) / 1e6))
    client = federation.network.apps[doorbell.settings.name].test_client()
    for _ in range(5):
        client.post("/ring", data=jpeg, content_type="image/jpeg", headers={"Host": "localhost"})
    folder = doorbell.settings.folder / "events"
    assert len(list(folder.glob("*.jpg"))) == 2


def test_labelled_picture_counts_as_a_new_one(doorbell: Device, ask: Any, jpeg: bytes) -> None:
    before = doorbell.pictures("package", "train")[True]
    for shade in range(12):
        picture = cv2.imencode(".jpg", np.full((72, 128, 3), 10 * shade, np.uint8))[1].tobytes()
        number = ask("/ring", data=picture, content_type="image/jpeg")["event"]
        ask(f"/label?event={number}&shows=package")
    assert doorbell.pictures("package", "train")[True] > before


@pytest.mark.parametrize(
    "sent",
    [{"data": b"x" * 50}, {"data": {"photo": (b"x", "x.jpg")}}, {"json": {"picture": "x"}}],
    ids=["bytes", "another field", "JSON"],
)
def test_what_is_sent_the_wrong_way_is_not_answered_by_the_camera(
    watched: Any, tmp_path: Path, sent: Any
) -> None:
    (tmp_path / "porch").mkdir()
    cv2.imwrite(str(tmp_path / "porch" / "1.png"), PORCH)
    if isinstance(sent.get("data"), dict):
        sent = {"data": {"photo": (io.BytesIO(b"x"), "x.jpg")}}
    client = watched(str(tmp_path / "porch")).test_client()
    answer = client.post(
        "/ring", headers={"Host": "localhost", "Accept": "application/json"}, **sent
    )
    assert answer.status_code == 400 and "no picture in it" in answer.json["detail"]


def test_change_of_mind_is_seen_by_an_open_page(doorbell: Device) -> None:
    events = EventStore(doorbell.store.database, doorbell.settings.folder / "events")
    event = events.add(1e6, "button", b"picture", {})
    seen = set()
    for animal in (True, False):
        events.label(event.id, {"animal": animal, "face": not animal})
        seen.add(events.fingerprint())
    assert len(seen) == 2


def test_ring_is_answered_although_old_events_cannot_be_removed(
    client: Any, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise StorageFailed("The disk is closed.")

    monkeypatch.setattr(EventStore, "delete", refuse)
    assert (
        client.post(
            "/ring", data=jpeg, content_type="image/jpeg", headers={"Host": "localhost"}
        ).status_code
        == 200
    )
