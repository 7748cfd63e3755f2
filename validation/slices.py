"""The predictions of declared groups: against the same groups of the live release, and against each other."""

from collections.abc import Sequence
from functools import cached_property

from pydantic import BaseModel, ConfigDict, FiniteFloat

from schemas.checks import Slices
from schemas.errors import InputError, Problem
from schemas.report import CheckResult, Interval, SliceMeasure, Verdict
from validation import moments, sketch
from validation.gate import at_levels, in_words, not_evaluated
from validation.intervals import mean_interval, ratio_interval, share_interval
from validation.moments import Moments
from validation.sketch import Sketch

MAX_GROUPS = 1000
MAX_SHOWN = 50
_NEW = "declared since the live release: nothing to compare with"

Values = tuple[str, ...]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SliceGroup(_Record):
    """The predictions of the rows that share their values.

    Attributes:
        values: One for each column that is grouped by; a null is `(null)`.
        rows: Those whose prediction is a finite number. The statistics are of them alone.
        unusable: Rows whose prediction is null, NaN or infinite.
        mean: None where there is no row, or where it is too large for a double; so is `variance`.
        variance: Of the whole population: divided by `rows`.
        positives: Rows from `positive_at` up; None where that is not declared.
    """

    values: Values
    rows: int
    unusable: int
    mean: FiniteFloat | None
    variance: FiniteFloat | None
    positives: int | None
    sketch: Sketch


class SliceProfile(_Record):
    """Every group of one group-by, in the order of their values."""

    columns: tuple[str, ...]
    groups: tuple[SliceGroup, ...]

    @cached_property
    def by_values(self) -> dict[Values, SliceGroup]:
        return {group.values: group for group in self.groups}


def bounded(count: int, columns: tuple[str, ...]) -> None:
    """Raises InputError where there are more groups than 1,000."""
    if count > MAX_GROUPS:
        where = f"checks.slices.{'columns' if len(columns) == 1 else 'pairs'}: {', '.join(columns)}"
        found, expected = f"{count} groups and more", f"at most {MAX_GROUPS} groups"
        raise InputError(Problem("VERIFY_SLICE_VALUES", where, found, expected))


def merge(a: SliceProfile, b: SliceProfile) -> SliceProfile:
    """The groups of two parts of a table together; both group by the same.

    Raises:
        InputError: there are more than 1,000 groups.
        ValueError: they group by different columns.
    """
    if a.columns != b.columns:
        raise ValueError(f"group-bys differ: {a.columns} and {b.columns}")
    groups = dict(a.by_values)
    for values, group in b.by_values.items():
        groups[values] = _merged(groups[values], group) if values in groups else group
    bounded(len(groups), a.columns)
    return SliceProfile(columns=a.columns, groups=tuple(groups[values] for values in sorted(groups)))


def check_slices(
    current: Sequence[SliceProfile], live: Sequence[SliceProfile] | None, declared: Slices
) -> list[CheckResult]:
    """One result for each group-by, of its group that moved most; and one for the selection ratio where it is limited.

    Args:
        current: Of this run.
        live: Of the live release, empty if it declared no slices; None for the first release.
        declared: What is grouped by, and the levels.
    """
    results = []
    for columns in declared.groups:
        now, before = _of(columns, current), None if live is None else _of(columns, live)
        results.append(_check_shift(columns, now, before, declared, first=live is None))
        if declared.min_selection_ratio is not None:
            results.append(_check_selection(columns, now, declared, declared.min_selection_ratio))
    return results


def slice_measures(
    current: Sequence[SliceProfile], live: Sequence[SliceProfile] | None, declared: Slices
) -> tuple[SliceMeasure, ...]:
    """The groups that have rows, for the report: of each group-by at most 50, the largest first.

    Selection ratios are of groups with `min_rows` rows, to the group with the highest rate among these.
    """
    found = []
    for columns in declared.groups:
        now, before = _of(columns, current), _of(columns, live or ())
        known = [group for group in now.groups if group.variance is not None] if now else []
        best = _best(known, declared)
        for group in sorted(known, key=lambda group: (-group.rows, group.values))[:MAX_SHOWN]:
            then = before.by_values.get(group.values) if before else None
            found.append(_measure(columns, group, then, best, declared))
    return tuple(found)


def _of(columns: tuple[str, ...], profiles: Sequence[SliceProfile]) -> SliceProfile | None:
    return next((profile for profile in profiles if profile.columns == columns), None)


def _check_shift(
    columns: tuple[str, ...], now: SliceProfile | None, before: SliceProfile | None, declared: Slices, *, first: bool
) -> CheckResult:
    name, least = f"slices by {_named(columns)}", declared.min_rows
    expected = f"means of groups of {least} rows or more move by {in_words(declared.shift)}"
    problem = _problem(now, f"{_named(columns)} of this run")
    if problem is None and before is not None:
        problem = _problem(before, f"{_named(columns)} of the live release")
    if problem is not None or now is None:
        return not_evaluated(name, "slices", observed=problem or "", expected=expected)
    if before is None:
        verdict, observed = (Verdict.PASS, "first release: nothing to compare with") if first else (Verdict.WARN, _NEW)
        return CheckResult(name=name, family="slices", verdict=verdict, observed=observed, expected=expected)
    moved = [
        (abs(group.mean - then.mean), group.mean, then.mean, group)
        for group in now.groups
        if (then := before.by_values.get(group.values))
        and min(group.rows, then.rows) >= least
        and group.mean is not None
        and then.mean is not None
    ]
    if not moved:
        observed = f"no group of {_named(columns)} has {least} rows both now and in the live release"
        return not_evaluated(name, "slices", observed=observed, expected=expected)
    most, mean, old, group = max(moved, key=lambda found: (found[0], found[3].values))
    observed = (
        f"{', '.join(group.values)} moved most, by {most:.3f}: the mean of its {group.rows:,} rows went from "
        f"{old:.3f} to {mean:.3f}; {len(moved)} of {len(now.groups)} groups judged"
    )
    verdict = at_levels(most, declared.shift)
    return CheckResult(name=name, family="slices", verdict=verdict, observed=observed, expected=expected)


def _check_selection(columns: tuple[str, ...], now: SliceProfile | None, declared: Slices, limit: float) -> CheckResult:
    name = f"selection ratio by {_named(columns)}"
    expected = (
        f"each positive rate is at least {limit:g} of the highest; below it warns, its whole interval below fails"
    )
    problem = _problem(now, f"{_named(columns)} of this run")
    groups = [group for group in now.groups if group.rows >= declared.min_rows] if now else []
    best = _best(groups, declared)
    if problem is None and len(groups) < 2:
        every = len(now.groups) if now else 0
        problem = (
            f"{len(groups)} of {every} groups of {_named(columns)} have {declared.min_rows} rows: nothing to compare"
        )
    if problem is None and best is None:
        problem = f"no row of {_named(columns)} reaches {declared.positive_at}: there is no rate to compare with"
    if problem is not None or best is None:
        return not_evaluated(name, "slices", observed=problem or "", expected=expected)
    ratios = [(_ratio(group, best, declared.confidence), group) for group in groups if group is not best]
    # One that is below for certain comes before one that only seems to be further below.
    ratio, worst = min(ratios, key=lambda found: (found[0].high >= limit, found[0].value, found[1].values))
    verdict = Verdict.PASS if ratio.value >= limit else Verdict.FAIL if ratio.high < limit else Verdict.WARN
    observed = (
        f"{', '.join(worst.values)}: {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]; {_selected(worst)}, "
        f"of {', '.join(best.values)} {_selected(best)}; {len(groups)} of {len(now.groups) if now else 0} groups judged"
    )
    return CheckResult(name=name, family="slices", verdict=verdict, observed=observed, expected=expected)


def _problem(profile: SliceProfile | None, where: str) -> str | None:
    if profile is None:
        return f"{where}: it was not measured"
    unusable = sum(group.unusable for group in profile.groups)
    if unusable:
        return f"{where}: {unusable:,} rows have no finite prediction"
    if any(group.rows and group.mean is None for group in profile.groups):
        return f"{where}: predictions are too large for a mean"
    return None if any(group.rows for group in profile.groups) else f"{where}: no rows were measured"


def _measure(
    columns: tuple[str, ...], group: SliceGroup, then: SliceGroup | None, best: SliceGroup | None, declared: Slices
) -> SliceMeasure:
    rate = None if group.positives is None else share_interval(group.positives, group.rows, declared.confidence)
    judged = best is not None and group.rows >= declared.min_rows
    return SliceMeasure(
        columns=columns,
        values=group.values,
        rows=group.rows,
        mean=mean_interval(group.mean or 0.0, group.variance or 0.0, group.rows, declared.confidence),
        live_mean=then.mean if then else None,
        positive_rate=rate,
        selection_ratio=_ratio(group, best, declared.confidence) if best and judged else None,
    )


def _best(groups: Sequence[SliceGroup], declared: Slices) -> SliceGroup | None:
    """The group with the highest positive rate of those with enough rows; None where no row is positive."""
    rated = [(group.positives / group.rows, group) for group in groups if group.positives and group.rows]
    enough = [(rate, group) for rate, group in rated if group.rows >= declared.min_rows]
    return max(enough, key=lambda found: (found[0], found[1].rows))[1] if enough else None


def _ratio(group: SliceGroup, best: SliceGroup, confidence: float) -> Interval:
    if group is best:
        return Interval(value=1.0, low=1.0, high=1.0)
    if group.positives is None or best.positives is None:
        raise ValueError(f"{group.values}: positives were not counted")
    return ratio_interval(group.positives, group.rows, best.positives, best.rows, confidence)


def _selected(group: SliceGroup) -> str:
    return f"{group.positives:,} of {group.rows:,} rows positive"


def _named(columns: tuple[str, ...]) -> str:
    return " and ".join(columns)


def _merged(a: SliceGroup, b: SliceGroup) -> SliceGroup:
    both = moments.merge(Moments(a.rows, a.mean, a.variance), Moments(b.rows, b.mean, b.variance))
    return SliceGroup(
        values=a.values,
        rows=both.rows,
        unusable=a.unusable + b.unusable,
        mean=both.mean,
        variance=both.variance,
        positives=None if a.positives is None or b.positives is None else a.positives + b.positives,
        sketch=sketch.merge(a.sketch, b.sketch),
    )
