"""How the order of scores changed: tenths, ranks, and who is at the top."""

from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_TENTHS = 10


def ranked(old: Floats, new: Floats, *, correlate: bool) -> dict[str, Any]:
    """The fields of a diff that are of all kept entities together; shapes (n,), finite."""
    if old.size == 0:
        nothing = dict.fromkeys(("mean_before", "mean_after", "rank_correlation", "top_decile_overlap"))
        return {**nothing, "decile_edges": (), "deciles": ()}
    old_sorted, new_sorted = np.sort(old), np.sort(new)
    old_edges, new_edges = _edges(old_sorted), _edges(new_sorted)
    cells = np.searchsorted(old_edges, old) * _TENTHS + np.searchsorted(old_edges, new)
    was_top, is_top = old > old_edges[-1], new > new_edges[-1]
    return {
        # Of what is sorted, so that the order of the files leaves no trace in the last digit.
        "mean_before": float(old_sorted.mean()),
        "mean_after": float(new_sorted.mean()),
        "decile_edges": tuple(old_edges.tolist()),
        "deciles": tuple(map(tuple, np.bincount(cells, minlength=_TENTHS**2).reshape(_TENTHS, _TENTHS).tolist())),
        "rank_correlation": _correlation(_ranks(old, old_sorted), _ranks(new, new_sorted)) if correlate else None,
        "top_decile_overlap": float((was_top & is_top).sum() / was_top.sum()) if was_top.any() else None,
    }


def _edges(ordered: Floats) -> Floats:
    """The nine deciles, exact: the smallest value that has k tenths of all at or below it."""
    at = -(-np.arange(1, _TENTHS) * ordered.size // _TENTHS) - 1
    return np.asarray(ordered[at])


def _ranks(values: Floats, ordered: Floats) -> Floats:
    """The rank of each value, from 0; equal values share the mean of theirs."""
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(np.append(starts, ordered.size))
    ranks = np.empty(ordered.size)
    ranks[np.argsort(values)] = np.repeat(starts + (counts - 1) / 2, counts)
    return ranks


def _correlation(a: Floats, b: Floats) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return min(1.0, max(-1.0, float(np.dot(a, b)) / scale)) if scale > 0 and isfinite(scale) else None
