"""Public photos: two unlike clients, nothing shared between them, nothing half written."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dataset import public
from dataset.folders import census, check, load, repeated
from dataset.public import add_fetch, fetch_cifar10, fetch_lfw, lay_out_cifar10, lay_out_lfw
from shared.errors import DatasetError

COUNTS = {"train": 20, "valid": 8, "test": 8}
CLIENTS = ("client_1", "client_2")


def cifar10(per_class: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What keras.datasets.cifar10.load_data returns for one part; the first pixel tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))[:, np.newaxis]
    images = rng.integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = labels[:, 0]
    return images, labels


def lay_out(root: Path, seed: int = 0, counts: dict[str, int] | None = None) -> tuple[str, ...]:
    images, labels = cifar10(40, 1)
    test_images, test_labels = cifar10(40, 2)
    return lay_out_cifar10(
        images,
        labels,
        root,
        test_images=test_images,
        test_labels=test_labels,
        counts=counts or COUNTS,
        seed=seed,
    )


def classes_in(folder: Path) -> set[int]:
    return {int(np.asarray(Image.open(file))[0, 0, 0]) for file in folder.iterdir()}


def contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_cifar10_becomes_a_sound_tree_with_the_wanted_counts(tmp_path: Path) -> None:
    assert lay_out(tmp_path / "out") == ("animal", "vehicle") == check(tmp_path / "out")
    for detector in ("animal", "vehicle"):
        for client in CLIENTS:
            halves = {
                split: {True: count // 2, False: count // 2} for split, count in COUNTS.items()
            }
            assert census(tmp_path / "out", detector, client) == halves
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"animal", "vehicle"}


def test_odd_counts_are_kept(tmp_path: Path) -> None:
    lay_out(tmp_path, counts={"train": 5, "valid": 3, "test": 3})
    assert census(tmp_path, "animal", "client_1")["train"] == {True: 2, False: 3}


@pytest.mark.parametrize("split", COUNTS)
def test_each_client_sees_the_classes_of_its_own_world(tmp_path: Path, split: str) -> None:
    lay_out(tmp_path)
    worlds = {
        "animal/client_1": ({3, 5}, {1, 9}),
        "animal/client_2": ({2, 4, 6, 7}, {0, 8}),
        "vehicle/client_1": ({9}, {1, 5}),
        "vehicle/client_2": ({9}, {8, 7}),
    }
    for home, (positive, negative) in worlds.items():
        detector = home.split("/", maxsplit=1)[0]
        assert classes_in(tmp_path / home / split / detector) == positive
        assert classes_in(tmp_path / home / split / f"not_{detector}") == negative


def test_test_pictures_come_from_the_test_part_and_the_others_do_not(tmp_path: Path) -> None:
    lay_out(tmp_path)
    parts = {"train": cifar10(40, 1)[0], "valid": cifar10(40, 1)[0], "test": cifar10(40, 2)[0]}
    known = {split: {image.tobytes() for image in images} for split, images in parts.items()}
    for path in tmp_path.rglob("*.png"):
        assert np.asarray(Image.open(path)).tobytes() in known[path.parts[-3]]


def test_no_picture_is_used_twice_in_a_detector(tmp_path: Path) -> None:
    lay_out(tmp_path)
    for detector in ("animal", "vehicle"):
        files = list((tmp_path / detector).rglob("*.png"))
        assert len({path.read_bytes() for path in files}) == len(files)
        assert all(repeated(tmp_path, detector, client) == () for client in CLIENTS)


def test_equal_pictures_in_the_data_set_are_used_once(tmp_path: Path) -> None:
    images, labels = cifar10(32, 1)
    more, more_labels = cifar10(32, 2)
    twice, both = np.concatenate([images, images]), np.concatenate([labels, labels])
    leaked, leaked_labels = np.concatenate([images, more]), np.concatenate([labels, more_labels])
    lay_out_cifar10(
        twice, both, tmp_path, test_images=leaked, test_labels=leaked_labels, counts=COUNTS
    )
    for detector in ("animal", "vehicle"):
        files = list((tmp_path / detector).rglob("*.png"))
        assert len({path.read_bytes() for path in files}) == len(files)


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        lay_out(tmp_path / name, seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "three")


def test_folder_in_use_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "vehicle").mkdir()
    (tmp_path / "vehicle/mine.png").write_bytes(b"mine")
    with pytest.raises(DatasetError, match="vehicle exists already"):
        lay_out(tmp_path)
    assert contents(tmp_path) == {Path("vehicle/mine.png"): b"mine"}


def test_too_few_pictures_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="too few pictures of class 3"):
        lay_out(tmp_path, counts={"train": 400, "valid": 40, "test": 60})
    assert list(tmp_path.iterdir()) == []


def test_failure_to_write_is_told_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(DatasetError, match=r"could not be written to .*: No space left on device"):
        lay_out(tmp_path)
    assert list(tmp_path.iterdir()) == []


# LFW


def lfw(
    households: int = 12, strangers: int = 40
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """What fetch_lfw_people(color=True) gives: faces bright, corners dark, and the first value
    names the person.
    """
    people = np.concatenate(
        [np.repeat(np.arange(households), 7), households + np.arange(strangers)]
    )
    people = np.random.default_rng(0).permutation(people)
    faces = np.full((len(people), 62, 47, 3), 200 / 255, np.float32)
    corners = np.full((len(people), 35, 26, 3), 50 / 255, np.float32)
    for images in (faces, corners):
        images[:, 0, 0, 0] = people / 255
        images[:, 0, 0, 1] = np.arange(len(people)) / 255
    return faces, corners, people


def people_in(folder: Path) -> list[int]:
    return [int(np.asarray(Image.open(file))[0, 0, 0]) for file in sorted(folder.rglob("*.png"))]


def test_lfw_faces_and_corners_get_their_own_folders(tmp_path: Path) -> None:
    assert lay_out_lfw(*lfw(), tmp_path, counts=COUNTS) == ("face",) == check(tmp_path)
    for client in CLIENTS:
        split = load(tmp_path, "face", client, "train", 1)
        assert split.left_out == ()
        assert (split.images[split.labels == 1] > 180).all()
        assert (split.images[split.labels == 0] < 70).all()


def test_lfw_keeps_everybody_in_one_split_of_one_client(tmp_path: Path) -> None:
    lay_out_lfw(*lfw(), tmp_path, counts=COUNTS)
    groups = [
        set(people_in(tmp_path / "face" / client / split)) for client in CLIENTS for split in COUNTS
    ]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_lfw_clients_are_a_household_and_strangers(tmp_path: Path) -> None:
    lay_out_lfw(*lfw(), tmp_path, counts=COUNTS)
    household = people_in(tmp_path / "face/client_1/train/face")
    strangers = people_in(tmp_path / "face/client_2/train/face")
    assert (len(household), len(set(household))) == (10, 2)
    assert (len(strangers), len(set(strangers))) == (10, 10)


def test_lfw_with_too_few_people_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="too few people"):
        lay_out_lfw(*lfw(strangers=3), tmp_path, counts=COUNTS)
    assert list(tmp_path.iterdir()) == []


def test_fetch_lfw_reads_what_scikit_learn_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home/lfw_home"
    (home / "lfw").mkdir(parents=True)
    for name in ("pairsDevTrain.txt", "pairsDevTest.txt", "pairs.txt"):
        (home / name).write_text("")
    photo = np.full((250, 250, 3), 90, np.uint8)
    photo[70:195, 78:172] = 210
    photo[:70, :52] = 30
    for person, photos in [(f"Household_{i}", 5) for i in range(6)] + [
        (f"Stranger_{i}", 1) for i in range(12)
    ]:
        (home / "lfw" / person).mkdir()
        for number in range(photos):
            Image.fromarray(photo).save(
                home / "lfw" / person / f"{person}_{number:04}.jpg", quality=95
            )
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(
        public.lay_out_lfw,
        "__kwdefaults__",
        {"counts": {"train": 8, "valid": 4, "test": 4}, "seed": 0},
    )
    assert fetch_lfw(tmp_path / "out") == ("face",)
    split = load(tmp_path / "out", "face", "client_2", "train", 1)
    assert (split.images[split.labels == 1] > 200).all()
    assert (split.images[split.labels == 0] < 40).all()


# The downloads


def keras_that(load_data: object) -> SimpleNamespace:
    return SimpleNamespace(datasets=SimpleNamespace(cifar10=SimpleNamespace(load_data=load_data)))


def test_fetch_lays_out_the_default_counts_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = (cifar10(260, 1), cifar10(60, 2))
    monkeypatch.setitem(sys.modules, "keras", keras_that(lambda: parts))
    parser = argparse.ArgumentParser()
    add_fetch(parser.add_subparsers())
    args = parser.parse_args(["fetch", "cifar10", "--out", str(tmp_path / "out")])
    args.run(args)
    assert capsys.readouterr().out == f"Laid out animal, vehicle in {tmp_path / 'out'}.\n"
    counts = census(tmp_path / "out", "animal", "client_2")
    assert {split: sum(both.values()) for split, both in counts.items()} == {
        "train": 200,
        "valid": 40,
        "test": 60,
    }


def test_failed_cifar10_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise Exception("URL fetch failure on https://example.org: None -- no network")

    monkeypatch.setitem(sys.modules, "keras", keras_that(fail))
    with pytest.raises(DatasetError) as caught:
        fetch_cifar10(tmp_path / "out")
    assert caught.value.happened.startswith("CIFAR-10 could not be downloaded: URL fetch failure")
    assert str(tmp_path / "out") in caught.value.kept
    assert "try again" in caught.value.todo
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fetch", "module"), [(fetch_cifar10, "keras"), (fetch_lfw, "sklearn.datasets")]
)
def test_missing_loader_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch, module: str
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatasetError, match=f"could not be downloaded: .*{module}"):
        fetch(tmp_path / "out")


def test_nothing_is_downloaded_for_a_folder_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keras", keras_that(lambda: pytest.fail("downloaded")))
    (tmp_path / "animal").mkdir()
    with pytest.raises(DatasetError, match="animal exists already"):
        fetch_cifar10(tmp_path)
