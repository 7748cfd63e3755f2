"""Only what passed every check is followed: by a second attempt, by a pin, and with its priors."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis

from lookup.loader import Loaded, in_threads
from lookup.publisher import Outcome, Publisher
from lookup.reader import Reader
from lookup.table import RedisTable
from lookup.versions import Flip
from schemas.errors import InputError, RefusedError, UnavailableError
from schemas.head import Head, Serving
from schemas.keys import bucket_key, bucket_of, head_key, priors_key

MONDAY, TUESDAY = dt.date(2013, 7, 1), dt.date(2013, 7, 2)
OLD = {f"UA:{number}": 0.25 for number in range(200)}
NEW = {f"UA:{number}": 0.5 for number in range(200)}
SERVING = Serving(key=("carrier", "flight"), segments=(("carrier",),))

Client = redis.Redis
Part = Any
OfPart = Callable[[Part], Loaded]


def _primed(staging: Any, day: dt.date, scores: dict[str, float]) -> str:
    run_id = str(staging.run(day, scores))
    staging.amend(run_id, serving=SERVING)
    staging.priors(run_id, {"0:UA": 0.375, "0:AA": 0.125})
    return run_id


def _die(load: OfPart, parts: Sequence[Part]) -> list[Loaded]:
    """Be killed when all rows are sent."""
    in_threads(load, parts)
    raise KeyboardInterrupt


def _answer(client: Client, entity: str, release: int | None = None) -> tuple[str, Any]:
    ((answer,)) = Reader(client, "flights").lookup([entity], release=release)[1]
    return answer.status, answer.outputs.get("score")


def test_a_version_that_too_few_replicas_have_is_refused_as_often_as_it_is_tried(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lookup.wires._WAIT_SECONDS", 1)
    publisher.publish(staging.run(MONDAY, OLD))
    run_id = staging.run(TUESDAY, NEW)

    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"0 replicas have the rows after 1 s; expected 2 \[STORE_REPLICAS"):
            Publisher(staging.store, table, replicas=2).publish(run_id)

    assert _answer(redis_client, "UA:1") == ("exact", 0.25)
    assert publisher.publish(run_id).outcome is Outcome.LIVE


def test_a_load_that_was_killed_when_all_rows_were_there_is_loaded_and_checked_again(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    run_id = staging.run(MONDAY, OLD)
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=_die).publish(run_id)
    key = bucket_key("flights", 1, bucket_of("UA:7", 4))
    redis_client.hset(key, "UA:7", b"other")
    assert (table.versions(), list(table.unfinished())) == ({}, [1])

    assert publisher.publish(run_id).outcome is Outcome.LIVE

    assert _answer(redis_client, "UA:7") == ("exact", 0.25)
    assert (list(table.versions()), table.unfinished()) == ([1], {})


def test_a_load_in_place_that_was_killed_is_not_trusted_and_made_again(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    run_id = staging.run(MONDAY, OLD)
    publisher.publish(run_id)
    redis_client.delete(bucket_key("flights", 1, 0))
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=_die).publish(run_id)
    assert (list(table.versions()), list(table.unfinished())) == ([1], [1])
    assert _answer(redis_client, "UA:7", release=1) == ("exact", 0.25)  # it is read all the same

    assert publisher.publish(run_id).outcome is Outcome.LIVE

    assert table.unfinished() == {}


def test_a_version_is_not_flipped_to_before_it_is_checked(
    staging: Any, table: RedisTable, redis_client: Client
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=_die).publish(staging.run(MONDAY, OLD))
    (head,) = table.unfinished().values()

    assert table.flip(head) is Flip.GONE
    assert redis_client.get(head_key("flights")) is None


def test_a_flip_says_as_many_entities_as_the_version_has_by_then(table: RedisTable, staging: Any) -> None:
    Publisher(staging.store, table).publish(staging.run(MONDAY, OLD))
    (listed,) = table.versions().values()

    table.flip(listed.model_copy(update={"entities": 999, "token": 9}))

    head = table.head()
    assert head is not None
    assert (head.entities, head.token) == (200, 9)


def test_a_pin_takes_no_version_that_is_still_being_loaded(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=_die).publish(staging.run(TUESDAY, NEW))

    with pytest.raises(InputError, match=r"release 2: no such release; expected one of 1 \[RELEASE_UNKNOWN"):
        _answer(redis_client, "UA:7", release=2)


def test_a_pin_stays_with_the_checked_version_while_its_release_is_loaded_anew(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    run_id = staging.run(MONDAY, OLD)
    publisher.publish(run_id)
    publisher.publish(staging.run(TUESDAY, NEW))
    redis_client.hset(bucket_key("flights", 1, 0), "foreign", b"row")  # so that version 1 is not held whole
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=lambda *_: _die(lambda _: Loaded(0, ()), [])).publish(run_id, force=True)
    assert list(table.unfinished()) == [5]

    assert _answer(redis_client, "UA:7", release=1) == ("exact", 0.25)


def test_priors_are_counted_and_compared_before_a_version_goes_live(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    def lose(load: OfPart, parts: Sequence[Part]) -> list[Loaded]:
        redis_client.hdel(priors_key("flights", 1), "0:AA")
        return in_threads(load, parts)

    run_id = _primed(staging, MONDAY, OLD)
    for _ in range(2):
        with pytest.raises(InputError, match=r"version 1: 1 of 2 priors differ; expected the store's \[STORE_ROWS"):
            Publisher(staging.store, table, spread=lose).publish(run_id)

    assert publisher.publish(run_id).outcome is Outcome.LIVE
    assert _answer(redis_client, "AA:9") == ("prior", 0.125)


def test_a_load_that_is_killed_behind_its_rows_has_its_priors_on_the_next_attempt(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    run_id = _primed(staging, MONDAY, OLD)
    with pytest.raises(KeyboardInterrupt):
        Publisher(staging.store, table, spread=_die).publish(run_id)
    redis_client.delete(priors_key("flights", 1))

    publisher.publish(run_id)

    assert _answer(redis_client, "AA:9") == ("prior", 0.125)


@pytest.mark.parametrize("lost", ["all", "one", "a value"])
def test_lost_priors_are_put_back_by_a_restoration_and_readers_have_them_then(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client, lost: str
) -> None:
    publisher.publish(_primed(staging, MONDAY, OLD))
    key = priors_key("flights", 1)
    if lost == "a value":
        redis_client.hset(key, "0:AA", b"\x91\xcb" + bytes(8))
    else:
        redis_client.hdel(key, "0:AA", *(["0:UA"] if lost == "all" else []))
    reader = Reader(redis_client, "flights")
    before = reader.lookup(["AA:9", "UA:7"])[1]
    assert [(answer.status, answer.outputs.get("score")) for answer in before] == [
        ("prior", 0.0) if lost == "a value" else ("unknown", None),
        ("exact", 0.25),
    ]

    assert publisher.restore().was_whole is False

    assert publisher.restore().was_whole is True
    if lost != "a value":  # a reader keeps the priors of a version once it has all of them
        assert reader.lookup(["AA:9"])[1][0].outputs == {"score": 0.125}
    assert _answer(redis_client, "AA:9") == ("prior", 0.125)


def test_publishing_again_puts_lost_priors_back(staging: Any, publisher: Publisher, redis_client: Client) -> None:
    run_id = _primed(staging, MONDAY, OLD)
    publisher.publish(run_id)
    redis_client.delete(priors_key("flights", 1))

    assert publisher.publish(run_id).outcome is Outcome.LIVE
    assert _answer(redis_client, "AA:9") == ("prior", 0.125)


def test_a_run_that_is_rolled_back_while_its_publication_begins_is_not_rolled_forward_to(
    staging: Any, table: RedisTable, publisher: Publisher, redis_client: Client
) -> None:
    class Meanwhile(RedisTable):
        def preflight(self) -> None:
            publisher.roll_back()

    publisher.publish(staging.run(MONDAY, OLD))
    run_id = staging.run(TUESDAY, NEW)
    publisher.publish(run_id)

    with pytest.raises(RefusedError, match=r"release 2 was rolled back; expected another run, or --force \[ROLLED"):
        Publisher(staging.store, Meanwhile(redis_client, "flights")).publish(run_id)

    assert _answer(redis_client, "UA:7") == ("exact", 0.25)


def test_a_restoration_that_a_publication_follows_at_once_is_no_false_alarm(
    staging: Any, publisher: Publisher, redis_client: Client
) -> None:
    class Followed(RedisTable):
        def flip(self, head: Head, *, allow_older: bool = False) -> Flip:
            flipped = super().flip(head, allow_older=allow_older)
            publisher.publish(staging.run(TUESDAY, NEW))
            return flipped

    publisher.publish(staging.run(MONDAY, OLD))
    redis_client.flushall()

    restored = Publisher(staging.store, Followed(redis_client, "flights")).restore()

    assert (restored.release, restored.was_whole) == (1, False)
    assert _answer(redis_client, "UA:7") == ("exact", 0.5)


@pytest.mark.parametrize("method", ["listpack", "hset"])
def test_a_field_that_is_none_of_the_versions_goes_when_it_is_loaded_in_place(
    staging: Any, publisher: Publisher, redis_client: Client, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    if method == "hset":
        monkeypatch.setattr("lookup.table.method_of", lambda *_: "hset")
    publisher.publish(staging.run(MONDAY, OLD))
    key = bucket_key("flights", 1, 0)
    redis_client.hset(key, "foreign", b"row")

    assert publisher.restore().was_whole is False

    assert not redis_client.hexists(key, "foreign")
    assert publisher.restore().was_whole is True


def test_after_a_rollback_a_whole_table_is_found_whole(staging: Any, publisher: Publisher) -> None:
    publisher.publish(staging.run(MONDAY, OLD))
    publisher.publish(staging.run(TUESDAY, NEW))
    publisher.roll_back()

    assert publisher.restore().was_whole is True
