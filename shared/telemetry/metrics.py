"""What a service tells Prometheus at /metrics: counters of all its workers, and what its database
says right then.

Counters count from the start of the service. Under gunicorn each worker keeps its own in files, in
a folder that
`gunicorn.conf.py` makes, and any worker adds them up; in a single process they lie in memory. What
the database knows is read when it is asked for, by a function that each service gives: it is right
however many workers there are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import MutexValue, ValueClass

from shared.errors import DoorbellError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Gauges = Callable[[], Iterable[Metric]]

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
"""Where the counters of this process are; a service adds its own."""

_ACROSS_WORKERS = ValueClass is not MutexValue
_METHODS = {"GET", "HEAD", "POST", "OPTIONS"}
_UNTIMED = {"work"}  # a long poll takes as long as there is nothing to do
_SECONDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0)
_log = logging.getLogger(__name__)

_requests = Counter(
    "doorbell_http_requests",
    "Requests answered.",
    ["endpoint", "method", "status"],
    registry=REGISTRY,
)
_seconds = Histogram(
    "doorbell_http_request_seconds",
    "How long a request took, without those that wait for something to happen.",
    ["endpoint"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
_received = Counter(
    "doorbell_http_received_bytes",
    "Bodies of requests that were taken.",
    ["endpoint"],
    registry=REGISTRY,
)
_sent = Counter("doorbell_http_sent_bytes", "Bodies of answers.", ["endpoint"], registry=REGISTRY)
_refusals = Counter(
    "doorbell_refusals",
    "Answers that were a problem, by the end of the problem's type.",
    ["reason"],
    registry=REGISTRY,
)
_uploads = Counter(
    "doorbell_uploads", "Updates of devices that were accepted.", ["detector"], registry=REGISTRY
)
_upload_bytes = Counter(
    "doorbell_upload_bytes", "Length of the updates accepted.", ["detector"], registry=REGISTRY
)


def count_request(
    endpoint: str | None, method: str, status: int, bytes_in: int, bytes_out: int
) -> None:
    """Count a request that was answered.

    Args:
        endpoint: Name of the route; None if there is none.
        method: As it came; one of nobody's counts as "other".
        status: Of the answer.
        bytes_in: Length of the body, if it was taken.
        bytes_out: Length of the answer's.
    """
    route = endpoint or "unknown"
    _requests.labels(route, method if method in _METHODS else "other", status).inc()
    _received.labels(route).inc(bytes_in)
    _sent.labels(route).inc(bytes_out)


def time_request(endpoint: str | None, seconds: float) -> None:
    """Note how long a request took, unless waiting is what it is for."""
    if endpoint not in _UNTIMED:
        _seconds.labels(endpoint or "unknown").observe(seconds)


def count_refusal(reason: str) -> None:
    """Count a problem that was answered; `reason` is one of a few."""
    _refusals.labels(reason).inc()


def count_upload(detector: str, size: int) -> None:
    """Count an update of a device that was accepted, of so many bytes."""
    _uploads.labels(detector).inc()
    _upload_bytes.labels(detector).inc(size)


def refusals() -> dict[str, int]:
    """Return reason to number of refusals by all workers since the service was started, most
    frequent first.
    """
    samples = [
        sample
        for metric in _counted()
        if metric.name == "doorbell_refusals"
        for sample in metric.samples
    ]
    found = {sample.labels["reason"]: int(sample.value) for sample in samples}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def expose(gauges: Gauges) -> bytes:
    """Return what Prometheus reads, in its text format.

    Args:
        gauges: Reads what the database knows; where it cannot, that is left out, and the rest is
            told.
    """
    registry = CollectorRegistry()
    registry.register(_Everything(gauges))
    return generate_latest(registry)


class _Everything:
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from _counted()
        found: list[Metric] = []
        try:
            found += self._gauges()
        except DoorbellError as error:
            _log.warning("the metrics lack what the database knows: %s", error)
            readable = 0
        else:
            readable = 1
        yield GaugeMetricFamily(
            "doorbell_database_readable", "Whether the database answers.", value=readable
        )
        yield from found


def _counted() -> Iterable[Metric]:
    source = MultiProcessCollector(None) if _ACROSS_WORKERS else REGISTRY  # type: ignore[no-untyped-call]
    found: Iterable[Metric] = source.collect()
    return found
