"""How far two histograms over the same bins are apart, and how often chance alone takes them that far."""

import math
from collections.abc import Sequence

import numpy as np

from validation.sketch import Floats

# The usual rule for a chi-square test: fewer expected rows in a bin, and its tail is no longer to be trusted.
_LEAST_EXPECTED = 5


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
    _check(expected, actual)
    filled = (expected > 0) | (actual > 0)
    before = np.where(expected > 0, expected, 0.5)[filled] / expected.sum()
    now = np.where(actual > 0, actual, 0.5)[filled] / actual.sum()
    return float(np.sum((now - before) * np.log(now / before)))


def jensen_shannon(expected: Floats, actual: Floats) -> float:
    """Jensen-Shannon distance, in [0, 1]: the square root of the divergence to base 2. Symmetric.

    Raises:
        ValueError: as `psi`.

    Source:
        Endres, Schindelin, A new metric for probability distributions, IEEE Trans. Inf. Theory 49 (2003).

    >>> jensen_shannon(np.array([7, 0]), np.array([0, 3]))
    1.0
    """
    _check(expected, actual)
    before, now = expected / expected.sum(), actual / actual.sum()
    middle = (before + now) / 2
    divergence = sum(
        float(np.sum(side[side > 0] * np.log2(side[side > 0] / middle[side > 0]))) / 2 for side in (before, now)
    )
    return math.sqrt(min(max(divergence, 0.0), 1.0))


def kolmogorov_smirnov(expected: Floats, actual: Floats) -> float:
    """Kolmogorov-Smirnov distance, in [0, 1]: the largest difference of the cumulated shares; the bins are in order.

    Raises:
        ValueError: as `psi`.

    >>> round(kolmogorov_smirnov(np.array([50, 50, 0]), np.array([20, 50, 30])), 4)
    0.3
    """
    _check(expected, actual)
    apart = np.cumsum(expected) / expected.sum() - np.cumsum(actual) / actual.sum()
    return min(float(np.abs(apart).max()), 1.0)


def total_variation(expected: Floats, actual: Floats) -> float:
    """Total variation distance, in [0, 1]: the share of rows that would have to change their bin, in whatever order.

    Raises:
        ValueError: as `psi`.

    >>> round(total_variation(np.array([50, 0, 50]), np.array([20, 30, 50])), 4)
    0.3
    """
    _check(expected, actual)
    return min(float(np.abs(expected / expected.sum() - actual / actual.sum()).sum()) / 2, 1.0)


def chance(expected: Floats, actual: Floats) -> float:
    """How often two samples of one distribution are at least this far apart: the p-value of a two-sample test.

    Two tests share the chance of an error (Bonferroni). Chi-square over all bins finds what moved a little everywhere;
    neighbours are pooled until 5 rows are expected on either side. The exact test of single bins finds what moved in
    one: a value that is new in a small sample beside a large one, where chi-square does not hold.

    Args:
        expected: Counts of the baseline.
        actual: Counts of the new batch.

    Raises:
        ValueError: as `psi`.

    >>> chance(np.array([50, 50]), np.array([50, 50]))
    1.0
    >>> chance(np.array([1000, 0]), np.array([0, 8])) < 1e-15
    True
    """
    _check(expected, actual)
    return min(1.0, 2 * min(_over_all_bins(expected, actual), _in_one_bin(expected, actual)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family, such that the chance that any is at most `rate` where nothing moved is at most `rate`.

    Source:
        Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979). It holds however
        the tests depend on one another.

    >>> holm([0.25, 0.01, 0.03])
    [0.25, 0.03, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def chi_square_tail(statistic: float, degrees: int) -> float:
    """The chance that a chi-square variable of that many degrees of freedom is at least `statistic`.

    Source:
        Abramowitz, Stegun, Handbook of Mathematical Functions (1964), 26.4.4 and 26.4.5. Each term is worked out as a
        logarithm: the sum neither overflows nor loses a small tail.

    >>> round(chi_square_tail(3.841, 1), 4), round(chi_square_tail(18.307, 10), 4)
    (0.05, 0.05)
    """
    if statistic <= 0:
        return 1.0
    half, odd = statistic / 2, degrees % 2
    tail = math.erfc(math.sqrt(half)) if odd else 0.0
    powers = (step + odd / 2 for step in range(degrees // 2))
    return min(1.0, tail + sum(math.exp(k * math.log(half) - half - math.lgamma(k + 1)) for k in powers))


def _over_all_bins(expected: Floats, actual: Floats) -> float:
    sides = np.array([expected, actual], np.float64)
    rows = sides.sum(axis=1)
    pooled = _pooled(sides, _LEAST_EXPECTED * rows.sum() / rows.min())
    if pooled.shape[1] < 2:
        return 1.0
    wanted = np.outer(rows, pooled.sum(axis=0)) / rows.sum()
    return chi_square_tail(float(((pooled - wanted) ** 2 / wanted).sum()), pooled.shape[1] - 1)


def _pooled(sides: Floats, least: float) -> Floats:
    """Neighbouring bins put together until each holds `least` rows of both sides; what is left joins the last."""
    bins: list[Floats] = [np.zeros(2)]
    for bin_ in sides.T:
        if bins[-1].sum() >= least:
            bins.append(np.zeros(2))
        bins[-1] = bins[-1] + bin_
    if bins[-1].sum() < least and len(bins) > 1:
        bins[-2:] = [bins[-2] + bins[-1]]
    return np.array(bins).T


def _in_one_bin(expected: Floats, actual: Floats) -> float:
    """The smallest chance of any bin's count, times the bins."""
    filled = (expected > 0) | (actual > 0)
    before, now = (round(float(side.sum())) for side in (expected, actual))
    pairs = [(round(float(a)), round(float(b))) for a, b in zip(expected[filled], actual[filled], strict=True)]
    return min(1.0, len(pairs) * min(_fisher(a, before, b, now) for a, b in pairs))


def _fisher(a: int, rows_a: int, b: int, rows_b: int) -> float:
    """At least the two-sided chance of so uneven a split of `a + b` rows over both sides.

    The tail of the hypergeometric distribution falls at least as fast as its first ratio, which bounds its sum.
    """
    if a * rows_b > b * rows_a:
        a, rows_a, b, rows_b = b, rows_b, a, rows_a
    ratio = a * (rows_b - b) / ((b + 1) * (rows_a - a + 1))
    if ratio >= 1:
        return 1.0
    first = _log_choose(rows_a, a) + _log_choose(rows_b, b) - _log_choose(rows_a + rows_b, a + b)
    return min(1.0, 2 * math.exp(first) / (1 - ratio))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _check(expected: Floats, actual: Floats) -> None:
    if expected.shape != actual.shape:
        raise ValueError(f"histograms have shapes {expected.shape} and {actual.shape}")
    for counts in (expected, actual):
        if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() <= 0:
            raise ValueError("a histogram needs finite counts >= 0 and at least one row")
