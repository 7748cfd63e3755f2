"""What moving between versions costs: removing one, and rolling back, however many entities they have."""

import time

from benchmarks.entities import TABLE, Entities
from benchmarks.figure import Samples
from benchmarks.servers import redis_server
from benchmarks.workplace import MeasurementError, Workplace
from lookup.connect import connect
from lookup.publisher import Publisher
from lookup.rows import rows_in
from lookup.table import RedisTable

_ROUNDS = 3
_FEW = 10_000


def retire(place: Workplace) -> Samples:
    """Remove a version that nobody reads, three times."""
    entities, seconds = place.entities, []
    with redis_server(place.folder) as url, connect(url) as client:
        table = RedisTable(client, TABLE)
        for version in range(1, _ROUNDS + 1):
            head = entities.head(version)
            table.load(head, entities.rows())
            started = time.perf_counter()
            dropped = table.drop(head)
            seconds.append(round(time.perf_counter() - started, 4))
            if not dropped or table.count(head):
                raise MeasurementError(f"version {version} is still there")
    return {"retire_seconds": seconds}


def roll_back(place: Workplace) -> Samples:
    """Back, forth and back between two releases, of few entities and of all."""
    few = Entities(place.folder / "few", min(_FEW, place.entities.count))
    return {
        "rollback_few_seconds": _rollbacks(place, few),
        "rollback_many_seconds": _rollbacks(place, place.entities),
    }


def _rollbacks(place: Workplace, entities: Entities) -> list[float]:
    seconds = []
    with redis_server(place.folder) as url, connect(url) as client:
        publisher = Publisher(entities.store, RedisTable(client, TABLE, rows_of=rows_in(entities.store)))
        for run in entities.runs:
            publisher.publish(run.run_id)
        for release in (1, 2, 1):
            started = time.perf_counter()
            moved = publisher.roll_back(to=release, force=True)
            seconds.append(round(time.perf_counter() - started, 4))
            if moved.release != release or moved.previous == release:
                raise MeasurementError(f"a rollback to release {release} left {moved.release} live")
    return seconds
