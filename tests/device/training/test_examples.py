from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from device.training.examples import Pictures

pytestmark = pytest.mark.heavy  # imports TensorFlow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        for name in ("face", "not_face"):
            folder = tmp_path / "pictures" / "face" / "client_1" / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                cv2.imwrite(
                    str(folder / f"{index}.png"), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
                )
    return tmp_path / "pictures"


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    return Pictures(tmp_path / "cache", tmp_path / "machine-cache")


def test_test_pictures_that_are_learned_from_are_named_once_they_are_there(
    root: Path, pictures: Pictures
) -> None:
    assert pictures.repeated(root, "face", "client_1") == []
    folder = root / "face" / "client_1"
    shutil.copy(folder / "train" / "face" / "0.png", folder / "test" / "face" / "again.png")
    assert pictures.repeated(root, "face", "client_1") == ["train/face/0.png = test/face/again.png"]
    (folder / "test" / "face" / "again.png").unlink()
    assert pictures.repeated(root, "face", "client_1") == []


def test_nothing_repeats_where_there_is_no_test_split_yet(root: Path, pictures: Pictures) -> None:
    shutil.rmtree(root / "face" / "client_1" / "test")
    assert pictures.repeated(root, "face", "client_1") == []
