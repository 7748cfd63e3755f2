"""The short way from a source to predictions: Spark's tasks read, sort, judge, score and write, its rows never move.

Each task is given a number and does that part of the work with pyarrow alone; what one leaves for another lies in files
of the run's own folder, as a shuffle does. The files that come of it have the bytes that the long way gives them.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from jobs.dealing import VARIANT
from jobs.judging import KEY_REASONS, Judge, ordered_rows
from jobs.lineup import Lineup
from jobs.predicting import Predict
from jobs.projection import Projection
from jobs.reading import BATCH_BYTES, NotShortError, Sorter, source_units
from jobs.reusable import Reuse, reuse_of
from jobs.scoring import Scored, contenders_of, run_tasks, scored_by
from jobs.tasks import FILE, Scoring, file_count, told
from lookup.writer import ROW_GROUP_ROWS
from schemas.keys import bucket_count
from schemas.run import CHAMPION, ENTITY_ID, REASONS
from validation.quarantine import listed

SCRATCH = ".rows"
MOST_FILE_BYTES = 512 << 20  # of the rows of one file, which a task holds at once
_Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sorted:
    """The rows of a source, apart by file and judged.

    Attributes:
        projection: What they are.
        folder: Where they are, and in which order.
        paths: The files of rows.
        passed, failed, collapsed: Rows, as the judgement of the long way counts them.
        asides: Files of the rows that failed.
        buckets, files: How the predictions are cut.
    """

    projection: Projection
    folder: Path
    paths: tuple[Path, ...]
    passed: int
    failed: int
    collapsed: int
    asides: tuple[Path, ...]
    buckets: int
    files: int


def sort_rows(
    spark: SparkSession, projection: Projection, key: Sequence[str], folder: Path, *, entities_per_bucket: int
) -> Sorted:
    """Read the source, and judge its rows by their keys.

    Args:
        spark: The session.
        projection: What is read of which files.
        key: The columns that name an entity.
        folder: Of the run; what is left in its SCRATCH is for `score_rows`, and for the caller to remove.
        entities_per_bucket: As declared.

    Raises:
        NotShortError: the rows are such that only the long way knows what to do with them.
    """
    units, rows = source_units(projection)
    if not rows:
        raise NotShortError("the source has no rows")
    while True:
        buckets, files = bucket_count(rows, entities_per_bucket), file_count(rows)
        scratch = folder / SCRATCH / f"{buckets}-{files}"
        scratch.mkdir(parents=True)
        sorter = Sorter(scratch, tuple(units), projection, tuple(key), files, buckets)
        placed = _in_tasks(spark, len(units), _Part(sorter))
        largest = max(map(sum, zip(*(record["bytes"] for record in placed), strict=True)))
        if largest > MOST_FILE_BYTES:
            raise NotShortError(f"the rows of one file take {largest >> 20} MiB")
        paths = tuple(sorted(Path(path) for record in placed for path in record["paths"]))
        judge = Judge(scratch, paths, projection, tuple(key), buckets)
        judged = _in_tasks(spark, files, _Part(judge))
        passed, failed, collapsed = (sum(each[name] for each in judged) for name in ("passed", "failed", "collapsed"))
        if (bucket_count(passed, entities_per_bucket), file_count(passed)) == (buckets, files):
            asides = tuple(Path(each["aside"]) for each in judged if each["aside"])
            return Sorted(projection, scratch, paths, passed, failed, collapsed, asides, buckets, files)
        # How the rows are cut follows from those that pass, whose number was not known yet.
        shutil.rmtree(scratch)
        rows = passed


def score_rows(spark: SparkSession, rows: Sorted, lineup: Lineup, folder: Path, reuse: Reuse | None = None) -> Scored:
    """Score what passed, and write it with its features beside it, as `jobs.scoring.score` does.

    Raises:
        InputError: a worker could not trust the bundle or read a feature.
    """
    outputs, contenders = lineup.champion.manifest.output_names, contenders_of(lineup)
    columns = [*rows.projection.schema.names, ENTITY_ID]
    predict = reuse_of(reuse, Predict(contenders, outputs), columns, rows.buckets, rows.files)
    scoring = Scoring(folder, contenders, outputs, predict, has_prints=bool(reuse))
    return scored_by(run_tasks(_numbers(spark, rows.files), _Filler(rows, scoring)), lineup)


def failed_rows(spark: SparkSession, rows: Sorted) -> DataFrame:
    """The rows that failed, with their entity id and REASONS, of the same types as `validation.quarantine.failed`."""
    frame = spark.read.parquet(*map(str, rows.asides))
    names = [*KEY_REASONS, *(name for name, _ in rows.projection.rules)]
    reasons = [F.when(F.array_contains(REASONS, name), F.lit(name)) for name in names]
    return frame.withColumn(REASONS, listed(reasons))


def _numbers(spark: SparkSession, count: int) -> DataFrame:
    """The numbers from 0 on, each in a partition of its own."""
    return spark.range(0, count, 1, count).toDF("number")


def _in_tasks(spark: SparkSession, count: int, task: "_Part") -> list[_Record]:
    """The record of each of so many parts.

    Raises:
        NotShortError: a task found rows that the long way has to read.
    """
    records = run_tasks(_numbers(spark, count), task)
    for record in records:
        if "long" in record:
            raise NotShortError(record["long"])
    return records


@dataclass(frozen=True, slots=True)
class _Part:
    """Does the part of the work that has the number it is given."""

    work: Sorter | Judge

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in _given(batches):
            yield from told(partial(self._done, number))

    def _done(self, number: int) -> _Record:
        try:
            return self.work(number)
        except NotShortError as why:
            return {"long": str(why)}


@dataclass(frozen=True, slots=True)
class _Filler:
    """Scores and writes the file of the number that it is given."""

    rows: Sorted
    scoring: Scoring

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in _given(batches):
            yield from self.scoring(self._rows(number))

    def _rows(self, number: int) -> Iterator[pa.RecordBatch]:
        rows = ordered_rows(self.rows.folder, self.rows.paths, number)
        at_once = min(ROW_GROUP_ROWS, max(1024, BATCH_BYTES * max(1, rows.num_rows) // max(1, rows.nbytes)))
        for start in range(0, rows.num_rows, at_once):
            batch = self._routed(rows.slice(start, at_once))
            yield batch.append_column(FILE, pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows))

    def _routed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows with the variant that scores each, as `jobs.dealing.dealt` deals them out."""
        routes = self.rows.projection.routes
        if not routes:
            return batch
        variant = pa.repeat(CHAMPION, batch.num_rows)
        for name, holds in reversed(routes):
            variant = pc.if_else(pc.fill_null(holds(batch), False), name, variant)
        return batch.append_column(VARIANT, variant)


def _given(batches: Iterator[pa.RecordBatch]) -> Iterator[int]:
    for batch in batches:
        yield from batch.column(0).to_pylist()
