"""Rows of Arrow columns in another order: as `take`, without what it costs to carry missing numbers along."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Places = npt.NDArray[np.int64]


def gathered(rows: pa.RecordBatch, places: Places) -> pa.RecordBatch:
    """The rows at these places, in their order."""
    wanted = pa.array(places)
    return pa.RecordBatch.from_arrays([_taken(column, places, wanted) for column in rows.columns], schema=rows.schema)


def _taken(column: Any, places: Places, wanted: pa.Array) -> Any:
    """Values and validity apart: Arrow looks at each bit by itself, which takes three times as long."""
    if not pa.types.is_floating(column.type) or not column.null_count:
        return column.take(wanted)
    validity, data = column.buffers()
    values = pa.Array.from_buffers(column.type, len(column), [None, data], 0, column.offset).take(wanted)
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), count=column.offset + len(column), bitorder="little")
    packed = np.packbits(bits[column.offset :].take(places), bitorder="little")
    return pa.Array.from_buffers(column.type, len(places), [pa.py_buffer(packed), values.buffers()[1]])
