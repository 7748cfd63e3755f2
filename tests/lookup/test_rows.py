"""Rows of whole columns, held to the row by row encoding that readers are written against."""

import datetime as dt
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lookup.rows import Chunk, FilePart, Row, StoredRows, checksum, encode_values, fixed, flat
from schemas.errors import InputError, UnavailableError
from schemas.head import ColumnSpec
from schemas.keys import bucket_of
from schemas.row import decode_row, encode_rows

_ARROW = {"float64": pa.float64(), "float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}
_FEW = tuple(f"model-{number}" for number in range(128))
_MANY = tuple(f"model-{number}" for number in range(300))


def _values(spec: ColumnSpec) -> st.SearchStrategy[Any]:
    if spec.type == "enum":
        return st.sampled_from(spec.values)
    return st.none() | {
        "float64": st.floats(),
        "float32": st.floats(width=32),
        "int64": st.integers(-(2**63), 2**63 - 1),
        "string": st.text(max_size=40),
    }[spec.type]  # fmt: skip


@st.composite
def _tables(draw: st.DrawFn) -> tuple[list[ColumnSpec], list[list[Any]]]:
    kinds = draw(st.lists(st.sampled_from([*_ARROW, "few", "many"]), min_size=1, max_size=15))
    enums = {"few": _FEW, "many": _MANY}
    specs = [
        ColumnSpec(name=f"c{i}", type="enum" if kind in enums else kind, values=enums.get(kind, ()))
        for i, kind in enumerate(kinds)
    ]
    rows = draw(st.integers(0, 12))
    return specs, [draw(st.lists(_values(spec), min_size=rows, max_size=rows)) for spec in specs]


def _arrays(specs: list[ColumnSpec], values: list[list[Any]]) -> list[Any]:
    return [pa.array(column, _ARROW.get(spec.type, pa.string())) for spec, column in zip(specs, values, strict=True)]


@settings(deadline=None)
@given(_tables())
@example(([ColumnSpec(name="x", type="float64")], [[math.nan, math.inf, -math.inf, -0.0, None, 5e-324]]))
@example(([ColumnSpec(name="x", type="float32")], [[None, 3.4028234663852886e38, math.nan, -0.0]]))
@example(([ColumnSpec(name="x", type="int64")], [[-(2**63), 2**63 - 1, 0, None, -1]]))
@example(([ColumnSpec(name="x", type="int64")], [[None, None]]))
@example(([ColumnSpec(name="x", type="enum", values=_MANY)], [["model-0", "model-127", "model-128", "model-299"]]))
@example(([ColumnSpec(name="x", type="string")], [["", "x" * 31, "x" * 32, "x" * 70_000, "ä☃", None]]))
def test_whole_columns_are_the_same_bytes_as_rows_one_by_one(table: tuple[list[ColumnSpec], list[list[Any]]]) -> None:
    specs, values = table

    found = encode_values(specs, _arrays(specs, values)).to_pylist()

    assert found == encode_rows(specs, values)


@settings(deadline=None)
@given(_tables())
def test_what_is_encoded_is_what_a_reader_decodes(table: tuple[list[ColumnSpec], list[list[Any]]]) -> None:
    specs, values = table

    decoded = [decode_row(specs, value) for value in encode_values(specs, _arrays(specs, values)).to_pylist()]

    wanted = [dict(zip([spec.name for spec in specs], row, strict=True)) for row in zip(*values, strict=True)]
    assert [_comparable(row) for row in decoded] == [_comparable(row) for row in wanted]


def _comparable(row: dict[str, Any]) -> dict[str, str]:
    """NaN equals itself, and -0.0 is not 0.0."""
    return {name: repr(value) for name, value in row.items()}


def test_a_part_of_an_array_is_encoded_as_that_part() -> None:
    specs = [ColumnSpec(name="x", type="float64"), ColumnSpec(name="m", type="enum", values=_FEW)]
    whole = [pa.array([1.0, None, 3.0, 4.0]), pa.array(["model-3", "model-2", "model-1", "model-0"])]

    found = encode_values(specs, [array.slice(1, 2) for array in whole]).to_pylist()

    assert found == encode_rows(specs, [[None, 3.0], ["model-2", "model-1"]])


@pytest.mark.parametrize(("values", "found"), [(["model-0", "else"], "else"), (["model-0", None], "null|None")])
def test_a_value_that_was_not_declared_is_named(values: list[Any], found: str) -> None:
    spec = ColumnSpec(name="model", type="enum", values=("model-0", "model-1"))

    with pytest.raises(InputError, match=rf"column model: ({found}); expected one of model-0, model-1 \[ROW_VALUE\]"):
        encode_values([spec], [pa.array(values, pa.string())])


@pytest.mark.parametrize("columns", [0, 16])
def test_a_row_has_1_to_15_columns(columns: int) -> None:
    specs = [ColumnSpec(name=f"c{number}", type="int64") for number in range(columns)]

    with pytest.raises(ValueError, match=f"{columns} columns"):
        encode_values(specs, [pa.array([1])] * columns)


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(0, 5))
def test_a_matrix_becomes_rows_of_its_width(rows: int, width: int) -> None:
    matrix = np.arange(rows * width, dtype=np.uint8).reshape(rows, width)

    assert fixed(matrix).to_pylist() == [bytes(row) for row in matrix]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=5)), st.data())
def test_the_bytes_and_bounds_of_an_array_are_those_of_its_strings(strings: list[bytes], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(strings)))

    found, offsets = flat(pa.array(strings, pa.binary()).slice(start))

    assert [bytes(found[a:b]) for a, b in pairwise(offsets)] == strings[start:]


def test_a_run_is_read_as_it_was_written(staging: Any) -> None:
    scores = {f"UA:{number}": number / 4 for number in range(200)}
    manifest = staging.store.manifest(staging.run(dt.date(2013, 7, 1), scores))
    rows = StoredRows(staging.store, manifest)

    found = list(rows)

    assert {each.entity: decode_row(rows.columns, each.value)["score"] for each in found} == scores
    order = [(bucket_of(each.entity, manifest.buckets), each.entity) for each in found]
    assert order == sorted(order)


def test_a_file_that_is_gone_is_told_with_what_may_have_happened(tmp_path: Path) -> None:
    part = FilePart(tmp_path / "part-00000.parquet", (ColumnSpec(name="score", type="float64"),))

    with pytest.raises(UnavailableError, match=r"part-00000.parquet: no such file.*OUT_NOT_FOUND"):
        part.read()


def test_an_undeclared_model_in_a_file_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"entity_id": ["UA:1"], "model": ["other"]}), tmp_path / "p.parquet")

    with pytest.raises(InputError, match=r"column model: other; expected one of delay-1 \[ROW_VALUE\]"):
        FilePart(tmp_path / "p.parquet", (ColumnSpec(name="model", type="enum", values=("delay-1",)),)).read()


def test_the_checksum_tells_where_an_id_ends_and_its_value_begins() -> None:
    assert checksum([(b"UA:1", b"\x01")]) != checksum([(b"UA:", b"1\x01")])
    assert checksum([(b"a", b""), (b"b", b"")]) != checksum([(b"b", b""), (b"a", b"")])
    assert checksum([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_chunk_is_its_rows() -> None:
    chunk = Chunk(pa.array([b"\xc3\xa4", b"UA:1545:EWR:2013-07-01"]), pa.array([b"\x90", b"\x91"]))

    assert list(chunk) == [Row("ä", b"\x90"), Row("UA:1545:EWR:2013-07-01", b"\x91")]
    assert chunk.buckets(102).tolist()[1] == 11


def test_a_class_is_kept_as_its_place_and_read_as_its_name() -> None:
    columns = [ColumnSpec(name="p", type="float64"), ColumnSpec(name="class", type="float64", values=("early", "late"))]
    raws = encode_rows(columns, [[0.25, 0.5], [1.0, None]])
    assert [decode_row(columns, raw) for raw in raws] == [{"p": 0.25, "class": "late"}, {"p": 0.5, "class": None}]


@pytest.mark.parametrize("place", [2.0, -1.0, 0.5, math.nan])
def test_a_class_that_is_not_among_the_names_is_no_row(place: float) -> None:
    columns = [ColumnSpec(name="class", type="float64", values=("early", "late"))]
    with pytest.raises(InputError, match=r"class: no value of index .* \[ROW_DECODE\]"):
        decode_row(columns, encode_rows(columns, [[place]])[0])
