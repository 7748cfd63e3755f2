"""How far predictions and features have moved from those of the live release and from those of the training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.checks import Drift, Levels
from schemas.report import Baseline, CheckResult, DriftMeasure, Verdict, worst
from validation import distances
from validation.gate import at_levels, in_words, not_evaluated
from validation.histograms import Histograms, of_categories, of_numbers
from validation.profile import CategoryProfile, ColumnProfile, NumericProfile, Profile

Kind = Literal["score", "feature"]

KINDS: tuple[Kind, ...] = ("score", "feature")
_MOST_NAMED = 5
_OWNERS: dict[Baseline, str] = {"live": "the live release", "training": "the training data"}
_MEASURES = {"psi": "PSI", "js": "Jensen-Shannon distance", "ks": "KS distance"}


class ScoredProfile(BaseModel):
    """What drift compares: the profile of predictions, and that of rows.

    Of a run they are of the same rows. Of a training `features` is of the rows that the model learnt from, `scores` of
    its predictions for those that were held out: what it says of rows it has seen is no measure for those it has not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scores: Profile
    features: Profile

    def of(self, kind: Kind) -> Profile:
        return self.scores if kind == "score" else self.features


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A run beside one baseline, in the columns named."""

    current: ScoredProfile
    baseline: ScoredProfile
    of: Baseline
    scores: Sequence[str]
    features: Sequence[str]

    def columns(self, kind: Kind) -> Sequence[str]:
        return self.scores if kind == "score" else self.features


def drift_measures(comparison: Comparison, declared: Drift) -> tuple[DriftMeasure, ...]:
    """All three measures of every column that can be compared; of the others `check_drift` tells.

    The p-values are adjusted over all of them (Holm): the chance that any column is called drifted where none is, is
    at most the declared one, however many there are.
    """
    found = [
        (kind, name, _histograms(comparison, kind, name))
        for kind in KINDS
        for name in comparison.columns(kind)
        if not _problem(comparison, kind, name) and not _is_new(comparison, kind, name)
    ]
    adjusted = distances.holm([distances.chance(*both.tested) for _, _, both in found])
    return tuple(
        _measure(comparison, kind, name, both, p_value, declared)
        for (kind, name, both), p_value in zip(found, adjusted, strict=True)
    )


def check_drift(comparison: Comparison, measures: Sequence[DriftMeasure], declared: Drift) -> list[CheckResult]:
    """One result for the scores and one for the features. A column that cannot be compared has failed them.

    A feature that the live release did not have yet only warns: else no run could become the release that has it.

    Args:
        comparison: What was compared.
        measures: What `drift_measures` found.
        declared: The levels.
    """
    return [_check(comparison, kind, measures, declared) for kind in KINDS]


def check_first_release(current: Profile, outputs: Sequence[str]) -> CheckResult:
    """What stands for the drift against a live release where there is none: predictions must still be numbers."""
    name, expected = "drift against the live release", "predictions that later runs can be compared with"
    problems = [_unusable(output, current.columns.get(output), current.rows, "this run") for output in outputs]
    if found := _in_short([problem for problem in problems if problem]) or ("" if outputs else "no output"):
        return not_evaluated(name, "drift", observed=found, expected=expected)
    observed = "first release: nothing to compare with"
    return CheckResult(name=name, family="drift", verdict=Verdict.PASS, observed=observed, expected=expected)


def _histograms(comparison: Comparison, kind: Kind, name: str) -> Histograms:
    now, before = (side.of(kind).columns[name] for side in (comparison.current, comparison.baseline))
    if isinstance(now, NumericProfile) and isinstance(before, NumericProfile):
        return of_numbers(before, now)
    if isinstance(now, CategoryProfile) and isinstance(before, CategoryProfile):
        return of_categories(before, now)
    raise TypeError(f"{name} is {now.kind} in one profile and {before.kind} in the other")


def _measure(
    comparison: Comparison, kind: Kind, name: str, both: Histograms, p_value: float, declared: Drift
) -> DriftMeasure:
    now, before = (side.of(kind) for side in (comparison.current, comparison.baseline))
    found = {
        "psi": distances.psi(*both.bins),
        "js": distances.jensen_shannon(*both.bins),
        "ks": distances.kolmogorov_smirnov(*both.ordered) if both.ordered else distances.total_variation(*both.bins),
    }
    beyond_chance = p_value <= declared.false_alarm_rate
    levels = _levels(comparison.of, kind, declared)
    return DriftMeasure(
        column=name,
        kind=kind,
        baseline=comparison.of,
        **found,
        p_value=p_value,
        rows=now.rows,
        baseline_rows=before.rows,
        mean=_mean(now.columns[name]),
        baseline_mean=_mean(before.columns[name]),
        verdict=at_levels(found[declared.measure], levels) if beyond_chance else Verdict.PASS,
    )


def _mean(column: ColumnProfile) -> float | None:
    return column.mean if isinstance(column, NumericProfile) else None


def _levels(of: Baseline, kind: Kind, declared: Drift) -> Levels:
    against = declared.live if of == "live" else declared.training
    return against.scores if kind == "score" else against.features


def _check(comparison: Comparison, kind: Kind, measures: Sequence[DriftMeasure], declared: Drift) -> CheckResult:
    name = f"drift of {kind}s against {_OWNERS[comparison.of]}"
    expected = (
        f"{_MEASURES[declared.measure]} {in_words(_levels(comparison.of, kind, declared))}; "
        f"what chance explains passes (false alarm rate {declared.false_alarm_rate:g})"
    )
    columns = comparison.columns(kind)
    mine = {one.column: one for one in measures if (one.kind, one.baseline) == (kind, comparison.of)}
    new = [column for column in columns if _is_new(comparison, kind, column)]
    problems = {column: _problem(comparison, kind, column) for column in columns if column not in new}
    problems |= {c: f"{c} was not measured" for c, problem in problems.items() if not problem and c not in mine}
    if failed := [problem for problem in problems.values() if problem] or ([] if columns else [f"no {kind} is named"]):
        return not_evaluated(name, "drift", observed=_in_short(failed), expected=expected)
    results = [_result(name, [mine[column] for column in problems], declared, expected)] if problems else []
    if new:
        observed = f"new since the live release, with nothing to compare with: {', '.join(new)}"
        results.append(_said(name, Verdict.WARN, observed, expected))
    return _said(name, worst(results), "; ".join(result.observed for result in results), expected)


def _result(name: str, measures: Sequence[DriftMeasure], declared: Drift, expected: str) -> CheckResult:
    ranked = sorted(measures, key=lambda one: (-getattr(one, declared.measure), one.column))
    moved = [one for one in ranked if one.verdict is not Verdict.PASS]
    if moved:
        observed = f"{len(moved)} of {len(ranked)} moved: {_in_short([_in_words(one, declared) for one in moved])}"
    else:
        observed = f"{len(ranked)} compared; the one that moved most: {_in_words(ranked[0], declared)}"
    order = [Verdict.FAIL, Verdict.WARN, Verdict.PASS]
    return _said(name, min((one.verdict for one in ranked), key=order.index), observed, expected)


def _said(name: str, verdict: Verdict, observed: str, expected: str) -> CheckResult:
    return CheckResult(name=name, family="drift", verdict=verdict, observed=observed, expected=expected)


def _in_words(measure: DriftMeasure, declared: Drift) -> str:
    text = f"{measure.column} {_MEASURES[declared.measure]} {getattr(measure, declared.measure):.4f}"
    if measure.mean is None or measure.baseline_mean is None:
        return text
    return f"{text} (mean {measure.baseline_mean:.4g}, now {measure.mean:.4g})"


def _in_short(texts: Sequence[str]) -> str:
    more = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f", ... and {more} more" if more > 0 else "")


def _is_new(comparison: Comparison, kind: Kind, name: str) -> bool:
    """Whether the live release is from before this feature was declared: its profile has each that it staged."""
    before, now = comparison.baseline.features, comparison.current.features
    if comparison.of != "live" or kind != "feature" or not before.rows:
        return False
    return name in now.columns and name not in before.columns


def _problem(comparison: Comparison, kind: Kind, name: str) -> str:
    """What keeps the column from being compared; nothing where nothing does."""
    owner = _OWNERS[comparison.of]
    sides = ((comparison.current.of(kind), "this run"), (comparison.baseline.of(kind), owner))
    for side, whose in sides:
        if not side.rows or name not in side.columns:
            return f"{whose} has no column {name}" if side.rows else f"{whose} has no rows"
    now, before = (side.columns[name] for side, _ in sides)
    if kind == "score":
        return next(filter(None, (_unusable(name, side.columns[name], side.rows, whose) for side, whose in sides)), "")
    if now.kind != before.kind:
        return f"{name} is of kind {now.kind} in this run, {before.kind} in {owner}"
    if not _values(now) and _values(before):
        return f"{name} of this run has no value in {sides[0][0].rows} rows; {owner} has {_values(before)}"
    return ""


def _values(column: ColumnProfile) -> int:
    return column.count + (column.infinite if isinstance(column, NumericProfile) else 0)


def _unusable(name: str, column: ColumnProfile | None, rows: int, owner: str) -> str:
    """What keeps a prediction from being compared."""
    if column is None:
        return f"{owner} has no column {name}"
    if not isinstance(column, NumericProfile):
        return f"{name} of {owner} is not a number"
    if column.nans or column.infinite:
        return f"{name} of {owner} is NaN in {column.nans} rows and infinite in {column.infinite}"
    return "" if column.count else f"{name} of {owner} has no value in {rows} rows"
