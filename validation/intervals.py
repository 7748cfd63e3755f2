"""Intervals around means, shares and ratios of shares of groups."""

import math
from statistics import NormalDist

import numpy as np

from schemas.report import Interval


def mean_interval(mean: float, variance: float, rows: int, confidence: float) -> Interval:
    """Around a mean, by normal approximation: good from some 30 rows on, too narrow below and for heavy tails.

    Args:
        mean: Of the rows.
        variance: Of the rows themselves, divided by their number.
        rows: At least 1. Of one row no spread is known: its interval is the value itself.
        confidence: In (0, 1).

    >>> round(mean_interval(0.5, 0.25, 101, 0.95).high, 3)
    0.598
    """
    reach = _z(confidence) * math.sqrt(max(variance, 0.0) / (rows - 1)) if rows > 1 else 0.0
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def share_interval(positives: int, rows: int, confidence: float) -> Interval:
    """Around a share; it has sense for few rows too, and where none or all are positive.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    >>> round(share_interval(0, 10, 0.95).high, 3)
    0.278
    """
    z, share = _z(confidence), positives / rows
    scale = 1 + z * z / rows
    middle = (share + z * z / (2 * rows)) / scale
    reach = z / scale * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    # Where none or all are positive, the bound is the share itself but for rounding.
    low = 0.0 if positives == 0 else max(middle - reach, 0.0)
    high = 1.0 if positives == rows else min(middle + reach, 1.0)
    return Interval(value=share, low=low, high=high)


def exact_share_interval(positives: int, rows: int, confidence: float) -> Interval:
    """Around a share, wide enough whatever the share is: for rare things, where Wilson's is at times too narrow.

    Args:
        positives: Of the rows.
        rows: Where there are none, any share is possible.
        confidence: In (0, 1).

    Source:
        Clopper, Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika
        26 (1934).

    >>> round(exact_share_interval(0, 10, 0.95).high, 4)
    0.3085
    """
    if not rows:
        return Interval(value=0.0, low=0.0, high=1.0)
    tail = (1 - confidence) / 2
    low = 0.0 if positives == 0 else _share_where(positives - 1, rows, 1 - tail)
    high = 1.0 if positives == rows else _share_where(positives, rows, tail)
    return Interval(value=positives / rows, low=low, high=high)


def _share_where(most: int, rows: int, chance: float) -> float:
    """The share with which so many or fewer of the rows are positive with this chance; it falls as the share grows."""
    counts = np.arange(most + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log((rows - counts[:-1]) / (counts[:-1] + 1)))])
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        logs = ways + counts * math.log(middle) + (rows - counts) * math.log1p(-middle)
        if np.exp(logs).sum() > chance:
            low = middle
        else:
            high = middle
    return high


def ratio_interval(positives: int, rows: int, best_positives: int, best_rows: int, confidence: float) -> Interval:
    """Around the ratio of one group's share to another's, by the logarithm's standard error.

    Of a group without positives the logarithm does not exist: half a row is then added to every count, for the upper
    end alone.

    Args:
        positives: Of the group.
        rows: Of the group, at least 1.
        best_positives: Of the group that it is compared with, at least 1.
        best_rows: Of that group.
        confidence: In (0, 1).

    Source:
        Katz, Baptista, Azen, Pike, Obtaining confidence intervals for the risk ratio in cohort studies, Biometrics 34
        (1978); Walter, The distribution of Levin's measure of attributable risk, Biometrika 62 (1975), for the half.

    >>> round(ratio_interval(30, 100, 50, 100, 0.95).high, 3)
    0.858
    """
    ratio = (positives / rows) / (best_positives / best_rows)
    half = 0.0 if positives else 0.5
    a, n, b, m = positives + half, rows + half, best_positives + half, best_rows + half
    reach = math.exp(_z(confidence) * math.sqrt(max(1 / a - 1 / n + 1 / b - 1 / m, 0.0)))
    return Interval(value=ratio, low=ratio / reach, high=(a / n) / (b / m) * reach)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
