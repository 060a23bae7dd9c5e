"""The main server's own metrics on `/metrics`, from its database.

Counted from rows, they go on through restarts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from main_server.context import MainServer
from main_server.members.device_status import STATES, device_statuses
from main_server.store.snapshot import Snapshot, read_snapshot
from main_server.store.states import OPEN
from main_server.store.totals import Ending, round_endings, version_endings

_DETECTOR: Final = ["detector"]


def metrics(server: MainServer) -> Iterator[Metric]:
    """Return the metrics of rounds, models and devices as they are now."""
    now = server.clock()
    with server.store.read() as connection:
        snapshot = read_snapshot(connection)
        ended_rounds = round_endings(connection)
        judged_versions = version_endings(connection)
    yield from _open_rounds(snapshot, now)
    yield from _newest_versions(snapshot)
    rounds = CounterMetricFamily(
        "doorbell_rounds", "Rounds that are over.", labels=["detector", "outcome"]
    )
    yield _counted(rounds, ended_rounds)
    versions = CounterMetricFamily(
        "doorbell_versions", "Versions, by what the gate said.", labels=["detector", "gate"]
    )
    yield _counted(versions, judged_versions)
    devices = GaugeMetricFamily(
        "doorbell_devices", "Devices that announced themselves, by state.", labels=["state"]
    )
    states = Counter(status.state for status in device_statuses(server, snapshot))
    for state in STATES:
        devices.add_metric([state], states[state])
    yield devices


def _open_rounds(snapshot: Snapshot, now: float) -> Iterator[Metric]:
    number = GaugeMetricFamily("doorbell_open_round", "Number of the open round.", labels=_DETECTOR)
    age = GaugeMetricFamily(
        "doorbell_open_round_age_seconds", "How long it has been open.", labels=_DETECTOR
    )
    sent = GaugeMetricFamily(
        "doorbell_open_round_updates", "Updates sent for it, as known here.", labels=_DETECTOR
    )
    for detector, (newest, *_) in snapshot.rounds.items():
        if newest.state == OPEN:
            number.add_metric([detector], newest.plan.round)
            # Not below 0: the clock may have been set back since.
            age.add_metric([detector], max(0.0, now - newest.opened_at))
            sent.add_metric([detector], len(snapshot.sent.get(detector, {})))
    yield from (number, age, sent)


def _newest_versions(snapshot: Snapshot) -> Iterator[Metric]:
    made = GaugeMetricFamily(
        "doorbell_model_round", "Round of the newest version of a model.", labels=_DETECTOR
    )
    accuracy = GaugeMetricFamily(
        "doorbell_model_accuracy_ratio",
        "Its validation accuracy, the devices' mean weighted by pictures.",
        labels=_DETECTOR,
    )
    for detector, (version, *_) in snapshot.versions.items():
        made.add_metric([detector], version.round)
        if version.accuracy is not None:
            accuracy.add_metric([detector], version.accuracy)
    yield from (made, accuracy)


def _counted(family: CounterMetricFamily, endings: list[Ending]) -> CounterMetricFamily:
    for ending in endings:
        family.add_metric([ending.detector, ending.outcome], ending.total)
    return family
