"""What clients asked for in vain, as rows that a source can have."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from lookup.misses import read_misses
from schemas.keys import key_values

ASKED = "asked"


class MissTable(NamedTuple):
    """The ids that were asked for in vain, as rows of a source.

    Attributes:
        rows: The key columns as text, and how often each was asked; the most asked first.
        unsplit: Ids that have another number of parts than the key has columns.
        dropped: Misses of ids that were not kept.
    """

    rows: pa.Table
    unsplit: int
    dropped: int


def miss_table(store_root: Path, table: str, key: Sequence[str], *, limit: int | None = None) -> MissTable:
    """The misses of a table, split into its key columns.

    Args:
        store_root: Where they were written.
        table: The table.
        key: Its key columns, in order.
        limit: At most so many ids.

    Raises:
        InputError: a file of misses is damaged.
    """
    missed = read_misses(store_root, table)
    split = [(key_values(entity), asked) for entity, asked in missed.ids.items()]
    whole = [(values, asked) for values, asked in split if len(values) == len(key)][:limit]
    columns = [pa.array([values[position] for values, _ in whole], pa.string()) for position in range(len(key))]
    schema = pa.schema([*(pa.field(name, pa.string()) for name in key), pa.field(ASKED, pa.int64())])
    rows = pa.Table.from_arrays([*columns, pa.array([asked for _, asked in whole], pa.int64())], schema=schema)
    return MissTable(rows, sum(len(values) != len(key) for values, _ in split), missed.dropped)


def write_miss_table(found: MissTable, path: Path) -> None:
    """Write the rows as a Parquet file, which appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        pq.write_table(found.rows, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
