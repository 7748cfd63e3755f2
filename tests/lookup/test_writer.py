"""A file's bytes follow from its rows; a file is there whole or not at all."""

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup.writer import ROW_GROUP_ROWS, SteadyWriter, write_rows
from schemas.content import sha256_file
from schemas.run import DataFile

SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float64()), ("model", pa.string())])


def rows(count: int) -> pa.RecordBatch:
    ids = [f"id-{n % 977}" * (n % 3) for n in range(count)]
    scores = [None if n % 7 == 0 else n / 3 for n in range(count)]
    return pa.record_batch([pa.array(ids), pa.array(scores, pa.float64()), pa.array(["m"] * count)], schema=SCHEMA)


def write(folder: Path, batch: pa.RecordBatch, cuts: list[int]) -> DataFile:
    edges = [0, *sorted(cuts), batch.num_rows]
    return write_rows(folder, "part.parquet", SCHEMA, (batch.slice(a, b - a) for a, b in pairwise(edges)))


@given(cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_batches_leave_no_trace(cuts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, batch = tmp_path_factory.mktemp("out"), rows(3000)
    assert write(folder / "a", batch, cuts).sha256 == write(folder / "b", batch, []).sha256


def test_batches_leave_no_trace_across_row_groups(tmp_path: Path) -> None:
    batch = rows(2 * ROW_GROUP_ROWS + 5)
    whole = write(tmp_path / "a", batch, [])
    cut = write(tmp_path / "b", batch, [1, 1000, ROW_GROUP_ROWS - 1, ROW_GROUP_ROWS, ROW_GROUP_ROWS + 1, 100_000])
    assert (whole.sha256, whole.rows) == (cut.sha256, batch.num_rows)
    metadata = pq.read_metadata(tmp_path / "b" / "part.parquet")
    assert [metadata.row_group(n).num_rows for n in range(3)] == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 5]
    assert pq.read_table(tmp_path / "b" / "part.parquet").equals(pa.Table.from_batches([batch]))


def test_the_record_is_of_the_file_as_it_lies_there(tmp_path: Path) -> None:
    file = write(tmp_path / "predictions", rows(10), [4])
    path = tmp_path / file.path
    assert file.path == "predictions/part.parquet"
    assert (file.rows, file.size_bytes, file.sha256) == (10, path.stat().st_size, sha256_file(path))
    assert os.listdir(path.parent) == ["part.parquet"]  # noqa: PTH208  # hidden files count too


@pytest.mark.parametrize("batches", [[], [rows(0)], [rows(0), rows(0)]], ids=["none", "an empty one", "two empty ones"])
def test_no_rows_are_a_file_of_no_rows(batches: list[pa.RecordBatch], tmp_path: Path) -> None:
    assert write_rows(tmp_path / "a", "f", SCHEMA, batches).sha256 == write_rows(tmp_path / "b", "f", SCHEMA, []).sha256
    assert pq.read_table(tmp_path / "a" / "f").num_rows == 0


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    def killed() -> Iterator[pa.RecordBatch]:
        yield rows(ROW_GROUP_ROWS + 1)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_rows(tmp_path, "f", SCHEMA, killed())
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_schema_leave_the_old_file_alone(tmp_path: Path) -> None:
    old = write(tmp_path, rows(3), [])
    with pytest.raises(pa.ArrowInvalid):
        write_rows(tmp_path, "part.parquet", SCHEMA, [pa.record_batch({"id": ["a"]})])
    assert [path.name for path in tmp_path.iterdir()] == ["part.parquet"]
    assert sha256_file(tmp_path / "part.parquet") == old.sha256


def test_a_writer_that_is_not_finished_names_no_file(tmp_path: Path) -> None:
    with SteadyWriter(tmp_path, "f", SCHEMA) as writer:
        writer.write(rows(5))
    assert list(tmp_path.iterdir()) == []


def test_a_dictionary_leaves_no_trace(tmp_path: Path) -> None:
    batch = rows(2 * ROW_GROUP_ROWS + 5)
    turned = pa.array([*reversed(pc.unique(batch.column("id")).to_pylist()), "never there"], pa.string())
    codes = pc.index_in(batch.column("id"), value_set=turned)
    coded = batch.set_column(0, "id", pa.DictionaryArray.from_arrays(codes, turned))

    parts = [coded.slice(start, 50_000) for start in range(0, coded.num_rows, 50_000)]
    file = write_rows(tmp_path / "coded", "part.parquet", coded.schema, parts)

    assert file.sha256 == write(tmp_path / "plain", batch, []).sha256


def test_only_numbers_that_repeat_have_a_dictionary(tmp_path: Path) -> None:
    count = 10_000
    table = pa.record_batch({"many": [n / 7 for n in range(count)], "few": [n % 9 / 7 for n in range(count)]})
    write_rows(tmp_path, "part.parquet", table.schema, [table])
    group = pq.read_metadata(tmp_path / "part.parquet").row_group(0)
    assert [group.column(at).has_dictionary_page for at in (0, 1)] == [False, True]
    assert pq.read_table(tmp_path / "part.parquet").to_pydict() == table.to_pydict()
