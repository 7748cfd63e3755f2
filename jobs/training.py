"""Training: the features of past runs with what came of them, a model, and its bundle."""

import datetime as dt
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
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
from jobs.fitting import features_of, fit, labels_of, profile_of, with_expected
from jobs.flavors.opening import open_model
from jobs.flavors.scorer import Signature, as_outputs
from jobs.libraries import library_here
from jobs.matrix import feature_columns
from jobs.snapshot import Snapshot, take_snapshot
from lookup.store import Store
from schemas.bundle import (
    GROUP_COLUMN,
    LABEL_COLUMN,
    BundleManifest,
    Feature,
    Flavor,
    TrainingRecord,
    outputs_of,
)
from schemas.declared import DeclaredPipeline
from schemas.errors import BlockedError, InputError, Problem
from schemas.models import Funnel, Model, Named, Route
from schemas.pipeline import Pipeline, Training
from schemas.run import CHAMPION, ENTITY_ID
from schemas.settings import Settings
from validation.analysis import analysis_errors
from validation.parity import Floats, measure, metric_problems
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
    # The library and the bundle get their columns from the same encoder, so that neither can drift from the other.
    flavor: Flavor = "ensemble" if model.combine else asked.flavor
    grow = partial(fit_combination, combine=model.combine) if model.combine else fit
    model_file = grow(pipeline, asked, features, training)
    scorer = open_model(flavor, model_file, Signature(features, asked.objective, tuple(asked.classes)))
    columns = feature_columns(features, holdout, model=declared.name)
    predicted = as_outputs(asked.classes, scorer.library().predict(columns))
    groups = [holdout.column(GROUP_COLUMN)] if asked.group else []
    metrics = measure(asked.objective, labels_of(holdout), predicted, *groups)
    floors = pipeline.training.floors_by_name if variant == CHAMPION else {}
    if problems := metric_problems(metrics, {}, floors, model=f"{declared.name} (new)"):
        raise BlockedError(*problems)
    record = _record(lesson, asked, training.num_rows, holdout.num_rows, variant)
    manifest = _manifest(asked, flavor, features, metrics, floors, record)
    own = [LABEL_COLUMN, *([GROUP_COLUMN] if asked.group else [])]
    kept = holdout.select([ENTITY_ID, *(feature.name for feature in features), *own])
    kept = with_expected(kept, manifest.outputs, predicted)
    name = lesson.day.isoformat() if variant == CHAMPION else f"{variant}-{lesson.day}"
    profile = profile_of(features, training, manifest.outputs, predicted)
    folder = write_bundle(lesson.bundles, name, model_file, kept, profile, manifest)
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
        label = _label(training)
        if training.split.by:
            held_out = F.expr(f"CAST({training.split.by} AS DATE)") >= F.lit(training.split.at)
        else:
            draw = F.pmod(F.xxhash64(entity, F.lit(training.seed)), F.lit(_HASH_STEPS)) / _HASH_STEPS
            held_out = draw < F.lit(training.split.holdout_share)
        told = {LABEL_COLUMN: label, _HELD_OUT: held_out}
        if training.group:
            told[GROUP_COLUMN] = F.expr(training.group).cast("string")
        rows = source.select(entity.alias(ENTITY_ID), *(value.alias(name) for name, value in told.items())).distinct()
    known = rows.dropna(subset=list(told))
    # An entity with two different outcomes teaches nothing.
    return known.groupBy(ENTITY_ID).agg(
        *(F.first(name).alias(name) for name in told), F.count(F.lit(1)).alias("__n")
    ).where("__n = 1").drop("__n")  # fmt: skip


def _label(training: Training) -> Column:
    """The label as a number: of classes their place, -1 of what is none of them."""
    label = F.expr(training.label)
    if not training.classes:
        return label.cast("double")
    place = F.array_position(F.array(*map(F.lit, training.classes)), label.cast("string")) - 1
    return F.when(label.isNotNull(), place.cast("double"))


def _split(rows: pa.Table, declared: DeclaredPipeline, variant: str) -> tuple[pa.Table, pa.Table]:
    of = "" if variant == CHAMPION else f" (of {variant})"
    where = f"{declared.name}/pipeline.yaml: training{of}"
    training_of = declared.pipeline.training
    _check_labels(training_of, labels_of(rows), f"{where}.label")
    held_out = rows.column(_HELD_OUT)
    training, holdout = rows.filter(pc.invert(held_out)), rows.filter(held_out)
    for name, part in (("to train on", training), ("held out", holdout)):
        if part.num_rows == 0:
            raise InputError(
                Problem("TRAIN_EMPTY", f"{where}.split", f"no labelled row is {name}", "some on each side")
            )
        if training_of.objective == "binary" and np.unique(labels_of(part)).size == 1:
            raise InputError(
                Problem("TRAIN_LABEL", f"{where}.label", f"one value only among the rows {name}", "both 0 and 1")
            )
    if lost := set(range(len(training_of.classes))) - {int(label) for label in labels_of(training)}:
        found = f"no row to train on is {training_of.classes[min(lost)]}"
        raise InputError(Problem("TRAIN_LABEL", f"{where}.label", found, "some of each class"))
    return training, holdout


def _check_labels(training: Training, labels: Floats, where: str) -> None:
    if training.objective == "binary" and not np.isin(labels, (0.0, 1.0)).all():
        wrong = sorted({float(label) for label in labels[~np.isin(labels, (0.0, 1.0))]})
        raise InputError(Problem("TRAIN_LABEL", where, f"values {wrong[:5]}", "0 and 1, or objective: regression"))
    if training.objective == "multiclass" and (labels < 0).any():
        found = f"{int((labels < 0).sum())} rows of no declared class"
        raise InputError(Problem("TRAIN_LABEL", where, found, ", ".join(training.classes)))
    if training.objective == "ranking" and ((np.mod(labels, 1) != 0) | (labels < 0)).any():
        raise InputError(Problem("TRAIN_LABEL", where, "not only whole numbers", "a relevance of 0, 1, 2, ..."))


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
        estimator=asked.estimator,
        params=asked.params,
        rounds=asked.rounds,
        seed=asked.seed,
        variant=variant,
    )


def _manifest(
    asked: Training,
    flavor: Flavor,
    features: tuple[Feature, ...],
    metrics: dict[str, float],
    floors: dict[str, float],
    record: TrainingRecord,
) -> BundleManifest:
    return BundleManifest.model_construct(
        format=1,
        flavor=flavor,
        library=library_here(flavor),
        objective=asked.objective,
        features=features,
        outputs=outputs_of(asked.objective, asked.classes),
        metrics=metrics,
        floors=floors,
        training=record,
        files={},
    )
