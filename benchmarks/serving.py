"""How fast the read API answers: against `feast serve`, against Redis's own limit, and while a version is loaded."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

from benchmarks.entities import TABLE, Entities
from benchmarks.feast_rows import VIEW
from benchmarks.figure import Compared, Samples
from benchmarks.peer import Feast
from benchmarks.servers import read_api, redis_server, tool
from benchmarks.workplace import MeasurementError, Process, Workplace, environment, run_command
from benchmarks.wrk import CONNECTIONS, Load, Target, load
from lookup.connect import connect
from lookup.table import RedisTable

_ROUNDS = 3
_SECONDS = 5
_BATCH = 100
_IDS, _BATCHES = 20_000, 500  # prepared requests
_THINK_MS = 32
_QUIET_SECONDS = 10
_GETS = 400_000
_KEY = "almanac-benchmark"


def single(place: Workplace) -> Samples:
    """Lookups of one id: ours, Redis's own GET and Feast's, in turns."""
    ids = place.entities.some_ids(_IDS)
    ours, limits, peers = [], [], []
    with _served(place.folder_of("single"), place.entities) as (url, port):
        feast = Feast(place.folder_of("single"), url, place.entities)
        feast.write()
        bodies = [_feast_body([entity]) for entity in feast.ids[:_IDS]]
        with feast.serve() as peer_port:
            for _ in range(_ROUNDS):
                limits.append(_gets_per_second(url))
                ours.append(_sound(load(Target(port, "GET", f"/v1/{TABLE}/", ids), seconds=_SECONDS)))
                peers.append(load(Target(peer_port, "POST", "/get-online-features", bodies), seconds=_SECONDS))
    return {
        "api_lookups_per_second": _rates(ours, peers),
        "api_redis_share": Compared([one.per_second for one in ours], limits, "one Redis, which both ask"),
        "api_p50_ms": _delays(ours, peers, "p50_ms"),
        "api_p99_ms": _delays(ours, peers, "p99_ms"),
    }


def batch(place: Workplace) -> Samples:
    """Lookups of 100 ids in a request: ours and Feast's, in turns."""
    ids = place.entities.some_ids(_BATCHES * _BATCH)
    bodies = [json.dumps({"ids": some}) for some in _batches(ids)]
    ours, peers = [], []
    with _served(place.folder_of("batch"), place.entities) as (url, port):
        feast = Feast(place.folder_of("batch"), url, place.entities)
        feast.write()
        peer_bodies = [_feast_body(some) for some in _batches(feast.ids[: len(ids)])]
        with feast.serve() as peer_port:
            for _ in range(_ROUNDS):
                ours.append(_sound(load(Target(port, "POST", f"/v1/{TABLE}/lookup", bodies), seconds=_SECONDS)))
                peers.append(load(Target(peer_port, "POST", "/get-online-features", peer_bodies), seconds=_SECONDS))
    return {
        "api_batches_per_second": _rates(ours, peers),
        "api_batch_p50_ms": _delays(ours, peers, "p50_ms"),
        "api_batch_p99_ms": _delays(ours, peers, "p99_ms"),
    }


def while_publishing(place: Workplace) -> Samples:
    """The slowest hundredth of answers while version after version is loaded, in turns with none being loaded."""
    quiet, busy, full_quiet, full_busy = [], [], [], []
    loaded = 0
    with _served(place.folder_of("publishing"), place.entities) as (url, port), connect(url) as client:
        table, versions = RedisTable(client, TABLE), count(2)
        target = Target(port, "GET", f"/v1/{TABLE}/", place.entities.some_ids(_IDS))

        def publishing(process: Process) -> None:
            nonlocal loaded
            while process.poll() is None:
                head = place.entities.head(next(versions))
                table.load(head, place.entities.rows())
                table.drop(head)
                loaded += 1

        for _ in range(_ROUNDS):
            quiet.append(_sound(load(target, seconds=_QUIET_SECONDS, think_ms=_THINK_MS)))
            busy.append(_sound(load(target, seconds=_QUIET_SECONDS, think_ms=_THINK_MS, meanwhile=publishing)))
            full_quiet.append(_sound(load(target, seconds=_SECONDS)))
            full_busy.append(_sound(load(target, seconds=_SECONDS, meanwhile=publishing)))
    rate = sum(one.per_second for one in busy) / _ROUNDS
    note = f"{rate:,.0f} lookups/s by {CONNECTIONS} connections that each wait {_THINK_MS} ms on average"
    loads = f"{loaded} loads of {place.entities.count:,} entities, one behind the other"
    return {
        "api_publishing_p99_ms": _delays(busy, quiet, "p99_ms", f"{note}; {loads}"),
        "api_publishing_full_p99_ms": _delays(full_busy, full_quiet, "p99_ms", "as fast as it answers; " + loads),
    }


@contextmanager
def _served(folder: "Path", entities: Entities) -> Iterator[tuple[str, int]]:
    """A Redis whose version 1 is live, and the port of the API that serves it."""
    with redis_server(folder) as url, connect(url) as client:
        table, head = RedisTable(client, TABLE), entities.head(1)
        table.load(head, entities.rows())
        table.flip(head)
        with read_api(folder, url) as port:
            yield url, port


def _gets_per_second(url: str) -> float:
    """What the server answers to GETs of one key without a pipeline, by redis-benchmark."""
    with connect(url) as client:
        client.set(_KEY, b"scoremodel12")
        port = str(client.connection_pool.connection_kwargs["port"])
    command = [tool("redis-benchmark"), "-p", port, "-c", str(CONNECTIONS), "-n", str(_GETS), "--csv", "GET", _KEY]
    ended = run_command(command, cwd=_ROOT, environ=environment())
    return float(ended.out.strip().splitlines()[-1].split('","')[1].strip('"'))


def _sound(found: Load) -> Load:
    if found.failed:
        raise MeasurementError(f"{found.failed} requests to the read API failed under load")
    return found
