"""The memory that a version is said to need, held to what each server then uses."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from lookup.capacity import Plan, Server, plan, refuse_what_does_not_fit, server_of
from lookup.connect import Client, connect
from lookup.loader import in_threads
from lookup.publisher import Outcome, Publisher
from lookup.rows import Row
from lookup.table import RedisTable
from schemas.errors import RefusedError, UnavailableError
from schemas.head import Head
from schemas.keys import bucket_count, bucket_key
from tests.lookup.given import GivenRows, in_order
from tests.redis_servers import cluster, programs, running
from tests.suites.table_contract import make_head

PROGRAMS = programs()
ENTITIES = 50_000


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    folder: Path = tmp_path_factory.mktemp("server") / "data"
    with running(PROGRAMS[request.param], folder) as node, connect(node.url) as client:
        warm_up(client)
        yield client  # type: ignore[misc]  # not a cluster


def warm_up(client: Client) -> None:
    """What a server sets up for itself with the first load, some 170 kB, is none of a version's."""
    head = make_head(9, "bucket", entities=ENTITIES, buckets=bucket_count(ENTITIES))
    table = RedisTable(client, "flights")
    table.load(head, rows_of("flights", head))
    table.drop(head)


def rows_of(kind: str, head: Head) -> GivenRows:
    """Rows as flights have them, and as services with long ids or several outputs have them."""
    names, value = {
        "flights": (lambda number: f"UA:{number}:EWR:2013-07-01", b"\x94\xcb" + bytes(8) + b"\0\0\0"),
        "uuids": (lambda number: f"{number:08x}-7c3a-4e0f-9d2b-{number:012x}", b"\x95" + bytes(40)),
        "numbers": (lambda number: f"{number}", b"\x92\xca" + bytes(5)),
        "long ids": (lambda number: f"{number}:{'x' * 90}", b"\x94\xcb" + bytes(11)),
        "long values": (lambda number: f"{number:016d}", b"\x9f" + bytes(120)),
    }[kind]
    return in_order(head, [Row(names(number), value) for number in range(head.entities)])


@pytest.mark.parametrize("layout", ["bucket", "string"])
@pytest.mark.parametrize("kind", ["flights", "uuids", "numbers", "long ids", "long values"])
def test_a_version_takes_within_a_tenth_of_what_was_planned(server: redis.Redis, layout: Any, kind: str) -> None:
    server.flushall()
    head = make_head(1, layout, entities=ENTITIES, buckets=bucket_count(ENTITIES))
    rows = rows_of(kind, head)
    table = RedisTable(server, "flights", rows_of=lambda _: rows)
    (planned,) = table.plan(head, rows)
    before = int(server.info("memory")["used_memory"])

    table.load(head, rows)

    taken = int(server.info("memory")["used_memory"]) - before
    assert 0.9 < planned.version_bytes / taken < 1.1


@pytest.mark.parametrize("layout", ["bucket", "string"])
def test_what_does_not_fit_is_refused_before_anything_is_written(server: redis.Redis, layout: Any) -> None:
    server.flushall()
    head = make_head(1, layout, entities=ENTITIES, buckets=bucket_count(ENTITIES))
    rows = rows_of("flights", head)
    server.config_set("maxmemory", int(server.info("memory")["used_memory"]) + 1_000_000)
    try:
        with pytest.raises(
            UnavailableError, match=r"loading flights version 1: needs .* MiB beside .* MiB in use.*STORE_FULL"
        ):
            RedisTable(server, "flights", rows_of=lambda _: rows).load(head, rows)
    finally:
        server.config_set("maxmemory", 0)

    assert server.dbsize() == 0


def test_a_version_is_spread_over_the_masters_of_a_cluster(tmp_path: Path) -> None:
    program = next(path for version, path in PROGRAMS.items() if not version.startswith("redis-6"))
    head = make_head(1, "bucket", entities=ENTITIES, buckets=bucket_count(ENTITIES))
    rows = rows_of("flights", head)
    with cluster(program, tmp_path / "cluster") as nodes, connect(nodes.url) as client:
        warm_up(client)
        table = RedisTable(client, "flights")
        planned = table.plan(head, rows)
        used = [_used(node.ask("INFO", "memory")) for node in nodes]
        table.load(head, rows)
        taken = sum(_used(node.ask("INFO", "memory")) for node in nodes) - sum(used)

    assert len(planned) == 3
    assert 0.9 < sum(each.version_bytes for each in planned) / taken < 1.1


def _used(info: Any) -> int:
    found = (
        info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.decode().split() if ":" in line)
    )
    return int(found["used_memory"])


def test_priors_are_planned_too() -> None:
    head = make_head(1, "bucket", entities=1)
    bare, primed = GivenRows([Row("UA:1", b"\x90")]), GivenRows([Row("UA:1", b"\x90")], priors={"0:UA": bytes(100)})
    server = Server(0, None, "jemalloc-5.3.0", is_valkey=False, version=(7, 0))

    assert plan(head, primed, server).version_bytes - plan(head, bare, server).version_bytes == 200


@pytest.mark.parametrize(("held", "rows"), [(0, 50), (20, 30), (50, 0), (70, 0)])
def test_rows_that_are_there_already_need_no_memory(held: int, rows: int) -> None:
    head = make_head(1, "bucket", entities=100, buckets=2)
    given = rows_of("flights", head)
    server = Server(0, None, "jemalloc-5.3.0", is_valkey=False, version=(7, 0))

    whole = plan(head, given, server).version_bytes

    found = plan(head, given, server, share=0.5, held=held).version_bytes
    assert found == pytest.approx(whole * rows / 100, abs=1)


@pytest.fixture
def limited(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    yield redis_client
    redis_client.config_set("maxmemory", 0)


MANY = {f"UA:{number}:EWR:2013-07-01": 0.25 for number in range(20_000)}
NEXT = dict.fromkeys(MANY, 0.5)


def killed_when_all_is_sent(load: Any, parts: Any) -> Any:
    in_threads(load, parts)
    raise KeyboardInterrupt


@pytest.mark.parametrize("day", [1, 2])
def test_after_a_load_that_was_killed_at_its_end_its_retry_and_the_next_days_run_have_room(
    staging: Any, table: RedisTable, limited: redis.Redis, day: int
) -> None:
    empty = _used(limited.info("memory"))
    runs = {1: staging.run(dt.date(2013, 7, 1), MANY), 2: staging.run(dt.date(2013, 7, 2), NEXT)}
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=killed_when_all_is_sent).publish(runs[1])
    used = _used(limited.info("memory"))
    limited.config_set("maxmemory", used + (used - empty) // 2)

    assert Publisher(staging.store, table).publish(runs[day]).outcome is Outcome.LIVE


def test_one_lost_bucket_is_restored_where_no_whole_version_has_room(
    staging: Any, table: RedisTable, limited: redis.Redis
) -> None:
    publisher = Publisher(staging.store, table)
    publisher.publish(staging.run(dt.date(2013, 7, 1), MANY))
    limited.delete(bucket_key("flights", 1, 0))
    limited.config_set("maxmemory", _used(limited.info("memory")) + 100_000)

    assert publisher.restore().was_whole is False

    assert publisher.restore().was_whole is True


def test_a_version_that_somebody_else_is_loading_is_not_removed_to_make_room(staging: Any, table: RedisTable) -> None:
    first, second = staging.run(dt.date(2013, 7, 1), MANY), staging.run(dt.date(2013, 7, 2), NEXT)

    def overtaken(load: Any, parts: Any) -> Any:
        loaded = in_threads(load, parts)
        Publisher(staging.store, table).publish(second)
        assert sorted(table.unfinished()) == []  # retired, as its token is smaller
        return loaded

    with pytest.raises(RefusedError, match="PUBLISH_FENCED"):
        Publisher(staging.store, table, spread=overtaken).publish(first)
    assert sorted(table.versions()) == [2]


def test_no_rows_need_no_memory() -> None:
    server = Server(1000, 1_050, "libc", is_valkey=False, version=(6, 2))

    assert plan(make_head(1, "bucket", entities=0), GivenRows([]), server) == Plan(0, 1000, server)


@pytest.mark.parametrize(("limit", "fits"), [(None, True), (1050, True), (1049, False)])
def test_a_tenth_of_what_was_worked_out_is_kept_free(limit: int | None, fits: bool) -> None:
    found = Plan(500, 1000, Server(500, limit, "libc", is_valkey=False, version=(7, 0)))

    assert found.fits is fits


def test_a_refusal_says_what_is_needed_and_what_can_be_done() -> None:
    found = Plan(3 << 20, 8 << 20, Server(5 << 20, 7 << 20, "libc", is_valkey=False, version=(7, 0)))

    with pytest.raises(UnavailableError) as error:
        refuse_what_does_not_fit(found, "loading flights version 2")

    assert str(error.value) == (
        "loading flights version 2: needs 3.0 MiB beside 5.0 MiB in use; expected no more than maxmemory, 7.0 MiB: "
        "more memory, or fewer versions (publish.keep) [STORE_FULL]"
    )


def test_a_server_says_of_itself_what_it_is() -> None:
    told = {"redis_version": "7.2.4", "valkey_version": "9.1.2", "used_memory": "5", "maxmemory": "0"}

    assert server_of(told) == Server(5, None, "libc", is_valkey=True, version=(9, 1))
    assert server_of({"redis_version": "6.2.14", "used_memory": 5, "maxmemory": 9, "mem_allocator": "jemalloc-5"}) == (
        Server(5, 9, "jemalloc-5", is_valkey=False, version=(6, 2))
    )
