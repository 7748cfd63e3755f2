"""Mean and variance of parts, and how they become those of the whole."""

import math
from typing import NamedTuple

import numpy as np

from validation.sketch import Floats, Ints


class Moments(NamedTuple):
    """Of finite numbers.

    Attributes:
        rows: How many they are.
        mean: None where there is no number, or where it is too large for a double; so is `variance`.
        variance: Of the whole population: divided by `rows`.
    """

    rows: int = 0
    mean: float | None = None
    variance: float | None = None


def moments_of(values: Floats) -> Moments:
    """Of these finite numbers."""
    if not len(values):
        return Moments()
    with np.errstate(over="ignore", invalid="ignore"):
        return _known(len(values), values.mean(), values.var())


def merge(a: Moments, b: Moments) -> Moments:
    """Of both parts together.

    Source:
        Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, COMPSTAT 1982.
    """
    if not a.rows or not b.rows:
        return a if a.rows else b
    rows = a.rows + b.rows
    if a.mean is None or b.mean is None:
        return Moments(rows)
    share = b.rows / rows
    delta = b.mean - a.mean
    mean = a.mean + delta * share
    if a.variance is None or b.variance is None:
        return _known(rows, mean, math.nan)
    return _known(rows, mean, a.variance * (1 - share) + b.variance * share + delta * delta * share * (1 - share))


class GroupMoments:
    """Moments of many groups at once, batch after batch; groups are numbered from 0."""

    def __init__(self) -> None:
        self._rows: Ints = np.zeros(0, np.int64)
        self._mean: Floats = np.zeros(0)
        self._variance: Floats = np.zeros(0)

    def add(self, groups: Ints, values: Floats, count: int) -> None:
        """Add the rows of a batch.

        Args:
            groups: The group of each row, below `count`.
            values: Finite numbers, one a row.
            count: How many groups there are by now; never fewer than before.
        """
        rows: Ints = np.bincount(groups, minlength=count)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.bincount(groups, values, count) / np.maximum(rows, 1)
            variance = np.bincount(groups, np.square(values - mean[groups]), count) / np.maximum(rows, 1)
            self._merge(rows, mean, variance)

    def of(self, group: int) -> Moments:
        """Of one group; none of its rows may have come by now."""
        if group >= len(self._rows) or not self._rows[group]:
            return Moments()
        return _known(int(self._rows[group]), self._mean[group], self._variance[group])

    def _merge(self, rows: Ints, mean: Floats, variance: Floats) -> None:
        more = len(rows) - len(self._rows)
        old_rows, old_mean, old_variance = (np.pad(old, (0, more)) for old in (self._rows, self._mean, self._variance))
        self._rows = np.add(old_rows, rows, dtype=np.int64)
        share = rows / np.maximum(self._rows, 1)
        delta = np.where(old_rows > 0, mean - old_mean, mean)
        spread = np.where(old_rows > 0, np.square(delta) * share * (1 - share), 0.0)
        self._mean = np.where(rows > 0, old_mean + delta * share, old_mean)
        self._variance = np.where(rows > 0, old_variance * (1 - share) + variance * share + spread, old_variance)


def _known(rows: int, mean: float, variance: float) -> Moments:
    if not math.isfinite(mean):
        return Moments(rows)
    return Moments(rows, float(mean), float(variance) if math.isfinite(variance) else None)
