"""Every check of a staged run, each by itself: what became of one does not hide what the others found."""

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from jobs.comparing import diff_manifests
from jobs.measuring import Once, measure_run, private_columns, stored_measures
from jobs.sources import check_sources, check_unchanged
from jobs.stages import GetSpark, Plan
from schemas.diff import Diff
from schemas.errors import InputError, Problem
from schemas.expectations import Expectation
from schemas.report import (
    Baseline,
    CalibrationMeasure,
    CheckResult,
    ContestMeasure,
    ContestOutcome,
    DriftMeasure,
    Family,
    FunnelMeasure,
    SliceMeasure,
    Verdict,
)
from schemas.run import (
    DATA_DOCS,
    ENTITY_ID,
    FEATURES,
    PREDICTIONS,
    QUARANTINE,
    SCORED,
    RunManifest,
)
from validation.contest import check_sample_ratio, measure_contest
from validation.coverage import check_coverage, check_entities, check_finite, check_quarantine, check_workers
from validation.diff import check_churn
from validation.drift import Comparison, ScoredProfile, check_drift, check_first_release, drift_measures
from validation.floors import check_floors
from validation.gate import evaluated
from validation.known import Known
from validation.measures import Measures
from validation.profile import Profile
from validation.recall import check_recall, measure_funnel
from validation.slices import check_slices, slice_measures

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

_Check = tuple[str, Family, Callable[[], CheckResult | Sequence[CheckResult] | None]]


class Checks:
    """The checks of a run, and what they measured on the way.

    Attributes:
        now: What is measured of the run; computed when it is first asked for.
        before: The same of the live release; None where there is none.
    """

    def __init__(self, plan: Plan, manifest: RunManifest, live: RunManifest | None, spark: GetSpark) -> None:
        self._plan, self._manifest, self._live, self._spark = plan, manifest, live, spark
        self._declared = plan.declared.pipeline
        self._folder = plan.store.run_folder(manifest.run_id)
        self.now = Once(lambda: measure_run(self._folder, manifest, self._declared, spark))
        self.before = Once(lambda: stored_measures(plan.store.run_folder(live.run_id)) if live else None)
        self.drift: tuple[DriftMeasure, ...] = ()
        self.slices: tuple[SliceMeasure, ...] = ()
        self.calibration: tuple[CalibrationMeasure, ...] = ()
        self.calibrated: str | None = None
        self.contests: tuple[ContestMeasure, ...] = ()
        self.outcomes: tuple[ContestOutcome, ...] = ()
        self.funnel: FunnelMeasure | None = None
        self.data_docs: str | None = None
        self._unique: frozenset[str] = frozenset()
        self.diff: Diff | None = None

    @property
    def required(self) -> Collection[Family]:
        """The families without which there is no verdict: what is declared and not switched off."""
        return {family for _, family, _ in self._all() if family not in self._declared.checks.switched_off}

    def run(self) -> list[CheckResult]:
        """The results, in the order of the report. Each check has its limit of time."""
        # Seconds of import, which pass while other processes measure.
        Thread(target=partial(import_module, "validation.expectations"), daemon=True).start()
        checks = self._declared.checks
        return [
            result
            for name, family, check in self._all()
            if family not in checks.switched_off
            for result in evaluated(name, family, check, limit_seconds=checks.limit_seconds)
        ]

    def _all(self) -> list[_Check]:
        counts, checks = self._manifest.counts, self._declared.checks
        live = self._live.counts if self._live else None
        every: list[_Check] = [
            ("inputs unchanged", "inputs", lambda: check_unchanged(self._plan, self._manifest)),
            ("sources", "inputs", lambda: check_sources(self._plan)),
            ("predictions are finite", "coverage", lambda: check_finite(self._measured().predictions, self._outputs)),
            ("every entity accounted for", "coverage", self._coverage),
            ("enough entities", "entities", lambda: check_entities(counts, live, checks.entities)),
            ("quarantined share", "quarantine", lambda: check_quarantine(counts, checks.max_quarantined)),
            ("bundle reproduces its holdout", "parity", lambda: check_workers(self._manifest.parity)),
            ("expectations", "expectations", self._expectations),
            ("drift against the live release", "drift", self._live_drift),
            ("drift against the training data", "drift", self._training_drift),
        ]
        if self._live is None:
            declared = self._plan.declared
            floors = partial(check_floors, declared.pipeline, declared.suites, self._outputs)
            every.append(("absolute floors of a first release", "coverage", floors))
        if checks.slices:
            every.append(("slices", "slices", self._slices))
        if checks.churn:
            every.append(("churn", "churn", self._churn))
        if self._declared.models.challengers:
            every.append(("challengers", "challenger", self._challengers))
        if self._declared.models.funnel:
            every.append(("funnel", "funnel", self._funnel))
        if checks.calibration:
            every.append(("calibration", "calibration", self._calibration))
        return every

    @property
    def _outputs(self) -> tuple[str, ...]:
        return self._manifest.output_names

    def _measured(self) -> Measures:
        measures = self.now()
        if measures is None:
            raise InputError(Problem("OUT_EMPTY", self._manifest.run_id, "nothing was measured", "a staged run"))
        return measures

    def _coverage(self) -> CheckResult:
        from jobs.features import read_source
        from validation.quarantine import entity_id_column

        spark, counts, name = self._spark(), self._manifest.counts, self._declared.entity.source
        source = read_source(spark, self._plan.declared, name, self._plan.snapshot.sources[name])
        listed = source.select(entity_id_column(self._declared.entity.key).alias(ENTITY_ID))
        aside = self._read(QUARANTINE) if self._manifest.files_in(QUARANTINE) else None
        result = check_coverage(
            listed,
            self._read(PREDICTIONS),
            aside,
            counts,
            erased=counts.erased,
            ids_once=self._measured().ids_once,
        )
        if result.verdict is Verdict.PASS:
            self._unique = frozenset({ENTITY_ID})  # it has counted each key, and found none without one or twice
        return result

    def _expectations(self) -> list[CheckResult]:
        from validation.expectations import Judged, evaluate

        suites, measured = self._plan.declared.suites, self._measured()

        def judged(expectations: Sequence[Expectation], part: str, profile: Profile) -> Judged:
            files = self._manifest.files_in(part)
            if not files:
                raise InputError(Problem("OUT_EMPTY", f"{self._manifest.run_id}: {part}", "no file", "scored rows"))
            unique = self._unique if profile.rows == self._manifest.counts.scored else frozenset()
            known = Known(pq.read_schema(self._folder / files[0].path), profile, unique)
            return Judged(expectations, partial(self._scored, part), known)

        found = evaluate(
            {
                "inputs": judged(suites.inputs, FEATURES, measured.features),
                "predictions": judged(suites.predictions, PREDICTIONS, measured.predictions),
            },
            private=private_columns(self._declared),
            run_name=self._manifest.run_id,
            docs=self._folder / DATA_DOCS,
        )
        self.data_docs = f"{DATA_DOCS}/{found.page.name}" if found.page else None
        return [result for results in found.results.values() for result in results]

    def _live_drift(self) -> list[CheckResult]:
        before = self.before()
        if before is None:
            return [check_first_release(self._measured().predictions, self._outputs)]
        baseline = ScoredProfile(scores=before.predictions, features=before.features)
        return self._drift("live", baseline, self._declared.features.columns)

    def _training_drift(self) -> list[CheckResult]:
        bundle = self._plan.bundle
        return self._drift("training", bundle.profile, [feature.name for feature in bundle.manifest.features])

    def _drift(self, of: Baseline, baseline: ScoredProfile, features: Sequence[str]) -> list[CheckResult]:
        now, declared = self._measured(), self._declared.checks.drift
        current = ScoredProfile(scores=now.predictions, features=now.features)
        compared = Comparison(current=current, baseline=baseline, of=of, scores=self._outputs, features=features)
        measures = drift_measures(compared, declared)
        self.drift += measures
        return check_drift(compared, measures, declared)

    def _slices(self) -> list[CheckResult]:
        declared, now, before = self._declared.checks.slices, self._measured().slices, self.before()
        if declared is None:
            return []
        then = before.slices if before else None
        self.slices = slice_measures(now, then, declared)
        return check_slices(now, then, declared)

    def _churn(self) -> list[CheckResult]:
        declared, live = self._declared.checks.churn, self._live
        if declared is None:
            return []
        if live is not None:
            tolerance = declared.tolerance
            self.diff = diff_manifests(self._plan.store, live, self._manifest, tolerance=tolerance, correlate=False)
        return check_churn(self.diff, declared, first_release=live is None)

    def _challengers(self) -> list[CheckResult]:
        slices = self._declared.checks.slices
        for declared in self._declared.models.challengers:
            by, min_rows = (slices.groups, slices.min_rows) if slices else ([], 1)
            measure = measure_contest(declared, self._manifest, self._folder, by, min_rows)
            self.contests += (measure,)
        manifest = self._manifest
        return [check_sample_ratio(declared, manifest.counts) for declared in self._declared.models.challengers]

    def _funnel(self) -> CheckResult | None:
        declared = self._declared.models.funnel
        if declared is None:
            return None
        self.funnel = measure_funnel(declared, self._manifest, self._folder)
        return check_recall(declared, self.funnel)

    def _calibration(self) -> list[CheckResult]:
        from jobs.outcomes import contest_outcomes, earlier_run, outcomes
        from validation.calibration import calibration_measures, check_calibration, measure_calibration

        declared, slices = self._declared.checks.calibration, self._declared.checks.slices
        if declared is None:
            return []
        earlier = earlier_run(self._plan.store, self._plan.date, declared.after_days)
        if earlier is None:
            told = f"no release is {declared.after_days} days old or older: there is nothing to tell of yet"
            return [_passed("calibration", "calibration", told, "outcomes of an earlier release")]
        groups = slices.groups if slices else []
        confidence = slices.confidence if slices else 0.95
        table = outcomes(self._plan, earlier, self._spark(), {column for group in groups for column in group})
        objective, min_rows = self._declared.training.objective, declared.min_rows
        self.outcomes = contest_outcomes(earlier, table, objective, by=groups, min_rows=min_rows, confidence=confidence)
        profile = measure_calibration([table], groups)
        self.calibrated = earlier.run_id
        self.calibration = calibration_measures(profile, confidence=confidence)
        return check_calibration(profile, declared, run_id=earlier.run_id, confidence=confidence)

    def _read(self, part: str) -> "DataFrame":
        return self._spark().read.parquet(*(str(self._folder / file.path) for file in self._manifest.files_in(part)))

    def _scored(self, part: str) -> "DataFrame":
        """What was scored; features have no other rows."""
        frame = self._read(part)
        return frame.where(f"status = '{SCORED}'") if part == PREDICTIONS else frame


def _passed(name: str, family: Family, observed: str, expected: str) -> CheckResult:
    return CheckResult(name=name, family=family, verdict=Verdict.PASS, observed=observed, expected=expected)
