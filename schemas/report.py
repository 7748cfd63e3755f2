"""The verification report: every check with what it saw, and the verdict they add up to."""

import datetime as dt
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from schemas.run import Reused, Stage, Way

Family = Literal[
    "inputs",
    "coverage",
    "quarantine",
    "entities",
    "parity",
    "expectations",
    "drift",
    "slices",
    "calibration",
    "churn",
    "challenger",
    "funnel",
]
Baseline = Literal["live", "training"]


class Verdict(StrEnum):
    PASS = "PASS"  # noqa: S105  # a verdict, not a password
    WARN = "WARN"
    FAIL = "FAIL"


class CheckResult(BaseModel):
    """One check: what was observed, what was expected, and how it ended."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    name: str
    family: Family
    verdict: Verdict
    observed: str
    expected: str
    evaluated: bool = Field(True, description="False where the check could not be computed; such a check has failed.")

    @model_validator(mode="after")
    def _fails_closed(self) -> "CheckResult":
        if not self.evaluated and self.verdict is not Verdict.FAIL:
            raise ValueError(f"{self.name}: a check that was not evaluated is FAIL, not {self.verdict}")
        return self

    @property
    def is_overridable(self) -> bool:
        return self.family not in NEVER_OVERRIDDEN


NEVER_OVERRIDDEN: frozenset[Family] = frozenset({"inputs", "coverage", "parity"})


def worst(results: Sequence[CheckResult]) -> Verdict:
    """FAIL if any check failed or there is none, else WARN if any warned, else PASS."""
    if not results or any(result.verdict is Verdict.FAIL for result in results):
        return Verdict.FAIL
    return Verdict.WARN if any(result.verdict is Verdict.WARN for result in results) else Verdict.PASS


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Interval(_Record):
    """A measured value and the interval around it, at the declared confidence."""

    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat


class DriftMeasure(_Record):
    """How far one column is from its baseline.

    Attributes:
        psi: Population stability index, nats, >= 0.
        js: Jensen-Shannon distance, in [0, 1] (base 2, the square root of the divergence).
        ks: Kolmogorov-Smirnov distance, in [0, 1]; for categories the total variation distance, which is its like.
        p_value: Chance of such a distance between two samples of one distribution, over all columns (Holm).
        verdict: Of the declared measure at its levels; PASS where p_value is above the false alarm rate.
    """

    column: str
    kind: Literal["score", "feature"]
    baseline: Baseline
    psi: FiniteFloat
    js: FiniteFloat
    ks: FiniteFloat
    p_value: FiniteFloat
    rows: int
    baseline_rows: int
    mean: FiniteFloat | None = None
    baseline_mean: FiniteFloat | None = None
    verdict: Verdict


class SliceMeasure(_Record):
    """One group of a slice.

    Attributes:
        columns: What is grouped by; one column or a pair.
        values: The group's value of each.
        rows: With a finite prediction.
        mean: Of the first output.
        live_mean: Of the same group in the live release.
        positive_rate: Share of rows from `positive_at` up.
        selection_ratio: That rate over the one of the group with the highest.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    rows: int
    mean: Interval
    live_mean: FiniteFloat | None = None
    positive_rate: Interval | None = None
    selection_ratio: Interval | None = None


class CalibrationMeasure(_Record):
    """One group of an earlier release whose outcomes are known by now; no columns: all of its rows.

    Attributes:
        predicted: Mean of the first output.
        observed: Mean label, with its interval.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    rows: int
    predicted: FiniteFloat
    observed: Interval


class ContestGroup(_Record):
    """One group of the rows that champion and challenger both scored.

    Attributes:
        column: What is grouped by; of a pair both, with a comma between.
        value: The same of its values.
        rank_correlation, top_decile_overlap: As of all rows; None where the group is too small.
    """

    column: str
    value: str
    rows: int
    champion_mean: FiniteFloat
    challenger_mean: FiniteFloat
    rank_correlation: FiniteFloat | None = None
    top_decile_overlap: FiniteFloat | None = None


class ContestMeasure(_Record):
    """A challenger against the models that serve, over the rows that both scored.

    Attributes:
        name: As declared, and so the mode.
        model: The challenger's bundle.
        rows: With two finite predictions.
        unsound: Rows of which one is not.
        mean_change: Of the absolute difference of the two predictions of a row.
        rank_correlation: Spearman's.
        top_decile_overlap: Share of the champion's highest tenth that is in the challenger's too.
        groups: The largest of each declared slice.
    """

    name: str
    mode: Literal["shadow", "canary", "ab"]
    model: str
    rows: int
    unsound: int
    champion_mean: FiniteFloat | None
    challenger_mean: FiniteFloat | None
    mean_change: FiniteFloat | None
    rank_correlation: FiniteFloat | None
    top_decile_overlap: FiniteFloat | None
    groups: tuple[ContestGroup, ...] = ()


class FunnelMeasure(_Record):
    """A funnel, by what the champion says of those that survive it and of an audit of the others.

    Attributes:
        survivors: Rows that the champion decided.
        rejected: Rows that the cheap model decided.
        audited: Of the rejected, scored by the champion too.
        positives: Survivors that the funnel is there to find.
        audited_positives: The same of the audited.
        recall: Share of all positives that survive.
    """

    name: str
    survivors: int
    rejected: int
    audited: int
    positives: int
    audited_positives: int
    recall: Interval


class OutcomeGroup(_Record):
    """One group of the rows that a challenger and those who served are held against what came of.

    Attributes:
        columns: What is grouped by; one column or a pair.
        values: The group's value of each.
        rows, champion, challenger, difference: As of all rows, in `ContestOutcome`.
    """

    columns: tuple[str, ...]
    values: tuple[str, ...]
    rows: int
    champion: dict[str, FiniteFloat]
    challenger: dict[str, FiniteFloat]
    difference: Interval


class ContestOutcome(_Record):
    """A challenger of an earlier run against what would have served without it, by what came.

    Attributes:
        rows: That both scored, and whose label is known.
        champion: Metrics over these rows; none where one class alone came.
        challenger: The same of the challenger.
        difference: Mean of the challenger's loss less the champion's, row by row: below 0 the challenger is better.
        groups: Of each declared slice, those with enough labels, the largest first.
    """

    name: str
    run_id: str
    rows: int
    loss: Literal["log loss", "squared error"]
    champion: dict[str, FiniteFloat]
    challenger: dict[str, FiniteFloat]
    difference: Interval | None
    groups: tuple[OutcomeGroup, ...] = ()


class Override(_Record):
    """`override.json` beside a report: somebody lets a blocked run through, and says why.

    Attributes:
        content: Of the report that is overridden; a later report is not.
        verified_at: Of that report.
        checks: Names of those that failed.
    """

    by: str
    at: dt.datetime
    reason: str = Field(min_length=1)
    content: str
    verified_at: dt.datetime
    checks: tuple[str, ...] = Field(min_length=1)


class Report(BaseModel):
    """`report.json` of a run, written whatever the verdict.

    Attributes:
        content: The content digest of the predictions that were checked; publish loads no others.
        compared_with: The live release's run that drift and slices were measured against.
        off: Kinds of checks that were switched off, each with its reason.
        contests: Each declared challenger against what would serve without it.
        funnel: What the declared one lets through, and what it loses.
        outcomes: Each challenger of the run that `calibrated` names, by what came.
        decisions: Of challengers, which the run goes by: who aborted or promoted which, when and why.
        calibrated: The run whose outcomes `calibration` tells; None where there is none to tell of.
        stages: What each part of the run took.
        way: How the rows came to the predictions.
        reused: How many rows were given the outputs of an earlier run; None where that is not declared.
        data_docs: The page of Great Expectations' Data Docs, relative to the run's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    format: Literal[1] = 1
    pipeline: str
    run_id: str
    content: str
    verified_at: dt.datetime
    compared_with: str | None
    verdict: Verdict
    checks: tuple[CheckResult, ...]
    off: dict[str, str] = {}
    drift: tuple[DriftMeasure, ...] = ()
    slices: tuple[SliceMeasure, ...] = ()
    calibration: tuple[CalibrationMeasure, ...] = ()
    calibrated: str | None = None
    contests: tuple[ContestMeasure, ...] = ()
    outcomes: tuple[ContestOutcome, ...] = ()
    funnel: FunnelMeasure | None = None
    decisions: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    way: Way | None = None
    reused: Reused | None = None
    data_docs: str | None = None

    @model_validator(mode="after")
    def _agrees(self) -> "Report":
        # A verdict better than its checks, by hand or by mistake, cannot be read.
        if self.verdict is not Verdict.FAIL and worst(self.checks) not in (self.verdict, Verdict.PASS):
            raise ValueError(f"verdict {self.verdict} does not follow from the checks: {worst(self.checks)}")
        return self

    @property
    def failures(self) -> list[CheckResult]:
        return [check for check in self.checks if check.verdict is Verdict.FAIL]

    def lets_through(self, override: Override | None) -> bool:
        """Whether the run may be published: it did not fail, or just what failed was overridden.

        Inputs, coverage and parity are never overridden: without them nothing else that is said of the run holds.
        """
        if self.verdict is not Verdict.FAIL:
            return True
        if override is None or (override.content, override.verified_at) != (self.content, self.verified_at):
            return False
        failed = self.failures
        return bool(failed) and all(check.name in override.checks and check.is_overridable for check in failed)
