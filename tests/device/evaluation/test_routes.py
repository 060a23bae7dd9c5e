"""What a device measured: kept, told to the main server, and shown; and the training child that
measures it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from device.context import Device
from device.evaluation import evaluations
from device.rounds import participation
from device.rounds.cleanup import tidy
from device.store.records import GlobalModel
from device.training.jobs import Compare, Folders
from federation.services import services
from learning.architectures import architecture
from learning.model import Model
from main_server.store.evaluations import performances
from shared.errors import TrainingFailed
from shared.protocol.evaluations import METRICS, parse_figures
from tests.main_store import read

PAGE = {"Host": "localhost", "Accept": "text/html"}
HOSTILE = 'a;=HYPERLINK("x")&<b>y\udce9.png'


def estimate(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def draw(folder: Path, name: str, shade: int) -> str:
    """Write a picture, and return the SHA-256 of its file."""
    folder.mkdir(parents=True, exist_ok=True)
    data = bytes(cv2.imencode(".png", np.full((12, 16, 3), shade, np.uint8))[1])
    (folder / name).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def measuring(federation: Any, doorbell: Device) -> Device:
    """A device that has trained, whose child will report differences, and two mistakes of the local
    model.
    """
    test = doorbell.settings.data / "package" / doorbell.settings.client / "test"
    ids = [draw(test / "not_package", HOSTILE, 50), draw(test / "package", "sure.png", 200)]
    report = json.loads(json.dumps(doorbell.trainer.report))  # type: ignore[attr-defined] # each part its own
    report["figures"]["difference"]["accuracy"] = estimate(0.125, 0.01, 0.25)
    found = report["models"]["local"]
    found["mistakes"] = [
        {"file": f"not_package/{HOSTILE}", "content_id": ids[0], "label": 0, "score": 0.99},
        {"file": "package/sure.png", "content_id": ids[1], "label": 1, "score": 0.02},
    ]
    found["roc"] = [[0.0, 0.5, 1.0], [0.0, 0.75, 1.0]]
    found["reliability"] = [{"predicted": 0.25, "observed": 0.5, "pictures": 2}]
    doorbell.trainer.report = report  # type: ignore[attr-defined]
    participation.train(doorbell, "package")
    return doorbell


def measure(device: Device) -> str:
    return participation.performance(device, "package").said


def get(federation: Any, path: str = "/report") -> Any:
    return federation.network.apps["device-1"].test_client().get(path, headers=PAGE)


def told(federation: Any) -> list[bytes]:
    return list(federation.network.sent("main/performance"))


# --- kept


def test_measurement_is_kept_with_what_was_measured_and_outlives_the_device(
    federation: Any, measuring: Device, make_device: Callable[..., Device]
) -> None:
    measure(measuring)
    kept = make_device(federation).store.evaluations.latest("package")
    training, held = (
        measuring.store.trainings.newest("package"),
        measuring.store.models.active("package"),
    )
    assert (kept.local_model, kept.trained_round) == (training.local_model, 1)
    assert (kept.version, kept.global_round, kept.measured_at) == (held.version, 0, 99.0)
    assert kept.plot == ""
    assert not list(measuring.settings.folder.glob("training-*"))


def test_answer_has_the_intervals_and_no_file_name(measuring: Device) -> None:
    figures = participation.performance(measuring, "package").figures
    assert figures["intervals"]["difference"]["accuracy"] == estimate(0.125, 0.01, 0.25)
    assert "sure.png" not in str(figures)


def test_newest_measurement_is_kept_and_the_one_before_goes(measuring: Device) -> None:
    measure(measuring)
    before = measuring.store.evaluations.latest("package")
    measuring.trainer.report["pictures"] = 5  # type: ignore[attr-defined]
    measure(measuring)
    tidy(measuring, grace_s=-1.0)
    now = measuring.store.evaluations.latest("package")
    there = {path.name for path in (measuring.settings.folder / "blobs").iterdir()}
    assert now.report in there
    assert before.report not in there


def test_failed_measurement_leaves_the_one_before(measuring: Device) -> None:
    measure(measuring)
    before = measuring.store.evaluations.latest("package")
    measuring.trainer.errors["compare"] = [TrainingFailed("No.")]  # type: ignore[attr-defined]
    with pytest.raises(TrainingFailed):
        measure(measuring)
    assert measuring.store.evaluations.latest("package") == before


def test_backup_takes_the_files_of_a_measurement(federation: Any, measuring: Device) -> None:
    from federation.backup.archive import open_backup  # noqa: PLC0415
    from federation.backup.backup import backup  # noqa: PLC0415

    measure(measuring)
    assert get(federation, "/report/package.png").data.startswith(b"\x89PNG")
    kept = measuring.store.evaluations.latest("package")
    environ = {"DOORBELL_HOME": str(federation.folder)}
    assert "devices/device-1" in services(environ)
    backup(federation.folder / "backup.tar", environ)
    with open_backup(federation.folder / "backup.tar") as found:
        blobs = found.names("devices/device-1", "blobs/")
    assert {f"blobs/{kept.report}", f"blobs/{kept.plot}"} <= set(blobs)


# --- told


def test_main_server_is_told_the_figures_and_nothing_of_a_picture(
    federation: Any, measuring: Device
) -> None:
    assert "main server" not in measure(measuring)
    (body,) = told(federation)
    for hidden in (
        b"sure.png",
        b"HYPERLINK",
        b"0.99",
        b"mistakes",
        b'roc"',
        b"reliability",
        b"confusion",
    ):
        assert hidden not in body
    (kept,) = read(federation.main.store, performances)
    assert (kept.device, kept.performance.pictures) == ("device-1", 4)
    assert kept.performance.figures == parse_figures(measuring.trainer.report["figures"])  # type: ignore[attr-defined]
    assert measuring.store.evaluations.unreported() == ()


def test_measurement_is_kept_without_the_main_server_and_told_with_the_next(
    federation: Any, measuring: Device
) -> None:
    federation.network.down = {"main"}
    said = measure(measuring)
    assert said.endswith("The main server does not answer; it is told with the next measurement.")
    assert measuring.store.evaluations.latest("package").told == 0
    federation.network.down = set()
    (measuring.settings.data / "raccoon" / measuring.settings.client).mkdir(parents=True)
    participation.train(measuring, "raccoon")
    assert "main server" not in participation.performance(measuring, "raccoon").said
    detectors = {each.performance.detector for each in read(federation.main.store, performances)}
    assert detectors == {"package", "raccoon"}


def test_one_measurement_that_is_refused_holds_no_other_up(
    federation: Any, measuring: Device
) -> None:
    measuring.store.models.activate(GlobalModel("package", "f" * 64, 8))
    assert (
        "The main server did not take the figures: That is no version of package here."
        in measure(measuring)
    )
    (measuring.settings.data / "raccoon" / measuring.settings.client).mkdir(parents=True)
    participation.train(measuring, "raccoon")
    assert "main server" not in participation.performance(measuring, "raccoon").said
    assert [each.performance.detector for each in read(federation.main.store, performances)] == [
        "raccoon"
    ]
    assert [each.detector for each in measuring.store.evaluations.unreported()] == ["package"]


# --- shown


class Outline(HTMLParser):
    """What a screen reader goes by: headings, tables and pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.tables: list[set[str]] = []
        self.images: list[dict[str, str | None]] = []
        self.scopes: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h1", "h2", "h3", "h4"):
            self.levels.append(int(tag[1]))
        if tag == "table":
            self.tables.append(set())
        if tag == "th":
            self.scopes.append(dict(attrs).get("scope"))
        if tag == "caption":
            self.tables[-1].add(tag)
        if tag == "img":
            self.images.append(dict(attrs))


def test_page_compares_in_words_and_in_a_table(federation: Any, measuring: Device) -> None:
    measure(measuring)
    shown = get(federation).text
    assert (
        "On 4 test pictures the global model is right more often than the local one: +12.5 points (+1.0 to"
        in shown
    )
    assert "The interval excludes 0" in shown
    assert "75.0 % (25.0 to 100.0)" in shown
    assert all(label in shown for label in METRICS.values())
    assert 'href="/report/package.csv"' in shown and 'action="/performance"' in shown
    assert "Out of date" not in shown
    outline = Outline(shown)
    assert outline.levels[0] == 1 and all(
        b - a <= 1 for a, b in zip(outline.levels, outline.levels[1:], strict=False)
    )
    assert len(outline.tables) == 3 and all("caption" in table for table in outline.tables)
    assert set(outline.scopes) == {"row", "col"}
    assert all(image["alt"] for image in outline.images) and len(outline.images) == 3


def test_names_of_files_are_text_on_the_page(federation: Any, measuring: Device) -> None:
    measure(measuring)
    shown = get(federation).text
    assert "a;=HYPERLINK(&#34;x&#34;)&amp;&lt;b&gt;y?.png" in shown
    assert "<b>y" not in shown


@pytest.mark.parametrize("newer", ["training", "model"])
def test_page_says_when_something_newer_came(
    federation: Any, measuring: Device, newer: str
) -> None:
    measure(measuring)
    if newer == "training":
        measuring.trainer.step = np.float32(0.5)  # type: ignore[attr-defined]
        participation.train(measuring, "package")
        assert "Out of date: a training for round 1 came since." in get(federation).text
    else:
        measuring.store.models.activate(GlobalModel("package", "f" * 64, 8))
        assert "Out of date: the global model of round 8 came since." in get(federation).text


def test_before_anything_is_measured_the_page_says_what_to_do(
    federation: Any, doorbell: Device
) -> None:
    assert "Train on the" in get(federation).text
    participation.train(doorbell, "package")
    assert "Press “Measure Model Performance” above" in get(federation).text
    for path in (
        "/report/package.csv",
        "/report/package.png",
        "/report/package/mistakes/local/0.jpg",
    ):
        assert get(federation, path).status_code == 404


def test_verdict_says_which_and_whether_it_can_be_told() -> None:
    def said(*difference: float) -> str:
        figures = parse_figures(
            {row: dict.fromkeys(METRICS, estimate(0.5, 0.5, 0.5)) for row in ("local", "global")}
            | {"difference": dict.fromkeys(METRICS, estimate(*difference))}
        )
        return evaluations.verdict(figures, 40)

    assert "the local model is right more often than the global one" in said(-0.1, -0.2, -0.01)
    assert "excludes 0" in said(-0.1, -0.2, -0.01) and "excludes 0" in said(0.1, 0.01, 0.2)
    assert "cannot tell" in said(0.1, 0.0, 0.2) and "cannot tell" in said(-0.1, -0.2, 0.0)
    assert "both models are right equally often" in said(0.0, -0.1, 0.1)


def test_table_to_take_away_has_everything_and_no_formula(
    federation: Any, measuring: Device
) -> None:
    measure(measuring)
    answer = get(federation, "/report/package.csv")
    assert answer.mimetype == "text/csv"
    assert (
        answer.headers["Content-Disposition"]
        == "attachment; filename=device-1-package-performance.csv"
    )
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    of = {(row["model"], row["what"], row["of"]): row for row in rows}
    assert of["difference", "accuracy", ""]["value"] == "0.125"
    assert of["global", "f1", ""]["round"] == "0" and of["local", "f1", ""]["round"] == "1"
    assert of["local", "pictures of no package", "answered package"]["value"] == "1"
    assert of["local", "true positive rate", "0.5"]["value"] == "0.75"
    assert of["local", "share that shows it", "0.25"]["pictures"] == "2"
    assert of["local", "score of a mistake", "package/sure.png"]["value"] == "0.02"
    assert "a;'=HYPERLINK" in answer.text and "a;=" not in answer.text
    assert get(federation, "/report/package.png").data.startswith(b"\x89PNG")


def test_mistakes_are_shown_small(federation: Any, measuring: Device) -> None:
    measure(measuring)
    for number, shade in enumerate((50, 200)):
        answer = get(federation, f"/report/package/mistakes/local/{number}.jpg")
        assert answer.mimetype == "image/jpeg" and answer.headers["Cache-Control"] == "no-store"
        pixels = cv2.imdecode(np.frombuffer(answer.data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (160, 160, 3) and abs(int(pixels.mean()) - shade) < 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("package/mistakes/local/2.jpg", 404),
        ("package/mistakes/local/-1.jpg", 404),
        ("package/mistakes/global/0.jpg", 404),
        ("package/mistakes/other/0.jpg", 404),
        ("package/mistakes/local/..%2f..%2fidentity.key", 404),
        ("package/mistakes/local/0.png", 404),
        ("raccoon/mistakes/local/0.jpg", 404),
        ("raccoon.csv", 404),
        ("raccoon.png", 404),
        ("..%2fpackage.csv", 404),
        ("No Name.csv", 400),
        ("%00.png", 400),
        ("package/mistakes/local/1e1.jpg", 404),
        ("package/mistakes/local/" + "9" * 5000 + ".jpg", 404),
    ],
    ids=lambda value: str(value)[:40],
)
def test_nothing_else_is_shown(federation: Any, measuring: Device, path: str, status: int) -> None:
    measure(measuring)
    assert get(federation, f"/report/{path}").status_code == status


def gone(file: Path) -> None:
    file.unlink()


def another(file: Path) -> None:
    draw(file.parent, file.name, 100)


def elsewhere(file: Path) -> None:
    outside = file.parents[5] / "secret.png"
    file.rename(outside)
    file.symlink_to(outside)


def folder_elsewhere(file: Path) -> None:
    outside = file.parents[5] / "secrets"
    file.parent.rename(outside)
    file.parent.symlink_to(outside)


def hidden(file: Path) -> None:
    file.parent.rename(file.parent.with_name("moved"))


@pytest.mark.parametrize(
    "change",
    [gone, another, elsewhere, folder_elsewhere, hidden],
    ids=lambda change: change.__name__,
)
def test_file_that_is_not_the_one_that_was_measured_is_not_shown(
    federation: Any, measuring: Device, change: Callable[[Path], None]
) -> None:
    measure(measuring)
    change(
        measuring.settings.data
        / "package"
        / measuring.settings.client
        / "test"
        / "package"
        / "sure.png"
    )
    assert get(federation, "/report/package/mistakes/local/1.jpg").status_code == 404
    assert get(federation).status_code == 200


def test_page_of_a_device_without_pictures(federation: Any, doorbell: Device) -> None:
    doorbell.settings.data.rename(doorbell.settings.data.with_name("away"))
    assert "This device has no pictures yet" in get(federation).text


# --- the training child


@pytest.fixture
def job(tmp_path: Path) -> Compare:
    """A job for the child: eight tiny pictures, and two models of the small architecture."""
    rng, test = np.random.default_rng(0), tmp_path / "tiny" / "package" / "client_1" / "test"
    for kind in ("package", "not_package"):
        for number in range(4):
            draw(test / kind, f"{number}.png", int(rng.integers(0, 255)))
    spec, models = architecture("porch-cnn"), {}
    for seed, name in enumerate(("local", "global")):
        model = Model("package", 1, None, spec.name, spec.initial(np.random.default_rng(seed)))
        (tmp_path / name).write_bytes(model.to_bytes())
        models[name] = tmp_path / name
    folders = Folders(
        data=tmp_path / "tiny",
        cache=tmp_path / "cache",
        machine_cache=tmp_path / "machine_cache",
    )
    return Compare(
        detector="package", folders=folders, client="client_1", split="test", models=models
    )


class Learner:
    """Is sure of one class whatever it is shown; which, its params decide."""

    def scores(self, params: Any, inputs: Any) -> Any:
        sure = 0.75 if params["logit/kernel"].ravel()[0] > self.middle else 0.125
        return np.linspace(sure, sure + 0.1, len(inputs), dtype=np.float32)

    middle = 0.0


@pytest.fixture
def bench(job: Compare) -> Any:
    from device.training.worker import Bench  # noqa: PLC0415

    bench: Any = Bench()
    first = [
        architecture("porch-cnn").initial(np.random.default_rng(seed))["logit/kernel"].ravel()[0]
        for seed in (0, 1)
    ]
    learner = Learner()
    learner.middle = float(np.mean(first))
    bench._learner = lambda _: learner
    return bench


@pytest.mark.heavy
def test_child_reports_and_names_the_mistakes(bench: Any, job: Compare) -> None:
    result = bench.compare(job)
    report = result.report
    assert report["pictures"] == 8
    named = {name: model["mistakes"] for name, model in report["models"].items()}
    assert sorted(each["label"] for model in named.values() for each in model) == [0] * 4 + [1] * 4
    for mistake in (each for model in named.values() for each in model):
        file = job.folders.data / "package" / "client_1" / "test" / mistake["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == mistake["content_id"]
        assert (file.parent.name == "package") == mistake["label"]
    assert result.models.keys() == {"local", "global"}
    assert (
        parse_figures(report["figures"])["local"]["accuracy"].value
        == result.models["local"].accuracy
    )
    again = bench.compare(job)  # now the pictures come from the cache
    assert again.report == report


@pytest.mark.heavy
def test_child_names_no_file_that_was_left_out(bench: Any, job: Compare) -> None:
    test = job.folders.data / "package" / "client_1" / "test"
    (test / "package" / "0.png").write_bytes(b"no picture")
    (test / "not_package" / "1.png").write_bytes(b"")
    for _ in ("read", "from the cache"):
        report = bench.compare(job).report
        assert report["pictures"] == 6
        for mistake in (each for model in report["models"].values() for each in model["mistakes"]):
            file = test / mistake["file"]
            assert hashlib.sha256(file.read_bytes()).hexdigest() == mistake["content_id"]


@pytest.mark.heavy
def test_pictures_that_change_in_the_middle_are_not_compared(bench: Any, job: Compare) -> None:
    read = bench._examples
    other = architecture("efficientnet-lite0-head")
    model = Model("package", 1, None, other.name, other.initial(np.random.default_rng(0)))
    job.models["global"].write_bytes(model.to_bytes())
    test = job.folders.data / "package" / "client_1" / "test"

    def and_then_change(job: Compare, _architecture: str, *args: Any) -> Any:
        found = read(job, "porch-cnn", *args)
        draw(test / "package", "0.png", 77)
        return found

    bench._examples = and_then_change
    with pytest.raises(TrainingFailed, match="changed while they were measured"):
        bench.compare(job)


@pytest.mark.heavy
def test_report_of_the_child_is_what_the_main_server_takes(
    federation: Any, measuring: Device, bench: Any, job: Compare
) -> None:
    measuring.trainer.report = bench.compare(job).report  # type: ignore[attr-defined]
    assert "main server" not in measure(measuring)
    (kept,) = read(federation.main.store, performances)
    assert kept.performance.pictures == 8
    assert get(federation).status_code == 200
