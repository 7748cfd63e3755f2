"""Training: the features of past runs with what came of them, a LightGBM model, and its bundle."""

import datetime as dt
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from jobs.bundles import (
    Bundle,
    check_promises,
    let_threads_sleep,
    make_latest,
    open_bundle,
    write_bundle,
)
from jobs.features import query_features, read_source, register_sources
from jobs.matrix import feature_matrix
from jobs.snapshot import Snapshot, take_snapshot
from lookup.store import Store
from schemas.bundle import EXPECTED_COLUMN, LABEL_COLUMN, BundleManifest, Feature, Output, TrainingRecord
from schemas.declared import DeclaredPipeline
from schemas.errors import BlockedError, DeclarationError, InputError, Problem
from schemas.pipeline import Pipeline
from schemas.run import ENTITY_ID
from schemas.settings import Settings
from validation.analysis import analysis_errors
from validation.drift import ScoredProfile
from validation.parity import Floats, measure, metric_problems
from validation.profile import profile_batches
from validation.quarantine import entity_id_column, judge_rows, passed

if TYPE_CHECKING:
    import lightgbm

logger = logging.getLogger(__name__)

MAX_CATEGORIES = 10_000
_HELD_OUT = "__held_out"
_HASH_STEPS = 1_000_000
_SCORE = "score"


@dataclass(frozen=True, slots=True)
class Trained:
    """A bundle that was made, and what it took."""

    bundle: Bundle
    seconds: float


def train(spark: SparkSession, settings: Settings, declared: DeclaredPipeline) -> Trained:
    """Train the declared model and make its bundle the latest. The same data gives the same bundle.

    Raises:
        InputError: the sources are not there, or hold nothing to train on or to hold out.
        BlockedError: the model is below a declared floor; the bundles are as they were.
    """
    started = time.monotonic()
    pipeline = declared.pipeline
    today = pipeline.training.start or dt.datetime.now(dt.UTC).date()
    snapshot = take_snapshot(settings, pipeline, today, pipeline.training.end)
    rows = _labelled(spark, settings, declared, snapshot, today)
    training, holdout = _split(rows, declared)
    features = _features(pipeline, training)
    # LightGBM and the bundle get their columns from the same encoder, so that neither can drift from the other.
    booster = _fit(pipeline, features, training)
    expected = booster.predict(feature_matrix(features, holdout, model=declared.name), num_threads=1)
    scores = np.asarray(expected, dtype=np.float64)
    metrics = measure(pipeline.training.objective, _labels(holdout), scores)
    if problems := metric_problems(metrics, {}, _floors(pipeline), model=f"{declared.name} (new)"):
        raise BlockedError(*problems)
    manifest = _manifest(declared, snapshot, features, metrics, training.num_rows, holdout.num_rows)
    kept = holdout.select([ENTITY_ID, *(feature.name for feature in features), LABEL_COLUMN])
    store = Store(settings.store, declared.name)
    name = (pipeline.training.end or today).isoformat()
    kept = kept.append_column(EXPECTED_COLUMN, pa.array(scores))
    folder = write_bundle(store.bundles, name, booster, kept, _profile(features, training, scores), manifest)
    bundle = open_bundle(folder)
    check_promises(bundle, _floors(pipeline))
    make_latest(folder)
    seconds = time.monotonic() - started
    logger.info("trained %s on %d rows, %d held out, %.1f s", bundle.id, training.num_rows, holdout.num_rows, seconds)
    return Trained(bundle, seconds)


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
    source = read_source(spark, pipeline.sources[name], snapshot.sources[name])
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


def _split(rows: pa.Table, declared: DeclaredPipeline) -> tuple[pa.Table, pa.Table]:
    where = f"{declared.name}/pipeline.yaml: training"
    labels = _labels(rows)
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
        if declared.pipeline.training.objective == "binary" and np.unique(_labels(part)).size == 1:
            raise InputError(
                Problem("TRAIN_LABEL", f"{where}.label", f"one value only among the rows {name}", "both 0 and 1")
            )
    return training, holdout


def _floors(pipeline: Pipeline) -> dict[str, float]:
    return {str(name): floor for name, floor in pipeline.training.floors.items()}


def _labels(rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(rows.column(LABEL_COLUMN).to_numpy(), dtype=np.float64)


def _features(pipeline: Pipeline, training: pa.Table) -> tuple[Feature, ...]:
    numeric = [Feature(name=name, kind="numeric") for name in pipeline.features.numeric]
    categorical = []
    for name in pipeline.features.categorical:
        seen = sorted(pc.unique(pc.cast(training.column(name), pa.string())).drop_null().to_pylist())
        if len(seen) > MAX_CATEGORIES:
            raise InputError(
                Problem("TRAIN_CATEGORIES", f"feature {name}", f"{len(seen)} categories", f"at most {MAX_CATEGORIES}")
            )
        categorical.append(Feature(name=name, kind="categorical", categories=tuple(seen)))
    return (*numeric, *categorical)


def _fit(pipeline: Pipeline, features: tuple[Feature, ...], training: pa.Table) -> "lightgbm.Booster":
    let_threads_sleep()
    import lightgbm  # heavy; only training pays for it here

    fixed = {
        "objective": pipeline.training.objective,
        "seed": pipeline.training.seed,
        "deterministic": True,
        "force_row_wise": True,  # with `deterministic`: the same trees whatever the number of threads
        "verbosity": -1,
    }
    names = [feature.name for feature in features]
    data = lightgbm.Dataset(
        feature_matrix(features, training, model=pipeline.pipeline),
        label=_labels(training),
        feature_name=names,
        categorical_feature=[feature.name for feature in features if feature.kind == "categorical"],
    )
    try:
        return lightgbm.train({**pipeline.training.params, **fixed}, data, num_boost_round=pipeline.training.rounds)
    except lightgbm.basic.LightGBMError as err:
        where = f"{pipeline.pipeline}/pipeline.yaml: training.params"
        raise DeclarationError(Problem("TRAIN_PARAMS", where, str(err), "parameters that LightGBM takes")) from err


def _profile(features: tuple[Feature, ...], training: pa.Table, scores: Floats) -> ScoredProfile:
    """The training as drift compares with it: in one batch, so that the same rows give the same bytes."""
    rows = training.select([feature.name for feature in features]).combine_chunks()
    return ScoredProfile(
        features=profile_batches(rows.to_batches()),
        scores=profile_batches([pa.RecordBatch.from_pydict({_SCORE: pa.array(scores)})]),
    )


def _manifest(
    declared: DeclaredPipeline,
    snapshot: Snapshot,
    features: tuple[Feature, ...],
    metrics: dict[str, float],
    rows: int,
    holdout_rows: int,
) -> BundleManifest:
    training = declared.pipeline.training
    split = training.split
    record = TrainingRecord(
        pipeline=declared.name,
        declaration=declared.digest,
        snapshot=snapshot.digest,
        rows=rows,
        holdout_rows=holdout_rows,
        start=training.start,
        end=training.end,
        split=f"held out from {split.at} by {split.by}"
        if split.by
        else f"held out at random: {split.holdout_share:.0%} of the entities",
        label=training.label,
        params=training.params,
        rounds=training.rounds,
        seed=training.seed,
    )
    return BundleManifest.model_construct(
        format=1,
        flavor="lightgbm",
        library=f"lightgbm {version('lightgbm')}",
        objective=training.objective,
        features=features,
        outputs=(Output(name=_SCORE),),
        metrics=metrics,
        floors=_floors(declared.pipeline),
        training=record,
        files={},
    )
