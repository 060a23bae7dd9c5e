"""The answers of the web process are those of the model that was trained."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import device.vision.predictor
from device.store.records import Held
from device.training.conversion import ensure_answering
from device.training.models import set_params
from device.vision.litert import answering_file
from device.vision.predictor import Seer
from learning.architectures import EFFICIENTNET_LITE0_HEAD, PORCH_CNN
from learning.architectures.efficientnet_lite0_head import head_score
from learning.model import Model
from shared.errors import DoorbellError, OutOfOrder

pytestmark = pytest.mark.heavy  # imports TensorFlow

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
def seer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Seer:
    monkeypatch.setattr(device.vision.predictor, "Embedder", PretendEmbedder)
    answering_file(tmp_path, EFFICIENTNET_LITE0_HEAD).touch()
    return Seer(tmp_path, lambda version: a_model(int(version, 16)))


@pytest.fixture
def picture() -> bytes:
    return cv2.imencode(".jpg", np.full((72, 128, 3), 200, np.uint8))[1].tobytes()


def test_head_answers_what_keras_answers() -> None:
    model, features = (
        EFFICIENTNET_LITE0_HEAD.build(),
        np.random.default_rng(1).normal(size=(8, FEATURES)),
    )
    params = a_model(3).params
    set_params(model, EFFICIENTNET_LITE0_HEAD, params)
    logits = model(features.astype(np.float32), training=False).numpy()[:, 0]
    scores = [head_score(params, row.astype(np.float32)) for row in features]
    assert np.allclose(scores, 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_body_looks_once_for_all_detectors(seer: Seer, picture: bytes) -> None:
    seer.follow(lambda: {held(1, "face"): 0.5, held(2, "animal"): 0.5, held(3, "vehicle"): 0.5})
    answers = seer.answer(picture)
    assert sorted(answers) == ["animal", "face", "vehicle"] and PretendEmbedder.looked == 1
    assert len({answer.score for answer in answers.values()}) == 3


def test_verdict_goes_by_the_detectors_own_threshold(seer: Seer, picture: bytes) -> None:
    seer.follow(lambda: {held(1): 0.5})
    score = seer.answer(picture)["face"].score
    for threshold, verdict in ((score, True), (score + 1e-9, False), (0.0, True), (1.0, False)):
        seer.follow(lambda threshold=threshold: {held(1): threshold})
        answer = seer.answer(picture)["face"]
        assert (answer.verdict, answer.score, answer.threshold) == (verdict, score, threshold)


def test_new_model_takes_the_place_of_the_old_one_and_one_that_is_loaded_is_not_loaded_again(
    seer: Seer, picture: bytes
) -> None:
    loaded: list[str] = []
    load = seer._load
    seer._load = lambda version: (loaded.append(version), load(version))[1]
    seer.follow(lambda: {held(1, "face"): 0.5, held(2, "animal"): 0.5})
    before = seer.answer(picture)
    seer.follow(lambda: {held(4, "face"): 0.5, held(2, "animal"): 0.5})
    after = seer.answer(picture)
    assert [int(version, 16) for version in loaded] == [1, 2, 4]
    assert after["animal"] == before["animal"] and after["face"].version == held(4).version
    seer.follow(lambda: {})
    assert seer.answer(picture) == {}


def test_picture_that_is_being_looked_at_keeps_the_models_that_it_began_with(
    seer: Seer, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go = threading.Event(), threading.Event()
    seer.follow(lambda: {held(1, "face"): 0.5, held(2, "animal"): 0.5})
    expected = seer.answer(picture)
    embed = PretendEmbedder.embed

    def slow(embedder: PretendEmbedder, images: Any) -> Any:
        looking.set()
        assert go.wait(10)
        return embed(embedder, images)

    monkeypatch.setattr(PretendEmbedder, "embed", slow)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(seer.answer(picture)))
    thread.start()
    assert looking.wait(10)
    seer.follow(lambda: {held(7, "face"): 0.5, held(8, "animal"): 0.5})
    go.set()
    thread.join()
    assert answers == [expected]


def test_models_with_and_without_a_body_answer_side_by_side(
    seer: Seer, picture: bytes, tmp_path: Path
) -> None:
    params = [PORCH_CNN.initial(np.random.default_rng(seed)) for seed in (0, 1)]
    porch = {seed: Model("animal", seed, "0" * 64, PORCH_CNN.name, params[seed]) for seed in (0, 1)}
    seer._load = lambda version: porch.get(int(version, 16)) or a_model(2)
    seer.follow(lambda: {held(0, "animal"): 0.5, held(2, "face"): 0.5})
    assert list(seer.answer(picture)) == ["face"] and seer.detectors == {"animal", "face"}
    seer.follow(lambda: {held(0, "animal"): 0.5})
    with pytest.raises(OutOfOrder, match="The network porch-cnn is not on this machine yet"):
        seer.answer(picture)
    ensure_answering(tmp_path, PORCH_CNN)
    for seed in (0, 1, 0):  # a swap leaves nothing of the params from before
        seer.follow(lambda seed=seed: {held(seed, "animal"): 0.5, held(2, "face"): 0.5})
        answers = seer.answer(picture)
        model = PORCH_CNN.build()
        set_params(model, PORCH_CNN, params[seed])
        logit = float(model(np.full((1, 64, 64, 3), 200, np.float32), training=False)[0, 0])
        assert (
            answers["animal"].score == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-4)
            and "face" in answers
        )
    assert params[0]["logit/kernel"].any() and logit != 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_get_no_score(value: float) -> None:
    params = a_model(3).params | {"hidden/kernel": np.zeros((FEATURES, 64), np.float32)}
    assert math.isnan(head_score(params, np.full(FEATURES, value, np.float32)))


def test_model_whose_answer_is_no_number_is_silent_beside_the_others(
    seer: Seer, picture: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = a_model(1)
    spoilt.params["hidden/bias"][:] = 1
    spoilt.params["logit/kernel"][:] = 1e38
    porch = Model(
        "animal", 4, "0" * 64, PORCH_CNN.name, PORCH_CNN.initial(np.random.default_rng(0))
    )
    seer._load = lambda version: (
        {1: spoilt, 4: porch}.get(int(version, 16)) or a_model(2, "vehicle")
    )
    monkeypatch.setattr(device.vision.predictor._Networks, "score", lambda *_: float("nan"))
    seer.follow(lambda: {held(1): 0.5, held(4, "animal"): 0.5, held(2, "vehicle"): 0.5})
    assert list(seer.answer(picture)) == ["vehicle"]
    seer.follow(lambda: {held(4, "animal"): 0.5})
    with pytest.raises(OutOfOrder, match="What the animal model of round 4 answers is no number"):
        seer.answer(picture)


def test_what_is_no_picture_is_refused_with_or_without_a_model(seer: Seer) -> None:
    for models in ({}, {held(1): 0.5}):
        seer.follow(lambda models=models: models)
        with pytest.raises(DoorbellError) as refused:
            seer.answer(b"no picture")
        assert refused.value.status == 422


def test_without_the_body_it_says_how_to_get_it(picture: bytes, tmp_path: Path) -> None:
    seer = Seer(tmp_path, lambda version: a_model(1))
    seer.follow(lambda: {held(1): 0.5})
    with pytest.raises(OutOfOrder, match="frozen body"):
        seer.answer(picture)


@pytest.mark.parametrize("kind", [EFFICIENTNET_LITE0_HEAD, PORCH_CNN], ids=lambda kind: kind.name)
def test_file_that_cannot_be_loaded_is_said_to_be_so(
    picture: bytes, tmp_path: Path, kind: Any
) -> None:
    model = Model("face", 1, "0" * 64, kind.name, kind.initial(np.random.default_rng(0)))
    seer = Seer(tmp_path, lambda version: model)
    seer.follow(lambda: {held(1): 0.5})
    answering_file(tmp_path, kind).write_bytes(b"half of a file")
    with pytest.raises(OutOfOrder, match=r"cannot be loaded from .*\.tflite.* Copy it again"):
        seer.answer(picture)
