"""The lane of one table over a Redis that answers when the test says so."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lookup import lane as lane_module
from lookup.breaker import Breaker
from lookup.coalesce import Lookups
from lookup.follower import Found
from lookup.lane import Lane, Plain
from lookup.message import Response
from lookup.metrics import Metrics
from lookup.resp import Request
from lookup.served import Flagged, Outcome, ServedTable
from schemas.errors import InputError, Problem, UnavailableError
from schemas.head import ColumnSpec, Head, Serving
from schemas.row import encode_rows

COLUMNS = (
    ColumnSpec(name="score", type="float64"),
    ColumnSpec(name="model", type="enum", values=("m1",)),
    ColumnSpec(name="variant", type="enum", values=("champion",)),
    ColumnSpec(name="status", type="enum", values=("scored", "carried")),
)
HEAD = Head(
    table="flights", release=4, date="2013-07-01", version=14, token=14, buckets=1, entities=2, columns=COLUMNS,
    run_id="r", scored_at="2013-07-01T04:00:00Z",
)  # fmt: skip
ROW, CARRIED = encode_rows(COLUMNS, [[0.25, 0.5], ["m1", "m1"], ["champion"] * 2, ["scored", "carried"]])
RAW = HEAD.model_dump_json().encode()
AWAY = UnavailableError(Problem("STORE_DOWN", "redis", "refused", "a Redis"))


class Redis:
    """What is asked of it waits for `reply`."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def send(self, *requests: Request) -> None:
        self.asked += requests

    def close(self) -> None: ...

    def reply(self, *rows: Any) -> None:
        """Answer the oldest request: with these rows and the head, or with the one exception."""
        request = self.asked.pop(0)
        request.done(rows[0] if len(rows) == 1 and isinstance(rows[0], Exception) else [*rows, RAW])


class Asker:
    def __init__(self) -> None:
        self.said: list[bytes | Response] = []
        self.keeps = True

    def keep(self, response: bytes) -> bool:
        if self.keeps:
            self.said.append(response)
        return self.keeps

    def send(self, response: Response) -> None:
        self.said.append(response)

    @property
    def ids(self) -> list[str]:
        return [json.loads(each.partition(b"\r\n\r\n")[2])["id"] for each in self.said if isinstance(each, bytes)]


class Place:
    """A lane, and what it did not answer itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = 1000.0
        self._loop = loop
        self.redis = Redis()
        self.lookups = Lookups(self.redis, loop=loop)
        breaker = Breaker(clock=lambda: self.now)
        self.metrics = Metrics()
        self.table = ServedTable("flights", Serving(), self.lookups, breaker)
        self.others: list[tuple[str, Outcome]] = []
        self.lane = Lane(self.table, self.lookups, self.metrics, self._otherwise)
        self.take("first")
        self.redis.reply()  # the head
        self.tick()
        self.redis.reply(ROW)

    def _otherwise(self, table: str, plain: Plain, outcome: Outcome) -> None:
        self.others.append((plain.entity, outcome))
        plain.asker.send(Response(200, b"", b""))

    def take(self, *ids: str) -> list[Asker]:
        """Ask in one tick, and let it end."""
        askers = [Asker() for _ in ids]
        for asker, entity in zip(askers, ids, strict=True):
            self.lane.take(asker, entity)
        self.tick()
        return askers

    def tick(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0))

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.take("down")
            self.redis.reply(UnavailableError(AWAY.problems[0]))


@pytest.fixture
def place() -> Iterator[Place]:
    loop = asyncio.new_event_loop()
    try:
        yield Place(loop)
    finally:
        loop.close()


def test_lookups_of_a_tick_are_one_request_and_each_is_answered(place: Place) -> None:
    askers = place.take("a", "b", "c")

    (request,) = place.redis.asked
    assert len(request.commands) == 4  # and the head
    place.redis.reply(ROW, ROW, ROW)
    assert [asker.ids for asker in askers] == [["a"], ["b"], ["c"]]
    assert place.others == []


def test_what_is_not_plain_goes_the_general_way_with_its_own_row(place: Place) -> None:
    askers = place.take("a", "gone", "late", "b")
    askers[3].keeps = False
    place.redis.reply(ROW, None, CARRIED, ROW)

    assert askers[0].ids == ["a"]
    assert [(entity, list(found.rows)) for entity, found in place.others if isinstance(found, Found)] == [
        ("gone", [None]),
        ("late", [CARRIED]),
        ("b", [ROW]),
    ]


def test_an_error_of_one_row_is_not_that_of_the_others(place: Place) -> None:
    askers = place.take("lost", "a", "wrong")
    wrong = InputError(Problem("STORE_TYPE", "a key", "another type", "a hash"))
    place.redis.reply(AWAY, ROW, wrong)

    outcomes = dict(place.others)
    assert isinstance(outcomes["lost"], Flagged)
    assert [answer.id for answer in outcomes["lost"].answers] == ["lost"]
    assert isinstance(outcomes["a"], Found)
    assert list(outcomes["a"].rows) == [ROW]
    assert outcomes["wrong"] is wrong
    assert [len(asker.said) for asker in askers] == [1, 1, 1]
    assert not place.table.is_open


def test_rows_of_a_master_that_is_away_do_not_open_the_circuit_of_the_others(place: Place) -> None:
    for _ in range(5):
        place.take("lost", "a")
        place.redis.reply(UnavailableError(AWAY.problems[0]), ROW)

    assert not place.table.is_open


def test_who_asks_while_the_probe_is_on_its_way_does_not_lose_those_after_it(place: Place) -> None:
    place.fail(3)
    assert place.table.is_open
    place.now += 2
    (probe,) = place.take("probe")
    (flagged,) = place.take("meanwhile")
    assert len(flagged.said) == 1
    place.redis.reply(ROW)
    assert not place.table.is_open
    after = place.take("a", "b")
    place.redis.reply(ROW, ROW)

    assert (probe.ids, [asker.ids for asker in after]) == (["probe"], [["a"], ["b"]])


def test_while_the_circuit_is_open_one_is_let_through_and_all_others_are_flagged_at_once(place: Place) -> None:
    place.fail(3)
    place.now += 2
    askers = place.take("probe", "a", "b")

    assert [len(asker.said) for asker in askers] == [0, 1, 1]
    assert len(place.redis.asked) == 1


def test_a_tick_of_very_many_is_sent_in_several_requests(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_module, "IDS_AT_ONCE", 3)
    askers = place.take(*map(str, range(8)))

    assert [len(request.commands) - 1 for request in place.redis.asked] == [3, 3, 2]
    for count in (3, 3, 2):
        place.redis.reply(*[ROW] * count)
    assert [asker.ids for asker in askers] == [[str(at)] for at in range(8)]


def test_a_defect_of_ours_leaves_nobody_without_an_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("a defect")

    askers = place.take("a", "b")
    monkeypatch.setattr(type(place.table._follower.seen), "encoded_each", fails)
    place.redis.reply(ROW, ROW)

    assert [entity for entity, _ in place.others] == ["a", "b"]
    assert [len(asker.said) for asker in askers] == [1, 1]
    assert "KeyError" in caplog.text


def test_one_that_cannot_be_answered_is_not_the_end_of_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    otherwise: Callable[..., None] = place._otherwise

    def fails(table: str, plain: Plain, outcome: Outcome) -> None:
        if plain.entity == "a":
            raise KeyError("a defect")
        otherwise(table, plain, outcome)

    monkeypatch.setattr(place.lane, "_otherwise", fails)
    place.take("a", "b")
    place.redis.reply(None, None)

    assert [entity for entity, _ in place.others] == ["b"]
    assert "KeyError" in caplog.text


def test_nothing_is_counted_where_nothing_was_answered(place: Place) -> None:
    before = place.metrics._ended
    place.metrics.flush()
    place.take("gone")
    place.redis.reply(None)

    assert place.metrics._ended is not before
    assert not place.metrics._ended
