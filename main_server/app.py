"""The main server's web app. Importing it imports no machine-learning framework."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flask import Flask

from main_server.context import MainServer
from main_server.dashboard.page import page
from main_server.members.device_status import page_token
from main_server.members.members import leave_local_codes
from main_server.metrics import metrics
from main_server.routes import add_routes
from main_server.runs.change_notifier import ChangeNotifier
from main_server.settings import MainSettings
from shared.transport.http_client import HttpClient
from shared.web.app import make_app
from shared.web.background import add_background, threads_of
from shared.web.live import Live, add_live, remembered


def create_app(settings: MainSettings | None = None, http: HttpClient | None = None) -> Flask:
    """Make the main server's app from its settings, or from the environment; tests may replace
    `http`.
    """
    settings = settings or MainSettings.read()
    server = MainServer.open(settings, http)
    leave_local_codes(server)
    live = Live(partial(page_token, server))
    app = make_app(
        "Main server",
        Path(__file__).parent / "templates",
        remembered(partial(page, server), live.seen),
        lambda: {"topology": settings.topology},
        settings.max_body_mb << 20,
        gauges=partial(metrics, server),
    )
    add_live(app, live)
    notifier = ChangeNotifier(server)
    add_background(app, "news", lambda stop: notifier.watch(stop, threads_of(app)))
    add_routes(app, server, notifier)
    return app
