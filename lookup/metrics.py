"""What the read API counts and times, in Prometheus's text format."""

import datetime as dt
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from lookup.fallback import Seen
from schemas.head import Head

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_COUNTED_AT_ONCE = 512
_SHARED = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


def share_counts(folder: str) -> None:
    """Count in files of that folder from now on, so that any worker can tell the counts of all."""
    os.environ[_SHARED] = folder
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]  # chosen at import, without a folder


class _Durations(Histogram):
    """A histogram that many values are put into at once: one by one takes a tenth of the time of an answer."""

    def observe_all(self, seconds: Sequence[float]) -> None:
        places = Tally(map(partial(bisect_left, self._upper_bounds), seconds))
        for place, count in places.items():
            self._buckets[place].inc(count)
        self._sum.inc(sum(seconds))


class Metrics:
    """The counts of one server; its label values are routes, statuses and served tables, never what a client sent."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        requests = Counter("almanac_requests", "HTTP requests.", ("route", "status"), registry=registry)
        seconds = _Durations(
            "almanac_request_seconds", "From request to response.", ("route",), buckets=_BUCKETS, registry=registry
        )
        lookups = Counter("almanac_lookups", "Entities asked for.", ("table", "status"), registry=registry)
        flagged = Counter("almanac_flagged", "Answers given without the store.", ("table", "flag"), registry=registry)
        in_flight = Gauge(
            "almanac_requests_in_flight", "Being answered now.", registry=registry, multiprocess_mode="livesum"
        )
        # Looking a child up by its labels takes longer than counting.
        self._request = cache(lambda route, status: requests.labels(route, status).inc)
        self._observe = cache(lambda route: seconds.labels(route).observe_all)
        self._lookup = cache(lambda table, status: lookups.labels(table, status).inc)
        self._flag = cache(lambda table, flag: flagged.labels(table, flag).inc)
        self._set_in_flight = in_flight.set
        self._ended: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
        self._noted = 0
        self._looked_up: Tally[tuple[str, str]] = Tally()
        self._being_answered = 0

    def begin(self) -> None:
        self._being_answered += 1

    def end(self, route: str, status: int, seconds: float) -> None:
        self.end_all(route, status, (seconds,))

    def end_all(self, route: str, status: int, seconds: Sequence[float]) -> None:
        """Note requests; they are counted with others, as counting one by one takes as long as answering."""
        self._being_answered -= len(seconds)
        self._ended[route, status] += seconds
        self._noted += len(seconds)
        if self._noted >= _COUNTED_AT_ONCE:
            self.flush()

    def abandon(self) -> None:
        """A request's client went away before it had asked."""
        self._being_answered -= 1

    def lookups(self, table: str, status: str, count: int = 1) -> None:
        self._looked_up[table, status] += count

    def flagged(self, table: str, flag: str, count: int) -> None:
        self._flag(table, flag)(count)

    def flush(self) -> None:
        """Count what was noted; called every so often, so that any worker can tell the counts of all."""
        ended, self._ended, self._noted = self._ended, defaultdict(list), 0
        looked_up, self._looked_up = self._looked_up, Tally()
        for (route, status), seconds in ended.items():
            self._request(route, status)(len(seconds))
            self._observe(route)(seconds)
        for (table, kind), count in looked_up.items():
            self._lookup(table, kind)(count)
        self._set_in_flight(self._being_answered)

    def page(self, heads: Mapping[str, object], now: dt.datetime, open_: Mapping[str, bool]) -> bytes:
        """The counts of all workers, and what is live now.

        Args:
            heads: Table -> its live head; anything else where it could not be read.
            now: Aware; ages are measured from here.
            open_: Table -> whether this worker's circuit to it is open.
        """
        self.flush()
        counts = self._registry
        if _SHARED in os.environ:
            counts = CollectorRegistry()
            _forget_the_dead(Path(os.environ[_SHARED]))
            MultiProcessCollector(counts)  # type: ignore[no-untyped-call]
        return generate_latest(counts) + generate_latest(_live(heads, now, open_))


def _forget_the_dead(folder: Path) -> None:
    """Remove what workers that are no more were answering when they were killed; what they had counted stays."""
    for file in folder.glob("gauge_live*_*.db"):
        if not _is_alive(int(file.stem.rpartition("_")[2])):
            file.unlink(missing_ok=True)  # another worker may be at it too


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # the latter: its number is another user's process by now
        return False
    return True


def _live(heads: Mapping[str, object], now: dt.datetime, open_: Mapping[str, bool]) -> CollectorRegistry:
    registry = CollectorRegistry()
    circuit = Gauge("almanac_circuit_open", "1 where this worker does not ask Redis.", ("table",), registry=registry)
    readable = Gauge("almanac_table_up", "1 where the table's head can be read.", ("table",), registry=registry)
    version = Gauge("almanac_head_version", "The live release.", ("table",), registry=registry)
    age = Gauge("almanac_scored_age_seconds", "Since the live release was scored.", ("table",), registry=registry)
    stale = Gauge("almanac_table_stale", "1 where that is longer than declared.", ("table",), registry=registry)
    for table, is_open in open_.items():
        circuit.labels(table).set(is_open)
    for table, head in heads.items():
        readable.labels(table).set(isinstance(head, Head))
        if isinstance(head, Head):
            version.labels(table).set(head.release)
            age.labels(table).set(now.timestamp() - head.scored_epoch)
            stale.labels(table).set(Seen(head).is_stale(now.timestamp()))
    return registry
