"""The quick way to answer many gives what the careful way gives to each."""

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup.fallback import Seen
from schemas.errors import RowDecodeError
from schemas.head import ColumnSpec, Head, Serving
from schemas.row import encode_rows

ROUTE = (
    ColumnSpec(name="model", type="enum", values=("m1", "m2")),
    ColumnSpec(name="variant", type="enum", values=("champion", "challenger")),
    ColumnSpec(name="status", type="enum", values=("scored", "carried", "withheld")),
)
OUTPUTS: dict[str, tuple[ColumnSpec, ...]] = {
    "a double": (ColumnSpec(name="score", type="float64"),),
    "two doubles": (ColumnSpec(name="low", type="float64"), ColumnSpec(name="high", type="float64")),
    "a class": (ColumnSpec(name="kind", type="enum", values=("a", "b")),),
    "a double and a class": (
        ColumnSpec(name="score", type="float64"),
        ColumnSpec(name="kind", type="enum", values=("a", "b")),
    ),
    "a float": (ColumnSpec(name="score", type="float32"),),
    "a float and a double": (ColumnSpec(name="low", type="float32"), ColumnSpec(name="high", type="float64")),
    "a number": (ColumnSpec(name="count", type="int64"),),
}
OWN_TIME = ColumnSpec(name="scored_at", type="int64")
SCORED_AT = 1_372_651_200.0
IDS = ["UA:1", "UA:2", "UA:3"]


def seen(columns: tuple[ColumnSpec, ...]) -> Seen:
    serving = Serving(default={"score": 0.5}, stale_after_seconds=100, drop_after_seconds=1000)
    head = Head(
        table="flights", release=3, date="2013-07-01", version=3, token=3, buckets=1, entities=3, columns=columns,
        run_id="r", scored_at="2013-07-01T04:00:00Z", serving=serving,
    )  # fmt: skip
    return Seen(head)


def values(spec: ColumnSpec) -> "st.SearchStrategy[Any]":
    if spec.type == "enum":
        return st.sampled_from(spec.values)
    if spec.type == "int64":
        return st.none() | st.integers(1_372_000_000, 1_372_651_200)
    return st.none() | st.floats(allow_nan=False, width=32)


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("own_times", [False, True])
@given(data=st.data())
def test_many_are_answered_as_each_is(outputs: tuple[ColumnSpec, ...], own_times: bool, data: st.DataObject) -> None:
    columns = (*outputs, *ROUTE, *([OWN_TIME] if own_times else []))
    rows: list[bytes | None] = list(encode_rows(columns, [[data.draw(values(spec)) for _ in IDS] for spec in columns]))
    rows[data.draw(st.integers(0, 2))] = data.draw(st.sampled_from([None, rows[0]]))
    now = SCORED_AT + data.draw(st.sampled_from([0.0, 99.5, 100.0, 1000.0, 5000.0]))
    table = seen(columns)

    assert table.answers(IDS, rows, now) == [table.answer(*each, now) for each in zip(IDS, rows, strict=True)]


@pytest.mark.parametrize("outputs", OUTPUTS.values(), ids=OUTPUTS)
@given(data=st.data())
def test_what_is_encoded_at_once_are_the_bytes_of_each(outputs: tuple[ColumnSpec, ...], data: st.DataObject) -> None:
    columns = (*outputs, *ROUTE)
    ids = data.draw(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=5))
    rows: list[bytes | None] = list(encode_rows(columns, [[data.draw(values(spec)) for _ in ids] for spec in columns]))
    rows[-1] = data.draw(st.sampled_from([None, rows[-1], rows[0]]))
    now = SCORED_AT + data.draw(st.sampled_from([0.0, 99.5, 100.0, 1000.0, 5000.0]))
    table = seen(columns)
    answers = table.answers(ids, rows, now)

    if together := table.encoded(ids, rows, now):
        assert b"[%b]" % together[0] == msgspec.json.encode(answers)
        assert {answer.status for answer in answers} == {together[1]}
    if alone := table.encoded_each(ids, rows, now):
        for found, row, answer in zip(alone[0], rows, answers, strict=True):
            assert found is None or (found, alone[1]) == (msgspec.json.encode(answer), answer.status)
            assert found is not None or together is None or row is None


@pytest.mark.parametrize("outputs", ["a double", "two doubles", "a float"])
def test_plain_rows_that_were_scored_are_encoded_at_once_and_no_others(outputs: str) -> None:
    columns = (*OUTPUTS[outputs], *ROUTE)

    def rows(status: str) -> list[bytes]:
        numbers = [[0.25, float("nan")] for _ in OUTPUTS[outputs]]
        return encode_rows(columns, [*numbers, ["m1", "m2"], ["champion"] * 2, ["scored", status]])

    table, ids = seen(columns), ['a","b', "\\"]
    scored, carried = rows("scored"), rows("carried")

    for odd in (ids, ['a",', "b"], ['",', '",'], ["\\", '"']):
        together = table.encoded(odd, scored, SCORED_AT)
        assert together == (msgspec.json.encode(table.answers(odd, scored, SCORED_AT))[1:-1], "exact")
    assert table.encoded(ids, carried, SCORED_AT) is None
    assert table.encoded(ids, [scored[0], None], SCORED_AT) is None
    assert table.encoded(ids, [scored[0], scored[1] + b"\x00"], SCORED_AT) is None
    assert table.encoded(ids, [scored[0], b"\x9f" + scored[1][1:]], SCORED_AT) is None
    assert table.encoded(ids, scored, SCORED_AT + 1000) is None
    assert table.encoded_each(ids, scored, SCORED_AT + 1000) is None


@pytest.mark.parametrize("outputs", ["a double", "two doubles", "a float"])
def test_of_rows_of_any_kind_each_plain_one_is_encoded(outputs: str) -> None:
    columns, table = (*OUTPUTS[outputs], *ROUTE), seen((*OUTPUTS[outputs], *ROUTE))
    numbers = [[0.25] * 40 for _ in OUTPUTS[outputs]]
    status = ["carried" if at % 7 == 3 else "scored" for at in range(40)]
    rows: list[bytes | None] = list(encode_rows(columns, [*numbers, ["m1", "m2"] * 20, ["champion"] * 40, status]))
    rows[5::9] = [None] * len(rows[5::9])
    rows[4] = b"\x9f"
    ids = [f"UA:{at}" for at in range(40)]
    found = table.encoded_each(ids, rows, SCORED_AT)

    assert found is not None
    for at, (body, row) in enumerate(zip(found[0], rows, strict=True)):
        is_plain = row is not None and at != 4 and status[at] == "scored"
        assert body == (msgspec.json.encode(table.answer(ids[at], row, SCORED_AT)) if is_plain else None)


@pytest.mark.parametrize(
    "row",
    [
        b"\x94\xcb" + struct.pack(">d", 0.5) + b"\x00\x00\x03",  # no such status
        b"\x94\xcb" + struct.pack(">d", 0.5) + b"\x02\x00\x00",
        b"\x94\xca" + struct.pack(">d", 0.5) + b"\x00\x00\x00",
        b"\x93\xcb" + struct.pack(">d", 0.5) + b"\x00\x00\x00",
        b"\x94\xcb" + struct.pack(">d", 0.5) + b"\x00\x00",
        b"\x94\xcb" + struct.pack(">d", 0.5) + b"\x00\x00\xc0",
        b"",
    ],
)
def test_a_row_that_does_not_fit_is_refused_either_way(row: bytes) -> None:
    table = seen((*OUTPUTS["a double"], *ROUTE))
    with pytest.raises(RowDecodeError):
        table.answers(["UA:1"], [row], SCORED_AT)
