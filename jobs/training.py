"""Training: the features of past runs with what came of them, a LightGBM model, and its bundle."""

import datetime as dt
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from jobs.bundles import (
    LATEST,
    Bundle,
    check_promises,
    make_latest,
    open_bundle,
    write_bundle,
)
from jobs.combining import fit_combination
from jobs.dealing import holds_in
from jobs.features import query_features, read_source, register_sources
from jobs.fitting import SCORE, features_of, fit, labels_of, profile_of
from jobs.matrix import feature_matrix
from jobs.snapshot import Snapshot, take_snapshot
from lookup.store import Store
from schemas.bundle import EXPECTED_COLUMN, LABEL_COLUMN, BundleManifest, Feature, Output, TrainingRecord
from schemas.declared import DeclaredPipeline
from schemas.errors import BlockedError, InputError, Problem
from schemas.models import Funnel, Model, Named, Route
from schemas.pipeline import Pipeline, Training
from schemas.run import CHAMPION, ENTITY_ID
from schemas.settings import Settings
from validation.analysis import analysis_errors
from validation.parity import measure, metric_problems
from validation.quarantine import entity_id_column, judge_rows, passed

logger = logging.getLogger(__name__)

_HELD_OUT = "__held_out"
_HASH_STEPS = 1_000_000
_ROUTED = "__routed_"


@dataclass(frozen=True, slots=True)
class Trained:
    """The bundles that were made, the champion's and others by variant, and what it took."""

    bundle: Bundle
    others: Mapping[str, Bundle]
    seconds: float


def train(spark: SparkSession, settings: Settings, declared: DeclaredPipeline) -> Trained:
    """Train each declared model whose bundle is `latest` and make its bundle the latest; the champion comes first.

    The same data gives the same bundles. A route learns from the rows that it would take, the others from all.

    Raises:
        InputError: the sources are not there, or hold nothing to train on or to hold out.
        BlockedError: the champion is below a declared floor; the bundles are as they were.
    """
    started = time.monotonic()
    pipeline = declared.pipeline
    today = pipeline.training.start or dt.datetime.now(dt.UTC).date()
    snapshot = take_snapshot(settings, pipeline, today, pipeline.training.end)
    rows = _labelled(spark, settings, declared, snapshot, today)
    bundles = Store(settings.store, declared.name).bundles
    lesson = _Lesson(declared, snapshot, rows, bundles, pipeline.training.end or today)
    made = {
        variant: _train(variant, model, lesson)
        for variant, model in pipeline.models.variants.items()
        if model.bundle == LATEST or variant == CHAMPION
    }
    return Trained(made.pop(CHAMPION), made, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What all models of a pipeline learn from."""

    declared: DeclaredPipeline
    snapshot: Snapshot
    rows: pa.Table
    bundles: Path
    day: dt.date


def _train(variant: str, model: Model, lesson: _Lesson) -> Bundle:
    declared, pipeline = lesson.declared, lesson.declared.pipeline
    rows = lesson.rows.filter(lesson.rows.column(_ROUTED + model.name)) if isinstance(model, Route) else lesson.rows
    training, holdout = _split(rows, declared, variant)
    features = features_of(pipeline, training)
    if isinstance(model, Funnel) and model.features:
        features = tuple(feature for feature in features if feature.name in model.features)
    asked = _tuned(pipeline, model)
    # LightGBM and the bundle get their columns from the same encoder, so that neither can drift from the other.
    booster = (
        fit_combination(pipeline, asked, model.combine, features, training)
        if model.combine
        else fit(pipeline, asked, features, training)
    )
    expected = booster.predict(feature_matrix(features, holdout, model=declared.name), num_threads=1)
    scores = np.asarray(expected, dtype=np.float64)
    metrics = measure(asked.objective, labels_of(holdout), scores)
    floors = _floors(pipeline) if variant == CHAMPION else {}
    if problems := metric_problems(metrics, {}, floors, model=f"{declared.name} (new)"):
        raise BlockedError(*problems)
    record = _record(lesson, asked, training.num_rows, holdout.num_rows, variant)
    manifest = _manifest(declared, features, metrics, floors, record, is_ensemble=model.combine is not None)
    kept = holdout.select([ENTITY_ID, *(feature.name for feature in features), LABEL_COLUMN])
    name = lesson.day.isoformat() if variant == CHAMPION else f"{variant}-{lesson.day}"
    kept = kept.append_column(EXPECTED_COLUMN, pa.array(scores))
    folder = write_bundle(lesson.bundles, name, booster, kept, profile_of(features, training, scores), manifest)
    bundle = open_bundle(folder)
    check_promises(bundle, floors)
    make_latest(folder, variant)
    logger.info("trained %s on %d rows, %d held out", bundle.id, training.num_rows, holdout.num_rows)
    return bundle


def _tuned(pipeline: Pipeline, model: Model) -> Training:
    """How this model is trained: as declared for all, but for what it declares itself."""
    if not isinstance(model, Named):
        return pipeline.training
    own = {"params": {**pipeline.training.params, **model.params}, "rounds": model.rounds or pipeline.training.rounds}
    return pipeline.training.model_copy(update=own)


def _labelled(
    spark: SparkSession, settings: Settings, declared: DeclaredPipeline, snapshot: Snapshot, today: dt.date
) -> pa.Table:
    """Entity id, features, label and split of every entity with a label, sorted by entity id."""
    pipeline = declared.pipeline
    labels = _label_rows(spark, declared, snapshot)
    parts: list[DataFrame] = []
    for start, end in _windows(pipeline, today):
        if pipeline.training.start:
            snapshot = take_snapshot(settings, pipeline, start, end)
        register_sources(spark, declared, snapshot)
        parts.append(query_features(spark, declared, start))
    features = reduce(DataFrame.unionByName, parts)
    where = f"{declared.name}/pipeline.yaml"
    rules = [rule for rule in pipeline.rules if rule.on == "features"]
    rows = passed(judge_rows(features, pipeline.entity.key, rules, where=where))
    for route in pipeline.models.routes:
        holds = holds_in(rows, route.where, f"{where}: models.routes.{route.name}")
        rows = rows.withColumn(_ROUTED + route.name, holds)
    with analysis_errors(f"{declared.name}/{pipeline.features.sql}"):
        return rows.join(labels, ENTITY_ID).toArrow().sort_by(ENTITY_ID)


def _windows(pipeline: Pipeline, today: dt.date) -> Iterator[tuple[dt.date, dt.date]]:
    """The training days in pieces, as long as a run's unless declared, so that `:ds` means what it means in a run."""
    days = pipeline.training.window_days or pipeline.sources[pipeline.entity.source].days
    start, end = pipeline.training.start, pipeline.training.end
    if start is None or end is None:
        yield today, today
        return
    while start <= end:
        yield start, min(start + dt.timedelta(days=days - 1), end)
        start += dt.timedelta(days=days)


def _label_rows(spark: SparkSession, declared: DeclaredPipeline, snapshot: Snapshot) -> DataFrame:
    pipeline, training = declared.pipeline, declared.pipeline.training
    name = pipeline.entity.source
    source = read_source(spark, declared, name, snapshot.sources[name])
    entity = entity_id_column(pipeline.entity.key)
    with analysis_errors(f"{declared.name}/pipeline.yaml: training"):
        label = F.expr(training.label).cast("double").alias(LABEL_COLUMN)
        if training.split.by:
            held_out = F.expr(f"CAST({training.split.by} AS DATE)") >= F.lit(training.split.at)
        else:
            draw = F.pmod(F.xxhash64(entity, F.lit(training.seed)), F.lit(_HASH_STEPS)) / _HASH_STEPS
            held_out = draw < F.lit(training.split.holdout_share)
        rows = source.select(entity.alias(ENTITY_ID), label, held_out.alias(_HELD_OUT)).distinct()
    known = rows.where(F.col(LABEL_COLUMN).isNotNull() & F.col(_HELD_OUT).isNotNull())
    # An entity with two different outcomes teaches nothing.
    return known.groupBy(ENTITY_ID).agg(
        *(F.first(name).alias(name) for name in (LABEL_COLUMN, _HELD_OUT)), F.count(F.lit(1)).alias("__n")
    ).where("__n = 1").drop("__n")  # fmt: skip


def _split(rows: pa.Table, declared: DeclaredPipeline, variant: str) -> tuple[pa.Table, pa.Table]:
    of = "" if variant == CHAMPION else f" (of {variant})"
    where = f"{declared.name}/pipeline.yaml: training{of}"
    labels = labels_of(rows)
    if declared.pipeline.training.objective == "binary" and not np.isin(labels, (0.0, 1.0)).all():
        wrong = sorted({float(label) for label in labels[~np.isin(labels, (0.0, 1.0))]})
        raise InputError(
            Problem("TRAIN_LABEL", f"{where}.label", f"values {wrong[:5]}", "0 and 1, or objective: regression")
        )
    held_out = rows.column(_HELD_OUT)
    training, holdout = rows.filter(pc.invert(held_out)), rows.filter(held_out)
    for name, part in (("to train on", training), ("held out", holdout)):
        if part.num_rows == 0:
            raise InputError(
                Problem("TRAIN_EMPTY", f"{where}.split", f"no labelled row is {name}", "some on each side")
            )
        if declared.pipeline.training.objective == "binary" and np.unique(labels_of(part)).size == 1:
            raise InputError(
                Problem("TRAIN_LABEL", f"{where}.label", f"one value only among the rows {name}", "both 0 and 1")
            )
    return training, holdout


def _floors(pipeline: Pipeline) -> dict[str, float]:
    return {str(name): floor for name, floor in pipeline.training.floors.items()}


def _record(lesson: _Lesson, asked: Training, rows: int, holdout_rows: int, variant: str) -> TrainingRecord:
    split = asked.split
    return TrainingRecord(
        pipeline=lesson.declared.name,
        declaration=lesson.declared.digest,
        snapshot=lesson.snapshot.digest,
        rows=rows,
        holdout_rows=holdout_rows,
        start=asked.start,
        end=asked.end,
        split=f"held out from {split.at} by {split.by}"
        if split.by
        else f"held out at random: {split.holdout_share:.0%} of the entities",
        label=asked.label,
        params=asked.params,
        rounds=asked.rounds,
        seed=asked.seed,
        variant=variant,
    )


def _manifest(
    declared: DeclaredPipeline,
    features: tuple[Feature, ...],
    metrics: dict[str, float],
    floors: dict[str, float],
    record: TrainingRecord,
    *,
    is_ensemble: bool,
) -> BundleManifest:
    return BundleManifest.model_construct(
        format=1,
        flavor="ensemble" if is_ensemble else "lightgbm",
        library=f"lightgbm {version('lightgbm')}",
        objective=declared.pipeline.training.objective,
        features=features,
        outputs=(Output(name=SCORE),),
        metrics=metrics,
        floors=floors,
        training=record,
        files={},
    )
