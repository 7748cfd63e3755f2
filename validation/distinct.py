"""How many different numbers there are, from the smallest of their hashes: mergeable, and of bounded size."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.hashing import HASH_BITS, INCREMENT, KEPT, MULTIPLIERS, SHIFTS
from validation.sketch import Floats

Hashes = npt.NDArray[np.uint64]

_SAMPLE = 4096


def lowest_hashes(values: Floats) -> tuple[int, ...]:
    """The 512 smallest hashes of these numbers, ascending, each once; all of them where there are fewer.

    Args:
        values: Neither NaN nor infinite.
    """
    sample = _ascending(_hashed(values[:_SAMPLE]))
    if len(values) <= _SAMPLE:
        return tuple(sample[:KEPT].tolist())
    if len(sample) < KEPT:
        # Few values, each many times: listing them is cheaper than hashing every row.
        hashes = _hashed(pc.unique(pa.array(values)).to_numpy())
    else:
        hashes = _hashed(values)
        # The 512 smallest of all are not above the 512th of some.
        hashes = hashes[hashes <= sample[KEPT - 1]]
    return tuple(_ascending(hashes)[:KEPT].tolist())


def merge(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The smallest hashes of all that either has counted: equal to those of both at once."""
    return tuple(_ascending(np.array([*a, *b], np.uint64))[:KEPT].tolist())


def estimate(hashes: Sequence[int]) -> int:
    """How many numbers had these hashes: exact below 512, then within 9 % (19 times in 20; standard error 4.4 %).

    Source:
        Beyer et al., On synopses for distinct-value estimation under multiset operations, SIGMOD 2007: if k hashes
        fill a share h of their range, (k - 1) / h is unbiased.
    """
    if len(hashes) < KEPT:
        return len(hashes)
    share = hashes[-1] / float(2**HASH_BITS)
    return round((len(hashes) - 1) / share)


def _hashed(values: Floats) -> Hashes:
    """`schemas.hashing.hash_number` of each."""
    mixed: Hashes = (values + 0.0).view(np.uint64)
    mixed += np.uint64(INCREMENT)
    for shift, multiplier in zip(SHIFTS, (*MULTIPLIERS, 1), strict=True):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(multiplier)
    mixed >>= np.uint64(64 - HASH_BITS)
    return mixed


def _ascending(hashes: Hashes) -> Hashes:
    # A sort of few is faster than np.unique's table of hashes.
    ordered = np.sort(hashes)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered
