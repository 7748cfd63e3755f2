"""Parquet files whose bytes depend on their rows alone, not on how the rows arrived."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.content import sha256_file
from schemas.run import DataFile

ROW_GROUP_ROWS = 65_536


class SteadyWriter:
    """Writes one file in row groups of 65,536 rows, whatever the sizes of the batches.

    The file has its name only once it is whole, so that a killed or doubled task leaves no half of one.
    """

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._temporary = folder / f".{name}-{uuid4().hex}"
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._rows = 0

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(
            self._temporary, self._schema, compression="zstd", write_page_checksum=True, store_schema=False
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
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
        self._writer.close()
        path = self._folder / self._name
        digest, size_bytes = sha256_file(self._temporary), self._temporary.stat().st_size
        self._temporary.replace(path)
        return DataFile(path=f"{self._folder.name}/{self._name}", rows=self._rows, sha256=digest, size_bytes=size_bytes)

    def _flush(self, *, whole_groups_only: bool) -> None:
        table = pa.Table.from_batches(self._pending, self._schema).combine_chunks()
        rows = table.num_rows // ROW_GROUP_ROWS * ROW_GROUP_ROWS if whole_groups_only else table.num_rows
        for start in range(0, rows, ROW_GROUP_ROWS):
            self._writer.write_table(
                table.slice(start, min(ROW_GROUP_ROWS, rows - start)), row_group_size=ROW_GROUP_ROWS
            )
        self._rows += rows
        rest = table.slice(rows)
        self._pending, self._pending_rows = rest.to_batches(), rest.num_rows


def write_rows(folder: Path, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> DataFile:
    """Write all batches to one file."""
    with SteadyWriter(folder, name, schema) as writer:
        for batch in batches:
            writer.write(batch)
        return writer.finish()
