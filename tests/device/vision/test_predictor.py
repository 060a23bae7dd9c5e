"""The answers of the web process are those of the model that was trained."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import device.vision.networks
from device.store.records import GlobalModel
from device.training.conversion import ensure_answering
from device.training.models import set_params
from device.vision.litert import Network, answering_file
from device.vision.predictor import ImageFeatures, Predictor
from learning.architectures import EFFICIENTNET_LITE0_HEAD, PORCH_CNN
from learning.architectures.efficientnet_lite0_head import BODY_VERSION, head_score
from learning.model import Model
from shared.errors import DoorbellError, OutOfOrder

pytestmark = pytest.mark.heavy  # imports TensorFlow

FEATURES = 1280


def a_model(seed: int, detector: str = "face") -> Model:
    params = EFFICIENTNET_LITE0_HEAD.initial(np.random.default_rng(seed))
    return Model(detector, seed, "0" * 64, EFFICIENTNET_LITE0_HEAD.name, params)


def held(seed: int, detector: str = "face") -> GlobalModel:
    return GlobalModel(detector, f"{seed:064x}", seed)


def activate(predictor: Predictor, models: Mapping[GlobalModel, float]) -> None:
    """Make these the active models."""
    predictor.active = lambda: models


class PretendBody:
    """A frozen body whose features are the picture's brightness; it counts how often it runs."""

    runs = 0

    def run(self, pixels: Any, params: Any) -> Any:
        PretendBody.runs += 1
        return np.full(FEATURES, float(pixels.mean()) / 255, np.float32)


def pretend(path: Path) -> Any:
    """Load a network, or a pretended one in place of the frozen body."""
    return PretendBody() if path.stem == BODY_VERSION else Network(path)


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Predictor:
    monkeypatch.setattr(device.vision.networks, "Network", pretend)
    monkeypatch.setattr(PretendBody, "runs", 0)
    answering_file(tmp_path, EFFICIENTNET_LITE0_HEAD).touch()
    return Predictor(tmp_path, dict, lambda version: a_model(int(version, 16)))


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


def test_body_looks_once_for_all_detectors(predictor: Predictor, picture: bytes) -> None:
    activate(predictor, {held(1, "face"): 0.5, held(2, "animal"): 0.5, held(3, "vehicle"): 0.5})
    answers = predictor.predict(picture)
    assert sorted(answers) == ["animal", "face", "vehicle"] and PretendBody.runs == 1
    assert len({answer.score for answer in answers.values()}) == 3


def test_verdict_goes_by_the_detectors_own_threshold(predictor: Predictor, picture: bytes) -> None:
    activate(predictor, {held(1): 0.5})
    score = predictor.predict(picture)["face"].score
    for threshold, verdict in ((score, True), (score + 1e-9, False), (0.0, True), (1.0, False)):
        activate(predictor, {held(1): threshold})
        answer = predictor.predict(picture)["face"]
        assert (answer.verdict, answer.score, answer.threshold) == (verdict, score, threshold)


def test_new_model_takes_the_place_of_the_old_one_and_one_that_is_loaded_is_not_loaded_again(
    predictor: Predictor, picture: bytes
) -> None:
    loaded: list[str] = []
    load = predictor._load
    predictor._load = lambda version: (loaded.append(version), load(version))[1]
    activate(predictor, {held(1, "face"): 0.5, held(2, "animal"): 0.5})
    before = predictor.predict(picture)
    activate(predictor, {held(4, "face"): 0.5, held(2, "animal"): 0.5})
    after = predictor.predict(picture)
    assert [int(version, 16) for version in loaded] == [1, 2, 4]
    assert after["animal"] == before["animal"] and after["face"].version == held(4).version
    activate(predictor, {})
    assert predictor.predict(picture) == {}


def test_picture_that_is_being_looked_at_keeps_the_models_that_it_began_with(
    predictor: Predictor, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, go = threading.Event(), threading.Event()
    activate(predictor, {held(1, "face"): 0.5, held(2, "animal"): 0.5})
    expected = predictor.predict(picture)
    run = PretendBody.run

    def slow(body: PretendBody, pixels: Any, params: Any) -> Any:
        looking.set()
        assert go.wait(10)
        return run(body, pixels, params)

    monkeypatch.setattr(PretendBody, "run", slow)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(predictor.predict(picture)))
    thread.start()
    assert looking.wait(10)
    activate(predictor, {held(7, "face"): 0.5, held(8, "animal"): 0.5})
    predictor._refresh()  # as the next ring does
    go.set()
    thread.join()
    assert answers == [expected]


def test_models_with_and_without_a_body_answer_side_by_side(
    predictor: Predictor, picture: bytes, tmp_path: Path
) -> None:
    params = [PORCH_CNN.initial(np.random.default_rng(seed)) for seed in (0, 1)]
    porch = {seed: Model("animal", seed, "0" * 64, PORCH_CNN.name, params[seed]) for seed in (0, 1)}
    predictor._load = lambda version: porch.get(int(version, 16)) or a_model(2)
    activate(predictor, {held(0, "animal"): 0.5, held(2, "face"): 0.5})
    assert list(predictor.predict(picture)) == ["face"] and predictor.detectors == {
        "animal",
        "face",
    }
    activate(predictor, {held(0, "animal"): 0.5})
    with pytest.raises(OutOfOrder, match="The network porch-cnn is not on this machine yet"):
        predictor.predict(picture)
    ensure_answering(tmp_path, PORCH_CNN)
    for seed in (0, 1, 0):  # a swap leaves nothing of the params from before
        activate(predictor, {held(seed, "animal"): 0.5, held(2, "face"): 0.5})
        answers = predictor.predict(picture)
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
    assert np.isnan(head_score(params, np.full(FEATURES, value, np.float32)))


def test_model_whose_score_is_not_finite_is_silent_beside_the_others(
    predictor: Predictor, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = a_model(1)
    spoilt.params["hidden/bias"][:] = 1
    spoilt.params["logit/kernel"][:] = 1e38
    porch = Model(
        "animal", 4, "0" * 64, PORCH_CNN.name, PORCH_CNN.initial(np.random.default_rng(0))
    )
    known = {1: spoilt, 2: a_model(2, "vehicle"), 4: porch}
    predictor._load = lambda version: known[int(version, 16)]
    monkeypatch.setattr(ImageFeatures, "probability", lambda *_: float("nan"))
    activate(predictor, {held(1): 0.5, held(4, "animal"): 0.5, held(2, "vehicle"): 0.5})
    assert list(predictor.predict(picture)) == ["vehicle"]
    activate(predictor, {held(4, "animal"): 0.5})
    with pytest.raises(OutOfOrder, match="The animal model of round 4 gives a score that is not"):
        predictor.predict(picture)


def test_what_is_no_picture_is_refused_with_or_without_a_model(predictor: Predictor) -> None:
    for models in ({}, {held(1): 0.5}):
        activate(predictor, models)
        with pytest.raises(DoorbellError) as refused:
            predictor.predict(b"no picture")
        assert refused.value.status == 422


def test_without_the_body_it_says_how_to_get_it(picture: bytes, tmp_path: Path) -> None:
    predictor = Predictor(tmp_path, lambda: {held(1): 0.5}, lambda version: a_model(1))
    with pytest.raises(OutOfOrder, match="frozen body"):
        predictor.predict(picture)


@pytest.mark.parametrize("kind", [EFFICIENTNET_LITE0_HEAD, PORCH_CNN], ids=lambda kind: kind.name)
def test_file_that_cannot_be_loaded_is_said_to_be_so(
    picture: bytes, tmp_path: Path, kind: Any
) -> None:
    model = Model("face", 1, "0" * 64, kind.name, kind.initial(np.random.default_rng(0)))
    predictor = Predictor(tmp_path, lambda: {held(1): 0.5}, lambda version: model)
    answering_file(tmp_path, kind).write_bytes(b"half of a file")
    with pytest.raises(OutOfOrder, match=r"cannot be loaded from .*\.tflite.* Copy it again"):
        predictor.predict(picture)
