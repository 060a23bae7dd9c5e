"""The secure aggregator's web app. Importing it imports no machine-learning framework."""

from __future__ import annotations

from pathlib import Path

from flask import Flask

from sec_agg.aggregation import Aggregator
from sec_agg.routes import add_routes
from sec_agg.store import Store
from shared.blobs import BlobStore
from shared.http_client import HttpClient
from shared.settings import AggregatorSettings
from shared.web import make_app


def create_app(settings: AggregatorSettings | None = None, http: HttpClient | None = None) -> Flask:
    """Make the aggregator's app from its settings, or from the environment; tests may replace `http`."""
    settings = settings or AggregatorSettings.read()
    store = Store(settings.folder)
    aggregator = Aggregator(store, BlobStore(settings.folder / "blobs"), http or HttpClient(), settings.main_url)

    def page() -> dict[str, object]:
        names = store.detectors()
        rounds = [current for name in names if (current := store.newest_round(name))]
        return {"rounds": [(current, store.updates(current.detector, current.round)) for current in rounds]}

    app = make_app(
        "Secure aggregator", Path(__file__).parent / "templates", page, lambda: {}, settings.max_body_mb << 20
    )
    add_routes(app, aggregator)
    return app
