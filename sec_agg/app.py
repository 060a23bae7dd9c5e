"""The secure aggregator's web app. Importing it imports no machine-learning framework."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from flask import Flask

from sec_agg.aggregation import Aggregator
from sec_agg.metrics import gauges
from sec_agg.page import page
from sec_agg.poll_loop import attend
from sec_agg.pruning import Pruner
from sec_agg.roster import Roster
from sec_agg.routes import add_routes
from sec_agg.settings import AggregatorSettings
from sec_agg.store.store import Store
from shared.security.authenticator import Authenticator
from shared.security.identity import Identity
from shared.storage.nonces import open_nonces
from shared.storage.opening import open_blobs
from shared.transport.enrolment import Enrolment
from shared.transport.http_client import HttpClient
from shared.web.app import make_app
from shared.web.background import add_background
from shared.web.live import Live, add_live

ROLE: Final = "secure-aggregator"
IDENTITY: Final = "identity.key"


def create_app(settings: AggregatorSettings | None = None, http: HttpClient | None = None) -> Flask:
    """Make the aggregator's app from its settings, or from the environment; tests may replace
    `http`.
    """
    settings = settings or AggregatorSettings.read()
    store, enrolment = Store(settings.folder, settings.database_url), open_enrolment(settings, http)
    roster = Roster(enrolment, enrolment.http)
    blobs = open_blobs(
        settings.folder / "blobs", settings.blobs, settings.folder.name, settings.s3_endpoint
    )
    authenticator = Authenticator(
        enrolment.identity, lambda: ROLE, roster.member, open_nonces(store.database)
    )
    aggregator = Aggregator(store, blobs, enrolment.http, enrolment, roster)
    app = make_app(
        "Secure aggregator",
        Path(__file__).parent / "templates",
        partial(page, aggregator),
        lambda: {},
        settings.max_body_mb << 20,
        gauges=partial(gauges, aggregator),
    )
    add_live(app, Live(store.fingerprint))
    pruner = Pruner(store, blobs)
    add_routes(app, aggregator, authenticator, pruner)
    add_background(app, "attending", lambda stop: attend(aggregator, pruner, stop))
    return app


def open_enrolment(settings: AggregatorSettings, http: HttpClient | None = None) -> Enrolment:
    """Open the aggregator's key pair and its place in the federation."""
    identity = Identity.open(settings.folder / IDENTITY, settings.secret)
    return Enrolment(
        identity=identity,
        role=ROLE,
        wanted_name=ROLE,
        folder=settings.folder,
        main_url=settings.main_url,
        http=http or HttpClient(identity),
        join_code=settings.join_code,
        local_codes=settings.local_codes,
    )
