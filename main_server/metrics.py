"""What the main server tells `/metrics` from its database.

Counted from rows, it goes on through restarts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from main_server.context import MainServer
from main_server.members.device_status import STATES, attendance
from main_server.store.states import OPEN
from main_server.store.totals import read_endings

_DETECTOR: Final = ["detector"]


def gauges(server: MainServer) -> Iterator[Metric]:
    """Return how rounds, models and devices stand now."""
    now, standing = server.clock(), server.store.standing()
    ended_rounds, judged_versions = read_endings(server.store.database)
    number = GaugeMetricFamily("doorbell_open_round", "Number of the open round.", labels=_DETECTOR)
    age = GaugeMetricFamily(
        "doorbell_open_round_age_seconds", "How long it has been open.", labels=_DETECTOR
    )
    sent = GaugeMetricFamily(
        "doorbell_open_round_updates", "Updates sent for it, as known here.", labels=_DETECTOR
    )
    for detector, (newest, *_) in standing.rounds.items():
        if newest.state == OPEN:
            number.add_metric([detector], newest.settings.round)
            age.add_metric([detector], max(0.0, now - newest.opened_at))
            sent.add_metric([detector], len(standing.sent.get(detector, {})))
    made = GaugeMetricFamily(
        "doorbell_model_round", "Round of the newest version of a model.", labels=_DETECTOR
    )
    accuracy = GaugeMetricFamily(
        "doorbell_model_accuracy_ratio",
        "How often it tells the devices' validation pictures apart.",
        labels=_DETECTOR,
    )
    for detector, (version, *_) in standing.versions.items():
        made.add_metric([detector], version.round)
        if version.accuracy is not None:
            accuracy.add_metric([detector], version.accuracy)
    rounds = CounterMetricFamily(
        "doorbell_rounds", "Rounds that are over.", labels=["detector", "outcome"]
    )
    versions = CounterMetricFamily(
        "doorbell_versions", "Versions, by what the gate said.", labels=["detector", "gate"]
    )
    for family, rows in ((rounds, ended_rounds), (versions, judged_versions)):
        for detector, outcome, count in rows:
            family.add_metric([detector, outcome], count)
    devices = GaugeMetricFamily(
        "doorbell_devices", "Devices that announced themselves, by state.", labels=["state"]
    )
    states = Counter(device.state for device in attendance(server, standing))
    for state in STATES:
        devices.add_metric([state], states[state])
    yield from (number, age, sent, made, accuracy, rounds, versions, devices)
