"""What the operator sees: the report as a page and as a file, and the status as data."""

from __future__ import annotations

from functools import partial

from flask import Flask, Response, jsonify

from main_server.context import MainServer
from main_server.dashboard.report import COLUMNS, report, report_rows
from main_server.dashboard.status import status
from shared.web.live import render_page
from shared.web.openapi import PAGE, Operation, as_json, declare, record
from shared.web.spreadsheet import CSV, download


def add_dashboard(app: Flask, server: MainServer) -> None:
    """Add the report's and the status' addresses to the main server's app."""

    @app.get("/report", endpoint="report")
    def show_report() -> str:
        return render_page(app, "performance.html", partial(report, server), here="/report")

    @app.get("/report.csv", endpoint="report_csv")
    def show_report_csv() -> Response:
        name = f"{server.settings.federation}-performance.csv"
        return download(name, COLUMNS, report_rows(server))

    @app.get("/status", endpoint="status")
    def show_status() -> Response:
        return jsonify(status(server))

    table = Operation("Give what devices measured as a table.", {}, CSV, (), "operator")
    shown = Operation(
        "Show devices, runs, rounds and versions.", answer=as_json(record()), security="operator"
    )
    declare(app.extensions, "report", GET=PAGE)
    declare(app.extensions, "report_csv", GET=table)
    declare(app.extensions, "status", GET=shown)
    app.config["DOORBELL_NAV"].append(("/report", "Performance"))
