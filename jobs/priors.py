"""The priors of a run: what its predictions are on average, for groups of entities, for those it does not know."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookup.rows import PRIOR_FIELD
from lookup.writer import write_rows
from schemas.errors import InputError, Problem
from schemas.head import ColumnSpec
from schemas.keys import entity_id, key_values, prior_field
from schemas.run import ENTITY_ID, PREDICTIONS, PRIORS, SCORED, DataFile

MAX_PRIORS = 20_000  # readers keep all of them in memory: they are needed most when Redis is away

_Sums = dict[str, tuple[int, list[float], list[int]]]


def write_priors(
    folder: Path,
    files: Sequence[DataFile],
    *,
    key: Sequence[str],
    segments: Sequence[Sequence[str]],
    outputs: Sequence[ColumnSpec],
    min_rows: int,
) -> tuple[DataFile, ...]:
    """Write the mean of each output over each group that is large enough, ordered by segment and key values.

    The bytes follow from the staged predictions alone: sums are added up in the order of their files and rows.

    Args:
        folder: Of the run.
        files: Those that were staged.
        key: The columns that an entity id joins.
        segments: Groups, each by some of them, the most specific first.
        outputs: The columns to average. One that has names for its numbers is the place of the largest of those before
            it, and so it is in the means.
        min_rows: Smaller groups are left out.

    Raises:
        InputError: there are more groups than a reader keeps.
    """
    predictions = [file for file in files if file.path.startswith(f"{PREDICTIONS}/")]
    names = [output.name for output in outputs]
    rows: list[dict[str, Any]] = []
    for position, segment in enumerate(segments):
        sums = _summed(folder, predictions, [key.index(column) for column in segment], names)
        for values, (count, totals, counts) in sorted(sums.items()):
            if count >= min_rows:
                means = [total / many if many else None for total, many in zip(totals, counts, strict=True)]
                if outputs[-1].values:
                    known = [mean for mean in means[:-1] if mean is not None]
                    means[-1] = float(np.argmax(known)) if len(known) == len(means) - 1 else None
                field = prior_field(position, ()) + values
                rows.append({PRIOR_FIELD: field, "rows": count, **dict(zip(names, means, strict=True))})
        if len(rows) > MAX_PRIORS:
            found = f"{len(rows)} groups of at least {min_rows} entities up to segment [{', '.join(segment)}]"
            expected = f"at most {MAX_PRIORS}: a larger fallback.min_rows, or fewer columns"
            raise InputError(Problem("PRIORS_TOO_MANY", "fallback.segments", found, expected))
    if not rows:
        return ()
    schema = pa.schema(
        [pa.field(PRIOR_FIELD, pa.string(), nullable=False), pa.field("rows", pa.int64(), nullable=False)]
        + [pa.field(name, pa.float64()) for name in names]
    )
    batch = pa.RecordBatch.from_pylist(rows, schema)
    return (write_rows(folder / PRIORS, "part-00000.parquet", schema, [batch]),)


def _summed(folder: Path, files: Sequence[DataFile], positions: Sequence[int], outputs: Sequence[str]) -> _Sums:
    """Of each group: its rows, and the sum and the count of each output that is not null."""
    sums: _Sums = {}
    wanted = [(PRIOR_FIELD, "count"), *((name, how) for name in outputs for how in ("sum", "count"))]
    for file in files:
        columns = [ENTITY_ID, *outputs, "status"]
        table = pq.read_table(folder / file.path, columns=columns, page_checksum_verification=True)
        table = table.filter(pc.equal(table.column("status"), SCORED))
        groups = pa.table({PRIOR_FIELD: _groups(table.column(ENTITY_ID), positions)} | {n: table[n] for n in outputs})
        # On one thread, so that equal rows are added up in one order.
        for group in groups.group_by(PRIOR_FIELD, use_threads=False).aggregate(wanted).to_pylist():
            count, totals, counts = sums.get(group[PRIOR_FIELD], (0, [0.0] * len(outputs), [0] * len(outputs)))
            sums[group[PRIOR_FIELD]] = (
                count + group[f"{PRIOR_FIELD}_count"],
                [total + (group[f"{name}_sum"] or 0.0) for total, name in zip(totals, outputs, strict=True)],
                [many + group[f"{name}_count"] for many, name in zip(counts, outputs, strict=True)],
            )
    return sums


def _groups(ids: Any, positions: Sequence[int]) -> Any:
    """The key values of each id at these positions, joined as an id is."""
    if pc.any(pc.match_substring(ids, "\\")).as_py():  # values that hold a separator are few, and slow
        return pa.array(list(_joined(ids.to_pylist(), positions)), pa.string())
    values = pc.split_pattern(ids, ":")
    return pc.binary_join_element_wise(*(pc.list_element(values, position) for position in positions), ":")


def _joined(ids: Sequence[str], positions: Sequence[int]) -> Iterator[str]:
    for entity in ids:
        values = key_values(entity)
        yield entity_id(values[position] for position in positions)
