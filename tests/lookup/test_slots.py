"""A cluster of three masters: which node has a key, slots that move, nodes that go away."""

import asyncio
import datetime as dt
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from jobs.publishing import smoke
from lookup.client import AsyncClient as AsyncLookupClient
from lookup.client import Client as LookupClient
from lookup.cluster import Cluster
from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import Client, address_of, connect
from lookup.publisher import Publisher
from lookup.reader import Reader
from lookup.resp import Request
from lookup.slots import SlotMap, slot_of
from lookup.table import RedisTable
from lookup.wire import Wire
from schemas.answer import Answer
from schemas.errors import AlmanacError, InputError, UnavailableError
from schemas.keys import bucket_key, bucket_of, head_key
from schemas.settings import Settings
from tests.lookup.given import in_order
from tests.redis_servers import Nodes, cluster, programs, running, wait_until
from tests.suites.table_contract import make_head, row

IDS = [f"UA:{number}" for number in range(40)]
ENTRY = address_of("redis+cluster://:s3cret@h:1")


@given(st.binary(max_size=30) | st.text(alphabet="{}ab").map(str.encode))
def test_the_slot_of_a_key_is_that_of_other_clients(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


def test_the_map_tells_the_owner_of_each_key_and_asks_all_nodes_as_the_same_user() -> None:
    slots = SlotMap([[0, 8191, [b"10.0.0.1", 7001]], [8192, 16383, [b"", 7002], [b"replica", 7003]]], ENTRY)

    assert [(m.host, m.port, m.password) for m in slots.masters] == [
        ("10.0.0.1", 7001, "s3cret"),
        ("h", 7002, "s3cret"),
    ]
    assert slots.owners([b"foo", b"a"]).tolist() == [1, 1]
    assert slots.owner(b"bar") == slots.masters[0]


def test_each_master_has_the_share_of_its_slots() -> None:
    slots = SlotMap([[0, 4095, [b"a", 1]], [4096, 8191, [b"b", 1]], [8192, 16383, [b"a", 1]]], ENTRY)

    assert slots.shares() == [0.75, 0.25]


def test_slots_that_nobody_serves_are_told() -> None:
    with pytest.raises(UnavailableError, match=r"slots 100 to 16383 are served by nobody.*STORE_PARTIAL") as error:
        SlotMap([[0, 99, [b"h", 1]]], ENTRY)

    assert "s3cret" not in str(error.value)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    program = next(path for version, path in programs().items() if not version.startswith("redis-6"))
    # What is left of a cluster goes on answering.
    with cluster(program, tmp_path / "cluster", "--cluster-require-full-coverage", "no") as started:
        yield started


@pytest.fixture
def client(nodes: Nodes) -> Iterator[Client]:
    with connect(nodes.url, timeout_seconds=2) as opened:
        yield opened


@pytest.fixture
def both_clients(nodes: Nodes) -> Iterator[Callable[[list[str]], list[list[Answer]]]]:
    """Asks by `Client` and by `AsyncClient` of the cluster's URL."""

    async def ask_async(ids: list[str]) -> list[Answer]:
        async with AsyncLookupClient([nodes.url]) as opened:
            return await opened.lookup_many("flights", ids)

    with LookupClient([nodes.url]) as opened:
        yield lambda ids: [opened.lookup_many("flights", ids), asyncio.run(ask_async(ids))]


def publish(client: Client, version: int = 1) -> None:
    head = make_head(version, "bucket", entities=len(IDS))
    table = RedisTable(client, "flights")
    table.load(head, in_order(head, [row(entity, float(version)) for entity in IDS]))
    table.flip(head)


def in_loop(url: str, steps: Callable[[AsyncReader], Any]) -> Any:
    async def run() -> Any:
        lookups = Lookups(Cluster(address_of(url)))
        try:
            return await steps(AsyncReader(lookups, "flights"))
        finally:
            lookups.close()

    return asyncio.run(run())


def scores(answers: Sequence[Answer]) -> set[Any]:
    return {answer.outputs.get("score") for answer in answers}


def bucket(entity: str, version: int = 1) -> str:
    return bucket_key("flights", version, bucket_of(entity, 7))


def elsewhere(nodes: Nodes, entity: str) -> str:
    """An id whose bucket is on another node than this one's and the head."""
    away = {nodes.owner(bucket(entity)).port}
    return next(other for other in IDS if nodes.owner(bucket(other)).port not in away)


def move_bucket(nodes: Nodes, entity: str) -> None:
    """Move the slot of the entity's bucket to the next node, as a rebalancing does."""
    source, slot = nodes.owner(bucket(entity)), slot_of(bucket(entity).encode())
    target = nodes[(nodes.index(source) + 1) % len(nodes)]
    begin_move(nodes, entity)
    nodes.move(slot, target)


def begin_move(nodes: Nodes, entity: str) -> None:
    """Move the keys of the slot, and leave it at that."""
    source, slot = nodes.owner(bucket(entity)), slot_of(bucket(entity).encode())
    target = nodes[(nodes.index(source) + 1) % len(nodes)]
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID").decode())
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID").decode())
    source.ask("MIGRATE", "127.0.0.1", target.port, bucket(entity), 0, 5000)


@pytest.mark.parametrize("move", [move_bucket, begin_move])
def test_readers_follow_a_slot_that_moves_between_publication_and_lookup(
    nodes: Nodes, client: Client, move: Callable[[Nodes, str], None]
) -> None:
    publish(client)
    reader = Reader(client, "flights")

    async def steps(reader_async: AsyncReader) -> None:
        assert scores((await reader_async.lookup(IDS))[1]) == {1.0}
        move(nodes, IDS[0])
        assert scores((await reader_async.lookup(IDS))[1]) == {1.0}
        assert scores((await reader_async.lookup(IDS[:1]))[1]) == {1.0}

    assert scores(reader.lookup(IDS)[1]) == {1.0}
    in_loop(nodes.url, steps)
    assert scores(reader.lookup(IDS)[1]) == {1.0}


def test_clients_take_the_url_of_a_cluster(
    nodes: Nodes, client: Client, both_clients: Callable[[list[str]], list[list[Answer]]]
) -> None:
    publish(client)

    found = both_clients([*IDS, "UA:nowhere"])

    assert [[answer.outputs.get("score") for answer in answers] for answers in found] == [[1.0] * 40 + [None]] * 2
    move_bucket(nodes, IDS[0])
    assert [scores(answers) for answers in both_clients(IDS)] == [{1.0}, {1.0}]


def test_a_cluster_that_is_away_fails_the_lookup_and_not_the_making_of_a_client() -> None:
    with LookupClient(["redis+cluster://127.0.0.1:1"]) as away, pytest.raises(UnavailableError, match="STORE_DOWN"):
        away.lookup("flights", "UA:1")


def test_the_api_serves_one_entity_and_many_from_a_cluster(
    nodes: Nodes, client: Client, run_server: Any, tmp_path: Path
) -> None:
    publish(client)
    with run_server(tmp_path, nodes.url, ["flights"]) as server:
        one = server.ask("GET", f"/v1/flights/{IDS[0]}")
        unknown = server.ask("GET", "/v1/flights/UA:nowhere")
        batch = server.lookup({"ids": [*IDS, "UA:nowhere"]})
        publish(client, 2)
        moved = server.lookup({"ids": IDS})

    assert (one.status, one.json["status"], one.json["outputs"]["score"]) == (200, "exact", 1.0)
    assert (unknown.status, unknown.json["release"]) == (404, one.json["release"])
    assert [answer["outputs"].get("score") for answer in batch.json["answers"]] == [1.0] * 40 + [None]
    assert {answer["outputs"]["score"] for answer in moved.json["answers"]} == {2.0}


def test_a_version_is_published_after_a_slot_has_moved(nodes: Nodes, client: Client) -> None:
    publish(client)
    move_bucket(nodes, IDS[0])

    publish(client, 2)

    assert scores(Reader(client, "flights").lookup(IDS)[1]) == {2.0}
    assert RedisTable(client, "flights").retire(keep=1, grace_seconds=0) == [1]
    assert [name for node in nodes for name in node.ask("KEYS", "almanac:flights:1:*")] == []


@pytest.mark.parametrize("is_entry", [True, False])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_master_that_is_away_fails_only_the_lookups_that_need_it(
    nodes: Nodes, client: Client, is_entry: bool, how: signal.Signals
) -> None:
    publish(client)
    head_at = nodes.owner(head_key("flights"))
    lost = next(entity for entity in IDS if nodes.owner(bucket(entity)).port != head_at.port)
    victim = nodes.owner(bucket(lost))
    other = next(entity for entity in IDS if nodes.owner(bucket(entity)).port != victim.port)
    entry = victim if is_entry else head_at

    async def steps(reader: AsyncReader) -> list[str]:
        assert scores((await reader.lookup(IDS))[1]) == {1.0}
        victim.process.send_signal(how)
        found = []
        for entity in (lost, other, lost, other, other):
            try:
                found += [str(scores((await reader.lookup([entity]))[1]))]
            except AlmanacError as err:
                found += [err.problems[0].code[:6]]
        return found

    try:
        found = in_loop(f"redis+cluster://127.0.0.1:{entry.port}", steps)
    finally:
        victim.process.send_signal(signal.SIGCONT)

    assert found == ["STORE_", "{1.0}", "STORE_", "{1.0}", "{1.0}"]


def test_a_defect_of_ours_is_an_outcome_in_a_cluster_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> list[Any]:
        told: list[Any] = []
        cluster = Cluster(address_of("redis+cluster://127.0.0.1:1"))
        monkeypatch.setattr(cluster, "_map", lambda: None.missing)  # type: ignore[attr-defined]
        cluster.send(Request([("GET", "a")], told.append))
        await asyncio.sleep(0.05)
        monkeypatch.setattr(cluster, "_map", lambda: asyncio.sleep(60))
        cluster.send(Request([("GET", "a")], told.append))
        await asyncio.sleep(0)
        cluster.close()
        await asyncio.sleep(0.05)
        return told

    defect, closed = asyncio.run(ask())

    assert isinstance(defect, AttributeError)
    assert closed.problems[0].code == "STORE_DOWN"


def test_a_master_that_hangs_stops_a_publication_and_the_next_one_succeeds(
    nodes: Nodes, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookup.wires.Wire", partial(Wire, timeout_seconds=0.3))
    publish(client)
    victim = next(node for node in nodes if node is not nodes.owner(head_key("flights")))
    victim.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError, match="STORE_TIMEOUT"):
            publish(client, 2)
    finally:
        victim.process.send_signal(signal.SIGCONT)
    assert scores(Reader(client, "flights").lookup(IDS)[1]) == {1.0}

    publish(client, 2)

    assert scores(Reader(client, "flights").lookup(IDS)[1]) == {2.0}


def test_a_cluster_without_a_master_is_down_for_readers_and_publishers(tmp_path: Path) -> None:
    program = next(path for version, path in programs().items() if not version.startswith("redis-6"))
    with cluster(program, tmp_path / "cluster") as nodes, connect(nodes.url, timeout_seconds=2) as client:
        publish(client)
        head_at = nodes.owner(head_key("flights"))
        next(node for node in nodes if node is not head_at).process.kill()
        wait_until(lambda: b"cluster_state:fail" in head_at.ask("CLUSTER", "INFO"), "the cluster is down")
        url = f"redis+cluster://127.0.0.1:{head_at.port}"

        with pytest.raises(UnavailableError, match=r"STORE_PARTIAL"):
            in_loop(url, lambda reader: reader.lookup(IDS))
        with pytest.raises(UnavailableError, match=r"STORE_(PARTIAL|DOWN)"):
            Reader(client, "flights").lookup(IDS)
        with pytest.raises(UnavailableError, match=r"STORE_(PARTIAL|DOWN)"):
            publish(client, 2)


def test_a_master_that_lost_its_part_is_noticed_by_smoke_and_healed_by_a_restoration(
    nodes: Nodes, client: Client, staging: Any
) -> None:
    table = RedisTable(client, "flights")
    publisher = Publisher(staging.store, table)
    run_id = staging.run(dt.date(2013, 7, 1), {f"UA:{number}": 0.25 for number in range(20_000)})
    publisher.publish(run_id)
    settings = Settings(pipelines=staging.store.folder, store=staging.store.folder.parent, redis_url=nodes.url)
    head_at = nodes.owner(head_key("flights"))
    next(node for node in nodes if node is not head_at).ask("FLUSHALL")

    with pytest.raises(InputError, match=r"missing; expected release 1 as stored \[SMOKE\]"):
        smoke(settings, "flights", run_id)
    assert publisher.restore().was_whole is False

    assert smoke(settings, "flights", run_id) == 20
    assert publisher.restore().was_whole is True


def test_a_version_of_a_cluster_waits_for_the_replicas_of_each_master(
    tmp_path: Path, staging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookup.wires._WAIT_SECONDS", 1)
    program = next(path for version, path in programs().items() if not version.startswith("redis-6"))
    run_id = staging.run(dt.date(2013, 7, 1), {"UA:1": 0.25})
    at_once = ("--repl-diskless-sync-delay", "0")
    clustered = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", *at_once)
    with (
        cluster(program, tmp_path / "cluster", *at_once, nodes=1) as (master,),
        running(program, tmp_path / "replica", *clustered) as replica,
        connect(f"redis+cluster://127.0.0.1:{master.port}") as client,
    ):
        replica.ask("CLUSTER", "MEET", "127.0.0.1", master.port)
        name = master.ask("CLUSTER", "MYID").decode()
        wait_until(lambda: name in str(replica.ask("CLUSTER", "NODES")), "the replica knows its master")
        replica.ask("CLUSTER", "REPLICATE", name)
        wait_until(lambda: "'up'" in str(replica.ask("INFO", "replication")), "the replica follows")
        table = RedisTable(client, "flights")

        with pytest.raises(UnavailableError, match=r"1 replicas have the rows after 1 s; expected 2 \[STORE_REPLICAS"):
            Publisher(staging.store, table, replicas=2).publish(run_id)
        Publisher(staging.store, table).publish(run_id)

        assert replica.ask("DBSIZE") == master.ask("DBSIZE") == 3
