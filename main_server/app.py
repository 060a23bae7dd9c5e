"""The main server's web app. Importing it imports no machine-learning framework."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flask import Flask

from main_server.attendance import fingerprint
from main_server.context import MainServer
from main_server.gauges import gauges
from main_server.members import leave_local_codes
from main_server.page import page
from main_server.routes import add_routes
from main_server.work import News
from shared.background import add_background, threads_of
from shared.http_client import HttpClient
from shared.live import Live, add_live, remembered
from shared.settings import MainSettings
from shared.web import make_app


def create_app(settings: MainSettings | None = None, http: HttpClient | None = None) -> Flask:
    """Make the main server's app from its settings, or from the environment; tests may replace `http`."""
    settings = settings or MainSettings.read()
    server = MainServer.open(settings, http)
    leave_local_codes(server)
    live = Live(partial(fingerprint, server))
    app = make_app(
        "Main server", Path(__file__).parent / "templates", remembered(partial(page, server), live.seen),
        lambda: {"topology": settings.topology}, settings.max_body_mb << 20, gauges=partial(gauges, server),
    )  # fmt: skip
    add_live(app, live)
    news = News(server)
    add_background(app, "news", lambda stop: news.watch(stop, threads_of(app)))
    add_routes(app, server, news)
    return app
