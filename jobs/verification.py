"""Verification of a staged run: every check against it, one report, whatever the verdict."""

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import starmap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.snapshot import take_snapshot
from jobs.stages import GetSpark, Plan
from lookup.store import Store
from schemas.content import write_atomically
from schemas.errors import InputError, Problem
from schemas.expectations import Expectation
from schemas.pipeline import Pipeline
from schemas.report import CheckResult, Family, Report, Verdict
from schemas.run import (
    ENTITY_ID,
    FEATURES,
    PREDICTIONS,
    PROFILE_FILE,
    QUARANTINE,
    REPORT_FILE,
    REPORT_PAGE,
    ROUTE_COLUMNS,
    RunManifest,
)
from validation.coverage import check_coverage, check_entities, check_finite, check_quarantine, check_workers
from validation.drift import check_drift
from validation.gate import evaluated, judge
from validation.profile import Profile, profile_batches
from validation.report import render_page
from validation.slices import SliceMeans, check_slices, measure_slices

logger = logging.getLogger(__name__)

_REQUIRED: tuple[Family, ...] = ("inputs", "coverage", "entities", "quarantine", "parity", "expectations", "drift")


class Measures(BaseModel):
    """`profile.json` of a run: what later runs compare with, without reading its data again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predictions: Profile
    features: Profile
    slices: SliceMeans | None


def verify(plan: Plan, manifest: RunManifest, spark: GetSpark, *, again: bool = False) -> Report:
    """The report of a staged run, written beside it as JSON and as a page.

    A run that has passed keeps its report: it is the evidence it was published on.

    Args:
        plan: Of the run.
        manifest: Of what is staged.
        spark: Asked for only if there is something to check.
        again: Check also what has passed before.
    """
    store, folder = plan.store, plan.store.run_folder(manifest.run_id)
    if not again and (folder / REPORT_FILE).is_file():
        report = store.report(manifest.run_id)
        if report.content == manifest.content and report.verdict is not Verdict.FAIL:
            logger.info("run %s: verified already, %s", manifest.run_id, report.verdict)
            return report
    started = time.monotonic()
    live = _live_run(store, manifest.run_id)
    measures = measure_run(folder, manifest, plan.declared.pipeline)
    before = _measures(store.run_folder(live.run_id)) if live else None
    results = _check(plan, manifest, measures, live, before, spark)
    required = (*_REQUIRED, "slices") if plan.declared.pipeline.checks.slices else _REQUIRED
    report = Report(
        pipeline=plan.declared.name,
        run_id=manifest.run_id,
        content=manifest.content,
        verified_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        compared_with=live.run_id if live else None,
        verdict=judge(results, required=required),
        checks=tuple(results),
    )
    page = render_page(
        report,
        manifest.model_copy(update={"seconds": {**manifest.seconds, "verify": round(time.monotonic() - started, 3)}}),
        profile=measures.predictions,
        live=before.predictions if before else None,
        slices=measures.slices,
        live_slices=before.slices if before else None,
    )
    write_atomically(folder / PROFILE_FILE, measures.model_dump_json() + "\n")
    write_atomically(folder / REPORT_PAGE, page)
    # Last, because publish asks for this file: a report that can be read is one that is complete.
    write_atomically(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
    logger.info(
        "run %s: %s, %d checks, %.1f s", manifest.run_id, report.verdict, len(results), time.monotonic() - started
    )
    return report


def measure_run(folder: Path, manifest: RunManifest, pipeline: Pipeline) -> Measures:
    """The profile of predictions, features and slices, from one scan of the staged files."""
    output = manifest.outputs[0].name
    columns = pipeline.checks.slices.columns if pipeline.checks.slices else []
    features = profile_batches(_batches(folder, manifest, FEATURES))
    predictions = profile_batches(_batches(folder, manifest, PREDICTIONS))
    slices = measure_slices(_joined(folder, manifest, columns), columns=columns, output=output) if columns else None
    return Measures(predictions=predictions, features=features, slices=slices)


def _batches(
    folder: Path, manifest: RunManifest, part: str, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    for file in manifest.files_in(part):
        with pq.ParquetFile(folder / file.path, page_checksum_verification=True) as parquet:
            yield from parquet.iter_batches(columns=columns)


def _joined(folder: Path, manifest: RunManifest, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Predictions beside their features: both files have the same rows in the same order."""
    names = [ENTITY_ID, *columns]
    parts = (_batches(folder, manifest, PREDICTIONS), _batches(folder, manifest, FEATURES, names))
    yield from starmap(_beside, zip(*parts, strict=True))


def _beside(predictions: pa.RecordBatch, features: pa.RecordBatch) -> pa.RecordBatch:
    if not predictions.column(ENTITY_ID).equals(features.column(ENTITY_ID)):
        raise InputError(
            Problem("OUT_ORDER", "staged files", "features and predictions differ in order", "the same rows")
        )
    rest = [name for name in predictions.schema.names if name not in (ENTITY_ID, *ROUTE_COLUMNS)]
    arrays = [*features.columns, *(predictions.column(name) for name in rest)]
    return pa.RecordBatch.from_arrays(arrays, names=[*features.schema.names, *rest])


def _live_run(store: Store, run_id: str) -> RunManifest | None:
    live = store.live()
    return store.manifest(live.run_id) if live and live.run_id != run_id else None


def _measures(folder: Path) -> Measures:
    try:
        return Measures.model_validate_json((folder / PROFILE_FILE).read_bytes())
    except (OSError, ValidationError) as err:
        # The live release passed with this file: without it there is no baseline, and without that no verdict.
        raise InputError(
            Problem("OUT_FORMAT", str(folder / PROFILE_FILE), str(err).splitlines()[0], "the live release's profile")
        ) from err


def _check(
    plan: Plan,
    manifest: RunManifest,
    measures: Measures,
    live: RunManifest | None,
    before: Measures | None,
    spark: GetSpark,
) -> list[CheckResult]:
    checks = plan.declared.pipeline.checks
    counts, outputs = manifest.counts, tuple(output.name for output in manifest.outputs)
    now, then = measures.predictions, before.predictions if before else None
    own: tuple[tuple[str, Family, Callable[[], CheckResult | list[CheckResult]]], ...] = (
        ("inputs unchanged", "inputs", lambda: _check_inputs(plan, manifest)),
        ("every entity accounted for", "coverage", lambda: _check_coverage(plan, manifest, spark)),
        ("predictions are finite", "coverage", lambda: check_finite(now, outputs)),
        ("enough entities", "entities", lambda: check_entities(counts, live.counts if live else None, checks.entities)),
        ("quarantined share", "quarantine", lambda: check_quarantine(counts, checks.max_quarantined)),
        ("bundle reproduces its holdout", "parity", lambda: check_workers(manifest.parity)),
        ("drift", "drift", lambda: check_drift(now, then, outputs=outputs, levels=checks.drift)),
    )
    results = [result for name, family, check in own for result in evaluated(name, family, check)]
    results += _check_expectations(plan, manifest, spark)
    declared = checks.slices
    if declared and (slices := measures.slices):
        results += evaluated(
            "slices", "slices", lambda: check_slices(slices, before.slices if before else None, declared)
        )
    return results


def _check_inputs(plan: Plan, manifest: RunManifest) -> CheckResult:
    """Whether the sources still are, byte for byte, what was scored."""
    now = take_snapshot(plan.settings, plan.declared.pipeline, plan.date).fingerprints
    changed = sorted({file.path for file in set(now) ^ set(manifest.sources)})
    return CheckResult(
        name="inputs unchanged",
        family="inputs",
        verdict=Verdict.FAIL if changed else Verdict.PASS,
        observed=f"{len(changed)} files differ: {', '.join(changed[:3])}" if changed else f"{len(now)} files as scored",
        expected="the files that were scored",
    )


def _check_coverage(plan: Plan, manifest: RunManifest, spark: GetSpark) -> CheckResult:
    from jobs.features import read_source
    from validation.quarantine import entity_id_column

    pipeline, session = plan.declared.pipeline, spark()
    name = pipeline.entity.source
    source = read_source(session, pipeline.sources[name], plan.snapshot.sources[name])
    listed = source.select(entity_id_column(pipeline.entity.key).alias(ENTITY_ID))
    folder = plan.store.run_folder(manifest.run_id)
    aside = session.read.parquet(str(folder / QUARANTINE)) if manifest.files_in(QUARANTINE) else None
    return check_coverage(listed, session.read.parquet(str(folder / PREDICTIONS)), aside)


def _check_expectations(plan: Plan, manifest: RunManifest, spark: GetSpark) -> Iterator[CheckResult]:
    folder = plan.store.run_folder(manifest.run_id)
    suites = (
        (FEATURES, "inputs", plan.declared.suites.inputs),
        (PREDICTIONS, "predictions", plan.declared.suites.predictions),
    )
    for part, name, expectations in suites:
        check = partial(_check_suite, name, expectations, str(folder / part), spark)
        yield from evaluated(f"expectations of {name}", "expectations", check)


def _check_suite(name: str, expectations: Sequence[Expectation], path: str, spark: GetSpark) -> list[CheckResult]:
    from validation.expectations import evaluate  # seconds of import time that a finished run need not pay

    return evaluate(name, expectations, spark().read.parquet(path))
