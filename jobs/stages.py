"""The stages of one run, each of which may be killed and run again: check, score, verify, gate, publish, smoke."""

import datetime as dt
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.bundles import Bundle, check_promises, find_bundle, open_bundle
from jobs.snapshot import Snapshot, take_snapshot
from lookup.store import Store
from schemas.content import canonical_json, sha256_text, write_atomically
from schemas.declared import DeclaredPipeline, load_pipeline
from schemas.errors import BlockedError, DeclarationError, InputError, Problem
from schemas.head import ColumnSpec
from schemas.keys import bucket_count
from schemas.report import Report, Verdict
from schemas.run import (
    CHAMPION,
    FEATURES,
    MANIFEST_FILE,
    PREDICTIONS,
    PRIORS,
    QUARANTINE,
    RUN_FORMAT,
    Counts,
    RunManifest,
)
from schemas.serving import serving_of
from schemas.settings import Settings
from schemas.sql import check_sql

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

logger = logging.getLogger(__name__)

_STAGING, _DAMAGED = ".staging-", ".damaged-"
_LEFTOVER_SECONDS = 86_400.0

# A stage asks for Spark only when it has work for it: a run that is already done starts no JVM.
GetSpark = Callable[[], "SparkSession"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do: its declaration, date, inputs and model, proven to be there."""

    settings: Settings
    declared: DeclaredPipeline
    date: dt.date
    snapshot: Snapshot
    bundle: Bundle

    @property
    def store(self) -> Store:
        return Store(self.settings.store, self.declared.name)

    @property
    def run_id(self) -> str:
        """`<date>-<12 hex>` of all that decides the predictions: same content, same run."""
        content = [RUN_FORMAT, self.declared.digest, {CHAMPION: self.bundle.digest}, self.snapshot.digest]
        return f"{self.date.isoformat()}-{sha256_text(canonical_json(content))[:12]}"


def check_inputs(settings: Settings, pipeline: str, date: dt.date) -> Plan:
    """The plan of a run.

    Raises:
        DeclarationError: the declaration is wrong.
        InputError: a source is missing, incomplete or of another schema, or the bundle cannot be trusted.
    """
    declared = load_pipeline(settings, pipeline)
    check_sql(declared)
    snapshot = take_snapshot(settings, declared.pipeline, date)
    store = Store(settings.store, declared.name)
    reference = declared.pipeline.models.champion.bundle
    bundle = open_bundle(
        find_bundle(store.bundles, reference, where=f"{pipeline}/pipeline.yaml: models.champion.bundle")
    )
    _check_default(declared, bundle)
    check_promises(bundle, {str(name): floor for name, floor in declared.pipeline.training.floors.items()})
    return Plan(settings=settings, declared=declared, date=date, snapshot=snapshot, bundle=bundle)


def _check_default(declared: DeclaredPipeline, bundle: Bundle) -> None:
    """Refuse a default of other outputs than the model has: readers would get now one shape, now the other."""
    default = declared.pipeline.fallback.default
    outputs = {output.name for output in bundle.manifest.outputs}
    if default is not None and set(default) != outputs:
        where = f"{declared.name}/pipeline.yaml: fallback.default"
        raise DeclarationError(
            Problem("CFG_INVALID", where, f"outputs {', '.join(sorted(default))}", ", ".join(sorted(outputs)))
        )


def planned(settings: Settings, pipeline: str, date: dt.date, run_id: str | None) -> Plan:
    """The plan of a stage that continues run `run_id`.

    Raises:
        InputError: the inputs, the declaration or the model changed since that run was checked.
    """
    plan = check_inputs(settings, pipeline, date)
    if run_id not in (None, plan.run_id):
        raise InputError(
            Problem(
                "IN_CHANGED", f"{pipeline} {date}", f"now run {plan.run_id}", f"{run_id}; start again at check_inputs"
            )
        )
    return plan


def score(plan: Plan, spark: GetSpark) -> RunManifest:
    """Stage the run's predictions, quarantine and features; nothing is done where they are there, whole."""
    store, run_id = plan.store, plan.run_id
    folder = store.run_folder(run_id)
    if manifest := _whole(store, run_id):
        logger.info("run %s: scored already, %d entities", run_id, manifest.counts.scored)
        return manifest
    folder.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(folder.parent)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{_STAGING}{run_id}-"))
    staging.chmod(0o755)
    try:
        manifest = _score_into(staging, plan, spark())
        write_atomically(staging / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        manifest = _whole(store, run_id) or _move_into_place(staging, store, manifest)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    logger.info(
        "run %s: scored %d of %d entities, %.1f s",
        run_id,
        manifest.counts.scored,
        manifest.counts.entities,
        sum(manifest.seconds.values()),
    )
    return manifest


def _score_into(folder: Path, plan: Plan, spark: "SparkSession") -> RunManifest:
    from jobs.features import query_features, register_sources
    from jobs.priors import write_priors
    from jobs.scoring import score as score_rows
    from jobs.scoring import set_aside
    from validation.analysis import analysis_errors
    from validation.quarantine import failed, judge_rows, passed

    clock = time.monotonic
    started = clock()
    pipeline = plan.declared.pipeline
    register_sources(spark, plan.declared, plan.snapshot)
    features = query_features(spark, plan.declared, plan.date)
    judged = judge_rows(
        features, pipeline.entity.key, pipeline.rules, where=f"{plan.declared.name}/pipeline.yaml"
    ).persist()
    try:
        with analysis_errors(f"{plan.declared.name}/{pipeline.features.sql}"):
            counts, aside = _count(judged)
        counted = clock()
        buckets = bucket_count(counts.scored, pipeline.publish.entities_per_bucket)
        scored = score_rows(passed(judged), counts.scored, plan.bundle, folder, buckets=buckets)
        quarantined = set_aside(failed(judged), aside, folder)
    finally:
        judged.unpersist()
    serving = serving_of(pipeline)
    priors = write_priors(
        folder,
        scored.files,
        key=serving.key,
        segments=serving.segments,
        outputs=[output.name for output in plan.bundle.manifest.outputs],
        min_rows=pipeline.fallback.min_rows,
    )
    predictions = [file for file in scored.files if file.path.startswith(f"{PREDICTIONS}/")]
    return RunManifest(
        pipeline=plan.declared.name,
        run_id=plan.run_id,
        date=plan.date,
        scored_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        declaration=plan.declared.digest,
        models={CHAMPION: plan.bundle.id},
        outputs=tuple(ColumnSpec(name=output.name, type=output.type) for output in plan.bundle.manifest.outputs),
        layout=pipeline.publish.layout,
        serving=serving,
        buckets=buckets,
        counts=counts,
        content=sha256_text(canonical_json([file.sha256 for file in predictions])),
        files=(*scored.files, *quarantined, *priors),
        sources=plan.snapshot.fingerprints,
        parity=scored.parity,
        seconds={"features": round(counted - started, 3), "score": round(clock() - counted, 3)},
    )


def _count(judged: "DataFrame") -> tuple[Counts, int]:
    """The counts of the run, and how many rows are set aside: several may be of one entity."""
    from pyspark.sql import functions as F  # noqa: N812

    from schemas.run import ENTITY_ID, REASONS
    from validation.quarantine import COPIES

    totals = judged.agg(
        F.count_if(F.size(REASONS) == 0).alias("scored"),
        F.count_if(F.size(REASONS) > 0).alias("aside"),
        F.count_distinct(F.when(F.size(REASONS) > 0, F.col(ENTITY_ID))).alias("keys"),
        F.count_if(F.col(ENTITY_ID).isNull()).alias("keyless"),
        F.coalesce(F.sum(F.col(COPIES) - 1), F.lit(0)).alias("collapsed"),
    ).first()
    if totals is None:
        raise InputError(Problem("IN_EMPTY", "features.sql", "no answer", "rows"))
    by_reason = (
        judged.select(F.explode(REASONS).alias("reason")).groupBy("reason").count().collect() if totals["aside"] else []
    )
    quarantined = totals["keys"] + totals["keyless"]
    counts = Counts(
        entities=totals["scored"] + quarantined,
        scored=totals["scored"],
        quarantined=quarantined,
        collapsed=totals["collapsed"],
        reasons={row["reason"]: row["count"] for row in sorted(by_reason, key=lambda row: str(row["reason"]))},
    )
    return counts, int(totals["aside"])


def _clear_leftovers(runs: Path) -> None:
    """Remove what killed attempts left, once no attempt can still be at work on it."""
    for path in (*runs.glob(f"{_STAGING}*"), *runs.glob(f"{_DAMAGED}*")):
        with suppress(FileNotFoundError):  # another attempt may clear at the same time
            if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _whole(store: Store, run_id: str) -> RunManifest | None:
    """The manifest of a run that is staged with every file as it says; another attempt may have been faster."""
    if not (store.run_folder(run_id) / MANIFEST_FILE).is_file():
        return None
    manifest = store.manifest(run_id)
    return None if store.damage(manifest, PREDICTIONS, FEATURES, QUARANTINE, PRIORS) else manifest


def _move_into_place(staging: Path, store: Store, manifest: RunManifest) -> RunManifest:
    """Rename the staged run to its name; a damaged run that has the name is moved aside first."""
    folder = store.run_folder(manifest.run_id)
    if folder.exists():
        logger.warning("run %s: its files were damaged and are made again", manifest.run_id)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_DAMAGED))
        folder.rename(aside / folder.name)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        staging.rename(folder)
    except OSError:
        # Another attempt of this run took the name since; its files are the same, or this one must not replace them.
        if (other := _whole(store, manifest.run_id)) is None:
            raise
        return other
    return manifest


def gate(report: Report) -> None:
    """Stop the run where the verdict is FAIL.

    Raises:
        BlockedError: with each check that failed.
    """
    if report.verdict is Verdict.FAIL:
        failures = report.failures or ()
        problems = [
            Problem("BLOCKED", f"{report.pipeline} run {report.run_id}: {check.name}", check.observed, check.expected)
            for check in failures
        ]
        raise BlockedError(
            *(problems or [Problem("BLOCKED", f"{report.pipeline} run {report.run_id}", "no check ran", "checks")])
        )
