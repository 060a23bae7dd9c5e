"""What a device's page shows, and its pictures, which are shown nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from device.context import Device
from device.page import fingerprint
from device.rounds import participation
from device.store.records import Failure
from device.training.jobs import Activity, Train
from device.training.results import Epoch, Progress
from shared.round.plan import LocalWork


@pytest.fixture
def show(federation: Any, doorbell: Device) -> Callable[..., str]:
    """Return what fetches the page of device 1 as a browser does."""

    def fetch(path: str = "/", status: int = 200, method: str = "GET") -> str:
        client = federation.network.apps[doorbell.settings.name].test_client()
        response = client.open(
            path, method=method, headers={"Accept": "text/html", "Host": "localhost"}
        )
        assert response.status_code == status, response.text
        return str(response.data.decode(errors="replace"))

    return fetch


@pytest.fixture
def photograph() -> Callable[..., None]:
    """Return what puts real pictures of one colour into a split of a device."""

    def put(doorbell: Device, split: str, kind: str, count: int, detector: str = "package") -> None:
        folder = doorbell.settings.data / detector / doorbell.settings.client / split / kind
        folder.mkdir(parents=True)
        for index in range(count):
            cv2.imwrite(str(folder / f"{index:02}.png"), np.full((40, 60, 3), 10 * index, np.uint8))

    return put


def test_new_device_says_what_to_do_first(show: Any, doorbell: Device, photograph: Any) -> None:
    photograph(doorbell, "train", "package", 1)
    page = show()
    assert "<h1>Doorbell device-1</h1>" in page and ">Model Training (Locally)</button>" in page
    assert "Press “Model Training (Locally)” to take part in the open round." in page
    assert "Holds no global model yet." in page


def test_trained_device_shows_its_epochs_and_what_comes_next(
    show: Any, federation: Any, doorbell: Device
) -> None:
    participation.train(doorbell, "package")
    page = show()
    assert ">Re Model Training (Locally)</button>" in page
    assert "0.1000" in page and "90.0 %" in page and "0.2000" in page and "80.0 %" in page
    assert "The update of round 1 waits: press “Send Model to Federated Server”." in page
    assert "Holds the global model of round 0" in page
    participation.send(doorbell, "package", participation.announce(doorbell))
    page = show()
    assert (
        "its update is sent" in page
        and "The update of round 1 is sent; the next model comes when" in page
    )


def test_history_has_every_round(
    show: Any, federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    other = make_device(federation, 2)
    for _ in range(3):
        finish_a_round(federation, doorbell, other)
    participation.train(doorbell, "package")
    history = show().partition('id="history"')[2].partition("</table>")[0]
    assert [row.partition("</td>")[0] for row in history.split('<tr><td class="number">')[1:]] == [
        "4",
        "3",
        "2",
        "1",
    ]
    assert history.count("<td>sent</td>") == 3 and history.count("<td>not sent</td>") == 1


def test_what_went_wrong_is_shown_as_text(show: Any, federation: Any, doorbell: Device) -> None:
    participation.train(doorbell, "package")
    doorbell.store.failures.record(Failure("package", 2, "<script>alert(1)</script>"))
    page = show()
    assert "Round 2: &lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page


def test_one_detector_is_shown_in_detail_the_picked_one_or_the_last_trained(
    show: Any, federation: Any, doorbell: Device
) -> None:
    (doorbell.settings.data / "animal" / doorbell.settings.client).mkdir(parents=True)
    participation.train(doorbell, "package")
    assert "<h2>package</h2>" in show() and 'data-page="/"' in show()
    picked = show("/?detector=animal")
    assert "<h2>animal</h2>" in picked and "<h2>package</h2>" not in picked
    assert (
        'data-page="/?detector=animal"' in picked and "<option selected>animal</option>" in picked
    )
    unknown = show("/?detector=%22%3E%3Cscript%3E")
    assert "<h2>package</h2>" in unknown and "<script>" not in unknown


def test_page_that_answers_a_button_is_looked_at_again_by_its_own_address(
    show: Any, doorbell: Device
) -> None:
    answer = show("/cancel", 409, "POST")
    assert "Nothing is being trained." in answer and 'data-page="/"' in answer


def test_training_that_goes_on_is_shown_with_its_epochs_and_can_be_cancelled(
    show: Any, federation: Any, doorbell: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle = show()
    assert (
        'action="/cancel"' not in idle
        and "<progress data-progress" in idle
        and " hidden></progress>" in idle
    )
    epoch = Epoch(loss=0.125, accuracy=0.9, val_loss=0.2, val_accuracy=0.8, seconds=1.5)
    progress = Progress(
        epoch=2,
        epochs=4,
        batch=1,
        batches=2,
        loss=0.1,
        accuracy=0.5,
        history=(epoch,),
        seconds_left=9.0,
    )
    job = Train(
        detector="package",
        folders=doorbell.folders,
        client="client_1",
        model=Path("model"),
        round=1,
        base_version="0" * 64,
        work=LocalWork(4, 16, 0.1),
        seed=0,
        local_model=Path("local"),
    )
    activity = Activity(job, progress)
    monkeypatch.setattr(
        "device.training.worker_client.Trainer.progress", property(lambda _: activity)
    )
    page = show()
    assert (
        "training package, epoch 2 of 4, batch 1 of 2: loss 0.100, accuracy 50.0%, about 9 s left"
        in page
    )
    assert 'action="/cancel"' in page and 'value="0.375"' in page and "0.1250" in page


def test_a_few_pictures_of_each_class_are_shown_small(
    show: Any, doorbell: Device, photograph: Any
) -> None:
    photograph(doorbell, "train", "package", 9)
    photograph(doorbell, "train", "not_object", 2)
    page = show()
    for kind, numbers in (("object", (0, 3, 6)), ("not_object", (0, 1))):
        assert [f"train/{kind}/{number}.jpg" in page for number in range(9)] == [
            each in numbers for each in range(9)
        ]


def test_picture_is_the_one_of_that_number(
    federation: Any, doorbell: Device, photograph: Any
) -> None:
    photograph(doorbell, "train", "package", 4)
    reply = federation.http.get("http://device-1/picture/package/train/object/3.jpg")
    pixels = cv2.imdecode(np.frombuffer(reply.body, np.uint8), cv2.IMREAD_COLOR)
    assert reply.headers["Content-Type"] == "image/jpeg" and pixels.shape == (96, 96, 3)
    assert abs(float(pixels.mean()) - 30) < 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("package/train/object/4.jpg", 404),
        ("package/train/not_object/0.jpg", 422),
        ("package/train/other/0.jpg", 404),
        ("package/secret/object/0.jpg", 404),
        ("animal/train/object/0.jpg", 404),
        ("..%2Fx/train/object/0.jpg", 404),
        ("Package!/train/object/0.jpg", 400),
        ("package/train/object/-1.jpg", 404),
        ("package/valid/object/0.jpg", 422),
    ],
)
def test_what_is_no_picture_is_not_shown(
    show: Any, doorbell: Device, photograph: Any, path: str, status: int
) -> None:
    photograph(doorbell, "train", "package", 4)
    show(f"/picture/{path}", status)


def test_picture_outside_of_the_data_set_is_not_shown(
    show: Any, doorbell: Device, photograph: Any, tmp_path: Path
) -> None:
    photograph(doorbell, "train", "package", 1)
    secret = tmp_path / "secret.png"
    cv2.imwrite(str(secret), np.zeros((8, 8, 3), np.uint8))
    folder = doorbell.settings.data / "package" / doorbell.settings.client / "train" / "package"
    (folder / "99.png").symlink_to(secret)
    show("/picture/package/train/object/0.jpg")
    show("/picture/package/train/object/1.jpg", 404)


def test_fingerprint_is_another_one_when_the_page_should_be(
    federation: Any, doorbell: Device, make_device: Any, finish_a_round: Any
) -> None:
    seen = [fingerprint(doorbell)]

    def changed() -> bool:
        seen.append(fingerprint(doorbell))
        return seen[-1] not in seen[:-1]

    assert not changed()
    participation.train(doorbell, "package")
    assert changed()
    participation.send(doorbell, "package", participation.announce(doorbell))
    assert changed()
    doorbell.store.failures.record(Failure("package", 5, "It went wrong."))
    assert changed()
    finish_a_round(federation, doorbell, make_device(federation, 2))
    federation.step("main", "send_model_clients")
    assert changed()
