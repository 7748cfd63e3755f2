"""Scoring on Spark: features in, sorted and bucketed prediction files out, the same bytes every time."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from jobs.bundles import Bundle, proven_bundle
from lookup.writer import SteadyWriter, write_rows
from schemas.errors import AlmanacError, InputError, Problem
from schemas.keys import bucket_count
from schemas.run import CHAMPION, ENTITY_ID, FEATURES, PREDICTIONS, QUARANTINE, SCORED, DataFile, Parity

ROWS_PER_FILE = 250_000
_BUCKET = "__bucket"
_FILE = "__file"
_RECORD = pa.schema([("record", pa.string())])


@dataclass(frozen=True, slots=True)
class Scored:
    """What the tasks wrote and proved."""

    files: tuple[DataFile, ...]
    parity: tuple[Parity, ...]


def prediction_schema(outputs: tuple[str, ...]) -> pa.Schema:
    """Columns of a prediction file: the entity id, the outputs, and how the entity was routed."""
    return pa.schema(
        [
            pa.field(ENTITY_ID, pa.string(), nullable=False),
            *(pa.field(name, pa.float64()) for name in outputs),
            *(pa.field(name, pa.string(), nullable=False) for name in ("model", "variant", "status")),
        ]
    )


def score(features: DataFrame, rows: int, bundle: Bundle, folder: Path, *, buckets: int) -> Scored:
    """Score every row and write it, with its features beside it, under `folder`.

    The number of files and their order follow from the rows alone: a row goes to the file of its bucket, and is sorted
    there by bucket and entity id. How Spark had the rows partitioned before leaves no trace.

    Args:
        features: ENTITY_ID and the feature columns, ids distinct.
        rows: How many there are.
        bundle: The champion.
        folder: On a file system that every executor shares.
        buckets: Of the lookup table.

    Raises:
        InputError: a worker could not trust the bundle or read a feature.
    """
    task = _ScoreTask(bundle.folder, bundle.digest, folder)
    records = _run(_bucketed(features, buckets, _file_count(rows)), task)
    parity = [Parity.model_validate(record["parity"]) for record in records]
    proven = Parity(
        model=bundle.id,
        rows=bundle.manifest.training.holdout_rows,
        max_abs_difference=max((one.max_abs_difference for one in parity), default=0.0),
        workers=len(parity),
    )
    return Scored(_files(records), (proven,))


def set_aside(failed: DataFrame, rows: int, folder: Path) -> tuple[DataFile, ...]:
    """Write quarantined rows with their reasons under `folder`."""
    if rows == 0:
        return ()
    ordered = failed.select(ENTITY_ID, *(name for name in failed.columns if name != ENTITY_ID))
    spread = _bucketed(ordered.fillna("", [ENTITY_ID]), bucket_count(rows), _file_count(rows))
    return _files(_run(spread, _QuarantineTask(folder)))


def _file_count(rows: int) -> int:
    return max(1, -(-rows // ROWS_PER_FILE))


def _bucketed(frame: DataFrame, buckets: int, files: int) -> DataFrame:
    bucket = F.crc32(F.col(ENTITY_ID).cast("binary")) % buckets
    # Whole ranges of buckets to a file; integer arithmetic, so that no rounding can differ.
    file = F.expr(f"CAST(({_BUCKET} * {files}) DIV {buckets} AS INT)")
    placed = frame.withColumn(_BUCKET, bucket).withColumn(_FILE, file)
    everything = [name for name in frame.columns if name != ENTITY_ID]
    return placed.repartitionById(files, _FILE).sortWithinPartitions(_BUCKET, ENTITY_ID, *everything)


def _run(frame: DataFrame, task: "_Task") -> list[dict[str, Any]]:
    """One record of each task that had rows."""
    rows = frame.mapInArrow(task, "record string").collect()
    records: list[dict[str, Any]] = [json.loads(row.record) for row in rows]
    problems = dict.fromkeys(Problem(*problem) for record in records for problem in record.get("problems", ()))
    if problems:
        raise InputError(*problems)
    return records


def _files(records: list[dict[str, Any]]) -> tuple[DataFile, ...]:
    files = [DataFile.model_validate(file) for record in records for file in record["files"]]
    return tuple(sorted(files, key=lambda file: file.path))


class _Task(ABC):
    """What a Python worker does with one partition: it writes files, and answers with one record about them."""

    @abstractmethod
    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        """Write the rows to files of that name. Schema and batches are without the columns that placed the rows."""

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None:
            return
        kept = [name for name in first.schema.names if name not in (_BUCKET, _FILE)]
        name = f"part-{first.column(_FILE)[0].as_py():05}.parquet"
        rows = (batch.select(kept) for batch in chain([first], batches))
        try:
            record = self.write(name, first.select(kept).schema, rows)
        except AlmanacError as err:
            # It travels in the record, because Spark would turn the exception into text.
            record = {"problems": err.problems}
        yield pa.RecordBatch.from_pylist([{"record": json.dumps(record)}], _RECORD)


@dataclass(frozen=True, slots=True)
class _ScoreTask(_Task):
    """Scores the rows, and writes predictions and features side by side."""

    bundle: Path
    digest: str
    folder: Path

    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        bundle, difference = proven_bundle(self.bundle, self.digest)
        outputs = prediction_schema(tuple(output.name for output in bundle.manifest.outputs))
        with (
            SteadyWriter(self.folder / PREDICTIONS, name, outputs) as predictions,
            SteadyWriter(self.folder / FEATURES, name, schema) as features,
        ):
            for batch in batches:
                routed = [pa.repeat(value, batch.num_rows) for value in (bundle.id, CHAMPION, SCORED)]
                columns = [batch.column(ENTITY_ID), pa.array(bundle.predict(batch)), *routed]
                predictions.write(pa.RecordBatch.from_arrays(columns, schema=outputs))
                features.write(batch)
            files = [predictions.finish(), features.finish()]
        proven = Parity(
            model=bundle.id, rows=bundle.manifest.training.holdout_rows, max_abs_difference=difference, workers=1
        )
        return {"files": [file.model_dump() for file in files], "parity": proven.model_dump()}


@dataclass(frozen=True, slots=True)
class _QuarantineTask(_Task):
    """Writes the rows that were set aside."""

    folder: Path

    def write(self, name: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> dict[str, Any]:
        return {"files": [write_rows(self.folder / QUARANTINE, name, schema, batches).model_dump()]}
