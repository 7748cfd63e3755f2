"""Scoring on Spark: features in, sorted and bucketed prediction files out, the same bytes every time."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by
from pyspark.sql import types as T  # noqa: N812

from jobs.bundles import Bundle
from jobs.collecting import collect
from jobs.dealing import dealt, drawn
from jobs.explaining import EXPLAINED, Explainer
from jobs.funnel import sieve_of
from jobs.lineup import Lineup
from jobs.predicting import ERROR, NOTE, Contender, Predict
from jobs.reusable import Reuse, reuse_of
from jobs.reusing import FINGERPRINT, REUSED
from jobs.tasks import BUCKET, FILE, QuarantineTask, Scoring, file_count
from schemas.checks import Rule
from schemas.errors import InputError, Problem
from schemas.explain import Explain
from schemas.keys import bucket_count
from schemas.models import Models
from schemas.run import ENTITY_ID, FEATURES, INPUT_ROW, REASONS, STAGE, DataFile, Parity
from validation.analysis import analysis_errors
from validation.quarantine import listed, rule_reasons

_NOTED = [T.StructField(name, T.StringType()) for name in (ERROR, NOTE)]
_PRINTED = [T.StructField(FINGERPRINT, T.LongType()), T.StructField(REUSED, T.ByteType())]


@dataclass(frozen=True, slots=True)
class Scored:
    """What the tasks wrote and proved.

    Attributes:
        files: Predictions, features, and what was set aside for its prediction.
        rows: Scored.
        variants: Variant -> rows that it scored, where there are several.
        dealt: Challenger -> rows that it and what would serve without it scored.
        aside: Rows that were set aside for their prediction.
        reasons: Reason -> such rows.
    """

    files: tuple[DataFile, ...]
    parity: tuple[Parity, ...]
    rows: int
    variants: Counter[str]
    dealt: Counter[str]
    aside: int
    reasons: Counter[str]
    reused: int = 0
    audited: int = 0


def score(
    features: DataFrame,
    rows: int,
    lineup: Lineup,
    folder: Path,
    *,
    models: Models,
    buckets: int,
    rules: Sequence[Rule] = (),
    explain: Explain | None = None,
    reuse: Reuse | None = None,
    where: str,
) -> Scored:
    """Score every row and write it, with its features beside it, under `folder`.

    The number of files and their order follow from the rows alone: a row goes to the file of its bucket, and is sorted
    there by bucket and entity id. How Spark had the rows partitioned before leaves no trace. A row whose prediction is
    not finite, does not meet a rule, or that its model cannot score, is quarantined.

    Args:
        features: ENTITY_ID and the feature columns, ids distinct.
        rows: How many there are.
        lineup: The bundles.
        models: Which of them scores which rows.
        folder: On a file system that every executor shares.
        buckets: Of the lookup table.
        rules: Over key, features and outputs.
        explain: Which rows are explained, and how.
        reuse: Of an earlier run's outputs.
        where: How errors name the declaration.

    Raises:
        InputError: a worker could not trust the bundle or read a feature.
        DeclarationError: a rule is not a predicate over these columns.
    """
    outputs = lineup.champion.manifest.output_names
    named = dealt(features, models, where=where)
    contenders = contenders_of(lineup)
    sieve = sieve_of(named, models.funnel, lineup) if models.funnel else None
    scorer = Predict(contenders, outputs, sieve=sieve)
    predict = reuse_of(reuse, scorer, features.columns, buckets, file_count(rows))
    if explain:
        named = named.withColumn(EXPLAINED, drawn(explain.share, f"explain:{explain.salt or ''}"))
    explainer = Explainer(explain.top, contenders) if explain else None
    task = Scoring(folder, contenders, outputs, None, explain=explainer, has_prints=bool(reuse))
    placed = _bucketed(named, buckets, file_count(rows))
    if rules:
        # Through the JVM and back, because Spark alone knows what its SQL means. The rows keep their places.
        added = [
            *(T.StructField(name, T.DoubleType()) for name in predict.added(placed.columns)),
            *_NOTED,
            *(_PRINTED if reuse else []),
        ]
        predicted = placed.mapInArrow(predict, T.StructType([*placed.schema.fields, *added]))
        judged = predicted.withColumn(REASONS, listed(rule_reasons(predicted, rules, where=where)))
        with analysis_errors(f"{where}: rules"):
            records = run_tasks(judged, task)
    else:
        records = run_tasks(placed, replace(task, predict=predict))
    return scored_by(records, lineup)


def scored_by(records: list[dict[str, Any]], lineup: Lineup) -> Scored:
    """What the records of scoring tasks say together."""
    bundles = {bundle.id: bundle for _, bundle in lineup}
    return Scored(
        files_of(records),
        tuple(_proven(bundle, records) for bundle in bundles.values()),
        rows=sum(record["rows"] for record in records),
        variants=sum((Counter(record["variants"]) for record in records), Counter()),
        dealt=sum((Counter(record["dealt"]) for record in records), Counter()),
        aside=sum(record["aside"] for record in records),
        reasons=sum((Counter(record["reasons"]) for record in records), Counter()),
        reused=sum(record["reused"] for record in records),
        audited=sum(record["audited"] for record in records),
    )


def contenders_of(lineup: Lineup) -> dict[str, Contender]:
    """The bundles as they travel to the workers, by variant."""
    return {variant: Contender(bundle.id, bundle.folder, bundle.digest) for variant, bundle in lineup}


def _proven(bundle: Bundle, records: list[dict[str, Any]]) -> Parity:
    found = [record["differences"][bundle.id] for record in records]
    return Parity(
        model=bundle.id,
        rows=bundle.manifest.training.holdout_rows,
        max_abs_difference=max(found, default=0.0),
        workers=len(found),
        engines=Counter(sorted(record["engines"][bundle.id] for record in records)),
    )


def set_aside(
    failed: DataFrame, inputs: DataFrame | None, rows: int, folder: Path, *, outputs: Sequence[str]
) -> tuple[DataFile, ...]:
    """Write the rows that were not scored, with their reasons and what is known of them, under `folder`.

    Args:
        failed: ENTITY_ID, key and features and REASONS of rows that a rule of features set aside.
        inputs: ENTITY_ID, the source's columns and REASONS of those that an input rule did.
        rows: Of both.
        folder: Of the run.
        outputs: Columns that these rows do not have yet, so that all quarantine files have the same.
    """
    if rows == 0:
        return ()
    known = [name for name in failed.columns if name not in (ENTITY_ID, REASONS)]
    kinds = {name: failed.schema[name].dataType.simpleString() for name in known}
    none = [F.lit(None).cast("double").alias(name) for name in outputs]
    row = F.lit(None).cast("string").alias(INPUT_ROW)
    frame = failed.select(ENTITY_ID, F.lit(FEATURES).alias(STAGE), REASONS, *known, *none, row)
    if inputs is not None:
        source = [name for name in inputs.columns if name not in (ENTITY_ID, REASONS)]
        values = [
            F.expr(f"try_cast(`{name}` AS {kind})" if name in source else f"CAST(NULL AS {kind})").alias(name)
            for name, kind in kinds.items()
        ]
        row = F.to_json(F.struct(*(F.col(f"`{name}`") for name in source))).alias(INPUT_ROW)
        frame = frame.unionByName(inputs.select(ENTITY_ID, F.lit("inputs").alias(STAGE), REASONS, *values, *none, row))
    return files_of(
        run_tasks(
            _bucketed(frame.fillna("", [ENTITY_ID]), bucket_count(rows), file_count(rows)), QuarantineTask(folder)
        )
    )


def _bucketed(frame: DataFrame, buckets: int, files: int) -> DataFrame:
    bucket = F.crc32(F.col(ENTITY_ID).cast("binary")) % buckets
    # Whole ranges of buckets to a file; integer arithmetic, so that no rounding can differ.
    file = F.expr(f"CAST(({BUCKET} * {files}) DIV {buckets} AS INT)")
    placed = frame.withColumn(BUCKET, bucket).withColumn(FILE, file)
    everything = [name for name in frame.columns if name != ENTITY_ID]
    return placed.repartitionById(files, FILE).sortWithinPartitions(BUCKET, ENTITY_ID, *everything)


def run_tasks(
    frame: DataFrame, task: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
) -> list[dict[str, Any]]:
    """One record of each task that had rows.

    Raises:
        InputError: a task could not trust or read something.
        OSError: a task could not write.
        DeclarationError: the workers do not have this code, or a package that it needs.
    """
    rows = collect(frame.mapInArrow(task, "record string"))
    records: list[dict[str, Any]] = [json.loads(row.record) for row in rows]
    problems = dict.fromkeys(Problem(*problem) for record in records for problem in record.get("problems", ()))
    if problems:
        raise InputError(*problems)
    for record in records:
        if "os_error" in record:
            raise OSError(*record["os_error"])
    return records


def files_of(records: list[dict[str, Any]]) -> tuple[DataFile, ...]:
    files = [DataFile.model_validate(file) for record in records for file in record["files"]]
    return tuple(sorted(files, key=lambda file: file.path))
