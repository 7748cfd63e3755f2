"""Verification of a staged run: every check against it, one report, whatever the verdict."""

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator
from itertools import starmap
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.comparing import diff_manifests
from jobs.snapshot import take_snapshot
from jobs.stages import GetSpark, Plan
from lookup.store import Store
from schemas.checks import Checks as Declared
from schemas.content import write_atomically
from schemas.diff import Diff
from schemas.errors import InputError, Problem
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
from validation.diff import check_churn
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


def verify(plan: Plan, manifest: RunManifest, spark: GetSpark) -> Report:
    """The report of a staged run, written beside it as JSON and as a page.

    A run that has passed keeps its report: it is the evidence it was published on.

    Args:
        plan: Of the run.
        manifest: Of what is staged.
        spark: Asked for only if there is something to check.
    """
    store, folder = plan.store, plan.store.run_folder(manifest.run_id)
    if (folder / REPORT_FILE).is_file():
        report = store.report(manifest.run_id)
        if report.content == (manifest.verified_content or manifest.content) and report.verdict is not Verdict.FAIL:
            logger.info("run %s: verified already, %s", manifest.run_id, report.verdict)
            return report
    started = time.monotonic()
    live = _live_run(store, manifest.run_id)
    checks = _Checks(plan, manifest, live, spark)
    results = checks.run()
    report = Report(
        pipeline=plan.declared.name,
        run_id=manifest.run_id,
        content=manifest.content,
        verified_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        compared_with=live.run_id if live else None,
        verdict=judge(results, required=_required(plan.declared.pipeline.checks)),
        checks=tuple(results),
    )
    seconds = time.monotonic() - started
    _write(folder, report, manifest.model_copy(update={"seconds": {**manifest.seconds, "verify": seconds}}), checks)
    logger.info("run %s: %s, %d checks, %.1f s", manifest.run_id, report.verdict, len(results), seconds)
    return report


def _required(declared: Declared) -> tuple[Family, ...]:
    asked: tuple[tuple[Family, object], ...] = (("slices", declared.slices), ("churn", declared.churn))
    return (*_REQUIRED, *(family for family, what in asked if what))


def _write(folder: Path, report: Report, manifest: RunManifest, checks: "_Checks") -> None:
    now, before = checks.now.value, checks.before.value
    page = render_page(
        report,
        manifest,
        profile=now.predictions if now else None,
        live=before.predictions if before else None,
        slices=now.slices if now else None,
        live_slices=before.slices if before else None,
    )
    if now:
        write_atomically(folder / PROFILE_FILE, now.model_dump_json() + "\n")
    write_atomically(folder / REPORT_PAGE, page)
    # Last, because publish asks for this file: a report that can be read is one that is complete.
    write_atomically(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")


def measure_run(folder: Path, manifest: RunManifest, pipeline: Pipeline) -> Measures:
    """The profile of predictions, features and slices, from one scan of each staged file."""
    output = manifest.outputs[0].name
    columns = pipeline.checks.slices.columns if pipeline.checks.slices else []
    features = profile_batches(_batches(folder, manifest, FEATURES), skip=_private(pipeline))
    predictions = profile_batches(_batches(folder, manifest, PREDICTIONS))
    slices = measure_slices(_joined(folder, manifest, columns), columns=columns, output=output) if columns else None
    return Measures(predictions=predictions, features=features, slices=slices)


def _private(pipeline: Pipeline) -> set[str]:
    """Columns whose values name an entity: no profile and no report shows them."""
    return {ENTITY_ID, *pipeline.entity.key} - set(pipeline.features.columns)


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


def _stored_measures(folder: Path) -> Measures:
    try:
        return Measures.model_validate_json((folder / PROFILE_FILE).read_bytes())
    except (OSError, ValidationError) as err:
        # The live release passed with this file: without it there is no baseline, and without that no verdict.
        where = str(folder / PROFILE_FILE)
        raise InputError(Problem("OUT_FORMAT", where, str(err).splitlines()[0], "the live release's profile")) from err


class _Once:
    """A value that is computed when it is first asked for; each that asks for one that cannot be had sees the error."""

    def __init__(self, compute: Callable[[], Measures | None]) -> None:
        self._compute = compute
        self._error: InputError | None = None
        self.value: Measures | None = None

    def __call__(self) -> Measures | None:
        if self._error:
            raise self._error
        if self.value is None:
            try:
                self.value = self._compute()
            except InputError as err:
                self._error = err
                raise
        return self.value


def _new_slice(result: CheckResult) -> CheckResult:
    if not result.evaluated:
        return result
    observed = "declared since the live release: nothing to compare with"
    return result.model_copy(update={"verdict": Verdict.WARN, "observed": observed})


class _Checks:
    """Every check of a run. Each fails closed by itself, whatever became of the others."""

    def __init__(self, plan: Plan, manifest: RunManifest, live: RunManifest | None, spark: GetSpark) -> None:
        self._plan, self._manifest, self._live, self._spark = plan, manifest, live, spark
        store, pipeline = plan.store, plan.declared.pipeline
        self.now = _Once(lambda: measure_run(store.run_folder(manifest.run_id), manifest, pipeline))
        self.before = _Once(lambda: _stored_measures(store.run_folder(live.run_id)) if live else None)
        self.diff: Diff | None = None  # what changed since the live release, where churn is declared

    def run(self) -> list[CheckResult]:
        counts, checks = self._manifest.counts, self._plan.declared.pipeline.checks
        live = self._live.counts if self._live else None
        every: list[tuple[str, Family, Callable[[], CheckResult | list[CheckResult]]]] = [
            ("inputs unchanged", "inputs", lambda: _check_inputs(self._plan, self._manifest)),
            ("every entity accounted for", "coverage", self._coverage),
            ("predictions are finite", "coverage", lambda: check_finite(self._measured().predictions, self._outputs)),
            ("enough entities", "entities", lambda: check_entities(counts, live, checks.entities)),
            ("quarantined share", "quarantine", lambda: check_quarantine(counts, checks.max_quarantined)),
            ("bundle reproduces its holdout", "parity", lambda: check_workers(self._manifest.parity)),
            ("expectations of inputs", "expectations", lambda: self._suite("inputs", FEATURES)),
            ("expectations of predictions", "expectations", lambda: self._suite("predictions", PREDICTIONS)),
            ("drift", "drift", self._drift),
        ]
        if checks.slices:
            every.append(("slices", "slices", self._slices))
        if checks.churn:
            every.append(("churn", "churn", self._churn))
        return [result for name, family, check in every for result in evaluated(name, family, check)]

    @property
    def _outputs(self) -> tuple[str, ...]:
        return tuple(output.name for output in self._manifest.outputs)

    def _measured(self) -> Measures:
        measures = self.now()
        if measures is None:
            raise InputError(Problem("OUT_EMPTY", self._manifest.run_id, "nothing was measured", "a staged run"))
        return measures

    def _drift(self) -> list[CheckResult]:
        before = self.before()
        live = before.predictions if before else None
        levels = self._plan.declared.pipeline.checks.drift.live.scores
        return check_drift(self._measured().predictions, live, outputs=self._outputs, levels=levels)

    def _slices(self) -> list[CheckResult]:
        declared, now, before = self._plan.declared.pipeline.checks.slices, self._measured().slices, self.before()
        if declared is None or now is None:
            return []
        then = before.slices if before else None
        # A slice declared since the live release has nothing to compare with; it must not block every run.
        known = [column for column in declared.columns if then and column in then.columns]
        results = []
        for column in declared.columns:
            only = declared.model_copy(update={"columns": [column]})
            found = check_slices(now, then if column in known else None, only)
            results += found if column in known or before is None else [_new_slice(result) for result in found]
        return results

    def _churn(self) -> list[CheckResult]:
        declared, live = self._plan.declared.pipeline.checks.churn, self._live
        if declared is None:
            return []
        if live is not None:
            tolerance = declared.tolerance
            self.diff = diff_manifests(self._plan.store, live, self._manifest, tolerance=tolerance, correlate=False)
        return check_churn(self.diff, declared, first_release=live is None)

    def _suite(self, name: Literal["inputs", "predictions"], part: str) -> list[CheckResult]:
        from validation.expectations import evaluate  # seconds of import time that a finished run need not pay

        frame = self._spark().read.parquet(str(self._plan.store.run_folder(self._manifest.run_id) / part))
        declared = self._plan.declared
        return evaluate(name, getattr(declared.suites, name), frame, private=_private(declared.pipeline))

    def _coverage(self) -> CheckResult:
        from jobs.features import read_source
        from validation.quarantine import entity_id_column

        pipeline, spark = self._plan.declared.pipeline, self._spark()
        name = pipeline.entity.source
        source = read_source(spark, pipeline.sources[name], self._plan.snapshot.sources[name])
        listed = source.select(entity_id_column(pipeline.entity.key).alias(ENTITY_ID))
        folder = self._plan.store.run_folder(self._manifest.run_id)
        aside = spark.read.parquet(str(folder / QUARANTINE)) if self._manifest.files_in(QUARANTINE) else None
        counts = self._manifest.counts
        return check_coverage(
            listed, spark.read.parquet(str(folder / PREDICTIONS)), aside, counts, erased=counts.erased
        )


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
