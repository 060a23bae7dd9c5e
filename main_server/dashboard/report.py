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
        told = performances(connection)
    return {
        "detectors": [_table(name, list(each)) for name, each in groupby(told, _detector)],
        "metrics": [METRICS[metric] for metric in SHOWN],
        "rows": ROW_NAMES,
    }


def report_rows(server: MainServer) -> Iterator[list[Cell]]:
    """Yield the rows of the file: three for each device and detector."""
    with server.store.read() as connection:
        told = performances(connection)
    for each in told:
        yield from _rows(each)


def weighted_mean(told: Sequence[DeviceEvaluation], row: str, metric: str) -> Estimate[float]:
    """Return the mean over the devices that know a value, weighted by their test pictures; it has
    no interval.
    """
    known = [
        (value, each.performance.pictures)
        for each in told
        if (value := each.performance.figures[row][metric].value) is not None
    ]
    pictures = sum(weight for _, weight in known)
    return Estimate(
        sum(value * weight for value, weight in known) / pictures if pictures else None, None, None
    )


def _detector(told: DeviceEvaluation) -> str:
    return told.performance.detector


def _table(detector: str, told: Sequence[DeviceEvaluation]) -> dict[str, Any]:
    def cells(figures: Figures) -> dict[str, list[str]]:
        return {
            row: [shown(metric, figures[row][metric], row == "difference") for metric in SHOWN]
            for row in ROWS
        }

    means = {row: {metric: weighted_mean(told, row, metric) for metric in SHOWN} for row in ROWS}
    return {
        "name": detector,
        "devices": [
            {
                "name": each.device,
                "pictures": each.performance.pictures,
                "told_at": each.told_at,
                "rounds": {"local": each.performance.trained_round, "global": each.global_round},
                "cells": cells(each.performance.figures),
            }
            for each in told
        ],
        "pictures": sum(each.performance.pictures for each in told),
        "mean": cells(means),
        "versions": len({each.performance.version for each in told}),
    }


def _rows(told: DeviceEvaluation) -> Iterator[list[Cell]]:
    performance = told.performance
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told.told_at))
    of = {
        "local": (performance.trained_round, None),
        "global": (told.global_round, performance.version),
    }
    for row, estimates in performance.figures.items():
        about = (
            performance.detector,
            told.device,
            performance.pictures,
            at,
            row,
            *of.get(row, (None, None)),
        )
        yield [*about, *(number for metric in METRICS for number in astuple(estimates[metric]))]
