"""What a device keeps of its trainings and models, and what goes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.context import Device
from device.rounds import cleanup, participation
from device.rounds.cleanup import KEPT_TRAININGS, tidy
from device.store.records import GlobalModel, Score
from shared.errors import StorageFailed


def there(doorbell: Device) -> set[str]:
    return {path.name for path in (doorbell.settings.folder / "blobs").iterdir()}


def test_the_last_trainings_stay_with_their_blobs_and_the_others_go(
    federation: Any,
    doorbell: Device,
    make_device: Any,
    finish_a_round: Any,
    pushed: Any,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(cleanup, "KEPT_TRAININGS", 3)
    other, kept = make_device(federation, 2), []
    for number in range(5):
        doorbell.trainer.step = np.float32(0.1 + number / 64)  # type: ignore[attr-defined]
        finish_a_round(federation, doorbell, other)
        newest = doorbell.store.trainings.newest("package")
        doorbell.store.trainings.keep_plot(newest, doorbell.blobs.put(b"plot %d" % number))
        kept.append(doorbell.store.trainings.newest("package"))
    held = GlobalModel("package", doorbell.blobs.put(b"held"), 8)
    doorbell.store.models.activate(held)
    waiting = GlobalModel("package", doorbell.blobs.put(b"waiting"), 9)
    doorbell.store.models.propose(waiting)
    stray = doorbell.blobs.put(b"a stray")
    assert tidy(doorbell) == 0, "what is young stays"
    assert tidy(doorbell, grace_s=-1.0) > 0
    needed = {digest for training in kept[-3:] for digest in (training.local_model, training.plot)}
    needed |= {update for update in _updates(doorbell) if update}
    assert there(doorbell) == needed | {held.version, waiting.version, kept[-1].base_version}
    assert stray not in there(doorbell) and kept[0].local_model not in there(doorbell)
    assert len(_updates(doorbell)) == 3
    assert (
        participation.send(
            doorbell, "package", {"package": doorbell.store.rounds.newest("package")}
        )
        is not None
    )


def _updates(doorbell: Device) -> list[str]:
    import sqlite3  # noqa: PLC0415

    with sqlite3.connect(doorbell.settings.folder / "state.sqlite3") as database:
        return [row[0] for row in database.execute('SELECT "update" FROM trainings ORDER BY id')]


def test_update_can_be_made_after_the_base_went_out_of_force(
    federation: Any, doorbell: Device
) -> None:
    participation.train(doorbell, "package")
    doorbell.store.models.activate(GlobalModel("package", doorbell.blobs.put(b"newer"), 8))
    tidy(doorbell, grace_s=-1.0)
    participation.send(doorbell, "package", participation.announce(doorbell))
    assert doorbell.store.trainings.sent_round("package") == 1


def test_training_tidies_up(doorbell: Device) -> None:
    assert KEPT_TRAININGS == 20
    for number in range(22):
        doorbell.store.trainings.add(
            {
                "detector": "package",
                "round": number,
                "base_version": "a" * 64,
                "local_model": f"{number:064x}",
                "plot": "b" * 64,
                "weight": 1,
                "history": [],
                "finished_at": 0.0,
            }
        )
    participation.train(doorbell, "package")
    needed = doorbell.store.forget_old(99)
    assert {f"{number:064x}" for number in range(3, 22)} <= needed
    assert f"{2:064x}" not in needed


def test_old_scores_go_and_those_of_the_newest_versions_stay(doorbell: Device) -> None:
    for number in range(5):
        version = f"{number:064x}"
        doorbell.store.models.activate(
            GlobalModel("package", version, number), Score(version, "package", number, 0.5, 4)
        )
    doorbell.store.forget_old(2)
    assert [doorbell.store.models.score(f"{number:064x}") is None for number in range(5)] == [
        True
    ] * 3 + [False] * 2


def test_disk_that_refuses_holds_no_training_up(
    doorbell: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise StorageFailed("The disk reports an error.")

    monkeypatch.setattr(doorbell.store, "forget_old", refuse)
    assert "Trained for round 1" in participation.train(doorbell, "package").said
    assert "could not be removed. The disk reports an error." in caplog.text


def test_folders_that_killed_trainings_left_go_after_a_day(doorbell: Device) -> None:
    old, young = (doorbell.settings.folder / f"training-{name}" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir()
        Path(folder / "model.safetensors").write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    tidy(doorbell)
    assert (old.exists(), young.exists()) == (False, True)
