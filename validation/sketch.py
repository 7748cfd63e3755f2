"""A quantile sketch whose bins are the same everywhere, so that any two sketches merge and compare."""

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ACCURACY = 0.01
_LOG_GAMMA = math.log((1 + ACCURACY) / (1 - ACCURACY))
_SMALLEST = float(np.finfo(np.float64).tiny)
_LARGEST = float(np.finfo(np.float64).max)
# Makes the bin of the smallest positive number 1, which leaves 0 for zero and the negative bins for negative numbers.
_SHIFT = 1 - math.ceil(math.log(_SMALLEST) / _LOG_GAMMA)
_COUNTERS = 8


class Sketch(BaseModel):
    """Counts of finite numbers in logarithmic bins; only bins that hold something are kept.

    Bin `b > 0` holds the numbers in `(gamma**(b - shift - 1), gamma**(b - shift)]`, bin `-b` their negatives, bin 0
    zero and subnormal numbers. Doubles fill at most 142,000 bins; scores in [1e-6, 1] fewer than 700.

    Source:
        Masson, Rim, Lee, DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees,
        VLDB 2019.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Bins of another accuracy are not comparable: such a sketch is refused when it is read.
    accuracy: float = Field(ACCURACY, ge=ACCURACY, le=ACCURACY)
    bins: tuple[int, ...] = ()
    counts: tuple[Annotated[int, Field(gt=0)], ...] = ()

    @model_validator(mode="after")
    def _ordered(self) -> "Sketch":
        if len(self.bins) != len(self.counts) or any(np.diff(self.bins) <= 0):
            raise ValueError("bins must ascend, each with one count")
        return self

    @property
    def count(self) -> int:
        return sum(self.counts)


def sketch_of(values: Floats) -> Sketch:
    """The sketch of these numbers.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ValueError("a sketch counts finite numbers only")
    bins, counts = count_bins(bins_of(values))
    return Sketch(bins=tuple(bins.tolist()), counts=tuple(counts.tolist()))


def merge(a: Sketch, b: Sketch) -> Sketch:
    """The sketch of all that either has counted: equal to one sketch of both, in whatever order."""
    bins, places = np.unique(np.array([*a.bins, *b.bins], np.int64), return_inverse=True)
    counts = np.zeros(len(bins), np.int64)
    np.add.at(counts, places, np.array([*a.counts, *b.counts], np.int64))
    return Sketch(bins=tuple(bins.tolist()), counts=tuple(counts.tolist()))


def quantile(sketch: Sketch, q: float) -> float:
    """A number within 1 % of the one with rank `floor(q * (count - 1))` of those counted, for q in [0, 1].

    Raises:
        ValueError: q is outside [0, 1], or nothing was counted.

    >>> round(quantile(sketch_of(np.arange(1.0, 101.0)), 0.5), 1)
    49.9
    """
    if not 0 <= q <= 1 or not sketch.counts:
        raise ValueError(f"no quantile {q} of {sketch.count} numbers")
    place = int(np.searchsorted(np.cumsum(sketch.counts), math.floor(q * (sketch.count - 1)), side="right"))
    return _middle(sketch.bins[place])


def fullest(sketch: Sketch, n: int) -> list[tuple[float, int]]:
    """The n bins that counted most, fullest first: a number within 1 % of all in the bin, and how many they are."""
    most = sorted(zip(sketch.bins, sketch.counts, strict=True), key=lambda counted: (-counted[1], counted[0]))[:n]
    return [(_middle(place), count) for place, count in most]


def bounds(value: float) -> tuple[float, float]:
    """The lower and upper bound of the bin that counts `value`."""
    bottom, top = _bounds(bins_of(np.array([value], np.float64)))
    return float(bottom[0]), float(top[0])


def count_at_most(sketch: Sketch, edges: Floats) -> Floats:
    """How many numbers are at most each edge: exact on bounds of bins, between them as if a bin were evenly filled."""
    if not sketch.counts:
        return np.zeros(len(edges))
    reached = np.cumsum(sketch.counts)
    known = np.column_stack(_bounds(np.array(sketch.bins))).ravel()
    counted = np.column_stack([reached - sketch.counts, reached]).ravel()
    return np.asarray(np.interp(edges, known, counted), np.float64)


def counts_between(sketch: Sketch, edges: Floats) -> Floats:
    """How many numbers lie above each edge and at most at the next; edges ascend and may be infinite."""
    return np.diff(count_at_most(sketch, edges))


def bins_of(values: Floats) -> Ints:
    """The bin of each of these finite numbers."""
    size = np.abs(values)
    tiny = size < _SMALLEST
    some_tiny = bool(tiny.any())
    if some_tiny:
        size[tiny] = 1.0
    # In place: a batch's worth of memory is touched once, not once for each step.
    np.log(size, out=size)
    np.divide(size, _LOG_GAMMA, out=size)
    np.ceil(size, out=size)
    np.add(size, _SHIFT, out=size)
    np.copysign(size, values, out=size)
    if some_tiny:
        size[tiny] = 0.0
    return size.astype(np.int64)


def count_bins(bins: Ints) -> tuple[Ints, Ints]:
    """Every bin once, ascending, with how often it occurs."""
    if len(bins) == 0:
        return bins, bins
    lowest = int(bins.min())
    # Counting in place of sorting, wherever the counters take no more memory than a few times the numbers.
    if int(bins.max()) - lowest > _COUNTERS * len(bins):
        found, counts = np.unique(bins, return_counts=True)
        return found, counts
    every = np.bincount(bins - lowest)
    filled = np.flatnonzero(every)
    return filled + lowest, every[filled]


def _middle(place: int) -> float:
    if place == 0:
        return 0.0
    bottom, top = _bounds(np.array([place]))
    # The harmonic mean is equally far from both bounds, relative to each.
    return float(2 / (1 / bottom[0] + 1 / top[0]))


def _bounds(bins: Ints) -> tuple[Floats, Floats]:
    inner, outer = _power(np.abs(bins) - 1), _power(np.abs(bins))
    bottom = np.select([bins > 0, bins < 0], [inner, -outer], -_SMALLEST / 2)
    top = np.select([bins > 0, bins < 0], [outer, -inner], 0.0)
    return bottom, top


def _power(bins: Ints) -> Floats:
    with np.errstate(over="ignore"):
        power: Floats = np.exp((bins - _SHIFT) * _LOG_GAMMA)
    return np.minimum(power, _LARGEST)
