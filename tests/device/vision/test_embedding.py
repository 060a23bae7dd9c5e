"""The cache of features: each picture once, and never a wrong or damaged entry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device.vision import embedding
from device.vision.embedding import FEATURES, INPUT_PX, Embedder, embed_cached
from shared.errors import OutOfOrder


class Counting:
    """Stands for the body: a picture's features are its first value, and every picture asked for is
    counted.
    """

    def __init__(self) -> None:
        self.asked: list[int] = []

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        first = images[:, 0, 0, 0]
        self.asked += first.tolist()
        return np.repeat(first[:, None].astype(np.float32), FEATURES, axis=1)


def pictures(*values: int) -> NDArray[np.uint8]:
    return np.array(
        [np.full((INPUT_PX, INPUT_PX, 3), value, np.uint8) for value in values]
    ).reshape(-1, INPUT_PX, INPUT_PX, 3)


def cached(body: Counting, cache: Path, *values: int) -> list[float]:
    return embed_cached(body, pictures(*values), [f"id{value}" for value in values], cache)[
        :, 0
    ].tolist()


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "train.npz"


def test_second_time_asks_the_body_for_nothing(cache) -> None:
    body = Counting()
    assert cached(body, cache, 1, 2) == cached(body, cache, 1, 2) == [1, 2]
    assert body.asked == [1, 2]


def test_new_picture_alone_is_embedded(cache) -> None:
    body = Counting()
    cached(body, cache, 1, 2)
    assert cached(body, cache, 3, 2, 1) == [3, 2, 1]
    assert body.asked == [1, 2, 3]


def test_features_go_when_their_picture_goes(cache) -> None:
    body = Counting()
    cached(body, cache, 1, 2)
    cached(body, cache, 2)
    assert cached(body, cache, 1) == [1]
    assert body.asked == [1, 2, 1]


def test_the_same_picture_twice_is_two_rows(cache) -> None:
    assert cached(Counting(), cache, 4, 4) == cached(Counting(), cache, 4, 4) == [4, 4]


def test_no_picture_gives_no_row(cache) -> None:
    assert embed_cached(Counting(), pictures(), [], cache).shape == (0, FEATURES)


def test_features_of_another_body_are_not_used(cache, monkeypatch) -> None:
    body = Counting()
    cached(body, cache, 1)
    monkeypatch.setattr(embedding, "BODY_VERSION", "another")
    cached(body, cache, 1)
    assert body.asked == [1, 1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[:-100],
        lambda b: b[:3000] + b"\xff" + b[3001:],
        lambda b: b"x" * 99,
    ],
)
def test_damaged_cache_counts_as_empty_and_is_repaired(cache, damage) -> None:
    cached(Counting(), cache, 1)
    cache.write_bytes(damage(cache.read_bytes()))
    body = Counting()
    assert cached(body, cache, 1) == cached(body, cache, 1) == [1]
    assert body.asked == [1]


@pytest.mark.parametrize(
    "features",
    [
        np.full((1, FEATURES), np.nan, np.float32),
        np.zeros((2, FEATURES), np.float32),
        np.zeros((1, 3)),
    ],
)
def test_cache_that_does_not_hold_features_counts_as_empty(cache, features) -> None:
    with cache.open("wb") as file:
        np.savez(
            file, version=np.array(embedding.BODY_VERSION), ids=np.array(["id1"]), features=features
        )
    assert cached(Counting(), cache, 1) == [1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_do_not_leave_the_body(cache, value) -> None:
    class Damaged:
        def run(self, _: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.array([0] * (FEATURES - 1) + [value], np.float32)

    body = object.__new__(Embedder)
    body._path, body._network = cache, Damaged()
    with pytest.raises(OutOfOrder, match="gives features that are not finite"):
        embed_cached(body, pictures(1), ["id1"], cache)
    assert not cache.exists()


def test_cached_pickle_is_not_run(cache) -> None:
    with cache.open("wb") as file:
        np.savez(
            file,
            version=np.array(embedding.BODY_VERSION),
            ids=np.array(["id1", None]),
            features=np.zeros((2, FEATURES), np.float32),
        )
    assert cached(Counting(), cache, 1) == [1]


def test_interrupted_write_leaves_the_old_cache(cache, monkeypatch) -> None:
    cached(Counting(), cache, 1)
    before = cache.read_bytes()
    monkeypatch.setattr(embedding.np, "savez", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cached(Counting(), cache, 2)
    assert cache.read_bytes() == before
    assert list(cache.parent.iterdir()) == [cache]


def test_hashes_must_match_the_pictures_in_number(cache) -> None:
    with pytest.raises(ValueError, match="2 pictures come with 1"):
        embed_cached(Counting(), pictures(1, 2), ["id1"], cache)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, INPUT_PX, INPUT_PX, 3), np.float32)]
)
def test_picture_of_another_size_or_type_is_refused(images) -> None:
    with pytest.raises(ValueError, match="Expected uint8 pictures"):
        Embedder.embed(object.__new__(Embedder), images)
