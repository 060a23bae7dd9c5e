"""The report: how well the devices' own models and the global one do on their test pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from msgspec.structs import astuple

from main_server.context import MainServer
from main_server.store.evaluations import DeviceEvaluation, performances
from shared.protocol.evaluations import METRICS, ROWS, Estimate, Figures, shown
from shared.web.spreadsheet import Cell

SHOWN: Final = ("accuracy", "f1", "roc_auc")
"""What the page has room for; the file has all."""
ROW_NAMES: Final = {"local": "Local", "global": "Global", "difference": "Difference"}
COLUMNS: Final = (
    "detector",
    "device",
    "pictures",
    "told_at",
    "model",
    "round",
    "version",
    *(f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")),
)


def report(server: MainServer) -> dict[str, object]:
    """Return what the page shows: a table per detector, with means over its devices."""
    with server.store.read() as connection:
        found = performances(connection)
    return {
        "detectors": [_table(name, list(each)) for name, each in groupby(found, _detector)],
        "metrics": [METRICS[metric] for metric in SHOWN],
        "rows": ROW_NAMES,
    }


def report_rows(server: MainServer) -> Iterator[list[Cell]]:
    """Yield the rows of the file: three for each device and detector."""
    with server.store.read() as connection:
        found = performances(connection)
    for each in found:
        yield from _rows(each)


def weighted_mean(
    evaluations: Sequence[DeviceEvaluation], row: str, metric: str
) -> Estimate[float]:
    """Return the mean over the devices that know a value, weighted by their test pictures.

    Args:
        evaluations: Of one detector.
        row: "local", "global" or "difference".
        metric: One of `METRICS`.

    Returns:
        The mean without an interval; without a value if no device knows one.
    """
    weighted = 0.0
    pictures = 0
    for each in evaluations:
        value = each.performance.figures[row][metric].value
        if value is not None:
            weighted += value * each.performance.pictures
            pictures += each.performance.pictures
    mean = weighted / pictures if pictures else None
    return Estimate(mean, None, None)


def _detector(evaluation: DeviceEvaluation) -> str:
    return evaluation.performance.detector


def _table(detector: str, evaluations: Sequence[DeviceEvaluation]) -> dict[str, Any]:
    """Return the table of one detector: three rows for each device, and the means."""
    means = {}
    for row in ROWS:
        means[row] = {metric: weighted_mean(evaluations, row, metric) for metric in SHOWN}
    return {
        "name": detector,
        "devices": [_device(each) for each in evaluations],
        "pictures": sum(each.performance.pictures for each in evaluations),
        "mean": _cells(means),
        # Devices that measured different global models cannot be compared: the page says so.
        "versions": len({each.performance.version for each in evaluations}),
    }


def _device(evaluation: DeviceEvaluation) -> dict[str, Any]:
    performance = evaluation.performance
    return {
        "name": evaluation.device,
        "pictures": performance.pictures,
        "told_at": evaluation.told_at,
        "rounds": {
            "local": performance.trained_round,
            "global": evaluation.global_round,
        },
        "cells": _cells(performance.figures),
    }


def _cells(figures: Figures) -> dict[str, list[str]]:
    """Return the text of each cell of the three rows."""
    cells = {}
    for row in ROWS:
        is_signed = row == "difference"
        cells[row] = [shown(metric, figures[row][metric], is_signed) for metric in SHOWN]
    return cells


def _rows(evaluation: DeviceEvaluation) -> Iterator[list[Cell]]:
    """Yield the rows of the file for one device and detector."""
    performance = evaluation.performance
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(evaluation.told_at))
    models: dict[str, tuple[Cell, Cell]] = {
        "local": (performance.trained_round, None),
        "global": (evaluation.global_round, performance.version),
    }
    for row, estimates in performance.figures.items():
        cells: list[Cell] = [
            performance.detector,
            evaluation.device,
            performance.pictures,
            at,
            row,
        ]
        cells += models.get(row, (None, None))
        for metric in METRICS:
            cells += astuple(estimates[metric])
        yield cells
