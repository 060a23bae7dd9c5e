"""Taking over what was sorted in Frigate: into which detector and split, only once, and nothing
from elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset import frigate, layout
from dataset.__main__ import main
from dataset.folders import load
from dataset.frigate import detector_name
from dataset.layout import split_of

CLASSES = {"dog": 30, "Leo the Cat": 25, "none": 20}
Import = Callable[..., int]


def picture(seed: int, suffix: str = ".png") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    return bytes(cv2.imencode(suffix, pixels)[1])


def sort(
    clips: Path, model: str = "pets", classes: dict[str, int] | None = None, seed: int = 100
) -> Path:
    """Lay out a model as Frigate does: sorted pictures in dataset/, unsorted ones in train/."""
    for name, count in (classes or CLASSES).items():
        folder = clips / model / "dataset" / name
        folder.mkdir(parents=True)
        for _ in range(count):
            seed += 1
            suffix = (".png", ".jpg", ".webp")[seed % 3]
            (folder / f"{name}-176{seed}.31-abc{suffix}").write_bytes(picture(seed, suffix))
    (clips / model / "train").mkdir()
    (clips / model / "train" / "176.1-unknown-0.0.webp").write_bytes(picture(10_000, ".webp"))
    return clips


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return sort(tmp_path / "clips")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOORBELL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "pictures"


@pytest.fixture
def bring(clips: Path, root: Path) -> Import:
    return lambda *options, path=clips: main(["import", "frigate", str(path), *options])


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in folder.iterdir()}


def of_class(root: Path, detector: str, positive: bool, client: str = "client_1") -> set[bytes]:
    name = layout.class_names(detector, positive)[0]
    return {
        data for path, data in files(root / detector / client).items() if path.split("/")[1] == name
    }


def test_each_class_becomes_a_detector_against_all_others(
    bring: Import, clips: Path, root: Path
) -> None:
    assert bring() == 0
    sorted_as = {name: contents(clips / "pets" / "dataset" / name) for name in CLASSES}
    assert {path.name for path in root.iterdir()} == {"dog", "leo_the_cat"}  # none is none
    assert of_class(root, "dog", True) == sorted_as["dog"]
    assert of_class(root, "dog", False) == sorted_as["Leo the Cat"] | sorted_as["none"]
    assert of_class(root, "leo_the_cat", True) == sorted_as["Leo the Cat"]
    assert of_class(root, "leo_the_cat", False) == sorted_as["dog"] | sorted_as["none"]


def test_what_was_brought_can_be_learned_from(bring: Import, root: Path) -> None:
    assert bring() == 0
    assert layout.check(root) == ("dog", "leo_the_cat")
    splits = {split: load(root, "dog", "client_1", split, 8) for split in layout.SPLITS}
    assert sum(len(split.labels) for split in splits.values()) == sum(CLASSES.values())
    assert sum(int(split.labels.sum()) for split in splits.values()) == CLASSES["dog"]
    assert not any(split.left_out for split in splits.values())


def test_splits_are_decided_by_the_bytes_as_those_of_events_are(bring: Import, root: Path) -> None:
    assert bring() == 0
    for path, data in files(root).items():
        digest = hashlib.sha256(data).hexdigest()
        assert path.split("/")[2] == split_of(digest)
    digests = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(5000)]
    shares = [
        sum(split_of(digest) == split for digest in digests) / 5000 for split in layout.SPLITS
    ]
    assert shares == pytest.approx([0.70, 0.15, 0.15], abs=0.02)


def test_doing_it_again_adds_only_what_is_new(
    bring: Import, clips: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring() == 0
    before = files(root)
    assert "dog: added 30 pictures of it and 45 of anything else." in capsys.readouterr().out
    assert bring() == 0
    assert files(root) == before
    assert (
        "dog: added 0 pictures of it and 0 of anything else. 75 were there already."
        in capsys.readouterr().out
    )
    twice = next(data for data in of_class(root, "dog", True) if data.startswith(b"\xff\xd8"))
    (clips / "pets" / "dataset" / "dog" / "a copy.png").write_bytes(twice)
    (clips / "pets" / "dataset" / "dog" / "new.png").write_bytes(picture(20_000))
    assert bring() == 0
    assert len(files(root)) == len(before) + 2  # one for each detector
    assert (
        "dog: added 1 pictures of it and 0 of anything else. 75 were there already."
        in capsys.readouterr().out
    )


def test_own_pictures_of_a_detector_stay(bring: Import, root: Path) -> None:
    own = root / "dog" / "client_1" / "train" / "object" / "mine.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    assert bring() == 0
    assert own.read_bytes() == b"mine"


def test_picture_that_was_sorted_anew_changes_sides(
    bring: Import, clips: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring() == 0
    before, file = files(root), next((clips / "pets" / "dataset" / "dog").iterdir())
    moved = file.read_bytes()
    file.rename(clips / "pets" / "dataset" / "none" / file.name)
    capsys.readouterr()
    assert bring() == 0
    assert moved in of_class(root, "dog", False) - of_class(root, "dog", True)
    assert len(files(root)) == len(before)
    assert "74 were there already. 1 have changed sides." in capsys.readouterr().out


def test_one_class_alone_and_for_another_client(bring: Import, root: Path) -> None:
    assert bring("--positive", "dog", "--client", "client_2") == 0
    assert [path.name for path in root.iterdir()] == ["dog"]
    assert len(of_class(root, "dog", True, "client_2")) == CLASSES["dog"]


def test_folder_is_the_one_of_the_settings(
    bring: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv("DOORBELL_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("DOORBELL_CLIENT", "porch")
    assert bring() == 0
    assert not root.exists()
    assert len(of_class(tmp_path / "elsewhere", "dog", True, "porch")) == CLASSES["dog"]


@pytest.mark.parametrize("below", ["", "pets", "pets/dataset"], ids=["clips", "model", "dataset"])
def test_path_may_be_any_of_three_folders(
    bring: Import, clips: Path, root: Path, below: str
) -> None:
    assert bring(path=clips / below) == 0
    assert {path.name for path in root.iterdir()} == {"dog", "leo_the_cat"}


def test_of_several_models_one_is_named(
    bring: Import, clips: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sort(clips, "gate", {"open": 12, "closed": 12}, seed=500)
    assert bring() == 1
    assert (
        "holds several models: gate, pets. Nothing was imported. Name one with --model."
        in capsys.readouterr().err
    )
    assert not root.exists()
    assert bring("--model", "gate") == 0
    assert {path.name for path in root.iterdir()} == {"open", "closed"}


def test_unusable_pictures_are_left_out_and_counted(
    bring: Import, clips: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dog = clips / "pets" / "dataset" / "dog"
    (dog / "a.png").write_bytes(b"no picture")
    (dog / "b.png").write_bytes(b"")
    (dog / "c.jpg").write_bytes(picture(1, ".jpg")[:200])
    (dog / "notes.txt").write_text("not looked at")
    (dog / "folder.png").mkdir()
    os.mkfifo(dog / "pipe.png")
    both = picture(30_000)
    for name in ("dog", "none"):
        (clips / "pets" / "dataset" / name / "both.png").write_bytes(both)
    assert bring() == 0
    out = capsys.readouterr().out
    left_out = next(line for line in out.splitlines() if line.startswith("Left out"))
    assert set(left_out.removeprefix("Left out: ").removesuffix(".").split(", ")) == {
        "not an image: 1",
        "empty file: 1",
        "broken image: 1",
        "not a file: 2",
        "in several classes at once: 1",
    }
    assert len(of_class(root, "dog", True)) == CLASSES["dog"]
    assert both not in files(root).values()


def test_nothing_outside_of_the_folder_is_read(
    bring: Import, clips: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "private"
    outside.mkdir()
    (outside / "1.png").write_bytes(picture(40_000))
    dataset = clips / "pets" / "dataset"
    (dataset / "dog" / "link.png").symlink_to(outside / "1.png")
    (dataset / "dog" / "up.png").symlink_to("../../../../private/1.png")
    (dataset / "stolen").symlink_to(outside)
    (clips / "linked").mkdir()
    (clips / "linked" / "dataset").symlink_to(outside)
    assert bring("--model", "linked") == 1
    assert bring() == 0
    assert "a link that leads elsewhere: 3." in capsys.readouterr().out
    assert picture(40_000) not in files(root).values()
    assert not (root / "stolen").exists()


def test_names_below_the_data_set_are_safe(bring: Import, clips: Path, root: Path) -> None:
    (clips / "pets" / "dataset" / "dog" / "-rf $(reboot)\n.png").write_bytes(picture(50_000))
    assert bring() == 0
    assert picture(50_000) in of_class(root, "dog", True)
    assert all(
        frozenset(Path(path).name) <= frozenset("frigate-0123456789abcdef.pngjwb")
        for path in files(root)
    )


@pytest.mark.parametrize(
    ("classes", "options", "said"),
    [
        (
            {"dog": 3},
            (),
            "Two classes with usable pictures are needed to learn a difference, and there is dog.",
        ),
        ({"none": 3}, (), "Two classes with usable pictures are needed"),
        ({"dog": 3, "none": 0}, (), "Two classes with usable pictures are needed"),
        (
            {"dog": 3, "cat": 3},
            ("--positive", "cow"),
            "There is no class 'cow' with usable pictures, only cat, dog.",
        ),
        ({"dog": 3, "Dog": 3, "cat": 3}, (), "would have the same name here"),
        ({"猫": 3, "dog": 3}, (), "The class '猫' cannot name a detector."),
        (
            {"dog": 3, "none": 3},
            ("--model", "cars"),
            "holds no model 'cars' with a folder 'dataset'.",
        ),
        ({"dog": 3, "none": 3}, ("--client", "../x"), "is not the name of a client's folder"),
    ],
    ids=[
        "one-class",
        "only-none",
        "empty-none",
        "no-such-class",
        "alike",
        "no-name",
        "no-such-model",
        "client",
    ],
)
def test_what_cannot_be_imported_changes_nothing_and_says_why(
    tmp_path: Path,
    root: Path,
    classes: dict[str, int],
    options: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["import", "frigate", str(sort(tmp_path / "c", classes=classes)), *options]) == 1
    assert said in capsys.readouterr().err
    assert not root.exists()


def test_folder_that_is_not_there_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", "frigate", str(tmp_path / "gone")]) == 1
    assert f"{tmp_path / 'gone'} holds no model" in capsys.readouterr().err


def test_too_few_pictures_are_said_to_be(
    tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["import", "frigate", str(sort(tmp_path / "c", classes={"dog": 1, "none": 1}))]) == 0
    )
    assert "Too few to fill " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "detector"),
    [
        ("delivery_person", "delivery_person"),
        ("Mail Truck!", "mail_truck"),
        ("--Käthe's dog--", "k_the_s_dog"),
        ("x" * 40, "x" * 32),
    ],
    ids=["plain", "spaces", "signs", "long"],
)
def test_class_names_become_names_of_detectors(name: str, detector: str) -> None:
    assert detector_name(name) == detector


def test_picture_that_frigate_replaces_meanwhile_is_not_taken(clips: Path, root: Path) -> None:
    found = frigate.read_sorted(clips)
    digest, (_, file) = next(iter(found.pictures.items()))
    file.write_bytes(picture(60_000))
    frigate.take_over(found, root, "client_1")
    digests = {hashlib.sha256(data).hexdigest() for data in files(root).values()}
    assert digests == set(found.pictures) - {digest}
