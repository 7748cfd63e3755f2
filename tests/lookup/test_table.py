"""The table on a real Redis: loading, counting, flipping under a token, retiring."""

import threading
import time
from typing import Any

import pytest
import redis

from lookup.connect import connect
from lookup.rows import Row
from lookup.table import RedisTable
from lookup.versions import Flip
from lookup.wires import Wires
from schemas.errors import DeclarationError, InputError, RefusedError, UnavailableError
from schemas.head import ColumnSpec, Head
from schemas.keys import bucket_key, bucket_of, head_key, versions_key
from tests.lookup.given import GivenPart, GivenRows, InterruptedPart, halves, in_order, one_by_one

COLUMNS = (ColumnSpec(name="score", type="float64"),)


def _head(
    version: int, *, token: int | None = None, date: str = "2013-07-01", rows: int = 100, buckets: int = 7
) -> Head:
    return Head(
        table="flights",
        release=version,
        date=date,
        version=version,
        token=token or version,
        buckets=buckets,
        entities=rows,
        columns=COLUMNS,
        run_id=f"2013-07-01-{version:012x}",
        scored_at="2013-07-01T04:00:00Z",
    )


def _rows(head: Head) -> GivenRows:
    return in_order(head, [Row(f"UA:{number}", b"\x91" + bytes([number % 128])) for number in range(head.entities)])


def _publish(table: RedisTable, head: Head) -> None:
    table.load(head, _rows(head))
    table.flip(head)


def _register(client: redis.Redis, *heads: Head) -> None:
    """List versions without rows: a flip takes only what is listed."""
    for head in heads:
        client.hset(versions_key("flights"), str(head.version), head.model_dump_json())


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


@pytest.mark.parametrize("where", ["at the start", "at the end"])
def test_an_id_that_comes_twice_is_refused(table: RedisTable, where: str) -> None:
    head = _head(1, rows=3000, buckets=1500)
    rows = _rows(head)
    double = rows[0] if where == "at the start" else rows[-1]

    with pytest.raises(InputError, match=r"flights run 2013-07-01-000000000001: an id twice.*ROW_ORDER"):
        table.load(head, GivenRows(sorted([*rows, double], key=rows.index)))


def test_rows_out_of_order_are_refused(table: RedisTable) -> None:
    head = _head(1)

    with pytest.raises(InputError, match=r"rows out of order.*ROW_ORDER"):
        table.load(head, GivenRows(reversed(_rows(head))))


def test_a_version_that_another_store_loaded_is_not_overwritten(table: RedisTable) -> None:
    _publish(table, _head(1))
    foreign = _head(1, token=2).model_copy(update={"run_id": "2013-07-01-ffffffffffff"})

    with pytest.raises(RefusedError, match=r"run 2013-07-01-000000000001 of another store.*STORE_FOREIGN"):
        table.load(foreign, GivenRows([Row("UA:1", b"theirs")]))

    assert table.differing(_head(1), _rows(_head(1))) == []


def test_the_first_flip_makes_readers_follow(table: RedisTable, redis_client: redis.Redis) -> None:
    _register(redis_client, _head(1))

    assert table.flip(_head(1)) is Flip.FLIPPED
    assert table.head() == _head(1)


def test_the_same_flip_again_does_nothing(table: RedisTable) -> None:
    _publish(table, _head(1))

    assert table.flip(_head(1)) is Flip.SAME


def test_a_flip_to_a_version_that_is_not_there_moves_nothing(table: RedisTable, redis_client: redis.Redis) -> None:
    assert table.flip(_head(1)) is Flip.GONE
    assert table.head() is None
    _publish(table, _head(2))
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter("*")}

    assert table.flip(_head(3)) is Flip.GONE

    assert {key: redis_client.dump(key) for key in redis_client.scan_iter("*")} == before


def test_a_flip_to_an_older_date_moves_nothing_unless_it_is_allowed(
    table: RedisTable, redis_client: redis.Redis
) -> None:
    newer, older = _head(1, date="2013-07-10"), _head(2, date="2013-07-09")
    _publish(table, newer)
    _register(redis_client, older)
    before = {key: redis_client.dump(key) for key in redis_client.scan_iter("*")}

    assert table.flip(older) is Flip.OLDER
    assert {key: redis_client.dump(key) for key in redis_client.scan_iter("*")} == before

    assert table.flip(older, allow_older=True) is Flip.FLIPPED
    assert table.head() == older


def test_a_flip_to_the_same_date_is_made(table: RedisTable, redis_client: redis.Redis) -> None:
    _publish(table, _head(1))
    _register(redis_client, _head(2))

    assert table.flip(_head(2)) is Flip.FLIPPED


def test_a_flip_with_the_same_token_is_the_same_publication_and_is_made(
    table: RedisTable, redis_client: redis.Redis
) -> None:
    _register(redis_client, _head(1, token=5), _head(2, token=5))
    table.flip(_head(1, token=5))

    assert table.flip(_head(2, token=5)) is Flip.FLIPPED
    assert table.head() == _head(2, token=5)


@pytest.mark.parametrize("token", [1, 4])
@pytest.mark.parametrize("allow_older", [True, False])
def test_a_flip_with_a_smaller_token_is_fenced_out(
    table: RedisTable, redis_client: redis.Redis, token: int, allow_older: bool
) -> None:
    _register(redis_client, _head(1, token=token), _head(2, token=5))
    table.flip(_head(2, token=5))
    before = redis_client.get(head_key("flights"))

    with pytest.raises(RefusedError, match=rf"a head with token 5; expected one below {token}.*PUBLISH_FENCED"):
        table.flip(_head(1, token=token), allow_older=allow_older)

    assert redis_client.get(head_key("flights")) == before
    assert redis_client.exists(f"{versions_key('flights')}:left") == 0


def test_of_flips_at_once_the_largest_token_wins(table: RedisTable, redis_client: redis.Redis) -> None:
    def flip(version: int) -> None:
        ready.wait()
        try:
            table.flip(_head(version))
        except RefusedError:
            fenced.append(version)

    _register(redis_client, *(_head(version) for version in range(1, 9)))
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

    def overtake() -> None:
        _publish(table, _head(2))
        assert table.retire(keep=1, grace_seconds=0) == [1]

    rows = _rows(stale)
    before, behind = halves(stale, rows)
    rows.parts = [GivenPart(before), InterruptedPart(behind, overtake)]
    with pytest.raises(RefusedError, match="PUBLISH_FENCED"):
        table.load(stale, rows, spread=one_by_one)

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
    _register(redis_client, _head(1))
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
    with pytest.raises(RefusedError, match=r"another program's keys under names of ours.*STORE_FOREIGN") as refusal:
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


def test_a_version_whose_publisher_is_not_fenced_out_stays_whatever_its_number(table: RedisTable) -> None:
    coming, healed = _head(4), _head(5, token=3)
    table.load(coming, _rows(coming))
    _publish(table, healed)

    assert table.retire(keep=1, grace_seconds=0) == []
    assert table.flip(coming) is Flip.FLIPPED
    assert table.count(coming) == 100


def test_the_live_version_is_never_dropped(table: RedisTable) -> None:
    _publish(table, _head(1))

    assert table.drop(_head(1)) is False
    assert table.count(_head(1)) == 100
    assert table.versions() == {1: _head(1)}


def test_a_version_is_dropped_once(table: RedisTable, redis_client: redis.Redis) -> None:
    table.load(_head(1), _rows(_head(1)))

    assert table.drop(_head(1)) is True
    assert table.drop(_head(1)) is False
    assert _keys(redis_client, "*") == set()


def test_a_version_of_another_stores_run_is_not_dropped(table: RedisTable) -> None:
    table.load(_head(1), _rows(_head(1)))

    assert table.drop(_head(1).model_copy(update={"run_id": "2013-07-01-ffffffffffff"})) is False
    assert table.count(_head(1)) == 100
    assert table.versions() == {1: _head(1)}


def test_what_a_killed_dropper_left_is_removed_by_the_next_retire(
    table: RedisTable, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Wires.unlink

    def die_after_one_key(wires: Wires, keys: list[bytes]) -> None:
        unlink(wires, keys[:1])
        raise KeyboardInterrupt

    for version in (1, 2):
        _publish(table, _head(version))
    with monkeypatch.context() as killed:
        killed.setattr(Wires, "unlink", die_after_one_key)
        with pytest.raises(KeyboardInterrupt):
            table.drop(_head(1))
    assert len(_keys(redis_client, "almanac:flights:1:*")) == 6
    assert redis_client.hkeys("almanac:{flights}:versions:dropping") == [b"1"]
    assert sorted(table.versions()) == [2]
    assert table.flip(_head(1, token=3)) is Flip.GONE

    assert table.retire(keep=3, grace_seconds=300) == []

    assert _keys(redis_client, "almanac:flights:1:*") == set()
    assert _keys(redis_client, "almanac:{flights}:*") == {b"almanac:{flights}:head", b"almanac:{flights}:versions"}
    assert table.count(_head(2)) == 100


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
    _register(redis_client, _head(2))
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(UnavailableError, match="STORE_FULL"):
            table.flip(_head(2))
    finally:
        redis_client.config_set("maxmemory", 0)

    assert table.head() == _head(1)


def test_a_flip_on_a_replica_says_so(table: RedisTable, own_redis: Any) -> None:
    primary, replica = own_redis(), own_redis()
    with connect(primary.url) as writer, connect(replica.url) as client:
        _register(writer, _head(1))
        client.replicaof("127.0.0.1", str(primary.port))
        deadline = time.monotonic() + 20
        while not client.exists(versions_key("flights")) and time.monotonic() < deadline:
            time.sleep(0.05)

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
