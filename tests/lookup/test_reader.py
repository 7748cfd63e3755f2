"""What a reader sees while versions come and go, and what it makes of damaged data."""

import asyncio
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from lookup.coalesce import AsyncReader, Lookups
from lookup.connect import Address, address_of, connect
from lookup.follower import Follower
from lookup.reader import Reader
from lookup.resp import Connection
from schemas.answer import Answer
from schemas.errors import InputError, RowDecodeError, UnavailableError
from schemas.head import Head
from schemas.keys import bucket_key, bucket_of, head_key, priors_key

Client = redis.Redis
PutVersion = Callable[..., Head]


def _lookup_async(url: str, ids: list[str]) -> tuple[Head, list[Answer]]:
    async def ask() -> tuple[Head, list[Answer]]:
        lookups = Lookups(Connection(address_of(url)))
        try:
            return await AsyncReader(lookups, "flights").lookup(ids)
        finally:
            lookups.close()

    return asyncio.run(ask())


def _lookup(url: str, ids: list[str]) -> tuple[Head, list[Answer]]:
    with connect(url) as client:
        return Reader(client, "flights").lookup(ids)


both = pytest.mark.parametrize("lookup", [_lookup, _lookup_async])


@both
def test_answers_come_in_the_order_asked_duplicates_and_unknown_ones_too(
    lookup: Any, redis_url: str, redis_client: Client, put_version: PutVersion
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25, "UA:2": 0.5})

    head, answers = lookup(redis_url, ["UA:2", "nope", "UA:1", "UA:2"])

    assert (head.release, head.version) == (3, 13)
    assert [(a.id, a.status, a.outputs) for a in answers] == [
        ("UA:2", "exact", {"score": 0.5}),
        ("nope", "unknown", {}),
        ("UA:1", "exact", {"score": 0.25}),
        ("UA:2", "exact", {"score": 0.5}),
    ]
    assert answers[0] == Answer(
        id="UA:2",
        status="exact",
        outputs={"score": 0.5},
        release=3,
        model="delay-1",
        variant="champion",
        scored_at="2013-07-01T04:00:00Z",
        age_seconds=answers[0].age_seconds,
    )
    assert answers[0].age_seconds == pytest.approx(time.time() - 1372651200, abs=60)
    assert answers[1].model is None
    # What is not there, is not there since the release was scored.
    assert (answers[1].scored_at, answers[1].age_seconds) == ("2013-07-01T04:00:00Z", answers[0].age_seconds)


@both
def test_a_table_that_was_never_published_is_no_version(lookup: Any, redis_url: str) -> None:
    with pytest.raises(UnavailableError, match=r"table 'flights': no version is published.*NO_VERSION"):
        lookup(redis_url, ["UA:1"])


@both
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"3", "not a head.*STORE_POINTER_FORMAT"),
        (b"\xff\x00", "not a head.*STORE_POINTER_FORMAT"),
        (b'{"format": 1}', "not a head.*STORE_POINTER_FORMAT"),
    ],
)
def test_a_damaged_head_is_refused(lookup: Any, redis_url: str, redis_client: Client, raw: bytes, message: str) -> None:
    redis_client.set(head_key("flights"), raw)

    with pytest.raises(InputError, match=message):
        lookup(redis_url, ["UA:1"])


@both
def test_a_head_of_a_newer_format_is_refused(
    lookup: Any, redis_url: str, redis_client: Client, put_version: PutVersion
) -> None:
    newer = put_version(redis_client, 3, {"UA:1": 0.25}).model_copy(update={"format": 3})
    redis_client.set(head_key("flights"), newer.model_dump_json())

    with pytest.raises(InputError, match=r"format 3; expected at most 2; upgrade this reader \[FORMAT_TOO_NEW\]"):
        lookup(redis_url, ["UA:1"])


@both
def test_a_head_without_the_columns_that_an_answer_needs_is_refused(
    lookup: Any, redis_url: str, redis_client: Client, put_version: PutVersion
) -> None:
    head = put_version(redis_client, 3, {"UA:1": 0.25})
    redis_client.set(head_key("flights"), head.model_copy(update={"columns": head.columns[:2]}).model_dump_json())

    with pytest.raises(InputError, match=r"no column status, variant.*STORE_POINTER_FORMAT"):
        lookup(redis_url, ["UA:1"])


@both
def test_another_programs_key_in_place_of_the_head_is_refused(
    lookup: Any, redis_url: str, redis_client: Client
) -> None:
    redis_client.rpush(head_key("flights"), "not", "ours")

    with pytest.raises(InputError, match="STORE_TYPE"):
        lookup(redis_url, ["UA:1"])


@both
@pytest.mark.parametrize("damage", [b"", b"\x94\xcb", b"\x91\x01", b"garbage"])
def test_a_damaged_row_is_refused_and_never_guessed(
    lookup: Any, redis_url: str, redis_client: Client, put_version: PutVersion, damage: bytes
) -> None:
    head = put_version(redis_client, 3, {"UA:1": 0.25})
    redis_client.hset(bucket_key("flights", head.version, bucket_of("UA:1", head.buckets)), "UA:1", damage)

    with pytest.raises(RowDecodeError, match="ROW_DECODE"):
        lookup(redis_url, ["UA:1"])


@both
def test_a_prior_whose_field_is_not_utf_8_is_refused(
    lookup: Any, redis_url: str, redis_client: Client, put_version: PutVersion
) -> None:
    head = put_version(redis_client, 3, {"UA:1": 0.25})
    redis_client.hset(priors_key("flights", head.version), b"0:\xff\xfe", b"\x91\xc0")
    redis_client.set(head_key("flights"), head.model_copy(update={"priors": 1}).model_dump_json())

    with pytest.raises(RowDecodeError, match=r"almanac:flights:13:priors: a field that is not UTF-8: 303afffe.*ROW_D"):
        lookup(redis_url, ["UA:1"])


@both
@pytest.mark.parametrize("entity", ["\ud800", " ", "a\0b", "x" * 513])
def test_what_is_no_id_is_refused(lookup: Any, redis_url: str, entity: str) -> None:
    with pytest.raises(InputError, match=r"ids\[1\].*ENTITY_ID"):
        lookup(redis_url, ["UA:1", entity])


def test_what_cannot_be_sent_harms_no_lookup_of_the_same_tick(
    redis_url: str, redis_client: Client, put_version: PutVersion
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})

    async def ask() -> list[Any]:
        lookups = Lookups(Connection(address_of(redis_url)))
        reader = AsyncReader(lookups, "flights")
        await reader.lookup(["UA:1"])
        asked = (reader.lookup([entity]) for entity in ("UA:1", "\ud800", "UA:1"))
        async with asyncio.timeout(5):
            found = await asyncio.gather(*asked, return_exceptions=True)
        lookups.close()
        return found

    first, bad, last = asyncio.run(ask())

    assert isinstance(bad, InputError)
    assert [answers[0].status for _, answers in (first, last)] == ["exact", "exact"]


class CountingConnection(Connection):
    """One that keeps what it writes, write by write."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.writes: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        write = transport.write

        def kept(data: bytes) -> None:
            self.writes.append(data)
            write(data)

        super().connection_made(SimpleNamespace(write=kept, abort=transport.abort))


def test_all_lookups_of_one_tick_are_one_write(redis_url: str, redis_client: Client, put_version: PutVersion) -> None:
    for table in ("flights", "trains"):
        put_version(redis_client, 3, {f"UA:{number}": 0.25 for number in range(50)}, table)

    async def ask() -> tuple[CountingConnection, list[Any]]:
        connection = CountingConnection(address_of(redis_url))
        lookups = Lookups(connection)
        readers = [AsyncReader(lookups, table) for table in ("flights", "trains")]
        await asyncio.gather(*(reader.lookup(["UA:1"]) for reader in readers))
        connection.writes.clear()
        found = await asyncio.gather(*(reader.lookup([f"UA:{i}", "x"]) for i in range(50) for reader in readers))
        lookups.close()
        return connection, found

    connection, found = asyncio.run(ask())

    assert [[answer.status for answer in answers] for _, answers in found] == [["exact", "unknown"]] * 100
    assert [(write.count(b"HGET\r\n"), write.count(b"GET\r\n$")) for write in connection.writes] == [(200, 202)]


def test_a_tick_that_asks_for_much_does_not_let_redis_wait_for_its_end(
    redis_url: str, redis_client: Client, put_version: PutVersion
) -> None:
    put_version(redis_client, 3, {f"UA:{number}": 0.25 for number in range(400)})

    async def ask() -> tuple[CountingConnection, list[Any]]:
        connection = CountingConnection(address_of(redis_url))
        lookups = Lookups(connection)
        reader = AsyncReader(lookups, "flights")
        await reader.lookup(["UA:1"])
        connection.writes.clear()
        batches = [[f"UA:{number}" for number in range(400)]] * 8
        found = await asyncio.gather(*map(reader.lookup, batches))
        lookups.close()
        return connection, found

    connection, found = asyncio.run(ask())

    assert {answer.status for _, answers in found for answer in answers} == {"exact"}
    assert [write.count(b"HGET\r\n") for write in connection.writes] == [1200, 1200, 800]


class Defective(Follower):
    """One with a defect, in what it asks or in what it makes of the replies."""

    def __init__(self, table: str, where: str) -> None:
        super().__init__(table)
        self._where = where

    def ask(self, ids: Any) -> Any:
        return None.missing if self._where == "ask" else super().ask(ids)  # type: ignore[attr-defined]

    def settle(self, asked: Any, replies: Any) -> Any:
        return None.missing if self._where == "settle" else super().settle(asked, replies)  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", ["ask", "settle"])
def test_a_defect_of_ours_is_the_error_of_its_lookups_and_no_request_hangs(
    redis_url: str, redis_client: Client, put_version: PutVersion, where: str
) -> None:
    put_version(redis_client, 3, {"UA:1": 0.25})

    async def ask() -> list[Any]:
        lookups = Lookups(Connection(address_of(redis_url)))
        asked = (lookups.lookup(follower, ["UA:1"]) for follower in (Defective("flights", where), Follower("flights")))
        async with asyncio.timeout(5):
            found = await asyncio.gather(*asked, return_exceptions=True)
        lookups.close()
        return found

    defective, sound = asyncio.run(ask())

    assert isinstance(defective, AttributeError)
    assert len(sound.rows) == 1


def test_a_reader_follows_the_head_and_needs_no_row_of_the_version_before(
    redis_client: Client, put_version: PutVersion
) -> None:
    reader = Reader(redis_client, "flights")
    old = put_version(redis_client, 1, {"UA:1": 0.1})
    assert reader.lookup(["UA:1"])[1][0].outputs == {"score": 0.1}
    put_version(redis_client, 2, {"UA:1": 0.2})
    redis_client.delete(bucket_key("flights", old.version, bucket_of("UA:1", old.buckets)))

    head, answers = reader.lookup(["UA:1"])

    assert (head.release, answers[0].outputs) == (2, {"score": 0.2})


def test_a_reader_sees_that_redis_lost_its_data_and_that_it_is_back(
    redis_client: Client, put_version: PutVersion
) -> None:
    reader = Reader(redis_client, "flights")
    put_version(redis_client, 1, {"UA:1": 0.1})
    reader.lookup(["UA:1"])
    redis_client.flushall()

    with pytest.raises(UnavailableError, match="NO_VERSION"):
        reader.lookup(["UA:1"])

    put_version(redis_client, 1, {"UA:1": 0.1})
    assert reader.lookup(["UA:1"])[1][0].status == "exact"


def test_a_head_that_moves_with_every_attempt_ends_in_an_error_not_in_a_loop(
    redis_url: str, put_version: PutVersion
) -> None:
    class Restless(redis.Redis):
        version = 0

        def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
            self.version += 1
            with connect(redis_url) as other:
                put_version(other, self.version, {"UA:1": 0.1})
            return super().pipeline(transaction=transaction)

    with Restless.from_url(redis_url) as client, pytest.raises(UnavailableError, match="moved 5 times"):
        Reader(client, "flights").lookup(["UA:1"])


def test_concurrent_requests_of_one_event_loop_never_mix_versions(
    redis_url: str, redis_client: Client, put_version: PutVersion
) -> None:
    ids = [f"UA:{number}" for number in range(50)]
    put_version(redis_client, 1, dict.fromkeys(ids, 1.0))
    done = threading.Event()

    def publish() -> None:
        with connect(redis_url) as client:
            for version in range(2, 40):
                put_version(client, version, dict.fromkeys(ids, float(version)))
                time.sleep(0.05)
        done.set()

    async def read() -> list[tuple[int, set[Any]]]:
        lookups = Lookups(Connection(address_of(redis_url)))
        reader = AsyncReader(lookups, "flights")
        seen = []

        async def follow() -> None:
            while not done.is_set():
                head, answers = await reader.lookup(ids)
                seen.append((head.release, {answer.outputs["score"] for answer in answers}))

        await asyncio.gather(*(follow() for _ in range(8)))
        lookups.close()
        return seen

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        seen = asyncio.run(read())
    finally:
        publisher.join()

    assert len({release for release, _ in seen}) > 3
    assert [(release, scores) for release, scores in seen if scores != {float(release)}] == []
