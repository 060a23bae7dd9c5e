"""What the device keeps of its last comparison of the local and the global model: told to the main
server, and shown.

The training child makes the report (`device.evaluation.metrics.report`); it stays here. The main
server is told its figures alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from dataset import folders
from device.context import Device
from device.store.records import Evaluation
from shared.errors import DatasetError, DoorbellError, NotFound, PeerUnreachable
from shared.protocol.evaluations import (
    METRICS,
    Estimate,
    Figures,
    Performance,
    parse_figures,
    performance_of,
    shown,
)
from shared.web.spreadsheet import Cell

MODELS: Final = ("local", "global")
COLUMNS: Final = ("detector", "model", "round", "pictures", "what", "of", "value", "low", "high")
_THUMBNAIL_PX: Final = 160


def tell(device: Device, detector: str) -> str:
    """Send the main server the figures it has not; return what a person should know of that of
    `detector`, or ''.
    """
    said = ""
    for measurement in device.store.evaluations.unreported():
        try:
            main = device.enrolment.main()
            report = _message(device, measurement)
            device.http.post_json(f"{main.url}/performance", report, main)
            device.store.evaluations.record_reported(measurement)
        except DoorbellError as error:
            away = isinstance(error, PeerUnreachable)
            if measurement.detector == detector:
                later = "does not answer; it is told with the next measurement."
                said = (
                    " The main server"
                    f" {later if away else f'did not take the figures: {error.happened}'}"
                )
            if away:
                break
    return said


def page(device: Device) -> list[dict[str, Any]]:
    """Return what the page shows of each detector of this device."""
    return [_shown(device, name) for name in device.detectors()]


def measured(device: Device, detector: str) -> Evaluation:
    """Return the measurement of a detector.

    Raises:
        NotFound: There is none.
    """
    measurement = device.store.evaluations.latest(detector)
    if measurement is None:
        raise NotFound(
            f"Nothing of {detector} has been measured here yet.", todo="Open /performance first."
        )
    return measurement


def rows(device: Device, measurement: Evaluation) -> Iterator[list[Cell]]:
    """Return a measurement as rows of `COLUMNS`, a value in each."""
    report = _report(device, measurement)
    rounds = {"local": measurement.trained_round, "global": measurement.global_round}

    def row(
        model: str,
        what: str,
        of: Cell,
        estimate: Estimate[float],
        pictures: int = report["pictures"],
    ) -> list[Cell]:
        where: list[Cell] = [measurement.detector, model, rounds.get(model), pictures, what, of]
        return [*where, estimate.value, estimate.low, estimate.high]

    for model, estimates in parse_figures(report["figures"]).items():
        yield from (row(model, name, None, estimate) for name, estimate in estimates.items())
    for model, found in report["models"].items():
        yield row(model, "expected calibration error", None, _alone(found["calibration_error"]))
        for truth, counts in zip(_classes(measurement.detector), found["confusion"], strict=True):
            for answer, count in zip(_classes(measurement.detector), counts, strict=True):
                yield row(model, f"pictures of {truth}", f"answered {answer}", _alone(count))
        for false_positives, true_positives in zip(*(found["roc"] or ((), ())), strict=True):
            yield row(model, "true positive rate", false_positives, _alone(true_positives))
        for each in found["reliability"]:
            yield row(
                model,
                "share that shows it",
                each["predicted"],
                _alone(each["observed"]),
                each["pictures"],
            )
        for mistake in found["mistakes"]:
            yield row(model, "score of a mistake", mistake["file"], _alone(mistake["score"]), 1)


def mistake(device: Device, detector: str, model: str, number: int) -> bytes:
    """Return a picture that a model was wrong about, small, as a JPEG.

    Args:
        device: The device.
        detector: Its name.
        model: "local" or "global".
        number: Which of the kept mistakes, from 0.

    Raises:
        NotFound: There is no such, or its file is gone, or another since.
    """
    models = _report(device, measured(device, detector))["models"]
    mistakes = models[model]["mistakes"] if model in models else []
    if number < len(mistakes):
        where = (device.settings.data, detector, device.settings.client, "test")
        kept, file = mistakes[number], Path(*where[1:], mistakes[number]["file"])
        try:
            if str(file) in folders.names(*where, bool(kept["label"])):
                thumbnail = folders.thumbnail(where[0], file, _THUMBNAIL_PX)
                if hashlib.sha256((where[0] / file).read_bytes()).hexdigest() == kept["content_id"]:
                    return thumbnail
        except (DatasetError, OSError):
            pass  # as if it were gone
    raise NotFound(
        "That picture is not here, or not any more.", todo="Measure again, and open the page again."
    )


def verdict(figures: Figures, pictures: int) -> str:
    """Return a sentence: which model is right more often, and whether the pictures can tell."""
    difference = figures["difference"]["accuracy"]
    value, low, high = difference.value or 0.0, difference.low or 0.0, difference.high or 0.0
    if value == 0:
        found = f"On {pictures} test pictures both models are right equally often"
    else:
        better, other = ("global", "local") if value > 0 else ("local", "global")
        found = (
            f"On {pictures} test pictures the {better} model is right more often than the"
            f" {other} one"
        )
    interval = f"{shown('accuracy', difference, signed=True)}, global minus local"
    if low > 0 or high < 0:
        return f"{found}: {interval}. The interval excludes 0, so it is hardly chance."
    return (
        f"{found}: {interval}. The interval includes 0, so these pictures cannot tell which model"
        " is better."
    )


def outdated(device: Device, measurement: Evaluation) -> str:
    """Return what has come since a measurement, in a sentence, or nothing."""
    training, held = (
        device.store.trainings.newest(measurement.detector),
        device.store.models.active(measurement.detector),
    )
    newer = []
    if training is not None and training.local_model != measurement.local_model:
        newer.append(f"a training for round {training.round}")
    if held is not None and held.version != measurement.version:
        newer.append(f"the global model of round {held.round}")
    return f"Out of date: {' and '.join(newer)} came since. Measure again." if newer else ""


def _shown(device: Device, detector: str) -> dict[str, Any]:
    measurement = device.store.evaluations.latest(detector)
    if measurement is None:
        ready = (
            device.store.trainings.newest(detector) is not None
            and device.store.models.active(detector) is not None
        )
        return {"name": detector, "measurement": None, "ready": ready}
    report = _report(device, measurement)
    figures = parse_figures(report["figures"])
    folder = device.settings.data / detector / device.settings.client / "test"
    for each in (each for model in report["models"].values() for each in model["mistakes"]):
        each["here"] = (folder / each["file"]).is_file()
        each["file"] = (
            each["file"].encode("utf-8", "replace").decode()
        )  # a file's name need not be text
    return {
        "name": detector,
        "measurement": measurement,
        "verdict": verdict(figures, report["pictures"]),
        "outdated": outdated(device, measurement),
        "table": {
            label: [shown(metric, figures[row][metric], row == "difference") for row in figures]
            for metric, label in METRICS.items()
        },
        "models": report["models"],
        "classes": _classes(detector),
    }


def _message(device: Device, measurement: Evaluation) -> Performance:
    report = _report(device, measurement)
    figures = parse_figures(report["figures"])
    return performance_of(
        measurement.detector,
        measurement.trained_round,
        measurement.version,
        report["pictures"],
        figures,
    )


def _report(device: Device, measurement: Evaluation) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(device.blobs.get(measurement.report))
    return report


def _classes(detector: str) -> tuple[str, str]:
    """Return what a confusion matrix's rows and columns are called, in their order."""
    return f"no {detector}", detector


def _alone(value: float) -> Estimate[float]:
    return Estimate(value, None, None)
