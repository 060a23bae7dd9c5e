"""How well the devices' own models and the global one do on their test pictures: told by devices,
shown to people.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

from flask import Flask, Response
from msgspec.structs import astuple

from main_server.context import MainServer
from main_server.store.evaluations import Told
from shared.errors import InvalidMessage, NotFound
from shared.protocol.evaluations import METRICS, ROWS, Estimate, Figures, Performance, shown
from shared.security.authenticator import Caller
from shared.web.live import render_page
from shared.web.openapi import PAGE, Operation, declare
from shared.web.spreadsheet import CSV, Cell, download

SHOWN: Final = ("accuracy", "f1", "roc_auc")
"""What the page has room for; the file has all."""
_NAMES: Final = {"local": "Local", "global": "Global", "difference": "Difference"}
_COLUMNS: Final = (
    "detector",
    "device",
    "pictures",
    "told_at",
    "model",
    "round",
    "version",
    *(f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")),
)


def note(server: MainServer, caller: Caller, performance: Performance) -> None:
    """Keep what a device measured of its own and the global model.

    Raises:
        InvalidMessage: It is about a version that is not one of that detector's.
        NotFound: The device takes no part in that detector.
    """
    version = server.store.version(performance.version)
    if version is None or version.detector != performance.detector:
        raise InvalidMessage(
            f"That is no version of {performance.detector} here.",
            todo="Fetch the newest model, and measure again.",
        )
    if not server.store.note_performance(caller.name, performance, server.clock()):
        raise NotFound(
            f"{caller.name} does not take part in {performance.detector}.",
            todo="Open /sendstatus on it first.",
        )


def add_report(app: Flask, server: MainServer) -> None:
    """Add the page, and the same as a file, to the main server's app."""

    def make() -> dict[str, object]:
        found = [
            _table(name, list(told))
            for name, told in groupby(server.store.performances(), _detector)
        ]
        return {
            "detectors": found,
            "metrics": [METRICS[metric] for metric in SHOWN],
            "rows": _NAMES,
        }

    @app.get("/report")
    def report() -> str:
        return render_page(app, "performance.html", make, here="/report")

    @app.get("/report.csv")
    def report_csv() -> Response:
        rows = (row for told in server.store.performances() for row in _rows(told))
        return download(f"{server.settings.federation}-performance.csv", _COLUMNS, rows)

    declare(app.extensions, "report", GET=PAGE)
    table = Operation("Give what devices measured as a table.", {}, CSV, (), "operator")
    declare(app.extensions, "report_csv", GET=table)
    app.config["DOORBELL_NAV"].append(("/report", "Performance"))


def weighted_mean(told: Sequence[Told], row: str, metric: str) -> Estimate[float]:
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


def _detector(told: Told) -> str:
    return told.performance.detector


def _table(detector: str, told: Sequence[Told]) -> dict[str, Any]:
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


def _rows(told: Told) -> Iterator[list[Cell]]:
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
