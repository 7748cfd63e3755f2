"""Parquet files whose bytes depend on their rows alone, not on how the rows arrived."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.content import sha256_file
from schemas.run import DataFile

ROW_GROUP_ROWS = 65_536
_SAMPLE_ROWS = 4_096


class SteadyWriter:
    """Writes one file in row groups of 65,536 rows, whatever the sizes of the batches.

    The file has its name only once it is whole, so that a killed or doubled task leaves no half of one.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._given = folder, name, schema
        self._schema = without_dictionaries(schema)
        self._temporary = folder / f".{name}-{uuid4().hex}"
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._rows = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Before there are rows: a folder that cannot be written is told before they are worked out.
        self._sink = pa.OSFile(str(self._temporary), "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close()
        finally:
            self._temporary.unlink(missing_ok=True)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; at most a row group and one batch of them are held in memory."""
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        if self._pending_rows >= ROW_GROUP_ROWS:
            self._flush(whole_groups_only=True)

    def finish(self) -> DataFile:
        """Write what is left and give the file its name."""
        self._flush(whole_groups_only=False)
        self._close()
        path = self._folder / self._name
        digest, size_bytes = sha256_file(self._temporary), self._temporary.stat().st_size
        self._temporary.replace(path)
        return DataFile(path=f"{self._folder.name}/{self._name}", rows=self._rows, sha256=digest, size_bytes=size_bytes)

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
        self._sink.close()

    def _flush(self, *, whole_groups_only: bool) -> None:
        table = pa.Table.from_batches(self._pending, self._given).combine_chunks()
        rows = table.num_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS if whole_groups_only else table.num_rows
        # Without dictionaries, whose order follows from more than the rows of this file.
        whole = table.slice(0, rows).cast(self._schema)
        writer = self._opened(whole)
        for start in range(0, rows, ROW_GROUP_ROWS):
            writer.write_table(whole.slice(start, min(ROW_GROUP_ROWS, rows - start)), row_group_size=ROW_GROUP_ROWS)
        self._rows += rows
        rest = table.slice(rows)
        self._pending, self._pending_rows = rest.to_batches(), rest.num_rows

    def _opened(self, first: pa.Table) -> pq.ParquetWriter:
        """The writer, for which the first rows of the file say what is worth a dictionary."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression="zstd",
                use_dictionary=[name for name in self._schema.names if _repeats(first.column(name))],
                write_page_checksum=True,
                store_schema=False,
            )
        return self._writer


def without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """The schema with the types that the values have."""
    return pa.schema(
        [field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in schema]
    )


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether the values come again: of numbers that hardly do, a dictionary costs more than all else."""
    sample = column.slice(0, _SAMPLE_ROWS)
    if not pa.types.is_floating(sample.type):
        return True
    return 2 * pc.count_distinct(sample).as_py() <= len(sample) or len(sample) < _SAMPLE_ROWS


def write_rows(folder: Path, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> DataFile:
    """Write all batches to one file."""
    with SteadyWriter(folder, name, schema) as writer:
        for batch in batches:
            writer.write(batch)
        return writer.finish()
