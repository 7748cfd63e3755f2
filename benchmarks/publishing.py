"""How fast versions are loaded, and the memory they take: against redis-cli with a key an entity, and against Feast."""

import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import redis

from benchmarks.entities import TABLE, Entities
from benchmarks.figure import Compared, Samples, Unmeasurable
from benchmarks.peer import Feast
from benchmarks.servers import redis_server, tool
from benchmarks.workplace import MeasurementError, Workplace, environment, run_command
from lookup.connect import connect
from lookup.loader import in_threads
from lookup.table import RedisTable, Spread

_ROUNDS = 3
_VALUE = b"scoremodel12"  # 12 bytes: what a float32, a model's number and the like take, packed


def publish(place: Workplace) -> Samples:
    """Load all entities, then send redis-cli the same ones as SETs, in turns, on one server."""
    entities, commands = place.entities, place.folder / "sets.resp"
    _write_sets(entities, commands)
    ours, peers = [], []
    with redis_server(place.folder) as url, connect(url) as client:
        for _ in range(_ROUNDS):
            client.flushall()
            ours.append(entities.count / _load(client, entities))
            client.flushall()
            peers.append(entities.count / _pipe(url, commands, client, entities.count))
    commands.unlink()
    note = f"{entities.count:,} entities; the peer is sent what was built before its clock starts"
    return {"publish_entities_per_second": Compared(_whole(ours), _whole(peers), note)}


def memory(place: Workplace) -> Samples:
    """Bytes of Redis's memory for each entity of one version, as `used_memory` grows."""
    entities = place.entities
    with redis_server(place.folder) as url, connect(url) as client:
        used = _used(client, lambda: _load(client, entities)) / entities.count
        client.flushall()
        try:
            feast = Feast(place.folder, url, entities)
            peers, note = [round(_used(client, feast.write) / feast.rows, 2)], f"Feast with {feast.rows:,} entities"
        except Unmeasurable as err:
            peers, note = [], f"without its peer: {err}"
    return {"memory_bytes_per_entity": Compared([round(used, 2)], peers, note)}


def publish_in_tasks(place: Workplace) -> Samples:
    """Load all entities in Spark tasks, in turns with Feast's write of some of them."""
    from jobs.session import spark_session
    from jobs.spreading import in_tasks

    entities = place.entities
    ours, peers = [], []
    with redis_server(place.folder) as url, connect(url) as client, redis_server(place.folder) as peer_url:
        feast = Feast(place.folder, peer_url, entities)
        spark = spark_session("almanac benchmark", log=place.folder / "spark.log")
        try:
            spread = in_tasks(lambda: spark)
            _load(client, entities, spread)  # Spark's Python workers start here
            for _ in range(_ROUNDS):
                client.flushall()
                ours.append(entities.count / _load(client, entities, spread))
                peers.append(feast.rows / feast.write())
        finally:
            spark.stop()
    note = f"{entities.count:,} entities, Spark's workers warm; Feast with {feast.rows:,} of them, behind its imports"
    return {"publish_spark_entities_per_second": Compared(_whole(ours), _whole(peers), note)}


def _load(client: redis.Redis, entities: Entities, spread: Spread = in_threads) -> float:
    """The seconds of loading version 1, which is counted afterwards."""
    table, head = RedisTable(client, TABLE), entities.head(1)
    started = time.perf_counter()
    table.load(head, entities.rows(), spread=spread)
    seconds = time.perf_counter() - started
    if (found := table.count(head)) != entities.count:
        raise MeasurementError(f"{found} entities were loaded, not {entities.count}")
    return seconds


def _write_sets(entities: Entities, file: Path) -> None:
    """A SET for each entity under its bare id, in the order of the files."""
    with file.open("wb") as out:
        for part in entities.rows().parts:
            ids = pq.read_table(part.path, columns=["entity_id"])["entity_id"].combine_chunks().cast(pa.binary())
            sizes = pc.cast(pc.cast(pc.binary_length(ids), pa.string()), pa.binary())
            opening, end = (pa.scalar(text, pa.binary()) for text in (b"*3\r\n$3\r\nSET\r\n$", b"\r\n"))
            value = pa.scalar(b"\r\n$%d\r\n%b" % (len(_VALUE), _VALUE), pa.binary())
            commands = pc.binary_join_element_wise(opening, sizes, end, ids, value, end, b"")
            out.write(b"".join(commands.to_pylist()))


def _pipe(url: str, commands: Path, client: redis.Redis, count: int) -> float:
    """The seconds of `redis-cli --pipe` with these commands."""
    script = f'exec "{tool("redis-cli")}" -u {url} --pipe < "{commands}"'
    ended = run_command(["sh", "-c", script], cwd=commands.parent, environ=environment())
    if (found := client.dbsize()) != count or "errors: 0" not in ended.out:
        raise MeasurementError(f"redis-cli left {found} keys, not {count}: {ended.out[-200:]}")
    return ended.seconds


def _used(client: redis.Redis, write: Callable[[], object]) -> int:
    before = client.info("memory")["used_memory"]
    write()
    return int(client.info("memory")["used_memory"] - before)


def _whole(rates: list[float]) -> list[float]:
    return [round(rate) for rate in rates]
