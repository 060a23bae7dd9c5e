"""What the aggregator tells `/metrics` from its database."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from sec_agg.aggregation import Aggregator


def gauges(aggregator: Aggregator) -> Iterator[Metric]:
    """Return which updates wait to be added up or handed over, and how many sums were."""
    store, now = aggregator.store, aggregator.clock()
    number = GaugeMetricFamily(
        "doorbell_waiting_round", "Round of which no sum is handed over.", labels=["detector"]
    )
    count = GaugeMetricFamily(
        "doorbell_waiting_updates", "Masked updates that wait in it.", labels=["detector"]
    )
    age = GaugeMetricFamily(
        "doorbell_waiting_age_seconds", "How long the first one has waited.", labels=["detector"]
    )
    for each in store.standing(sums=0).rounds:
        if not each.delivered:
            number.add_metric([each.detector], each.round)
            count.add_metric([each.detector], len(each.sent))
        if not each.delivered and each.sent:
            age.add_metric([each.detector], max(0.0, now - min(update.at for update in each.sent)))
    handed_over = CounterMetricFamily(
        "doorbell_sums", "Sums that the main server has.", labels=["detector"]
    )
    for detector, sums in store.handed_over().items():
        handed_over.add_metric([detector], sums)
    yield from (number, count, age, handed_over)
