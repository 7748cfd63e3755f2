"""How far the predictions have moved from those of the live release."""

from collections.abc import Sequence

import numpy as np

from schemas.checks import Levels
from schemas.report import CheckResult, Verdict
from validation import sketch
from validation.gate import at_levels, in_words, not_evaluated
from validation.profile import NumericProfile, Profile
from validation.sketch import Floats, Sketch


def psi(expected: Floats, actual: Floats) -> float:
    """Population stability index between two histograms over the same bins.

    A bin that is empty on one side counts as half a row there: a new or vanished bin weighs in, but not without limit.

    Args:
        expected: Counts of the baseline, shape (bins,), each >= 0, sum > 0.
        actual: Counts of the new batch, shape (bins,).

    Returns:
        PSI in nats, >= 0. 0.1 and 0.25 are the usual watch and act levels.

    Raises:
        ValueError: the shapes differ, a count is negative or not finite, or a histogram is empty.

    Source:
        Siddiqi, Credit Risk Scorecards (2006), ch. 8.

    >>> round(psi(np.array([50, 50]), np.array([60, 40])), 4)
    0.0405
    """
    if expected.shape != actual.shape:
        raise ValueError(f"histograms have shapes {expected.shape} and {actual.shape}")
    for counts in (expected, actual):
        if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
            raise ValueError("a histogram needs finite counts >= 0 and at least one row")
    filled = (expected > 0) | (actual > 0)
    before = np.where(expected > 0, expected, 0.5)[filled] / expected.sum()
    now = np.where(actual > 0, actual, 0.5)[filled] / actual.sum()
    return float(np.sum((now - before) * np.log(now / before)))


def score_drift(current: NumericProfile, live: NumericProfile, *, bins: int = 10) -> float:
    """PSI of a column against the live release, over the live release's deciles, with nulls as one more bin.

    Raises:
        ValueError: either has no number.
    """
    edges = _edges(live.sketch, bins)
    before, now = (np.append(sketch.counts_between(side.sketch, edges), side.nulls) for side in (live, current))
    return psi(before, now)


def check_drift(current: Profile, live: Profile | None, *, outputs: Sequence[str], levels: Levels) -> list[CheckResult]:
    """One result for each output. The first release has nothing to compare with; it must still have numbers."""
    return [_check_output(name, current, live, levels) for name in outputs]


def _check_output(output: str, current: Profile, live: Profile | None, levels: Levels) -> CheckResult:
    name = f"drift of {output}"
    expected = f"PSI against the live release: {in_words(levels)}"
    now = _numbers(current, output, "this run")
    before = None if live is None else _numbers(live, output, "the live release")
    if isinstance(now, str):
        return not_evaluated(name, "drift", observed=now, expected=expected)
    if isinstance(before, str):
        return not_evaluated(name, "drift", observed=before, expected=expected)
    if before is None:
        verdict, observed = Verdict.PASS, "first release: nothing to compare with"
    else:
        moved = score_drift(now, before)
        verdict = at_levels(moved, levels)
        observed = f"PSI {moved:.4f}: the mean went from {_number(before.mean)} to {_number(now.mean)}"
    return CheckResult(name=name, family="drift", verdict=verdict, observed=observed, expected=expected)


def _number(mean: float | None) -> str:
    return "no number" if mean is None else f"{mean:.4g}"


def _numbers(profile: Profile, column: str, owner: str) -> NumericProfile | str:
    """The column's profile, or what keeps it from being compared."""
    found = profile.columns.get(column)
    if found is None:
        return f"{owner} has no column {column}"
    if not isinstance(found, NumericProfile):
        return f"{column} of {owner} is not a number"
    if found.nans or found.infinite:
        return f"{column} of {owner} is NaN in {found.nans} rows and infinite in {found.infinite}"
    if not found.count:
        return f"{column} of {owner} has no value in {profile.rows} rows"
    return found


def _edges(live: Sketch, bins: int) -> Floats:
    """Where the live release's quantiles stand, as bounds of the sketch's own bins, on which counts are exact.

    A value that several quantiles fall on, and the smallest one, are closed from below as well: else all that moves to
    below them would stay in the same bin.
    """
    reached = [sketch.bounds(sketch.quantile(live, step / bins)) for step in range(bins + 1)]
    bottoms = [bottom for bottom, _ in reached if sum(other == bottom for other, _ in reached) > 1]
    return np.array([-np.inf, *sorted({reached[0][0], *bottoms, *(top for _, top in reached)}), np.inf])
