"""How fast the read API answers: against Redis's own GET, against `feast serve`, and while versions are loaded."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count

from benchmarks.entities import TABLE
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
_PACED_SECONDS = 10
_THINK_MS = 32
_IDS, _BATCHES, _BATCH = 20_000, 500, 100  # prepared requests, and ids in each batch
_GETS = 400_000
_KEY = "benchmark"


def against_redis(place: Workplace) -> Samples:
    """Lookups of one id, in turns with redis-benchmark's GET of one key on the same server."""
    ids = place.entities.some_ids(_IDS)
    ours, limits = [], []
    with _served(place) as (url, port):
        for _ in range(_ROUNDS):
            limits.append(_gets_per_second(place, url))
            ours.append(_sound(load(_lookups(port, ids), seconds=_SECONDS)).per_second)
    return {
        "api_redis_lookups_per_second": Compared(ours, limits, "what loads them shares the machine's cores with them")
    }


def against_feast(place: Workplace) -> Samples:
    """Lookups of one id and of 100, in turns with those of `feast serve`, which asks the same server."""
    ids = place.entities.some_ids(_BATCHES * _BATCH)
    singles: tuple[list[Load], list[Load]] = ([], [])
    batches: tuple[list[Load], list[Load]] = ([], [])
    with _served(place) as (url, port):
        feast = Feast(place.folder, url, place.entities)
        feast.write()
        theirs = (feast.ids * (len(ids) // feast.rows + 1))[: len(ids)]
        bodies = [json.dumps({"ids": some}) for some in _batches(ids)]
        with feast.serve() as peer_port:
            one = (_lookups(port, ids[:_IDS]), _features(peer_port, [[entity] for entity in theirs[:_IDS]]))
            many = (Target(port, "POST", f"/v1/{TABLE}/lookup", bodies), _features(peer_port, _batches(theirs)))
            for target, known in ((one[0], '"status":"exact"'), (one[1], '"PRESENT"')):
                _prove(target, known)
            for _ in range(_ROUNDS):
                for (target, peer), (ours, peers) in ((one, singles), (many, batches)):
                    ours.append(_sound(load(target, seconds=_SECONDS)))
                    peers.append(load(peer, seconds=_SECONDS))
    return {**_against(singles, "lookup", "lookups"), **_against(batches, "batch", "batches")}


def _against(loads: tuple[Sequence[Load], Sequence[Load]], kind: str, plural: str) -> Samples:
    ours, peers = loads
    failed = sum(one.failed for one in peers)
    note = f"{failed} requests to Feast failed or got no answer in time" if failed else ""
    return {
        f"api_{plural}_per_second": _each(ours, peers, "per_second", note),
        f"api_{kind}_p50_ms": _each(ours, peers, "p50_ms"),
        f"api_{kind}_p99_ms": _each(ours, peers, "p99_ms"),
    }


def while_publishing(place: Workplace) -> Samples:
    """The slowest hundredth of answers while version after version is loaded, in turns with none being loaded."""
    loads: dict[str, list[Load]] = {"paced": [], "paced_busy": [], "full": [], "full_busy": []}
    with _served(place) as (url, port), connect(url) as client:
        table, versions, loaded = RedisTable(client, TABLE), count(2), []
        target = _lookups(port, place.entities.some_ids(_IDS))

        def publishing(process: Process) -> None:
            while process.poll() is None:
                head = place.entities.head(next(versions))
                table.load(head, place.entities.rows())
                table.drop(head)
                loaded.append(head)

        for _ in range(_ROUNDS):
            for kind, seconds, think_ms in (("paced", _PACED_SECONDS, _THINK_MS), ("full", _SECONDS, 0)):
                loads[kind].append(_sound(load(target, seconds=seconds, think_ms=think_ms)))
                busy = load(target, seconds=seconds, think_ms=think_ms, meanwhile=publishing)
                loads[f"{kind}_busy"].append(_sound(busy))
    rate = sum(one.per_second for one in loads["paced_busy"]) / _ROUNDS
    publishes = f"{len(loaded)} loads of {place.entities.count:,} entities, one behind the other"
    paced = f"{rate:,.0f} lookups/s: {CONNECTIONS} connections that each wait {_THINK_MS} ms on average; {publishes}"
    full = f"{CONNECTIONS} connections ask as fast as they are answered; {publishes}"
    return {
        "api_publishing_p99_ms": _each(loads["paced_busy"], loads["paced"], "p99_ms", paced),
        "api_publishing_full_p99_ms": _each(loads["full_busy"], loads["full"], "p99_ms", full),
    }


@contextmanager
def _served(place: Workplace) -> Iterator[tuple[str, int]]:
    """A Redis whose version 1 is live, and the port of the API that serves it."""
    with redis_server(place.folder) as url, connect(url) as client:
        table, head = RedisTable(client, TABLE), place.entities.head(1)
        table.load(head, place.entities.rows())
        table.flip(head)
        with read_api(place.folder, url) as port:
            yield url, port


def _lookups(port: int, ids: Sequence[str]) -> Target:
    return Target(port, "GET", f"/v1/{TABLE}/", ids)


def _features(port: int, batches: Sequence[Sequence[str]]) -> Target:
    """Feast's way to ask for all that a lookup answers."""
    features = [f"{VIEW}:{name}" for name in ("score", "model", "variant", "status")]
    bodies = [json.dumps({"features": features, "entities": {"entity_id": ids}}) for ids in batches]
    return Target(port, "POST", "/get-online-features", bodies)


def _batches(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH)]


def _gets_per_second(place: Workplace, url: str) -> float:
    """What the server answers to GETs of one key, one at a time on each connection, by redis-benchmark."""
    with connect(url) as client:
        client.set(_KEY, b"0123456789ab")
    port = url.rpartition(":")[2].partition("/")[0]
    command = [tool("redis-benchmark"), "-p", port, "-c", f"{CONNECTIONS}", "-n", f"{_GETS}", "--csv", "GET", _KEY]
    last = run_command(command, cwd=place.folder, environ=environment()).out.strip().splitlines()[-1]
    return float(last.split('","')[1])


def _prove(target: Target, known: str) -> None:
    """See that a server knows what it is asked for: an unknown id is answered faster."""
    connection = HTTPConnection("127.0.0.1", target.port, timeout=10)
    path, body = (target.path + target.lines[0], None) if target.method == "GET" else (target.path, target.lines[0])
    connection.request(target.method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse().read().decode()
    connection.close()
    if known not in answer:
        raise MeasurementError(f"{target.path} does not answer with {known}: {answer[:300]}")


def _sound(found: Load) -> Load:
    if found.failed:
        raise MeasurementError(f"{found.failed} requests to the read API failed under load")
    return found


def _each(ours: Sequence[Load], peers: Sequence[Load], name: str, note: str = "") -> Compared:
    mine, theirs = ([float(getattr(one, name)) for one in loads] for loads in (ours, peers))
    return Compared(mine, theirs, note)
