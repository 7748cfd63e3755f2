"""What the layout `string` costs in memory and gains in reads, against `bucket` with the same entities and reader."""

import time
from collections.abc import Sequence

import redis

from benchmarks.entities import TABLE, Entities
from benchmarks.figure import Compared, Samples
from benchmarks.servers import redis_server
from benchmarks.workplace import MeasurementError, Workplace
from lookup.connect import connect
from lookup.reader import Reader
from lookup.table import RedisTable
from schemas.head import Head, Layout

_LAYOUTS: tuple[Layout, ...] = ("string", "bucket")
_ROUNDS = 3
_SECONDS = 2.0
_BATCHES, _BATCH = 500, 100


def layouts(place: Workplace) -> Samples:
    """Load a version of each layout into one server, then read batches from one and the other in turns."""
    entities, rates = place.entities, {layout: list[float]() for layout in _LAYOUTS}
    ids = entities.some_ids(_BATCHES * _BATCH)
    batches = [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]
    with redis_server(place.folder) as url, connect(url) as client:
        table = RedisTable(client, TABLE, rows_of=lambda _: entities.rows())
        sizes = {}
        for version, layout in enumerate(_LAYOUTS, start=1):
            before = _used(client)
            table.load(_head(entities, version, layout), entities.rows())
            sizes[layout] = [round((_used(client) - before) / entities.count, 2)]
        for turn in range(_ROUNDS * len(_LAYOUTS)):
            layout = _LAYOUTS[turn % len(_LAYOUTS)]
            head = _head(entities, _LAYOUTS.index(layout) + 1, layout)
            table.flip(head.model_copy(update={"token": turn + 1}))
            rates[layout].append(round(_batches_per_second(Reader(client, TABLE), batches)))
    note = f"{entities.count:,} entities; the peer is the layout bucket"
    return {
        "memory_string_bytes_per_entity": Compared(sizes["string"], sizes["bucket"], note),
        "read_string_batches_per_second": Compared(rates["string"], rates["bucket"], f"{note}; one thread, redis-py"),
    }


def _head(entities: Entities, version: int, layout: Layout) -> Head:
    return entities.head(version).model_copy(update={"layout": layout, "format": 2 if layout == "string" else 1})


def _batches_per_second(reader: Reader, batches: Sequence[Sequence[str]]) -> float:
    found = reader.lookup(batches[0])[1]  # the head is known from here on
    if unknown := [answer.id for answer in found if answer.status != "exact"]:
        raise MeasurementError(f"{len(unknown)} of {len(found)} ids have no row")
    started, done = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < _SECONDS:
        reader.lookup(batches[done % len(batches)])
        done += 1
    return done / seconds


def _used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])
