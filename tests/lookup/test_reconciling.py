"""Redis that is not what the store says is found, and mended as a restoration or publication does."""

import datetime as dt
from typing import Any

import pytest
import redis

from lookup.log import entry_for
from lookup.publisher import Publisher
from lookup.reader import Reader
from lookup.reconciling import Finding, Reconciler, Repair
from lookup.store import Store
from lookup.table import RedisTable
from lookup.turns import beside_others
from lookup.versions import Versions
from schemas.errors import RefusedError
from schemas.head import read_head
from schemas.keys import bucket_key, head_key, loading_key, versions_key
from schemas.release import Event

MONDAY = dt.date(2013, 7, 1)
IDS = [f"UA:{number}" for number in range(200)]

Client = redis.Redis


@pytest.fixture
def reconciler(staging: Any, table: RedisTable) -> Reconciler:
    return Reconciler(staging.store, table, keep=3, grace_seconds=300)


@pytest.fixture
def runs(staging: Any, publisher: Publisher, layout: str) -> list[str]:
    """Two published runs in that layout, versions 1 and 3."""
    made = [staging.run(MONDAY + dt.timedelta(days=n), dict.fromkeys(IDS, n / 4)) for n in (1, 2)]
    for run_id in made:
        staging.amend(run_id, layout=layout)
        publisher.publish(run_id)
    return made


def dump(client: Client) -> dict[bytes, bytes | None]:
    return {key: client.dump(key) for key in client.scan_iter()}


def lose_rows(client: Client, version: int, layout: str) -> None:
    """Take some rows from a version, as a server that lost a write does."""
    keys = [key for key in client.scan_iter() if f":{version}:".encode() in key]
    assert len(keys) == (200 if layout == "string" else 4)
    client.delete(keys[0])


def scores(client: Client) -> set[float | None]:
    _, answers = Reader(client, "flights").lookup(IDS)
    return {answer.outputs.get("score") for answer in answers}


def mended(reconciler: Reconciler, publisher: Publisher) -> list[tuple[int | None, Repair]]:
    found = reconciler.mend(publisher.restore)
    assert found is not None
    return [(finding.version, finding.repair) for finding in found]


def test_where_all_is_as_it_should_be_nothing_is_found_or_done(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, redis_client: Client
) -> None:
    before = dump(redis_client)
    assert reconciler.examine() == []
    assert mended(reconciler, publisher) == []
    assert dump(redis_client) == before
    assert reconciler.held_runs() == set(runs)


def test_a_redis_that_lost_everything_is_restored(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, redis_client: Client
) -> None:
    redis_client.flushall()
    what = "no head: readers find nothing; the log's live release is 2"
    assert reconciler.examine() == [Finding(None, runs[1], what, Repair.RESTORE)]
    assert redis_client.keys() == []
    assert mended(reconciler, publisher) == [(None, Repair.RESTORE)]
    assert scores(redis_client) == {0.5}
    assert reconciler.examine() == []


def test_a_head_that_is_not_the_live_release_is_set_right(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, staging: Any, redis_client: Client
) -> None:
    store: Store = staging.store
    store.record_rollback(store.release(1), "killed between its entry and its flip")
    assert [(each.version, each.found) for each in reconciler.examine()] == [
        (3, "readers follow release 2; the log's live release is 1")
    ]
    assert mended(reconciler, publisher) == [(3, Repair.RESTORE)]
    assert scores(redis_client) == {0.25}
    assert reconciler.examine() == []


def test_a_flip_that_the_log_does_not_know_yet_is_entered(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, staging: Any, table: RedisTable, layout: str
) -> None:
    staging.amend(run_id := staging.run(MONDAY + dt.timedelta(days=3), dict.fromkeys(IDS, 0.75)), layout=layout)
    publisher.publish(run_id)
    entries = sorted((staging.store.folder / "releases").iterdir())
    entries[-1].unlink()  # as if it had been killed before it wrote that
    assert staging.store.live().release == 2
    assert mended(reconciler, publisher) == [(5, Repair.RESTORE)]
    assert staging.store.live().release == 3


def test_a_live_version_that_lost_rows_gets_them_back_and_an_old_one_goes(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, redis_client: Client, table: RedisTable, layout: str
) -> None:
    for version in (1, 3):
        lose_rows(redis_client, version, layout)
    before = dump(redis_client)
    found = reconciler.examine()
    assert [(each.version, each.repair) for each in found] == [(1, Repair.DROP), (3, Repair.RESTORE)]
    assert "of 200 rows and its priors are there" in found[1].found
    assert dump(redis_client) == before

    assert mended(reconciler, publisher) == [(1, Repair.DROP), (3, Repair.RESTORE)]

    assert scores(redis_client) == {0.5}
    assert list(table.versions()) == [3]
    assert not [key for key in redis_client.scan_iter() if b":1:" in key]
    assert publisher.roll_back().release == 1  # loaded anew, and whole
    assert scores(redis_client) == {0.25}
    assert reconciler.examine() == []


def test_a_version_that_the_log_does_not_know_goes(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, redis_client: Client, table: RedisTable, layout: str
) -> None:
    raw = redis_client.hget(versions_key("flights"), "3")
    assert isinstance(raw, bytes)
    unknown = read_head(raw, "flights").model_copy(update={"version": 99})
    redis_client.hset(versions_key("flights"), "99", unknown.model_dump_json())
    redis_client.hset(bucket_key("flights", 99, 0), "UA:1", b"\x90")
    assert [(each.version, each.found) for each in reconciler.examine()] == [(99, "no entry of the log is of it")]
    assert mended(reconciler, publisher) == [(99, Repair.DROP)]
    assert sorted(table.versions()) == [1, 3]


def test_in_the_layout_string_a_version_whose_run_is_gone_is_left_to_a_person(
    staging: Any, publisher: Publisher, reconciler: Reconciler, redis_client: Client
) -> None:
    run_id = staging.run(MONDAY, dict.fromkeys(IDS, 0.5))
    staging.amend(run_id, layout="string")
    publisher.publish(run_id)
    raw = redis_client.hget(versions_key("flights"), "1")
    assert isinstance(raw, bytes)
    unknown = read_head(raw, "flights").model_copy(update={"version": 99, "run_id": "2013-06-01-000000000000"})
    redis_client.hset(versions_key("flights"), "99", unknown.model_dump_json())
    before = dump(redis_client)
    assert mended(reconciler, publisher) == [(99, Repair.BY_HAND)]
    assert dump(redis_client) == before


def test_what_a_killed_load_and_a_killed_removal_left_goes(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, redis_client: Client, table: RedisTable, staging: Any
) -> None:
    (raw,) = redis_client.hmget(versions_key("flights"), "1")
    assert isinstance(raw, bytes)
    assert Versions(redis_client, "flights").claim(read_head(raw, "flights"))
    live = table.head()
    assert live is not None
    half = live.model_copy(update={"version": 7})
    redis_client.hset(loading_key("flights"), "7", half.model_dump_json())
    assert [(each.version, each.repair) for each in reconciler.examine()] == [(7, Repair.DROP), (1, Repair.RETIRE)]
    assert reconciler.held_runs() == set(runs)  # its files still name the keys that are left

    assert mended(reconciler, publisher) == [(7, Repair.DROP), (1, Repair.RETIRE)]

    assert (table.unfinished(), table.dropping(), list(table.versions())) == ({}, {}, [3])
    assert not [key for key in redis_client.scan_iter() if b":1:" in key]


def test_versions_that_nobody_can_be_reading_go_without_a_publication(
    runs: list[str], staging: Any, table: RedisTable, publisher: Publisher
) -> None:
    third = staging.run(MONDAY + dt.timedelta(days=3), dict.fromkeys(IDS, 0.75))
    publisher.publish(third)
    reconciler = Reconciler(staging.store, table, keep=2, grace_seconds=0)
    assert [(each.version, each.found) for each in reconciler.examine()] == [(1, "nobody can be reading it")]
    assert mended(reconciler, publisher) == [(1, Repair.RETIRE)]
    assert sorted(table.versions()) == [3, 5]


def test_beside_a_publication_nothing_is_judged(
    runs: list[str], reconciler: Reconciler, publisher: Publisher, staging: Any, redis_client: Client
) -> None:
    redis_client.delete(head_key("flights"))
    with beside_others(staging.store.folder):
        assert reconciler.mend(publisher.restore) is None
    assert redis_client.get(head_key("flights")) is None
    assert mended(reconciler, publisher) == [(None, Repair.RESTORE)]


def test_another_stores_table_is_refused_and_not_touched(
    runs: list[str], publisher: Publisher, table: RedisTable, redis_client: Client, tmp_path: Any
) -> None:
    other = Store(tmp_path / "other", "flights")
    release = publisher._store.release(1)
    other.log.append(lambda _, sequence: entry_for(Event.COMMIT, release, sequence))
    before = dump(redis_client)
    for ask in (
        Reconciler(other, table, keep=3, grace_seconds=0).examine,
        lambda: Reconciler(other, table, keep=3, grace_seconds=0).mend(Publisher(other, table).restore),
    ):
        with pytest.raises(RefusedError, match="STORE_FOREIGN"):
            ask()
    assert dump(redis_client) == before
