"""What the table holds for entities that were set aside: their last good predictions, or rows that say so."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.tasks import prediction_schema
from lookup.crc import crc32
from lookup.rows import flat
from lookup.store import Store
from lookup.writer import write_rows
from schemas.checks import Quarantine
from schemas.keys import id_problem
from schemas.release import ReleaseState
from schemas.run import (
    CARRIED,
    CHAMPION,
    ENTITY_ID,
    PREDICTIONS,
    SCORED,
    SCORED_AT,
    WITHHELD,
    CarriedFrom,
    DataFile,
    RunManifest,
)

_SECONDS_PER_HOUR = 3600
_SERVED = (ReleaseState.LIVE, ReleaseState.RETIRED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How the prediction files of a run are cut: file `bucket * files // buckets` has the rows of a bucket."""

    folder: Path
    outputs: tuple[str, ...]
    files: int
    buckets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The prediction files with what was added to them."""

    files: tuple[DataFile, ...]
    carried: int = 0
    withheld: int = 0
    carried_from: CarriedFrom | None = None


def base_run(store: Store, date: dt.date) -> RunManifest | None:
    """The run whose predictions are the last good ones before `date`: it was live, and was not rolled back."""
    return store.newest_run(date - dt.timedelta(days=1), _SERVED)


def serve_set_aside(
    files: Sequence[DataFile], ids: Iterable[str], policy: Quarantine, *, base: RunManifest | None, store: Store,
    date: dt.date, model: str, placing: Placing,
) -> Served:  # fmt: skip
    """Add to the prediction files what is served to the entities that were set aside.

    Args:
        files: Of predictions.
        ids: Of the entities; one that cannot be a key of the table is left out.
        policy: As declared.
        base: Where last good predictions are.
        store: That has it.
        date: The logical date of this run.
        model: Named in rows that are withheld.
        placing: How the files are cut.
    """
    known = pa.array(sorted(id_ for id_ in set(ids) if id_problem(id_) is None), pa.string())
    unchanged = Served(files=tuple(files))
    if policy.serve == "prior" or not len(known):
        return unchanged
    if policy.serve == "nothing":
        return replace(
            unchanged, files=_merged(files, _withheld(known, model, placing.outputs), placing), withheld=len(known)
        )
    if base is None or base.output_names != placing.outputs:
        return unchanged
    rows = _last_good(base, store, known, date, policy.carry_hours, placing.outputs)
    if not rows.num_rows:
        return unchanged
    models, variants = (tuple(sorted(pc.unique(rows.column(name)).to_pylist())) for name in ("model", "variant"))
    return Served(
        files=_merged(files, rows, placing),
        carried=rows.num_rows,
        carried_from=CarriedFrom(run_id=base.run_id, models=models, variants=variants),
    )


def _withheld(ids: Any, model: str, outputs: Sequence[str]) -> pa.Table:
    routed = [pa.repeat(value, len(ids)) for value in (model, CHAMPION, WITHHELD)]
    return pa.table([ids, *(pa.nulls(len(ids), pa.float64()) for _ in outputs), *routed], prediction_schema(outputs))


def _last_good(
    base: RunManifest, store: Store, ids: Any, date: dt.date, hours: float, outputs: Sequence[str]
) -> pa.Table:
    """The served rows of these entities in the base run, with their own times, as far as they are not too old.

    An age is counted from when the base was scored and the days between the two logical dates: a run that is made again
    later carries the same rows.
    """
    scored_at = int(base.scored_at.timestamp())
    oldest = scored_at + (date - base.date).days * 86_400 - hours * _SECONDS_PER_HOUR
    names = list(prediction_schema(outputs).names)
    parts = []
    for file in base.files_in(PREDICTIONS):
        table = pq.read_table(store.run_folder(base.run_id) / file.path, page_checksum_verification=True)
        table = table.filter(pc.is_in(table.column(ENTITY_ID), value_set=ids))
        table = table.filter(pc.is_in(table.column("status"), value_set=pa.array([SCORED, CARRIED])))
        own = table.column(SCORED_AT) if SCORED_AT in table.column_names else pa.nulls(table.num_rows, pa.int64())
        times = pc.fill_null(pc.cast(own, pa.int64()), scored_at)
        carried = table.select(names).set_column(names.index("status"), "status", pa.repeat(CARRIED, table.num_rows))
        parts.append(carried.append_column(SCORED_AT, times).filter(pc.greater_equal(times, oldest)))
    schema = pa.schema([*prediction_schema(outputs), pa.field(SCORED_AT, pa.int64())])
    return pa.concat_tables([part.cast(schema) for part in parts] or [schema.empty_table()])


def _merged(files: Sequence[DataFile], rows: pa.Table, placing: Placing) -> tuple[DataFile, ...]:
    """The files with these rows in their places: sorted by bucket and id, each file with whole buckets."""
    place = _buckets(rows, placing.buckets) * placing.files // placing.buckets
    before = {file.path: file for file in files}
    written = {}
    for number in range(placing.files):
        name = f"part-{number:05}.parquet"
        path, added = f"{PREDICTIONS}/{name}", rows.filter(pa.array(place == number))
        if path in before and (added.num_rows or SCORED_AT in rows.column_names):
            table = pq.read_table(placing.folder / path, page_checksum_verification=True)
            added = pa.concat_tables([_like(table, rows.schema), added])
        if added.num_rows:
            by_id = added.sort_by(ENTITY_ID)
            order = np.argsort(_buckets(by_id, placing.buckets), kind="stable")
            written[path] = write_rows(
                placing.folder / PREDICTIONS,
                name,
                rows.schema,
                by_id.take(pa.array(order)).combine_chunks().to_batches(),
            )
    return tuple(written.get(path) or before[path] for path in sorted({*before, *written}))


def _like(table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in table.column_names]
    for name in missing:
        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
    return table.select(schema.names).cast(schema)


def _buckets(table: pa.Table, buckets: int) -> Any:
    ids = table.column(ENTITY_ID).combine_chunks().cast(pa.binary())
    return crc32(*flat(ids)).astype(np.int64) % buckets


def set_aside_ids(folder: Path, files: Sequence[DataFile]) -> Iterator[str]:
    """The entity id of each row in these quarantine files; empty where a row has none."""
    for file in files:
        yield from pq.read_table(folder / file.path, columns=[ENTITY_ID]).column(ENTITY_ID).to_pylist()
