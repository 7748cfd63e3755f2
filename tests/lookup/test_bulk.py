"""What is done to every key of a version."""

from typing import Any

import pytest
import redis

from lookup.bulk import checksum_of, counts, exists, no_rows, unlink
from lookup.connect import address_of
from lookup.rows import Row, checksum
from lookup.table import RedisTable
from schemas.errors import InputError
from schemas.keys import bucket_key, bucket_of, priors_key, row_key
from tests.lookup.given import in_order
from tests.suites.table_contract import make_head

MANY = 1500  # keys: more than one write names


@pytest.fixture(params=["bucket", "string"])
def version(request: pytest.FixtureRequest, redis_client: redis.Redis) -> Any:
    """A version, its rows, and what finds them."""
    head = make_head(1, request.param, entities=MANY, buckets=MANY, priors=1)
    rows = in_order(head, [Row(f"UA:{number}", b"\x91\x01") for number in range(MANY)], priors={"0:UA": b"\x91\x01"})
    RedisTable(redis_client, "flights", rows_of=lambda _: rows).load(head, rows)
    return head, rows, lambda _: rows


def test_rows_are_counted_and_summed_up(version: Any, redis_url: str, redis_client: redis.Redis) -> None:
    head, rows, rows_of = version
    address = address_of(redis_url)

    assert counts(address, head, rows_of) == [MANY]
    assert checksum_of(address, head, rows_of) == checksum(
        ((row.entity.encode(), row.value) for row in rows), rows.priors
    )

    _remove(redis_client, head, "UA:7")
    assert counts(address, head, rows_of) == [MANY - 1]
    assert checksum_of(address, head, rows_of) == checksum(
        ((row.entity.encode(), row.value) for row in rows if row.entity != "UA:7"), rows.priors
    )


def _remove(client: redis.Redis, head: Any, entity: str) -> None:
    if head.layout == "string":
        client.unlink(row_key("flights", 1, entity))
    else:
        client.hdel(bucket_key("flights", 1, bucket_of(entity, head.buckets)), entity)


def test_a_version_is_there_until_its_keys_are_removed(version: Any, redis_url: str, redis_client: redis.Redis) -> None:
    head, rows, rows_of = version
    address = address_of(redis_url)
    assert exists(address, head, rows)
    assert redis_client.exists(priors_key("flights", 1))
    redis_client.set("almanac:flights:1:note", "theirs")
    redis_client.set(bucket_key("flights", 1, head.buckets), "theirs")

    unlink(address, head, rows_of)

    assert not exists(address, head, rows)
    assert set(redis_client.scan_iter("almanac:flights:1:*")) == {
        b"almanac:flights:1:note",
        bucket_key("flights", 1, head.buckets).encode(),
    }


def test_rows_of_their_own_keys_cannot_be_found_without_the_store(redis_url: str) -> None:
    with pytest.raises(InputError, match=r"flights version 1: its keys are named by its rows.*STORE_LAYOUT"):
        counts(address_of(redis_url), make_head(1, "string"), no_rows)
