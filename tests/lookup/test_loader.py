"""How a version's rows go to a server: restored, field by field, or as keys of their own."""

import pickle
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from lookup.acl import User, publisher
from lookup.connect import address_of
from lookup.loader import Load, Method, in_threads, load_priors, method_of, refuse_disorder, whole_buckets
from lookup.rows import Chunk, Row
from lookup.table import RedisTable
from lookup.wires import Wires
from schemas.errors import InputError, UnavailableError
from schemas.head import Head
from schemas.keys import bucket_key, bucket_of, priors_key, row_key
from tests.lookup.given import GivenPart, GivenRows, in_order
from tests.redis_servers import make_user, programs
from tests.suites.table_contract import make_head

PROGRAMS = programs()


def make_rows(head: Head) -> GivenRows:
    return in_order(head, [Row(f"UA:{number}", b"\x91" + bytes([number % 128])) for number in range(head.entities)])


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_each_server_takes_the_form_that_it_keeps_itself_and_one_without_the_right_is_sent_fields(
    name: str, own_redis: Any
) -> None:
    url, head = own_redis(program=PROGRAMS[name]).url, make_head(1, "bucket")
    plain = User("plain", tuple(rule for rule in publisher().rules if rule != "+restore"))

    assert method_of(address_of(url), head) == ("ziplist" if name.startswith("redis-6") else "listpack")
    assert method_of(address_of(make_user(url, plain)), head) == "hset"
    with redis.Redis.from_url(url) as client:
        assert client.keys("*") == []


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_bucket_is_the_same_however_it_was_sent(name: str, own_redis: Any) -> None:
    url, head = own_redis(program=PROGRAMS[name]).url, make_head(1, "bucket", entities=200)
    address, keys = address_of(url), [bucket_key("flights", 1, bucket) for bucket in range(7)]
    methods: list[Method] = [method_of(address, head), "hset"]
    with redis.Redis.from_url(url) as client:
        found = []
        for method in methods:
            client.flushall()
            Load(address, head, method)(make_rows(head).parts[0])
            found.append([(client.hgetall(key), client.object("ENCODING", key)) for key in keys])

    assert found[0] == found[1]


def test_rows_of_their_own_keys_are_strings(redis_url: str, redis_client: redis.Redis) -> None:
    head = make_head(1, "string", entities=3)

    loaded = Load(address_of(redis_url), head, "hset")(make_rows(head).parts[0])

    assert [redis_client.get(row_key("flights", 1, f"UA:{number}")) for number in range(3)] == [
        b"\x91\x00", b"\x91\x01", b"\x91\x02",
    ]  # fmt: skip
    assert loaded.rows == 3


def test_what_a_part_became_is_told_with_some_of_its_rows(redis_url: str) -> None:
    head = make_head(1, "bucket", entities=1000)
    rows = make_rows(head)

    loaded = Load(address_of(redis_url), head, "hset")(rows.parts[0])

    assert loaded.rows == 1000
    assert 64 <= len(loaded.sample) <= 128
    assert set(loaded.sample) <= set(rows)


def test_a_load_that_goes_last_leaves_the_same_as_one_at_full_speed(redis_url: str, redis_client: redis.Redis) -> None:
    head = make_head(1, "bucket", entities=5000)
    keys = [bucket_key("flights", 1, bucket) for bucket in range(head.buckets)]
    loads, found = [], []
    for is_gentle in (False, True):
        redis_client.flushall()
        load = Load(address_of(redis_url), head, "hset", is_gentle=is_gentle)
        loads.append(load(make_rows(head).parts[0]))
        found.append([redis_client.hgetall(key) for key in keys])

    assert loads[0] == loads[1]
    assert found[0] == found[1]


@settings(deadline=None)
@given(st.sets(st.text(min_size=1, max_size=4), max_size=40), st.integers(1, 50))
def test_rows_are_cut_between_two_buckets_wherever_the_pieces_end(ids: set[str], rows: int) -> None:
    head = make_head(1, "bucket", entities=len(ids))
    given = in_order(head, [Row(entity, entity.encode()) for entity in ids])

    cut = list(whole_buckets(given.parts[0].pieces(rows), head))

    assert [row for chunk, _ in cut for row in chunk] == given
    assert all(set(before).isdisjoint(after) for (_, before), (_, after) in pairwise(cut))
    for chunk, buckets in cut:
        assert buckets.tolist() == [bucket_of(row.entity, head.buckets) for row in chunk]


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=2), min_size=2, max_size=12), st.integers(1, 12))
def test_rows_out_of_order_are_refused_wherever_the_pieces_end(ids: list[str], rows: int) -> None:
    head = make_head(1, "bucket", entities=len(ids))
    order = [(bucket_of(entity, head.buckets), entity.encode()) for entity in ids]
    pieces = GivenPart([Row(entity, b"") for entity in ids]).pieces(rows)

    if all(before < after for before, after in pairwise(order)):
        assert sum(len(buckets) for _, buckets in whole_buckets(pieces, head)) == len(ids)
    else:
        with pytest.raises(InputError, match="ROW_ORDER"):
            list(whole_buckets(pieces, head))


def test_the_loading_of_a_part_travels_to_another_process(redis_url: str, redis_client: redis.Redis) -> None:
    head = make_head(1, "bucket", entities=10)

    load = pickle.loads(pickle.dumps(Load(address_of(redis_url), head, "hset")))  # noqa: S301  # our own bytes
    load(make_rows(head).parts[0])

    assert RedisTable(redis_client, "flights").count(head) == 10


def test_priors_are_written_whole(redis_url: str, redis_client: redis.Redis) -> None:
    head = make_head(1, "bucket")
    with Wires(address_of(redis_url)) as wires:
        load_priors(wires, head, {"0:AA": b"old", "0:UA": b"old"})

        load_priors(wires, head, {"0:UA": b"new"})

    assert redis_client.hgetall(priors_key("flights", 1)) == {b"0:UA": b"new"}


def test_parts_are_loaded_in_threads_and_told_in_their_order() -> None:
    parts = [GivenPart([Row(str(number), b"")]) for number in range(20)]

    def load(part: Any) -> Any:
        return part.read().ids[0].as_py()

    assert in_threads(load, parts) == [b"%d" % number for number in range(20)]
    assert in_threads(load, []) == []


def test_the_error_of_one_part_is_that_of_the_load(redis_url: str) -> None:
    head = make_head(1, "bucket", entities=4)

    class Broken(GivenPart):
        def read(self) -> Chunk:
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        in_threads(Load(address_of(redis_url), head, "hset"), [make_rows(head).parts[0], Broken([])])


def _chunk(ids: Sequence[str]) -> Chunk:
    return Chunk(pa.array([id_.encode() for id_ in ids], pa.binary()), pa.array([b""] * len(ids), pa.binary()))


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=12), st.integers(1, 4), st.booleans())
def test_only_ids_once_and_in_the_order_of_their_buckets_are_taken(
    ids: list[str], modulus: int, is_sorted: bool
) -> None:
    if is_sorted:
        ids.sort(key=lambda id_: (bucket_of(id_, modulus), id_.encode()))
    order = [(bucket_of(id_, modulus), id_.encode()) for id_ in ids]
    buckets = np.array([bucket for bucket, _ in order], np.int64)

    if all(before < after for before, after in pairwise(order)):
        refuse_disorder(_chunk(ids), buckets, "here")
    else:
        with pytest.raises(InputError, match=r"here: (an id twice|rows out of order).*ROW_ORDER"):
            refuse_disorder(_chunk(ids), buckets, "here")


def test_a_server_that_is_away_is_told_and_not_taken_for_one_that_refuses_restore(own_redis: Any) -> None:
    server = own_redis()
    server.kill()

    with pytest.raises(UnavailableError, match="STORE_DOWN"):
        method_of(address_of(server.url), make_head(1, "bucket"))
