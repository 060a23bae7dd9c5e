"""Folders: what is read, in which order, what is left out, and what a person is told when a tree
will not do.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset import folders
from dataset.folders import SPLITS, LeftOut, Split, census, check, detectors, load, repeated
from shared.errors import DatasetError

PHOTOS = Path(__file__).resolve().parents[3] / "shared/data/photos"


def draw(path: Path, seed: int, side: int = 12) -> None:
    """Save a picture that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def lay_out(root: Path, detector: str = "cat", client: str = "client_1", count: int = 2) -> Path:
    for number, split in enumerate(SPLITS):
        for label, name in enumerate((f"not_{detector}", detector)):
            for index in range(count):
                seed = 100 * number + 10 * label + index
                draw(root / detector / client / split / name / f"{index}.png", seed)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "pictures")


def train(root: Path, **options: Path) -> Split:
    return load(root, "cat", "client_1", "train", 8, **options)


def reasons(split: Split) -> dict[str, str]:
    return {file.path.name: file.reason for file in split.left_out}


def same(one: Split, other: Split) -> bool:
    return (
        np.array_equal(one.images, other.images)
        and np.array_equal(one.labels, other.labels)
        and (one.content_ids, one.left_out) == (other.content_ids, other.left_out)
    )


def test_split_holds_pictures_labels_and_content_ids_in_the_same_order(root: Path) -> None:
    split = train(root)
    home = root / "cat/client_1/train"
    files = [home / "cat/0.png", home / "cat/1.png", home / "not_cat/0.png", home / "not_cat/1.png"]
    assert split.images.shape == (4, 8, 8, 3)
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.uint8)
    assert split.labels.tolist() == [1, 1, 0, 0]
    assert split.content_ids == tuple(
        hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    )
    assert split.left_out == ()


@settings(max_examples=10, deadline=None)
@given(st.permutations(["0.png", "1.png", "10.png", "2.png", "B.png", "a.png", "é.png"]))
def test_order_does_not_depend_on_how_the_files_came_there(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = lay_out(Path(folder))
        for name in names:
            draw(root / "cat/client_1/train/cat" / name, sum(name.encode()))
        home = root / "cat/client_1/train/cat"
        wanted = [hashlib.sha256((home / name).read_bytes()).hexdigest() for name in sorted(names)]
        assert list(train(root).content_ids[: len(names)]) == wanted


@pytest.mark.parametrize("positive", ["cat", "object"])
@pytest.mark.parametrize("negative", ["not_cat", "not_object"])
def test_class_folders_may_have_the_literal_names(root: Path, positive: str, negative: str) -> None:
    before = train(root)
    for split in SPLITS:
        home = root / "cat/client_1" / split
        (home / "cat").rename(home / positive)
        (home / "not_cat").rename(home / negative)
    assert np.array_equal(train(root).images, before.images)
    assert train(root).labels.tolist() == [1, 1, 0, 0]
    assert check(root) == ("cat",)


def test_both_names_of_a_class_are_read_together(root: Path) -> None:
    draw(root / "cat/client_1/train/object/0b.png", 7)
    assert train(root).labels.tolist() == [1, 1, 1, 0, 0]
    assert census(root, "cat", "client_1")["train"] == {True: 3, False: 2}


@pytest.mark.parametrize("detector", ["object", "not_object"])
def test_detector_named_like_a_class_keeps_its_classes_apart(tmp_path: Path, detector: str) -> None:
    lay_out(tmp_path, detector)
    draw(tmp_path / detector / "client_1/train/object/extra.png", 7)
    expected = 3 if detector == "object" else 2
    assert census(tmp_path, detector, "client_1")["train"] == {True: expected, False: 2}


@settings(max_examples=10, deadline=None)
@given(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True))
def test_any_matching_folder_name_is_a_detector(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), name, count=1)
        assert detectors(Path(folder), "client_1") == (name,) == check(Path(folder))
        assert load(Path(folder), name, "client_1", "test", 4).labels.tolist() == [1, 0]


def test_detectors_are_those_the_client_has_a_folder_for(root: Path) -> None:
    lay_out(root, "bike")
    lay_out(root, "dog", client="client_2")
    (root / "Cat Pictures" / "client_1").mkdir(parents=True)
    (root / ".cache" / "client_1").mkdir(parents=True)
    assert detectors(root, "client_1") == ("bike", "cat")
    assert detectors(root, "client_3") == ()
    assert detectors(root / "nowhere", "client_1") == ()


@pytest.mark.parametrize("client", ["", "..", "../client_1", "a/b", "a\\b", ".hidden", "a\0b"])
def test_client_names_cannot_lead_elsewhere(root: Path, client: str) -> None:
    with pytest.raises(DatasetError, match="not the name of a client's folder"):
        detectors(root, client)
    with pytest.raises(DatasetError, match="not the name of a client's folder"):
        load(root, "cat", client, "train", 8)


@pytest.mark.parametrize("detector", ["", "..", "../cat", "Cat", "_cat", "c" * 33])
def test_detector_names_cannot_lead_elsewhere(root: Path, detector: str) -> None:
    with pytest.raises(DatasetError, match="not a detector's name"):
        load(root, detector, "client_1", "train", 8)


def test_unknown_split_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match="'validation' is none of the splits train, valid, test"):
        load(root, "cat", "client_1", "validation", 8)


def test_census_counts_files_and_decodes_none(root: Path) -> None:
    home = root / "cat/client_1"
    (home / "train/cat/broken.jpg").write_bytes(b"")
    (home / "train/cat/.DS_Store").write_bytes(b"x")
    (home / "train/cat/folder").mkdir()
    shutil.rmtree(home / "test/not_cat")
    assert census(root, "cat", "client_1") == {
        "train": {True: 3, False: 2},
        "valid": {True: 2, False: 2},
        "test": {True: 2, False: 0},
    }


def test_unusable_files_are_left_out_with_their_reasons(root: Path) -> None:
    home = root / "cat/client_1/train/cat"
    whole = (home / "0.png").read_bytes()
    (home / "broken.png").write_bytes(whole[: len(whole) // 2])
    (home / "empty.jpg").write_bytes(b"")
    (home / "letter.jpg").write_text("Dear diary")
    (home / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(100))
    (home / "more").mkdir()
    os.mkfifo(home / "pipe")
    split = train(root)
    assert reasons(split) == {
        "Thumbs.db": "not an image",
        "broken.png": "broken image",
        "empty.jpg": "empty file",
        "letter.jpg": "not an image",
        "more": "a folder",
        "pipe": "not a file",
    }
    assert split.left_out[0] == LeftOut(Path("cat/client_1/train/cat/Thumbs.db"), "not an image")
    assert len(split.labels) == 4


def test_enormous_file_is_left_out_unread(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (root / "cat/client_1/train/cat/huge.jpg").open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    read_bytes = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda p: pytest.fail("read") if "huge" in p.name else read_bytes(p)
    )
    assert "67,108,865 bytes are more than" in reasons(train(root))["huge.jpg"]


def test_hidden_files_are_passed_over_in_silence(root: Path) -> None:
    for name in (".DS_Store", "._0.png", ".hidden.png"):
        (root / "cat/client_1/train/cat" / name).write_bytes(b"x")
    assert train(root).left_out == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_left_out(root: Path) -> None:
    (root / "cat/client_1/train/cat/0.png").chmod(0)
    assert reasons(train(root)) == {"0.png": "cannot be read: Permission denied"}


def test_file_that_vanishes_after_listing_is_left_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        folders, "check_file_size", lambda _: (root / "cat/client_1/train/cat/0.png").unlink(True)
    )
    assert reasons(train(root)) == {"0.png": "cannot be read: No such file or directory"}


def test_links_inside_root_are_followed_and_links_out_of_it_are_not(
    root: Path, tmp_path: Path
) -> None:
    home = root / "cat/client_1/train"
    draw(tmp_path / "secret.png", 99)
    (home / "cat/inside.png").symlink_to("../not_cat/0.png")
    (home / "cat/outside.png").symlink_to(tmp_path / "secret.png")
    (home / "cat/nothing.png").symlink_to("nowhere.png")
    (home / "cat/loop.png").symlink_to("loop.png")
    (tmp_path / "elsewhere").mkdir()
    draw(tmp_path / "elsewhere/2.png", 98)
    (home / "object").symlink_to(tmp_path / "elsewhere")
    split = train(root)
    assert split.labels.tolist() == [1, 1, 1, 0, 0]
    left_out = reasons(split)
    assert left_out.pop("loop.png")
    assert left_out == {
        "2.png": "a link that leads out of the data set folder",
        "nothing.png": "a link to nothing",
        "outside.png": "a link that leads out of the data set folder",
    }


def test_root_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert train(tmp_path / "link").left_out == ()


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ("train", "cat/client_1 has no folder 'train': it holds test, valid"),
        ("train/not_cat", "train has no folder 'not_cat' or 'not_object': it holds cat"),
    ],
)
def test_load_names_the_missing_folder(root: Path, lost: str, sentence: str) -> None:
    shutil.rmtree(root / "cat/client_1" / lost)
    with pytest.raises(DatasetError, match=sentence):
        train(root)


def test_load_says_why_a_class_has_no_usable_picture(root: Path) -> None:
    for file in (root / "cat/client_1/train/not_cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"train/not_cat has no usable picture \(empty file: 2\)"
    ):
        train(root)


def test_repeated_finds_equal_bytes_and_equal_pixels_across_the_line(root: Path) -> None:
    home = root / "cat/client_1"
    shutil.copy(home / "train/cat/0.png", home / "test/cat/copy.png")
    with Image.open(home / "valid/not_cat/1.png") as picture:
        picture.save(home / "test/not_cat/other.bmp")
    shutil.copy(home / "train/cat/0.png", home / "valid/cat/fine.png")
    base = Path("cat/client_1")
    assert repeated(root, "cat", "client_1") == (
        (base / "train/cat/0.png", base / "test/cat/copy.png"),
        (base / "valid/not_cat/1.png", base / "test/not_cat/other.bmp"),
    )


def test_repeated_finds_nothing_among_different_pictures(root: Path) -> None:
    assert repeated(root, "cat", "client_1") == ()


# The cache


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(
        folders, "decode", lambda *_: pytest.fail("a picture was decoded")
    )


def test_second_load_decodes_nothing_and_gives_the_same(
    root: Path, tmp_path: Path, no_decoding: Callable[[], None]
) -> None:
    (root / "cat/client_1/train/cat/empty.jpg").write_bytes(b"")
    first = train(root, cache=tmp_path / "cache")
    no_decoding()
    assert same(train(root, cache=tmp_path / "cache"), first)
    assert reasons(first) == {"empty.jpg": "empty file"}
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".npz"]


def test_each_picture_has_its_file_from_the_cache_too(
    root: Path, tmp_path: Path, no_decoding: Callable[[], None]
) -> None:
    folder = root / "cat" / "client_1" / "train" / "cat"
    (folder / "0.png").write_bytes(b"no picture")
    (folder / "1b.png").mkdir()
    for _ in ("decoded", "from the cache"):
        split = train(root, cache=tmp_path / "cache")
        assert ["/".join(path.parts[3:]) for path in split.paths] == [
            "cat/1.png",
            "not_cat/0.png",
            "not_cat/1.png",
        ]
        files = [(root / path).read_bytes() for path in split.paths]
        assert split.content_ids == tuple(hashlib.sha256(data).hexdigest() for data in files)
        no_decoding()


def replace_pixels(home: Path) -> None:
    """Same name, same size, another time: what an editor leaves behind."""
    file = home / "train/cat/0.png"
    size = file.stat().st_size
    draw(file, 55)
    data = file.read_bytes()
    file.write_bytes(data + bytes(max(0, size - len(data))))
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        replace_pixels,
        lambda home: draw(home / "train/cat/9.png", 56),
        lambda home: (home / "train/cat/1.png").unlink(),
        lambda home: (home / "train/cat/1.png").rename(home / "train/cat/.1.png"),
        lambda home: (home / "train/cat/1.png").rename(home / "train/not_cat/3.png"),
        lambda home: os.utime(home / "train/cat/1.png", ns=(5, 5)),
    ],
    ids=["edited", "added", "removed", "hidden", "moved to the other class", "touched"],
)
def test_stale_cache_is_decoded_again_and_replaced(
    root: Path, tmp_path: Path, change: Callable[[Path], object], no_decoding: Callable[[], None]
) -> None:
    cache = tmp_path / "cache"
    train(root, cache=cache)
    change(root / "cat/client_1")
    fresh = train(root)
    assert same(train(root, cache=cache), fresh)
    assert len(list(cache.iterdir())) == 1
    no_decoding()
    assert same(train(root, cache=cache), fresh)


def test_cache_keeps_sizes_splits_and_decoders_apart(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    train(root, cache=cache)
    assert load(root, "cat", "client_1", "train", 4, cache).images.shape[1:] == (4, 4, 3)
    assert not same(load(root, "cat", "client_1", "valid", 8, cache), train(root))
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(folders, "DECODER_VERSION", folders.DECODER_VERSION + 1)
    monkeypatch.setattr(folders, "decode", lambda *_: np.full((8, 8, 3), 3, np.uint8))
    assert np.all(train(root, cache=cache).images == 3)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"not an archive at all",
        lambda data: data.replace(b"images", b"imagez"),
        lambda data: data[:300] + bytes([data[300] ^ 1]) + data[301:],
    ],
    ids=["empty", "cut off", "other file", "member lost", "bit flipped"],
)
def test_damaged_cache_is_ignored_and_rewritten(
    root: Path, tmp_path: Path, damage: Callable[[bytes], bytes], no_decoding: Callable[[], None]
) -> None:
    first = train(root, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    assert same(train(root, cache=tmp_path / "cache"), first)
    no_decoding()
    assert same(train(root, cache=tmp_path / "cache"), first)


def test_cache_that_cannot_be_written_costs_time_only(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert same(train(root, cache=tmp_path / "cache"), train(root))


def test_half_written_cache_is_never_seen(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(file: BinaryIO, **_: object) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    assert len(train(root, cache=tmp_path / "cache").labels) == 4
    assert list((tmp_path / "cache").iterdir()) == []


def test_passing_troubles_are_not_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            Path,
            "read_bytes",
            lambda p, r=Path.read_bytes: r(p / "x") if p.name == "1.png" else r(p),
        )
        assert set(reasons(train(root, cache=tmp_path / "cache"))) == {"1.png"}
    assert train(root, cache=tmp_path / "cache").left_out == ()


# The check before anything starts


def complaint(root: Path) -> DatasetError:
    with pytest.raises(DatasetError) as caught:
        check(root)
    return caught.value


def test_check_names_all_detectors_of_a_sound_tree(root: Path) -> None:
    lay_out(root, "bike", client="client_2")
    (root / "README.md").write_text("hello")
    (root / ".cache").mkdir()
    (root / "notes").mkdir()
    assert check(root) == ("bike", "cat")


def test_check_decodes_nothing(root: Path) -> None:
    for file in (root / "cat").rglob("*.png"):
        file.write_bytes(b"no picture")
    assert check(root) == ("cat",)


def test_check_names_a_root_that_is_missing_or_a_file(tmp_path: Path) -> None:
    assert (
        complaint(tmp_path / "gone").happened
        == f"The data set folder {tmp_path / 'gone'} does not exist."
    )
    (tmp_path / "file").write_text("")
    assert (
        complaint(tmp_path / "file").happened
        == f"{tmp_path / 'file'} is a file where the data set folder should be."
    )


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ([], "nothing"),
        ([".cache/x"], "nothing"),
        (["cat/0", "dog/0"], "cat, dog"),
        (["train/cat", "valid/cat", "test/cat"], "test, train, valid"),
        ([f"{name}/x" for name in "abcdefg"], "a, b, c, d, e and 2 more"),
    ],
    ids=["empty", "hidden only", "classes alone", "one client alone", "many"],
)
def test_check_says_what_was_found_and_what_was_expected(
    tmp_path: Path, made: list[str], found: str
) -> None:
    for name in made:
        (tmp_path / name).mkdir(parents=True)
    error = complaint(tmp_path)
    assert error.happened == (
        f"{tmp_path} holds {found}, but no folders like <detector>/<client>/train/<detector> were found in it."
    )
    assert "<detector>/<client>/{train,valid,test}" in error.todo


@pytest.mark.parametrize("deeper", ["cat", "cat/client_1"])
def test_check_refuses_a_folder_too_deep_in_the_tree(root: Path, deeper: str) -> None:
    assert (
        "no folders like <detector>/<client>/train/<detector>" in complaint(root / deeper).happened
    )


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        ("valid", "{home} has no folder 'valid': it holds test, train."),
        ("test/cat", "{home}/test has no folder 'cat' or 'object': it holds not_cat."),
        ("train/not_cat/*", "{home}/train/not_cat has no files."),
    ],
)
def test_check_names_the_split_or_class_that_is_missing(
    root: Path, lost: str, sentence: str
) -> None:
    lay_out(root, "cat", client="client_2")
    home = root / "cat/client_2"
    shutil.rmtree(home / lost.removesuffix("/*"))
    if lost.endswith("*"):
        (home / lost.removesuffix("/*")).mkdir()
        (home / lost.removesuffix("/*") / ".DS_Store").write_bytes(b"x")
    assert complaint(root).happened == sentence.format(home=home)


def test_check_names_a_client_without_any_split(root: Path) -> None:
    (root / "bike/client_1").mkdir(parents=True)
    assert (
        complaint(root).happened == f"{root}/bike/client_1 has no folder 'train': it holds nothing."
    )


def test_check_names_a_detector_folder_with_an_impossible_name(root: Path) -> None:
    (root / "cat").rename(root / "Front Door")
    assert complaint(root).happened.startswith(f"{root}/Front Door is laid out as a detector, but")


def test_importing_folders_stays_light() -> None:
    code = "import sys, dataset.folders; print(sorted({'tensorflow', 'keras', 'sklearn'} & set(sys.modules)))"
    project = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


@pytest.mark.photos
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photos are not beside the project")
def test_real_photos_load_whole(tmp_path: Path) -> None:
    for name in check(PHOTOS):
        for client in ("client_1", "client_2"):
            counts = census(PHOTOS, name, client)
            for split in SPLITS:
                found = load(PHOTOS, name, client, split, 32, tmp_path)
                assert found.left_out == ()
                assert int(found.labels.sum()) == counts[split][True]
                assert len(found.labels) == sum(counts[split].values())
            assert repeated(PHOTOS, name, client) == ()
