"""Two profiles of one column as histograms over the same bins."""

from dataclasses import dataclass

import numpy as np

from validation import sketch
from validation.profile import CategoryProfile, NumericProfile
from validation.sketch import Floats, Sketch

DECILES = 10
Pair = tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class Histograms:
    """Counts of the baseline and of the new batch, each pair over the same bins.

    Attributes:
        bins: Over the baseline's deciles or its values, with nulls and what the baseline does not know as bins more.
        ordered: Over every bin of the sketches, ascending; None where the column has no order.
        tested: For a test of chance, which needs bins that favour neither side: those values that just one side
            happened to draw would, put into one bin, be seen as moved.
    """

    bins: Pair
    ordered: Pair | None
    tested: Pair


def of_numbers(baseline: NumericProfile, current: NumericProfile) -> Histograms:
    """Over the baseline's deciles. Nulls, and NaN as null, stand below all numbers, infinite ones above."""
    edges = _decile_edges(baseline.sketch)
    every = np.union1d(baseline.sketch.bins, current.sketch.bins)
    before, now = (_framed(side, sketch.counts_between(side.sketch, edges)) for side in (baseline, current))
    ordered = _framed(baseline, _spread(baseline.sketch, every)), _framed(current, _spread(current.sketch, every))
    return Histograms((before, now), ordered, (before, now))


def of_categories(baseline: CategoryProfile, current: CategoryProfile) -> Histograms:
    """Over the baseline's values; nulls are one more bin, and all values not among them another.

    A value whose count one side does not know, because it has too many to list them all, is among the others.
    """
    both = _known(baseline, current, sorted({*baseline.values, *current.values}))
    in_baseline = _known(baseline, current, list(baseline.values))
    return Histograms(in_baseline, None, both)


def _known(baseline: CategoryProfile, current: CategoryProfile, values: list[str]) -> Pair:
    """Rare values first, by their rows on both sides together: neighbours may be pooled."""
    before, now = baseline.known(values), current.known(values)
    listed = [(before[value], now[value]) for value in values if value in before and value in now]
    others = [side.count - sum(counts[at] for counts in listed) for at, side in enumerate((baseline, current))]
    rows = np.array([*listed, others, (baseline.nulls, current.nulls)], np.float64)
    rows = rows[np.argsort(rows.sum(axis=1), kind="stable")]
    return rows[:, 0], rows[:, 1]


def _framed(column: NumericProfile, numbers: Floats) -> Floats:
    return np.array([column.nulls + column.nans, *numbers, column.infinite], np.float64)


def _spread(counted: Sketch, every: Floats) -> Floats:
    counts = np.zeros(len(every))
    counts[np.searchsorted(every, counted.bins)] = counted.counts
    return counts


def _decile_edges(baseline: Sketch) -> Floats:
    """Where the baseline's deciles stand, as bounds of the sketch's own bins, on which counts are exact.

    A value that several deciles fall on, and the smallest one, are closed from below as well: else all that moves to
    below them would stay in the same bin. Without a number all of the new batch's fall into one.
    """
    if not baseline.count:
        return np.array([-np.inf, np.inf])
    reached = [sketch.bounds(sketch.quantile(baseline, step / DECILES)) for step in range(DECILES + 1)]
    bottoms = [bottom for bottom, _ in reached if sum(other == bottom for other, _ in reached) > 1]
    return np.array([-np.inf, *sorted({reached[0][0], *bottoms, *(top for _, top in reached)}), np.inf])
