"""The first rows of a user's CSV or Parquet file, whatever its delimiter, read in bounded memory."""

import codecs
import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from schemas.errors import InputError, Problem

MAX_ROWS = 200_000
DELIMITERS = ",;\t|"
_SAMPLE_BYTES = 1 << 20
_SAMPLE_ROWS = 100
_EXAMPLES = 3
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """The first rows of a file.

    Attributes:
        columns: By name, in the file's order. A CSV file's are strings, '' where nothing stands.
        rows: How many rows were read, at least 1.
        total: How many the file has; None where that would take reading all of it.
    """

    path: Path
    format: Literal["csv", "parquet"]
    delimiter: str
    columns: Mapping[str, pa.ChunkedArray]
    rows: int
    total: int | None

    @property
    def is_whole(self) -> bool:
        """Whether every row was read."""
        return self.total == self.rows


def read_table_file(path: Path, *, max_rows: int = MAX_ROWS) -> TableFile:
    """The columns of a CSV or Parquet file, told apart by content, and its first `max_rows` rows.

    Raises:
        InputError: no such file, neither CSV nor Parquet, not UTF-8, damaged, without rows, or with a column
            that has no name of its own.
    """
    try:
        with path.open("rb") as file:
            sample = file.read(_SAMPLE_BYTES)
    except FileNotFoundError:
        raise _error("SCAFFOLD_NOT_FOUND", path, "no such file", "a CSV or Parquet file") from None
    except IsADirectoryError:
        raise _error("SCAFFOLD_FORMAT", path, "a folder", "one CSV or Parquet file") from None
    except OSError as err:
        raise _error("SCAFFOLD_READ", path, f"cannot be read: {err.strerror}", "a readable file") from err
    try:
        read = _read_parquet if sample.startswith(b"PAR1") else _read_csv
        return read(path, sample, max_rows)
    except (pa.ArrowException, OSError, csv.Error) as err:
        raise _error("SCAFFOLD_READ", path, str(err).splitlines()[0], "a table without damage") from err


def _read_parquet(path: Path, _: bytes, max_rows: int) -> TableFile:
    with pq.ParquetFile(path) as parquet:
        names, total = _checked_names(path, parquet.schema_arrow.names), parquet.metadata.num_rows
        table, _is_whole = _first_rows(parquet.iter_batches(), parquet.schema_arrow, max_rows)
    return _table_file(path, "parquet", ",", names, table, total)


def _read_csv(path: Path, sample: bytes, max_rows: int) -> TableFile:
    is_cut = len(sample) == _SAMPLE_BYTES
    text = _decoded(path, sample, is_cut)
    delimiter = _delimiter(text, is_cut)
    names = _checked_names(path, next(iter(_records(text, delimiter)), []))
    reader = pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    with reader:
        table, is_whole = _first_rows(reader, reader.schema, max_rows)
    return _table_file(path, "csv", delimiter, names, table, table.num_rows if is_whole else None)


def _table_file(
    path: Path, kind: Literal["csv", "parquet"], delimiter: str, names: list[str], table: pa.Table, total: int | None
) -> TableFile:
    if not table.num_rows:
        raise _error("SCAFFOLD_EMPTY", path, "no rows", "at least one row below the column names")
    columns = dict(zip(names, table.columns, strict=True))
    return TableFile(path=path, format=kind, delimiter=delimiter, columns=columns, rows=table.num_rows, total=total)


def _first_rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema, max_rows: int) -> tuple[pa.Table, bool]:
    kept: list[pa.RecordBatch] = []
    room = max_rows
    is_whole = True
    for batch in batches:
        kept.append(batch.slice(0, room))
        is_whole = batch.num_rows <= room
        room -= kept[-1].num_rows
        if not is_whole:
            break
    return pa.Table.from_batches(kept, schema), is_whole


def _decoded(path: Path, sample: bytes, is_cut: bool) -> str:
    if not sample.strip():
        raise _error("SCAFFOLD_EMPTY", path, "the file is empty", "a line of column names and rows below it")
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _error("SCAFFOLD_ENCODING", path, "UTF-16 text", "UTF-8; save it as 'CSV UTF-8'")
    if b"\0" in sample:
        raise _error("SCAFFOLD_FORMAT", path, "neither CSV nor Parquet: it has binary content", "a CSV or Parquet file")
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(sample, final=not is_cut)
    except UnicodeDecodeError as err:
        found = f"byte {err.start} is not UTF-8"
        raise _error("SCAFFOLD_ENCODING", path, found, "UTF-8 text; save it as 'CSV UTF-8'") from err


def _delimiter(text: str, is_cut: bool) -> str:
    """The delimiter that gives the most rows as many fields as the first line, then the most fields."""

    def agreement(delimiter: str) -> tuple[float, int]:
        try:
            widths = [len(row) for row in islice(_records(text, delimiter), _SAMPLE_ROWS) if row]
        except csv.Error:
            return 0.0, 0
        if is_cut and 1 < len(widths) < _SAMPLE_ROWS:
            widths.pop()
        return (widths.count(widths[0]) / len(widths), widths[0]) if widths and widths[0] > 1 else (0.0, 0)

    return max(DELIMITERS, key=agreement)


def _records(text: str, delimiter: str) -> Iterable[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _checked_names(path: Path, names: list[str]) -> list[str]:
    seen: dict[str, str] = {}
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise _error("SCAFFOLD_COLUMN_NAME", path, f"column {position} has no name", "a name for every column")
        if any(ord(character) < ord(" ") or character == "\x7f" for character in name):
            raise _error("SCAFFOLD_COLUMN_NAME", path, f"column {name!r} has a control character", "a name on one line")
        # Spark does not tell upper from lower case in column names.
        if name.lower() in seen:
            found = f"columns {position} and before it: {name!r} and {seen[name.lower()]!r}"
            raise _error("SCAFFOLD_COLUMN_NAME", path, found, "names that differ in more than case; rename one")
        seen[name.lower()] = name
    return names


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReport:
    """Whether a key names the rows.

    Attributes:
        ambiguous: Keys that stand on several different rows.
        examples: The first three of them.
        repeated: Rows that are equal to another one in all columns.
        completions: Columns any of which would make the key unique.
    """

    ambiguous: int
    examples: tuple[str, ...]
    repeated: int
    completions: tuple[str, ...]


def inspect_key(file: TableFile, key: list[str]) -> KeyReport:
    """How often each key stands in the rows read."""
    others = [name for name, column in file.columns.items() if name not in key and not pa.types.is_nested(column.type)]
    # Grouping needs names that nothing else has.
    table = pa.table([file.columns[name] for name in [*key, *others]], [str(n) for n in range(len(key) + len(others))])
    by = table.column_names[: len(key)]
    if table.group_by(by).aggregate([]).num_rows == file.rows:
        return KeyReport(ambiguous=0, examples=(), repeated=0, completions=())
    distinct = table.group_by(table.column_names).aggregate([])
    counted = distinct.group_by(by).aggregate([([], "count_all")])
    several = counted.filter(pc.greater(counted.column("count_all"), 1)).sort_by([(name, "ascending") for name in by])
    first = several.slice(0, _EXAMPLES).to_pylist()
    numbered = zip(others, table.column_names[len(key) :], strict=True) if first else ()
    return KeyReport(
        ambiguous=several.num_rows,
        examples=tuple(f"{':'.join(str(row[name]) for name in by)} ({row['count_all']} rows)" for row in first),
        repeated=file.rows - distinct.num_rows,
        completions=tuple(
            o for o, n in numbered if distinct.group_by([*by, n]).aggregate([]).num_rows == distinct.num_rows
        ),
    )


def _error(code: str, path: Path, found: str, expected: str) -> InputError:
    return InputError(Problem(code, str(path), found, expected))
