"""A run's files, made: features, quarantine, predictions, what is carried, priors; and the manifest that lists them."""

import datetime as dt
import logging
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812  # the name all of Spark's users know it by

from jobs.carrying import Placing, Served, serve_set_aside, set_aside_ids
from jobs.features import query_features, read_source, register_sources
from jobs.lineup import route_rules
from jobs.logs import tell_workers
from jobs.priors import write_priors
from jobs.projection import Projection, find_projection
from jobs.reading import NotShortError
from jobs.reusable import Reuse, reuse_of_plan, scoring_digest
from jobs.scoring import Scored, score, set_aside
from jobs.shortcut import SCRATCH, failed_rows, score_rows, sort_rows
from jobs.stages import Plan
from jobs.tasks import file_count, tally
from schemas.content import canonical_json, sha256_text
from schemas.decision import challenger_digest
from schemas.errors import InputError, Problem
from schemas.head import ColumnSpec
from schemas.keys import bucket_count
from schemas.run import (
    PREDICTIONS,
    QUARANTINE,
    REASONS,
    Counts,
    DataFile,
    RunManifest,
    Stage,
    Way,
)
from schemas.serving import serving_of
from validation.analysis import analysis_errors
from validation.quarantine import COPIES, failed, judge_rows, passed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Judged:
    """Rows of the features query: how many pass, how many do not, and how many were copies of another.

    Attributes:
        superseded: Rows of the entity source that a newer one corrected.
    """

    passed: int
    failed: int
    collapsed: int
    superseded: int


@dataclass(frozen=True, slots=True)
class _Made:
    """What was written of the rows of the features query.

    Attributes:
        aside: Files of the rows that were set aside before they were scored.
        counted: The clock when the rows were judged.
    """

    way: Way
    rows: _Judged
    scored: Scored
    aside: tuple[DataFile, ...]
    buckets: int
    counted: float

    @property
    def files(self) -> tuple[DataFile, ...]:
        return (*self.scored.files, *self.aside)


def stage(folder: Path, plan: Plan, spark: SparkSession) -> RunManifest:
    """Write every file of the run under `folder`, and return the manifest of them.

    Raises:
        DeclarationError: the declared SQL does not run.
        InputError: a source or the bundle is not what it should be.
    """
    clock = time.monotonic
    started = clock()
    tell_workers(spark, plan.run_id)
    pipeline = plan.declared.pipeline
    columns = tuple(ColumnSpec(**output.model_dump()) for output in plan.bundle.manifest.outputs)
    inputs = register_sources(spark, plan.declared, plan.snapshot)
    features = query_features(spark, plan.declared, plan.date)
    reuse = reuse_of_plan(plan)
    made = _made(folder, plan, spark, features, inputs, reuse)
    finished = clock()
    rows, scored = made.rows, made.scored
    serving = serving_of(pipeline)
    priors = write_priors(
        folder,
        made.files,
        key=serving.key,
        segments=serving.segments,
        outputs=columns,
        min_rows=pipeline.fallback.min_rows,
    )
    outputs = plan.bundle.manifest.output_names
    placing = Placing(folder=folder, outputs=outputs, files=file_count(rows.passed), buckets=made.buckets)
    counts, served = _served(plan, made.files, scored, rows, placing)
    others = [file for file in made.files if not file.path.startswith(f"{PREDICTIONS}/")]
    return RunManifest(
        pipeline=plan.declared.name,
        run_id=plan.run_id,
        date=plan.date,
        scored_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        declaration=plan.declared.digest,
        models={variant: bundle.id for variant, bundle in plan.lineup},
        parameters={name: str(value) for name, value in plan.declared.values.items()},
        challengers={each.name: challenger_digest(each) for each in pipeline.models.challengers},
        outputs=columns,
        layout=pipeline.publish.layout,
        serving=serving,
        carried_from=served.carried_from,
        off=pipeline.checks.switched_off,
        buckets=made.buckets,
        counts=counts,
        content=sha256_text(canonical_json([file.sha256 for file in served.files])),
        files=(*served.files, *others, *priors),
        sources=plan.snapshot.fingerprints,
        parity=scored.parity,
        stages=(
            Stage(name="features", seconds=round(made.counted - started, 3), rows_out=rows.passed + rows.failed),
            Stage(name="score", seconds=round(finished - made.counted, 3), rows_in=rows.passed, rows_out=scored.rows),
            Stage(
                name="priors and carried",
                seconds=round(clock() - finished, 3),
                rows_in=scored.rows,
                rows_out=counts.rows,
            ),
        ),
        way=made.way,
        scoring=scoring_digest(plan) if reuse else None,
        reused=reuse.record(scored, made.buckets, file_count(rows.passed)) if reuse else None,
    )


def _made(
    folder: Path, plan: Plan, spark: SparkSession, features: DataFrame, inputs: DataFrame | None, reuse: Reuse | None
) -> _Made:
    """What was written, by the short way where the features are a plain projection, else by the long one."""
    projection = find_projection(spark, plan.declared, plan.snapshot, features)
    if isinstance(projection, str):
        why = projection
    else:
        try:
            return _by_short_way(folder, plan, spark, projection, reuse)
        except NotShortError as found:
            why = str(found)
        finally:
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    logger.info("run %s: the long way, through Spark: %s", plan.run_id, why)
    return _by_long_way(folder, plan, spark, features, inputs, why, reuse)


def _by_short_way(folder: Path, plan: Plan, spark: SparkSession, projection: Projection, reuse: Reuse | None) -> _Made:
    pipeline = plan.declared.pipeline
    rows = sort_rows(
        spark, projection, pipeline.entity.key, folder, entities_per_bucket=pipeline.publish.entities_per_bucket
    )
    counted = time.monotonic()
    scored = score_rows(spark, rows, plan.lineup, folder, reuse)
    outputs = plan.bundle.manifest.output_names
    aside = set_aside(failed_rows(spark, rows), None, rows.failed, folder, outputs=outputs) if rows.failed else ()
    judged = _Judged(rows.passed, rows.failed, rows.collapsed, 0)
    logger.info("run %s: the short way, with pyarrow alone", plan.run_id)
    return _Made(Way(name="short"), judged, scored, aside, rows.buckets, counted)


def _by_long_way(
    folder: Path,
    plan: Plan,
    spark: SparkSession,
    features: DataFrame,
    inputs: DataFrame | None,
    why: str,
    reuse: Reuse | None,
) -> _Made:
    pipeline, where = plan.declared.pipeline, f"{plan.declared.name}/pipeline.yaml"
    outputs = plan.bundle.manifest.output_names
    of = {place: [rule for rule in pipeline.rules if rule.on == place] for place in ("features", "predictions")}
    rules = [*of["features"], *route_rules(pipeline.models)]
    judged = judge_rows(features, pipeline.entity.key, rules, where=where).persist()
    try:
        with analysis_errors(f"{plan.declared.name}/{pipeline.features.sql}"):
            rows = _count(judged, _superseded(spark, plan))
            kept_out = inputs.count() if inputs is not None else 0
        counted = time.monotonic()
        buckets = bucket_count(rows.passed, pipeline.publish.entities_per_bucket)
        scored = score(
            passed(judged),
            rows.passed,
            plan.lineup,
            folder,
            models=pipeline.models,
            buckets=buckets,
            rules=of["predictions"],
            explain=pipeline.explain,
            reuse=reuse,
            where=where,
        )
        aside = set_aside(failed(judged), inputs, rows.failed + kept_out, folder, outputs=outputs)
    finally:
        judged.unpersist()
    return _Made(Way(name="long", why=why), rows, scored, aside, buckets, counted)


def _superseded(spark: SparkSession, plan: Plan) -> int:
    """How many rows of the entity source a newer one of their key corrected; asked of Spark only where they may."""
    name = plan.declared.pipeline.entity.source
    if plan.declared.pipeline.corrected_by(name) is None:
        return 0
    return read_source(spark, plan.declared, name, plan.snapshot.sources[name], superseded=True).count()


def _count(judged: DataFrame, superseded: int) -> _Judged:
    totals = judged.agg(
        F.count_if(F.size(REASONS) == 0).alias("passed"),
        F.count_if(F.size(REASONS) > 0).alias("failed"),
        F.coalesce(F.sum(F.col(COPIES) - 1), F.lit(0)).alias("collapsed"),
    ).first()
    if totals is None:
        raise InputError(Problem("IN_EMPTY", "features.sql", "no answer", "rows"))
    return _Judged(totals["passed"], totals["failed"], totals["collapsed"], superseded)


def _served(
    plan: Plan, files: tuple[DataFile, ...], scored: Scored, rows: _Judged, placing: Placing
) -> tuple[Counts, Served]:
    """The counts of the run by key, and the prediction files with what is served to those set aside."""
    quarantined = [file for file in files if file.path.startswith(f"{QUARANTINE}/")]
    ids = Counter(set_aside_ids(placing.folder, quarantined))
    keyless = ids.pop("", 0)
    served = serve_set_aside(
        [file for file in files if file.path.startswith(f"{PREDICTIONS}/")],
        ids,
        plan.declared.pipeline.quarantine,
        base=plan.base,
        store=plan.store,
        date=plan.date,
        model=plan.bundle.id,
        placing=placing,
    )
    aside = len(ids) + keyless
    counts = Counts(
        entities=scored.rows + aside,
        scored=scored.rows,
        carried=served.carried,
        quarantined=aside - served.carried,
        withheld=served.withheld,
        collapsed=rows.collapsed,
        superseded=rows.superseded,
        reasons=_reasons(placing.folder, quarantined),
        variants=dict(sorted(scored.variants.items())),
        dealt=dict(sorted(scored.dealt.items())),
    )
    return counts, served


def _reasons(folder: Path, files: list[DataFile]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for file in files:
        reasons = pq.read_table(folder / file.path, columns=[REASONS]).column(REASONS)
        found.update(tally(pc.list_flatten(reasons)))
    return dict(sorted(found.items()))
