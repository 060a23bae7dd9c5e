from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dataset import __main__ as command_line
from dataset.porch import camera as porch_camera
from dataset.porch import drawing as porch
from dataset.porch.brush import Brush
from dataset.porch.site import site
from dataset.porch.traits import Traits
from shared.errors import DatasetError

SMALL = {"train": 4, "valid": 2, "test": 2}
CHANCE = 0.5
MEAN_COLOUR_CEILING = 0.8


def sample(
    detector: str, camera: int, split: str, count: int, size_px: int = 64
) -> tuple[np.ndarray, np.ndarray]:
    """Return count pictures of each class, and their labels."""
    labels = [positive for positive in (False, True) for _ in range(count)]
    pictures = [
        porch.draw(detector, positive, camera, split, number % count, size_px=size_px)
        for number, positive in enumerate(labels)
    ]
    return np.stack(pictures), np.array(labels)


def outlines(pictures: np.ndarray) -> np.ndarray:
    """Return histograms of gradient directions, 8 by 8 cells: shape without colour."""
    histograms = []
    for picture in pictures:
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
        direction = (np.arctan2(dy, dx) % np.pi * 8 / np.pi).astype(int) % 8
        votes = np.stack(
            [np.where(direction == step, np.hypot(dx, dy), 0) for step in range(8)], axis=-1
        )
        cells = votes.reshape(8, 8, 8, 8, 8).sum(axis=(1, 3))
        histograms.append((cells / (np.linalg.norm(cells, axis=-1, keepdims=True) + 100)).ravel())
    return np.stack(histograms)


@pytest.mark.parametrize("detector", porch.DETECTORS)
@pytest.mark.parametrize("positive", [True, False])
def test_same_arguments_give_same_pixels(detector: str, positive: bool) -> None:
    once = porch.draw(detector, positive, 2, "train", 5, seed=3)
    porch.draw(detector, positive, 1, "train", 5, seed=3)
    assert once.dtype == np.uint8
    assert once.shape == (128, 128, 3)
    assert np.array_equal(once, porch.draw(detector, positive, 2, "train", 5, seed=3))


@pytest.mark.parametrize(
    ("detector", "positive", "camera", "split", "index", "seed"),
    [
        ("face", True, 1, "train", 0, 0),
        ("animal", False, 1, "train", 0, 0),
        ("animal", True, 2, "train", 0, 0),
        ("animal", True, 1, "valid", 0, 0),
        ("animal", True, 1, "test", 0, 0),
        ("animal", True, 1, "train", 1, 0),
        ("animal", True, 1, "train", 0, 1),
    ],
)
def test_any_other_argument_gives_another_picture(
    detector: str, positive: bool, camera: int, split: str, index: int, seed: int
) -> None:
    base = porch.draw("animal", True, 1, "train", 0).astype(float)
    other = porch.draw(detector, positive, camera, split, index, seed=seed)
    assert np.abs(base - other).mean() > 5


@pytest.mark.parametrize("size_px", [32, 64, 96])
def test_draws_at_the_size_asked_for(size_px: int) -> None:
    assert porch.draw("unsafe", True, 1, "train", 0, size_px=size_px).shape == (size_px, size_px, 3)


@pytest.mark.parametrize(
    ("detector", "camera", "split", "index"),
    [
        ("ghost", 1, "train", 0),
        ("face", 0, "train", 0),
        ("face", 1, "holdout", 0),
        ("face", 1, "train", -1),
    ],
)
def test_refuses_what_it_cannot_draw(detector: str, camera: int, split: str, index: int) -> None:
    with pytest.raises(DatasetError, match="There is no drawn picture"):
        porch.draw(detector, True, camera, split, index)


def test_every_kind_of_subject_shows_on_an_empty_scene() -> None:
    blank = np.zeros((64, 64, 3), np.float32)
    kinds = [kind for classes in porch.SUBJECTS.values() for group in classes for kind in group]
    for kind in kinds:
        for unseen in (False, True):
            brush = Brush(64)
            porch.paint_subject(brush, kind, Traits(np.random.default_rng(1), unseen))
            shown = porch_camera.lit(blank, brush, "day", 1)
            assert (shown.max(axis=2) > 25).mean() > 0.02, (kind.name, unseen)


def test_cameras_meet_different_mixes() -> None:
    for classes in porch.SUBJECTS.values():
        for kinds in classes:
            assert not set(porch.favourites(1, kinds)) & set(porch.favourites(2, kinds))
    names = [porch.plan("vehicle", True, 1, "train", index).kind.name for index in range(100)]
    favourite = sum(name in ("fire engine", "ambulance") for name in names)
    assert 70 < favourite < 100


@pytest.mark.parametrize("detector", ["animal", "vehicle"])
def test_cameras_have_different_places(detector: str) -> None:
    means = [sample(detector, camera, "train", 8)[0].mean(axis=0) for camera in (1, 2, 3)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(means[one] - means[other]).mean() > 16


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neighbouring_cameras_share_neither_house_nor_floor_nor_lens(seed: int) -> None:
    for camera in range(1, 6):
        one, next_door = site(seed, camera), site(seed, camera + 1)
        for trait in ("wall", "roof", "floor", "lawn", "sun", "posts"):
            assert getattr(one, trait) != getattr(next_door, trait), trait
        assert abs(one.bend - next_door.bend) > 0.02


def test_test_split_takes_traits_that_training_never_had() -> None:
    seen = Traits(np.random.default_rng(0), unseen=False)
    unseen = Traits(np.random.default_rng(0), unseen=True)
    for beyond in (3.0, -1.0):
        assert all(0.0 <= seen.span(0.0, 1.0, beyond) < 1.0 for _ in range(50))
        assert not any(0.0 < unseen.span(0.0, 1.0, beyond) < 1.0 for _ in range(50))
    assert {seen.pick("ab", "cd") for _ in range(50)} == {"a", "b"}
    assert {unseen.pick("ab", "cd") for _ in range(50)} == {"c", "d"}
    assert porch.plan("face", True, 1, "test", 0).traits.unseen
    assert not porch.plan("face", True, 1, "valid", 0).traits.unseen


def test_night_pictures_are_grey_and_day_pictures_are_not() -> None:
    hours = {"day": 0, "dusk": 0, "night": 0}
    for index in range(60):
        hour = porch.plan("animal", True, 1, "train", index).hour
        hours[hour] += 1
        picture = porch.draw("animal", True, 1, "train", index, size_px=64).astype(int)
        spread = (picture.max(axis=2) - picture.min(axis=2)).max()
        assert spread <= 2 if hour == "night" else spread > 30
    assert min(hours.values()) >= 5


@pytest.mark.parametrize("detector", porch.DETECTORS)
def test_mean_colour_does_not_give_the_class_away(detector: str) -> None:
    for camera in (1, 2):
        pictures, labels = sample(detector, camera, "train", 40, size_px=32)
        model = make_pipeline(StandardScaler(), LogisticRegression())
        scores = cross_val_score(model, pictures.mean(axis=(1, 2)), labels, cv=4)
        assert scores.mean() < MEAN_COLOUR_CEILING, (camera, scores)


@pytest.mark.parametrize("detector", porch.DETECTORS)
def test_small_model_learns_shapes_it_has_not_seen(detector: str) -> None:
    train, test = sample(detector, 1, "train", 40), sample(detector, 1, "test", 20)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    model.fit(outlines(train[0]), train[1])
    assert model.score(outlines(test[0]), test[1]) > CHANCE + 0.15


def test_writes_the_layout_and_counts(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    root = tmp_path / "new" / "pictures"
    count = porch.write_default(
        root,
        clients=3,
        seed=1,
        sizes=SMALL,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.jpg"))
    assert count == len(files) == 4 * 3 * sum(SMALL.values())
    assert seen == [(done, count) for done in range(1, count + 1)]
    for detector in porch.DETECTORS:
        for client in (1, 2, 3):
            for split, size in SMALL.items():
                for label in (detector, f"not_{detector}"):
                    folder = f"{detector}/client_{client}/{split}/{label}"
                    assert [f"{folder}/{n:04d}.jpg" for n in range(size // 2)] == [
                        name for name in files if name.startswith(f"{folder}/")
                    ]
    assert sorted(path.name for path in root.parent.iterdir()) == ["pictures"]


def test_written_picture_is_the_drawn_one(tmp_path: Path) -> None:
    porch.write_default(tmp_path, clients=1, sizes={"train": 2}, seed=4)
    stored = cv2.imread(
        str(tmp_path / "vehicle/client_1/train/vehicle/0000.jpg"), cv2.IMREAD_COLOR_RGB
    )
    drawn = porch.draw("vehicle", True, 1, "train", 0, seed=4)
    assert np.abs(stored.astype(int) - drawn).mean() < 6


def test_writes_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("one", "two"):
        porch.write_default(tmp_path / name, clients=1, sizes={"test": 2}, seed=2)
    for path in (tmp_path / "one").rglob("*.jpg"):
        assert (
            path.read_bytes()
            == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        )


def test_no_picture_is_in_two_splits(tmp_path: Path) -> None:
    count = porch.write_default(tmp_path, clients=2, sizes={"train": 10, "valid": 4, "test": 6})
    assert len({path.read_bytes() for path in tmp_path.rglob("*.jpg")}) == count


def test_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(DatasetError, match="not an empty folder"):
        porch.write_default(tmp_path, sizes=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_refuses_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("keep me")
    with pytest.raises(DatasetError, match="not an empty folder"):
        porch.write_default(tmp_path / "pictures", sizes=SMALL)


def test_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        porch.write_default(tmp_path / "pictures", sizes=SMALL, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_montage_lays_pictures_out_row_by_row() -> None:
    pictures = [np.full((10, 12, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = porch.montage(pictures, 2)
    middles = [sheet[4 + 5, 4 + 6], sheet[4 + 5, 20 + 6], sheet[18 + 5, 4 + 6]]
    assert [int(pixel[0]) for pixel in middles] == [10, 20, 30]
    assert sheet[18 + 5, 20 + 6, 0] == 245
    assert sheet.shape == (2 * 14 + 4, 2 * 16 + 4, 3)


def test_montage_writes_captions_below() -> None:
    pictures = [np.zeros((40, 60, 3), np.uint8)]
    sheet = porch.montage(pictures, 1, ["cat"])
    assert (sheet[46:, :] < 128).any()
    assert not (porch.montage(pictures, 1, [""])[46:, :] < 128).any()


def test_show_writes_a_row_for_every_class_and_camera(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    porch.write_default(tmp_path / "pictures", clients=1, sizes={"train": 4})
    sheet = tmp_path / "deep" / "montage.png"
    assert (
        command_line.main(["show", "--data", str(tmp_path / "pictures"), "--out", str(sheet)]) == 0
    )
    shown = cv2.imread(str(sheet))
    assert shown.shape[0] == 8 * (128 + 4 + 16) + 4
    assert (shown[132:148, :132] < 128).any()
    assert not (shown[132:148, 132:] < 128).any()
    assert "8 rows" in capsys.readouterr().out


def test_show_passes_over_a_broken_picture(tmp_path: Path) -> None:
    folder = tmp_path / "animal" / "client_1" / "train" / "animal"
    folder.mkdir(parents=True)
    (folder / "0000.jpg").write_bytes(b"")
    assert (
        command_line.main(["show", "--data", str(tmp_path), "--out", str(tmp_path / "sheet.png")])
        == 1
    )
    cv2.imwrite(str(folder / "0001.jpg"), porch.draw("animal", True, 1, "train", 0, size_px=90))
    assert (
        command_line.main(["show", "--data", str(tmp_path), "--out", str(tmp_path / "sheet.png")])
        == 0
    )


def test_show_draws_afresh_without_a_folder(tmp_path: Path) -> None:
    sheet = tmp_path / "montage.png"
    assert command_line.main(["show", "--clients", "1", "--out", str(sheet)]) == 0
    assert cv2.imread(str(sheet)).shape == (8 * (128 + 4 + 16) + 4, 10 * (128 + 4) + 4, 3)


@pytest.mark.parametrize("command", [["draw", "--out"], ["show", "--data"]])
def test_command_tells_a_user_error_on_stderr(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert command_line.main([*command, str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["draw", "--seed", "-1"], ["draw", "--clients", "0"], ["paint"], []]
)
def test_command_refuses_words_it_does_not_know(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command_line.main(words)
    assert stopped.value.code == 2
