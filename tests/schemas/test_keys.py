"""The bytes of the lookup table: what goes in comes out, what is foreign is refused, and both stay as they are."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InputError, RowDecodeError
from schemas.head import ColumnSpec, Head, Serving, read_head
from schemas.keys import (
    MAX_ID_BYTES,
    bucket_count,
    bucket_key,
    bucket_of,
    entity_id,
    head_key,
    id_problem,
    prior_field,
    priors_key,
    row_key,
    versions_key,
)
from schemas.row import MAX_COLUMNS, decode_row, encode_rows
from tests.readers.vectors import tables

GOLDEN = Path(__file__).parent.parent / "golden" / "lookup-vectors.json"

COLUMNS = (
    ColumnSpec(name="score", type="float64"),
    ColumnSpec(name="weight", type="float32"),
    ColumnSpec(name="rank", type="int64"),
    ColumnSpec(name="reason", type="string"),
    ColumnSpec(name="model", type="enum", values=("delay-1", "delay-2")),
)
_HEAD = Head(
    table="flights",
    release=2,
    date="2013-07-01",
    version=3,
    token=5,
    buckets=102,
    entities=6500,
    columns=COLUMNS,
    run_id="2013-07-01-0123456789ab",
    scored_at="2013-07-01T04:00:00Z",
    priors=2,
    serving=Serving(
        key=("carrier", "origin"),
        segments=(("carrier", "origin"), ("origin",)),
        default={"score": 0.25},
        stale_after_seconds=129_600,
        drop_after_seconds=259_200,
    ),
)
_STRING_HEAD = _HEAD.model_copy(update={"format": 2, "layout": "string"})
_KEYS: list[list[object]] = [
    ["UA", 1545, "EWR", "2013-07-01"],
    ["a:b", "c"],
    ["a", "b:c"],
    ["a\\", "b"],
    ["a\\:b", "c"],
    ["", "x"],
    ["Zürich", "東京", "🛫"],
    ["e\u0301"],
    ["\u00e9"],
    [" spaces "],
    ["x" * 512],
]
_BUCKETS = (1, 2, 64, 102, 31_250, 4_294_967_296)
_ROWS: list[list[Any]] = [
    [0.25, 0.5, 7, "late", "delay-1"],
    [-0.0, 1.5, -1, "", "delay-2"],
    [1.7976931348623157e308, 3.4028234663852886e38, 2**63 - 1, "x" * 31, "delay-1"],
    [5e-324, 0.0, -(2**63), "x" * 32, "delay-1"],
    [0.1, 0.0, 0, "é 東京 🛫", "delay-2"],
    [None, None, None, None, "delay-1"],
    [float("inf"), float("-inf"), 1, "x" * 256, "delay-1"],
]

_VALUES = st.tuples(
    st.none() | st.floats(allow_nan=False),
    st.none() | st.floats(allow_nan=False, width=32),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.text(st.characters(codec="utf-8")),
    st.sampled_from(("delay-1", "delay-2")),
)


def _each(*strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`given` on a machine that may be busy: no example has a deadline."""
    return lambda test: settings(deadline=None)(given(*strategies)(test))


def _encode(row: Any) -> bytes:
    return encode_rows(COLUMNS, [[value] for value in row])[0]


def _head_vector(head: Head) -> dict[str, Any]:
    return {"fields": head.model_dump(mode="json"), "utf8": head.model_dump_json().encode().hex()}


def _vectors() -> dict[str, Any]:
    ids = [entity_id(key) for key in _KEYS]
    return {
        "entities": [
            {"key": key, "id": entity, "utf8": entity.encode().hex(),
             "bucket": {str(buckets): bucket_of(entity, buckets) for buckets in _BUCKETS}}
            for key, entity in zip(_KEYS, ids, strict=True)
        ],
        "keys": {
            "head": head_key("flights"), "versions": versions_key("flights"), "bucket": bucket_key("flights", 3, 11),
            "row": row_key("flights", 3, ids[0]), "priors": priors_key("flights", 3),
            "prior_field": prior_field(0, ["UA", "E:R"]),
        },
        "head": _head_vector(_HEAD),
        "head_string": _head_vector(_STRING_HEAD),
        "columns": [spec.model_dump(mode="json") for spec in COLUMNS],
        "rows": [
            # JSON has no infinity: it is written as a word.
            {"values": [str(value) if value in (float("inf"), float("-inf")) else value for value in row],
             "bytes": _encode(row).hex()}
            for row in _ROWS
        ],
        "tables": tables(),
    }  # fmt: skip


def test_the_bytes_are_those_of_the_golden_vectors() -> None:
    text = json.dumps(_vectors(), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get("ALMANAC_GOLDEN") == "write":
        GOLDEN.write_text(text)

    assert text == GOLDEN.read_text()


def test_the_golden_vectors_can_be_read_back() -> None:
    golden = json.loads(GOLDEN.read_text())

    assert read_head(bytes.fromhex(golden["head"]["utf8"]), "flights") == _HEAD
    assert read_head(bytes.fromhex(golden["head_string"]["utf8"]), "flights") == _STRING_HEAD
    assert [list(decode_row(COLUMNS, bytes.fromhex(row["bytes"])).values()) for row in golden["rows"]] == _ROWS


def test_a_row_is_a_messagepack_array_of_fixed_widths() -> None:
    assert _encode([0.25, 0.5, 7, "late", "delay-2"]).hex(" ", 1) == (
        "95 cb 3f d0 00 00 00 00 00 00 ca 3f 00 00 00 d3 00 00 00 00 00 00 00 07 a4 6c 61 74 65 01"
    )


@_each(_VALUES)
def test_a_row_reads_back_as_it_was_written(row: Any) -> None:
    assert tuple(decode_row(COLUMNS, _encode(row)).values()) == row


@_each(st.lists(_VALUES, max_size=20))
def test_many_rows_are_encoded_as_each_alone(rows: list[Any]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in COLUMNS]

    assert encode_rows(COLUMNS, columns) == [_encode(row) for row in rows]


@_each(_VALUES)
def test_any_reader_of_messagepack_sees_the_same_values(row: Any) -> None:
    *values, model = msgpack.unpackb(_encode(row))

    assert (*values, COLUMNS[-1].values[model]) == row


@_each(_VALUES, st.data())
def test_a_row_cut_short_is_refused(row: Any, data: st.DataObject) -> None:
    raw = _encode(row)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]

    with pytest.raises(RowDecodeError, match="ROW_DECODE"):
        decode_row(COLUMNS, cut)


@_each(_VALUES, st.binary(min_size=1, max_size=9))
def test_a_row_with_bytes_behind_it_is_refused(row: Any, rest: bytes) -> None:
    with pytest.raises(RowDecodeError, match="ROW_DECODE"):
        decode_row(COLUMNS, _encode(row) + rest)


@_each(st.binary(max_size=200))
def test_foreign_bytes_are_refused_or_are_a_row_of_these_very_types(raw: bytes) -> None:
    try:
        row = decode_row(COLUMNS, raw)
    except RowDecodeError:
        return
    kinds = [(value is None) or type(value) for value in row.values()]
    assert all(kind in (True, wanted) for kind, wanted in zip(kinds, (float, float, int, str, str), strict=True))


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([0.25, 0.5, 7, "late"], "not an array of 5"),
        ([0.25, 0.5, 7, "late", 0, 0], "not an array of 5"),
        ({"score": 0.25}, "not an array of 5"),
        (None, "not an array of 5"),
        ([1, 0.5, 7, "late", 0], "score: int where float64 was declared"),
        ([True, 0.5, 7, "late", 0], "score: bool where float64 was declared"),
        ([0.25, "0.5", 7, "late", 0], "weight: str where float32 was declared"),
        ([0.25, 0.5, 7.0, "late", 0], "rank: float where int64 was declared"),
        ([0.25, 0.5, True, "late", 0], "rank: bool where int64 was declared"),
        ([0.25, 0.5, 2**63, "late", 0], "rank: 9223372036854775808 is no int64"),
        ([0.25, 0.5, 7, b"late", 0], "reason: bytes where string was declared"),
        ([0.25, 0.5, 7, ["late"], 0], "reason: list where string was declared"),
        ([0.25, 0.5, 7, "late", 2], "model: no value of index 2"),
        ([0.25, 0.5, 7, "late", -1], "model: no value of index -1"),
        ([0.25, 0.5, 7, "late", True], "model: no value of index True"),
        ([0.25, 0.5, 7, "late", None], "model: no value of index None"),
        ([0.25, 0.5, 7, "late", "delay-1"], "model: no value of index 'delay-1'"),
    ],
)
def test_a_row_of_other_columns_is_refused(values: Any, why: str) -> None:
    with pytest.raises(RowDecodeError, match=f"{why}; expected a row of this version"):
        decode_row(COLUMNS, msgpack.packb(values))


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x95\xa1\xff", b"\x81\xc0\xc0", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000]
)
def test_bytes_that_are_no_messagepack_are_refused(raw: bytes) -> None:
    with pytest.raises(RowDecodeError, match="ROW_DECODE"):
        decode_row(COLUMNS, raw)


@pytest.mark.parametrize("count", [0, MAX_COLUMNS + 1])
def test_a_row_has_one_to_fifteen_columns(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} columns; a row has 1 to 15"):
        encode_rows([COLUMNS[0]] * count, [[0.5]] * count)


def test_a_number_that_a_column_cannot_hold_is_not_cut_to_fit() -> None:
    with pytest.raises(struct.error):
        encode_rows([COLUMNS[2]], [[2**63]])


_KEY_PARTS = st.text(st.sampled_from("ab:\\ é"), max_size=5)


@_each(st.lists(_KEY_PARTS, min_size=2, max_size=3), st.lists(_KEY_PARTS, min_size=2, max_size=3))
def test_different_keys_have_different_ids(one: list[str], other: list[str]) -> None:
    assert (entity_id(one) == entity_id(other)) == (one == other)


@_each(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(1, 10**6))
def test_a_bucket_is_one_of_the_versions(entity: str, buckets: int) -> None:
    assert 0 <= bucket_of(entity, buckets) < buckets


@pytest.mark.parametrize(("entities", "buckets"), [(0, 1), (1, 1), (64, 1), (65, 2), (2_000_000, 31_250)])
def test_a_bucket_has_64_entities_on_average(entities: int, buckets: int) -> None:
    assert bucket_count(entities) == buckets


@pytest.mark.parametrize(
    ("entity", "problem"),
    [
        ("UA:1545:EWR:2013-07-01", None),
        ("é" * (MAX_ID_BYTES // 2), None),
        ("", "is blank"),
        (" \t", "is blank"),
        ("é" * (MAX_ID_BYTES // 2 + 1), "is 514 bytes long, the limit is 512"),
        ("\ud800", "is not valid Unicode (a lone surrogate)"),
        ("a\x00b", "has a control character"),
        ("a\x7fb", "has a control character"),
    ],
)
def test_what_an_entity_id_may_be(entity: str, problem: str | None) -> None:
    assert id_problem(entity) == problem


def test_a_head_reads_back_as_it_was_written() -> None:
    assert read_head(_HEAD.model_dump_json().encode(), "flights") == _HEAD


def test_a_head_may_say_more_than_this_reader_knows() -> None:
    more = json.dumps(_HEAD.model_dump(mode="json") | {"shards": 4})

    assert read_head(more.encode(), "flights") == _HEAD


@pytest.mark.parametrize(
    "changes", [{"version": 0}, {"token": 0}, {"buckets": 0}, {"entities": -1}, {"layout": "packed"}, {"columns": None}]
)
def test_a_head_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    raw = json.dumps(_HEAD.model_dump(mode="json") | changes).encode()

    with pytest.raises(InputError, match="STORE_POINTER_FORMAT"):
        read_head(raw, "flights")


@_each(st.binary(max_size=60))
def test_bytes_that_are_no_head_are_refused(raw: bytes) -> None:
    with pytest.raises(InputError, match=r"almanac:\{flights\}:head: not a head.*STORE_POINTER_FORMAT"):
        read_head(raw, "flights")


def test_a_head_of_a_newer_format_is_refused() -> None:
    newer = _HEAD.model_copy(update={"format": 3}).model_dump_json().encode()

    with pytest.raises(InputError, match=r"format 3; expected at most 2; upgrade this reader \[FORMAT_TOO_NEW\]"):
        read_head(newer, "flights")
