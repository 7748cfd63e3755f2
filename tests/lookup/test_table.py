"""The table on a real Redis: loading, counting, flipping under a token, retiring."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from lookup.connect import connect
from lookup.table import RedisTable, Row
from schemas.errors import DeclarationError, InputError, RefusedError, UnavailableError
from schemas.keys import ColumnSpec, Head, bucket_key, bucket_of, head_key, versions_key

COLUMNS = (ColumnSpec(name="score", type="float64"),)


def _head(version: int, *, token: int | None = None, rows: int = 100, buckets: int = 7) -> Head:
    return Head(
        table="flights",
        version=version,
        token=token or version,
        buckets=buckets,
        entities=rows,
        columns=COLUMNS,
        run_id=f"2013-07-01-{version:012x}",
        scored_at="2013-07-01T04:00:00Z",
    )


def _rows(head: Head) -> list[Row]:
    rows = [Row(f"UA:{number}", b"\x91" + bytes([number % 128])) for number in range(head.entities)]
    return sorted(rows, key=lambda row: (bucket_of(row.entity, head.buckets), row.entity.encode()))


def _publish(table: RedisTable, head: Head) -> None:
    table.load(head, _rows(head))
    table.flip(head)


def _left(client: redis.Redis, version: int, *, seconds_ago: int) -> None:
    client.hset(f"{versions_key('flights')}:left", str(version), int(client.time()[0]) - seconds_ago)


def _keys(client: redis.Redis, pattern: str) -> set[bytes]:
    return set(client.scan_iter(pattern))


def test_a_table_that_was_never_published_has_no_head_and_no_version(table: RedisTable) -> None:
    assert table.head() is None
    assert table.versions() == {}
    assert table.retire(keep=1, grace_seconds=0) == []


def test_loaded_rows_are_counted_and_read_back_and_nobody_follows_them_yet(table: RedisTable) -> None:
    head = _head(1)

    table.load(head, _rows(head))

    assert table.count(head) == 100
    assert table.differing(head, _rows(head)) == []
    assert table.versions() == {1: head}
    assert table.head() is None


def test_loading_again_changes_nothing(table: RedisTable, redis_client: redis.Redis) -> None:
    head = _head(1)
    table.load(head, _rows(head))
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter("*")}

    table.load(head, _rows(head))

    assert {key: redis_client.dump(key) for key in redis_client.scan_iter("*")} == before


def test_more_buckets_than_one_write_takes_are_loaded_whole(table: RedisTable) -> None:
    head = _head(1, rows=3000, buckets=1500)

    table.load(head, _rows(head))

    assert table.count(head) == 3000


def test_a_row_that_is_missing_or_changed_is_found(table: RedisTable, redis_client: redis.Redis) -> None:
    head = _head(1)
    table.load(head, _rows(head))
    redis_client.hdel(bucket_key("flights", 1, bucket_of("UA:1", 7)), "UA:1")
    redis_client.hset(bucket_key("flights", 1, bucket_of("UA:2", 7)), "UA:2", b"other")

    assert sorted(table.differing(head, _rows(head))) == ["UA:1", "UA:2"]
    assert table.count(head) == 99


@pytest.mark.parametrize("where", ["within a write", "between writes"])
def test_an_id_that_comes_twice_is_refused(table: RedisTable, where: str) -> None:
    head = _head(1, rows=3000, buckets=1500)
    rows = _rows(head)
    double = rows[0] if where == "within a write" else rows[-1]

    with pytest.raises(InputError, match=r"flights run 2013-07-01-000000000001: an id twice.*ROW_ORDER"):
        table.load(head, sorted([*rows, double], key=rows.index))


def test_rows_out_of_order_are_refused(table: RedisTable) -> None:
    head = _head(1)

    with pytest.raises(InputError, match=r"rows out of order.*ROW_ORDER"):
        table.load(head, reversed(_rows(head)))


def test_a_version_that_another_store_loaded_is_not_overwritten(table: RedisTable) -> None:
    _publish(table, _head(1))
    foreign = _head(1, token=2).model_copy(update={"run_id": "2013-07-01-ffffffffffff"})

    with pytest.raises(RefusedError, match=r"run 2013-07-01-000000000001 of another store.*STORE_FOREIGN"):
        table.load(foreign, [Row("UA:1", b"theirs")])

    assert table.differing(_head(1), _rows(_head(1))) == []


def test_the_first_flip_makes_readers_follow(table: RedisTable) -> None:
    assert table.flip(_head(1)) is True
    assert table.head() == _head(1)


def test_the_same_flip_again_does_nothing(table: RedisTable) -> None:
    table.flip(_head(1))

    assert table.flip(_head(1)) is False


@pytest.mark.parametrize("token", [4, 5])
def test_a_flip_with_a_smaller_or_the_same_token_is_fenced_out(
    table: RedisTable, redis_client: redis.Redis, token: int
) -> None:
    table.flip(_head(2, token=5))
    before = redis_client.get(head_key("flights"))

    with pytest.raises(RefusedError, match=rf"a head with token 5; expected one below {token}.*PUBLISH_FENCED"):
        table.flip(_head(1, token=token))

    assert redis_client.get(head_key("flights")) == before
    assert redis_client.exists(f"{versions_key('flights')}:left") == 0


def test_of_flips_at_once_the_largest_token_wins(table: RedisTable) -> None:
    def flip(version: int) -> None:
        ready.wait()
        try:
            table.flip(_head(version))
        except RefusedError:
            fenced.append(version)

    ready, fenced = threading.Barrier(8), list[int]()
    threads = [threading.Thread(target=flip, args=(version,)) for version in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert table.head() == _head(8)
    assert 8 not in fenced


def test_a_stale_publisher_is_fenced_before_it_writes_a_row(table: RedisTable, redis_client: redis.Redis) -> None:
    _publish(table, _head(2))

    with pytest.raises(RefusedError, match="PUBLISH_FENCED"):
        table.load(_head(1), _rows(_head(1)))

    assert _keys(redis_client, "almanac:flights:1:*") == set()


def test_rows_written_behind_the_back_of_the_publisher_that_dropped_them_are_found_by_the_next_retire(
    table: RedisTable, redis_client: redis.Redis
) -> None:
    stale = _head(1, rows=3000, buckets=1500)

    def overtaken_half_way() -> Iterator[Row]:
        rows = _rows(stale)
        yield from rows[:2000]
        _publish(table, _head(2))
        assert table.retire(keep=1, grace_seconds=0) == [1]
        yield from rows[2000:]

    with pytest.raises(RefusedError, match="PUBLISH_FENCED"):
        table.load(stale, overtaken_half_way())

    assert table.retire(keep=1, grace_seconds=0) == [1]
    assert _keys(redis_client, "almanac:flights:1:*") == set()


@pytest.mark.parametrize(
    "garbage",
    [
        b"3", b"garbage", b"[]", b"\xff\x00", b"{}", b'{"token": 1}', b'{"token": "1", "version": 1}',
        b'{"token": null, "version": null}',
    ],
)  # fmt: skip
def test_a_garbage_head_is_refused_by_flip_and_by_head_and_left_alone(
    table: RedisTable, redis_client: redis.Redis, garbage: bytes
) -> None:
    redis_client.set(head_key("flights"), garbage)

    with pytest.raises(InputError, match=r"not a head.*STORE_POINTER_FORMAT"):
        table.flip(_head(1))
    with pytest.raises(InputError, match=r"not a head.*STORE_POINTER_FORMAT"):
        table.head()

    assert redis_client.get(head_key("flights")) == garbage


def test_another_programs_keys_under_our_names_are_refused(table: RedisTable, redis_client: redis.Redis) -> None:
    head = _head(1)
    for key in (head_key("flights"), versions_key("flights"), bucket_key("flights", 1, 0)):
        redis_client.rpush(key, "theirs")

    for ask in (table.head, table.versions, lambda: table.flip(head), lambda: table.count(head)):
        with pytest.raises(InputError, match=r"another program wrote under this one.*STORE_TYPE"):
            ask()
    redis_client.delete(head_key("flights"), versions_key("flights"))
    with pytest.raises(InputError, match="STORE_TYPE") as refusal:
        table.load(head, _rows(head))

    assert "UA:" not in str(refusal.value)
    assert redis_client.lrange(bucket_key("flights", 1, 0), 0, -1) == [b"theirs"]


def test_a_damaged_list_of_versions_is_refused(table: RedisTable, redis_client: redis.Redis) -> None:
    redis_client.hset(versions_key("flights"), "theirs", "1")

    with pytest.raises(InputError, match="STORE_POINTER_FORMAT"):
        table.versions()


def test_retire_keeps_the_live_version_and_those_that_were_live_last(
    table: RedisTable, redis_client: redis.Redis
) -> None:
    for version in (1, 2, 3, 4):
        _publish(table, _head(version))
    for version in (1, 2, 3):
        _left(redis_client, version, seconds_ago=100 - version)

    assert table.retire(keep=3, grace_seconds=0) == [1]
    assert sorted(table.versions()) == [2, 3, 4]


def test_retire_leaves_no_key_of_a_retired_version(table: RedisTable, redis_client: redis.Redis) -> None:
    for version in (1, 2):
        _publish(table, _head(version, rows=3000, buckets=1500))

    assert table.retire(keep=1, grace_seconds=0) == [1]
    assert _keys(redis_client, "almanac:flights:1:*") == set()
    assert _keys(redis_client, "almanac:{flights}:*") == {b"almanac:{flights}:head", b"almanac:{flights}:versions"}
    assert table.count(_head(2, rows=3000, buckets=1500)) == 3000


def test_retire_waits_for_the_grace_period(table: RedisTable, redis_client: redis.Redis) -> None:
    _publish(table, _head(1))
    _publish(table, _head(2))
    _left(redis_client, 1, seconds_ago=50)

    assert table.retire(keep=1, grace_seconds=300) == []
    assert table.count(_head(1)) == 100
    assert table.retire(keep=1, grace_seconds=40) == [1]


def test_a_version_that_is_live_again_is_not_one_that_left(table: RedisTable) -> None:
    _publish(table, _head(1))
    _publish(table, _head(2))
    table.flip(_head(1, token=3))

    assert table.retire(keep=1, grace_seconds=0) == [2]
    assert table.count(_head(1)) == 100


def test_a_version_that_never_was_live_goes_once_a_later_one_is(table: RedisTable) -> None:
    abandoned, coming = _head(1), _head(3)
    table.load(abandoned, _rows(abandoned))
    _publish(table, _head(2))
    table.load(coming, _rows(coming))

    assert table.retire(keep=3, grace_seconds=300) == [1]
    assert sorted(table.versions()) == [2, 3]


def test_retire_leaves_foreign_keys_and_other_tables_alone(table: RedisTable, redis_client: redis.Redis) -> None:
    redis_client.set("session:1", "theirs")
    redis_client.set("almanac:flights:1:note", "theirs")
    other = RedisTable(redis_client, "flights2")
    other_head = _head(1).model_copy(update={"table": "flights2"})
    _publish(other, other_head)
    _publish(table, _head(1))
    _publish(table, _head(2))

    assert table.retire(keep=1, grace_seconds=0) == [1]

    assert redis_client.get("session:1") == b"theirs"
    assert _keys(redis_client, "almanac:flights:1:*") == {b"almanac:flights:1:note"}
    assert other.head() == other_head
    assert other.count(other_head) == 100


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_is_refused(table: RedisTable, redis_client: redis.Redis, policy: str) -> None:
    redis_client.config_set("maxmemory-policy", policy)
    try:
        with pytest.raises(
            DeclarationError, match=rf"{policy} would drop predictions; expected noeviction \[STORE_POLICY\]"
        ):
            table.preflight()
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")

    table.preflight()


def test_a_flip_on_a_server_without_memory_says_so(table: RedisTable, redis_client: redis.Redis) -> None:
    _publish(table, _head(1))
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(UnavailableError, match="STORE_FULL"):
            table.flip(_head(2))
    finally:
        redis_client.config_set("maxmemory", 0)

    assert table.head() == _head(1)


def test_a_flip_on_a_replica_says_so(table: RedisTable, own_redis: Any) -> None:
    primary, replica = own_redis(), own_redis()
    with connect(replica.url) as client:
        client.replicaof("127.0.0.1", str(primary.port))

        with pytest.raises(DeclarationError, match=r"expected the primary, not a replica \[STORE_READONLY\]"):
            RedisTable(client, "flights").flip(_head(1))


def test_of_versions_that_left_in_the_same_second_the_later_one_is_kept(
    table: RedisTable, redis_client: redis.Redis
) -> None:
    for version in (1, 2, 3):
        _publish(table, _head(version))
    for version in (1, 2):
        _left(redis_client, version, seconds_ago=10)

    assert table.retire(keep=2, grace_seconds=0) == [1]
