"""What the read API counts and times, in Prometheus's text format."""

import datetime as dt
import math
import os
from collections import Counter as Tally
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from schemas.answer import Answer
from schemas.keys import Head

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


def share_counts(folder: str) -> None:
    """Count in files of that folder from now on, so that any worker can tell the counts of all."""
    os.environ[_SHARED] = folder
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]  # chosen at import, without a folder


class Metrics:
    """The counts of one server; its label values are routes, statuses and served tables, never what a client sent."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("almanac_requests", "HTTP requests.", ("route", "status"), registry=self._registry)
        self._seconds = Histogram(
            "almanac_request_seconds",
            "From request to response.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._lookups = Counter("almanac_lookups", "Entities asked for.", ("table", "status"), registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def lookups(self, table: str, answers: Iterable[Answer]) -> None:
        for status, count in Tally(answer.status for answer in answers).items():
            self._lookups.labels(table, status).inc(count)

    def page(self, heads: Mapping[str, Head | None], now: dt.datetime) -> bytes:
        """The counts of all workers, and what is live now.

        Args:
            heads: Table -> its live head, None where it could not be read.
            now: Aware; ages are measured from here.
        """
        counts = self._registry
        if _SHARED in os.environ:
            counts = CollectorRegistry()
            MultiProcessCollector(counts)  # type: ignore[no-untyped-call]
        return generate_latest(counts) + generate_latest(_live(heads, now))


def _live(heads: Mapping[str, Head | None], now: dt.datetime) -> CollectorRegistry:
    registry = CollectorRegistry()
    readable = Gauge("almanac_table_up", "1 where the table's head can be read.", ("table",), registry=registry)
    version = Gauge("almanac_head_version", "The live release.", ("table",), registry=registry)
    age = Gauge("almanac_scored_age_seconds", "Since the live release was scored.", ("table",), registry=registry)
    for table, head in heads.items():
        readable.labels(table).set(head is not None)
        if head is not None:
            version.labels(table).set(head.release)
            age.labels(table).set(_seconds_since(head.scored_at, now))
    return registry


def _seconds_since(text: str, now: dt.datetime) -> float:
    try:
        return (now - dt.datetime.fromisoformat(text)).total_seconds()
    except (ValueError, TypeError):  # not a time, or one without a zone: the other figures still stand
        return math.nan
