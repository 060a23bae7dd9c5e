"""The device's page of how well its models do, and what it shows: pictures, a plot, a table to take
away.
"""

from __future__ import annotations

from flask import Flask, Response

from device.context import Device
from device.evaluation import evaluations
from device.evaluation.plots import comparison_plot
from shared.names import checked_name
from shared.web.live import render_page
from shared.web.openapi import JPEG, PAGE, PNG, Operation, declare
from shared.web.spreadsheet import CSV, download


def add_report(app: Flask, device: Device) -> None:
    """Add the page, and what it shows, to a device's app."""

    @app.get("/report")
    def report() -> str:
        return render_page(
            app, "performance.html", lambda: {"detectors": evaluations.page(device)}, here="/report"
        )

    @app.get("/report/<detector>.csv")
    def report_csv(detector: str) -> Response:
        measurement = evaluations.measured(device, checked_name(detector, "detector"))
        rows = evaluations.rows(device, measurement)
        return download(f"{device.name}-{detector}-performance.csv", evaluations.COLUMNS, rows)

    @app.get("/report/<detector>.png")
    def report_png(detector: str) -> Response:
        measurement = evaluations.measured(device, checked_name(detector, "detector"))
        return Response(comparison_plot(device, measurement), mimetype="image/png")

    @app.get("/report/<detector>/mistakes/<model>/<int:number>.jpg")
    def report_mistake(detector: str, model: str, number: int) -> Response:
        picture = evaluations.mistake(device, checked_name(detector, "detector"), model, number)
        return Response(picture, mimetype="image/jpeg")

    fails = (400, 404)
    table = Operation("Give what was last measured as a table.", {}, CSV, fails, "operator")
    plot = Operation("Show what was last measured.", {}, PNG, fails, "operator")
    mistake = Operation("Show a picture that a model was wrong about.", {}, JPEG, fails, "operator")
    declare(app.extensions, "report", GET=PAGE)
    declare(app.extensions, "report_csv", GET=table)
    declare(app.extensions, "report_png", GET=plot)
    declare(app.extensions, "report_mistake", GET=mistake)
    app.config["DOORBELL_NAV"].append(("/report", "Performance"))
