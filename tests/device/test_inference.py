"""The answers of the web process are those of the model that was trained."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import device.embedding
from device.bell.inference import Head, Seer
from device.models import build, set_params
from device.records import Held
from shared.architectures import EFFICIENTNET_LITE0_HEAD, PORCH_CNN
from shared.containers import Model
from shared.errors import DoorbellError, OutOfOrder

FEATURES = 1280


def a_model(seed: int, detector: str = "face") -> Model:
    params = EFFICIENTNET_LITE0_HEAD.initial(np.random.default_rng(seed))
    return Model(detector, seed, "0" * 64, EFFICIENTNET_LITE0_HEAD.name, params)


def held(seed: int, detector: str = "face") -> Held:
    return Held(detector, f"{seed:064x}", seed)


class PretendEmbedder:
    """Gives every picture the features that its brightness decides, and counts how often it looks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        PretendEmbedder.looked = 0

    def embed(self, images: Any) -> Any:
        PretendEmbedder.looked += 1
        return np.full((len(images), FEATURES), float(images.mean()) / 255, np.float32)


@pytest.fixture
def seer(monkeypatch: pytest.MonkeyPatch) -> Seer:
    monkeypatch.setattr(device.embedding, "Embedder", PretendEmbedder)
    return Seer(lambda: Path("body.tflite"), lambda version: a_model(int(version, 16)))


@pytest.fixture
def picture() -> bytes:
    return cv2.imencode(".jpg", np.full((72, 128, 3), 200, np.uint8))[1].tobytes()


def test_head_answers_what_keras_answers() -> None:
    model, features = build(EFFICIENTNET_LITE0_HEAD), np.random.default_rng(1).normal(size=(8, FEATURES))
    params = a_model(3).params
    set_params(model, EFFICIENTNET_LITE0_HEAD, params)
    logits = model(features.astype(np.float32), training=False).numpy()[:, 0]
    head = Head(held(3), 0.5, params)
    scores = [head.score(row.astype(np.float32)) for row in features]
    assert np.allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_body_looks_once_for_all_detectors(seer: Seer, picture: bytes) -> None:
    seer.follow({held(1, "face"): 0.5, held(2, "animal"): 0.5, held(3, "vehicle"): 0.5})
    answers = seer.answer(picture)
    assert sorted(answers) == ["animal", "face", "vehicle"] and PretendEmbedder.looked == 1
    assert len({answer.score for answer in answers.values()}) == 3


def test_verdict_goes_by_the_detectors_own_threshold(seer: Seer, picture: bytes) -> None:
    seer.follow({held(1): 0.5})
    score = seer.answer(picture)["face"].score
    for threshold, verdict in ((score, True), (score + 1e-9, False), (0.0, True), (1.0, False)):
        seer.follow({held(1): threshold})
        answer = seer.answer(picture)["face"]
        assert (answer.verdict, answer.score, answer.threshold) == (verdict, score, threshold)


def test_new_model_takes_the_place_of_the_old_one_and_one_that_is_loaded_is_not_loaded_again(
    seer: Seer, picture: bytes
) -> None:
    loaded: list[str] = []
    load = seer._load
    seer._load = lambda version: (loaded.append(version), load(version))[1]
    seer.follow({held(1, "face"): 0.5, held(2, "animal"): 0.5})
    before = seer.answer(picture)
    seer.follow({held(4, "face"): 0.5, held(2, "animal"): 0.5})
    after = seer.answer(picture)
    assert [int(version, 16) for version in loaded] == [1, 2, 4]
    assert after["animal"] == before["animal"] and after["face"].version == held(4).version
    seer.follow({})
    assert seer.answer(picture) == {}


def test_picture_that_is_being_looked_at_keeps_the_models_that_it_began_with(seer: Seer, picture: bytes) -> None:
    looking, go = threading.Event(), threading.Event()
    seer.follow({held(1, "face"): 0.5, held(2, "animal"): 0.5})
    expected = seer.answer(picture)
    embed = seer._loaded().embed

    def slow(images: Any) -> Any:
        looking.set()
        assert go.wait(10)
        return embed(images)

    seer._loaded().embed = slow  # type: ignore[method-assign]
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(seer.answer(picture)))
    thread.start()
    assert looking.wait(10)
    seer.follow({held(7, "face"): 0.5, held(8, "animal"): 0.5})
    go.set()
    thread.join()
    assert answers == [expected]


def test_model_that_cannot_answer_here_is_left_out(seer: Seer, picture: bytes) -> None:
    cnn = Model("face", 1, "0" * 64, PORCH_CNN.name, PORCH_CNN.initial(np.random.default_rng(0)))
    seer._load = lambda version: cnn if int(version, 16) == 1 else a_model(2, "animal")
    seer.follow({held(1, "face"): 0.5, held(2, "animal"): 0.5})
    assert list(seer.answer(picture)) == ["animal"]


def test_what_is_no_picture_is_refused_with_or_without_a_model(seer: Seer) -> None:
    for models in ({}, {held(1): 0.5}):
        seer.follow(models)
        with pytest.raises(DoorbellError) as refused:
            seer.answer(b"no picture")
        assert refused.value.status == 422


def test_without_the_body_it_says_how_to_get_it(picture: bytes) -> None:
    seer = Seer(lambda: None, lambda version: a_model(1))
    seer.follow({held(1): 0.5})
    with pytest.raises(OutOfOrder, match="frozen body"):
        seer.answer(picture)
