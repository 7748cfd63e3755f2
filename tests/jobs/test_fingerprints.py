"""A fingerprint tells whether a row changed, however its batch came to be."""

import datetime as dt
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.fingerprints import drawn, fingerprints

ROW = st.tuples(
    st.one_of(st.none(), st.floats(allow_nan=True)),
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.none(), st.text(max_size=20)),
    st.one_of(st.none(), st.dates()),
)
KINDS = [pa.float64(), pa.int64(), pa.bool_(), pa.string(), pa.date32()]


def batch(rows: list[Any]) -> pa.RecordBatch:
    columns = [pa.array([row[at] for row in rows], kind) for at, kind in enumerate(KINDS)]
    return pa.RecordBatch.from_arrays(columns, names=["x", "n", "b", "word", "day"])


def bits(row: Any) -> Any:
    return tuple(struct.pack("<d", value) if isinstance(value, float) else value for value in row)


@given(rows=st.lists(ROW, min_size=2, max_size=6))
def test_rows_have_the_same_fingerprint_where_they_are_the_same(rows: list[Any]) -> None:
    found = fingerprints(batch(rows)).tolist()
    for one, mine in zip(rows, found, strict=True):
        for other, yours in zip(rows, found, strict=True):
            assert (mine == yours) == (bits(one) == bits(other))


@given(rows=st.lists(ROW, max_size=8), at=st.integers(0, 8))
def test_neither_the_batch_nor_a_dictionary_changes_a_fingerprint(rows: list[Any], at: int) -> None:
    whole = batch(rows)
    found = fingerprints(whole)
    for part, mine in ((whole.slice(0, at), found[:at]), (whole.slice(at), found[at:])):
        assert fingerprints(part).tolist() == mine.tolist()
    coded = pc.dictionary_encode(whole.column("word"))
    assert fingerprints(whole.set_column(3, "word", coded)).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pa.array([None], pa.float64()), pa.array([float("nan")])),
        (pa.array([0.0]), pa.array([-0.0])),
        (pa.array([None], pa.float64()), pa.array([0.0])),
        (pa.array([None], pa.string()), pa.array([""])),
        (pa.array(["a"]), pa.array(["a\0"])),
        (pa.array(["12345678"]), pa.array(["12345678\0"])),
        (pa.array([[1]]), pa.array([[2]])),
        (pa.array([dt.datetime(2013, 1, 1)]), pa.array([dt.datetime(2013, 1, 2)])),
    ],
)
def test_what_looks_alike_has_another_fingerprint(before: pa.Array, after: pa.Array) -> None:
    first, second = (fingerprints(pa.RecordBatch.from_arrays([column], names=["a"]))[0] for column in (before, after))
    assert first != second


def test_values_that_change_places_change_the_fingerprint() -> None:
    first, second = fingerprints(pa.record_batch({"a": [1.0, 2.0], "b": [2.0, 1.0]}))
    assert first != second


def test_many_rows_have_as_many_fingerprints_and_a_fair_share_is_drawn() -> None:
    ids = pa.array([f"account-{number:09}" for number in range(100_000)])
    found = fingerprints(pa.record_batch({"id": ids, "x": pa.array(np.zeros(100_000))}))
    assert len(np.unique(found)) == len(found)
    first, second = drawn(found, 0.01, 1), drawn(found, 0.01, 2)
    assert 850 < first.sum() < 1150  # five standard deviations
    assert 850 < second.sum() < 1150
    assert (first & second).sum() < 40
    assert drawn(found, 1.0, 3).all()
