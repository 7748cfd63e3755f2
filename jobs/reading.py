"""The first half of the short way: Spark tasks read the source with pyarrow, and sort its rows by the file to come."""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.gathering import gathered
from jobs.projection import Projection
from lookup.crc import crc32
from lookup.rows import flat
from schemas.run import ENTITY_ID

CRC = "__crc"
BATCH_BYTES = 64 << 20  # of rows that are taken apart at once
_UNIT_BYTES = 128 << 20
_PAGE_BYTES = 1 << 20  # of a column, read on at a time: a row group may be larger than all else that is held
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
# Outside, the calendar of the file's writer and of Spark's text differ from Arrow's.
_FIRST_DAY, _LAST_DAY = dt.date(1582, 10, 15), dt.date(9999, 12, 31)


class NotShortError(Exception):
    """What was found in the rows that Spark has to read."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Row groups of one file that a task reads.

    Attributes:
        batch_rows: Of them at once, so that they take about BATCH_BYTES.
    """

    file: Path
    day: dt.date | None
    groups: tuple[int, ...]
    batch_rows: int


def source_units(projection: Projection) -> tuple[list[Unit], int]:
    """What the tasks read, and the rows of all of it."""
    names = {one.source for one in projection.columns}
    units, rows = [], 0
    for file, day in projection.files:
        metadata = pq.read_metadata(file)
        rows += metadata.num_rows
        sizes = [_group_bytes(metadata.row_group(index), names) for index in range(metadata.num_row_groups)]
        row_bytes = max(1, sum(sizes) // max(1, metadata.num_rows))
        batch_rows = max(1024, BATCH_BYTES // row_bytes)
        units += [Unit(file, day, groups, batch_rows) for groups in _together(sizes)]
    return units, rows


def _group_bytes(group: Any, names: set[str]) -> int:
    """An estimate of the columns in memory: a dictionary makes them smaller in the file than their values are."""
    columns = (group.column(index) for index in range(group.num_columns))
    return sum(
        max(column.total_uncompressed_size, 8 * group.num_rows) for column in columns if column.path_in_schema in names
    )


def _together(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    groups: list[int] = []
    for index, size in enumerate(sizes):
        if groups and sum(sizes[at] for at in groups) + size > _UNIT_BYTES:
            yield tuple(groups)
            groups = []
        groups.append(index)
    if groups:
        yield tuple(groups)


@dataclass(frozen=True, slots=True)
class Sorter:
    """Writes the rows of a unit to one Arrow file, in which each file to come has a record batch of its own.

    Attributes:
        folder: For these files, on a file system that every executor shares.
        units: All there are.
        key: The columns that name an entity.
        files, buckets: How the predictions will be cut.
    """

    folder: Path
    units: tuple[Unit, ...]
    projection: Projection
    key: tuple[str, ...]
    files: int
    buckets: int

    @property
    def schema(self) -> pa.Schema:
        """Of the rows: text that is no key has a dictionary, which is taken apart and read with less work."""
        fields = [
            field.with_type(_DICTIONARY) if field.type == pa.string() and field.name not in self.key else field
            for field in self.projection.schema
        ]
        return pa.schema([*fields, pa.field(ENTITY_ID, pa.string()), pa.field(CRC, pa.uint32())])

    def __call__(self, number: int) -> dict[str, Any]:
        """The paths for the unit of that number, and how many bytes they have for each file to come."""
        paths, sizes = [], np.zeros(self.files, np.int64)
        for index, batch in enumerate(self._batches(self.units[number])):
            path = self.folder / f"rows-{number:05}-{index:05}.arrow"
            with (
                made_whole(path) as half,
                pa.OSFile(str(half), "wb") as sink,
                pa.ipc.new_file(sink, batch.schema) as writer,
            ):
                for file, part in enumerate(self._parts(batch)):
                    sizes[file] += part.nbytes
                    writer.write_batch(part)
            paths.append(str(path))
        return {"paths": paths, "bytes": sizes.tolist()}

    def _batches(self, unit: Unit) -> Iterator[pa.RecordBatch]:
        """The rows of the unit, each with its entity id and its check.

        Raises:
            NotShortError: the file cannot be read; Spark says so as ever.
        """
        try:
            yield from self._read(unit)
        except (pa.ArrowException, OSError) as err:
            raise NotShortError(f"{unit.file.name} cannot be read: {str(err).partition(chr(10))[0]}") from err

    def _read(self, unit: Unit) -> Iterator[pa.RecordBatch]:
        columns, schema = self.projection.columns, self.schema
        stored = list(dict.fromkeys(one.source for one in columns if one.source != self.projection.partition))
        coded = [one.source for one in columns if schema.field(one.name).type == _DICTIONARY]
        day = pa.scalar(unit.day, pa.date32())
        with pq.ParquetFile(unit.file, read_dictionary=coded, buffer_size=_PAGE_BYTES) as parquet:
            for batch in parquet.iter_batches(unit.batch_rows, list(unit.groups), stored, use_threads=False):
                rows = [
                    as_spark(batch.column(one.source) if one.source in stored else pa.repeat(day, batch.num_rows), kind)
                    for one, kind in zip(columns, schema.types, strict=False)
                ]
                ids = entity_ids([rows[at] for at in map(schema.get_field_index, self.key)])
                checks = crc32(*flat(pc.fill_null(ids, "").cast(pa.binary())))
                yield pa.RecordBatch.from_arrays([*rows, ids, pa.array(checks)], schema=schema)

    def _parts(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The rows of each file to come, in order of the files."""
        place = np.asarray(batch.column(CRC)).astype(np.int64) % self.buckets * self.files // self.buckets
        if self.files > 1:
            batch = gathered(
                batch, np.argsort(place.astype(np.uint16 if self.files < 1 << 16 else np.uint32), kind="stable")
            )
        start = 0
        for count in np.bincount(place, minlength=self.files).tolist():
            yield batch.slice(start, count)
            start += count


@contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """Where to write a file that has its name only once it is whole: a task that is done again may still be at it."""
    half = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def entity_ids(columns: Sequence[pa.Array]) -> pa.Array:
    """The entity id of each row, as `schemas.keys.entity_id` joins it; null where any of the columns is."""
    texts = [_escaped(pc.cast(column, pa.string())) for column in columns]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, ":")


def _escaped(text: pa.Array) -> pa.Array:
    for character in ("\\", ":"):
        if pc.any(pc.match_substring(text, character)).as_py():
            text = pc.replace_substring(text, character, f"\\{character}")
    return text


def as_spark(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column as Spark's SQL casts it, and groups by it: one zero, one NaN.

    Raises:
        NotShortError: it has dates of which calendar and text differ.
    """
    if pa.types.is_dictionary(column.type) and column.type != kind:
        column = column.dictionary_decode()
    if pa.types.is_date(column.type):
        span = pc.min_max(column).as_py()
        if span["min"] is not None and not _FIRST_DAY <= span["min"] <= span["max"] <= _LAST_DAY:
            raise NotShortError(f"a date is {span['min']} or {span['max']}")
    if kind == _DICTIONARY:
        return column if column.type == kind else pc.cast(column, pa.string()).dictionary_encode()
    cast = pc.cast(column, kind, safe=False)
    if not pa.types.is_floating(kind):
        return cast
    cast = pc.add(cast, pa.scalar(0.0, kind))  # -0.0 becomes 0.0
    strange = pc.is_nan(cast)
    return pc.if_else(strange, pa.scalar(float("nan"), kind), cast) if pc.any(strange).as_py() else cast
