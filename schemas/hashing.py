"""The hash by which a profile counts different numbers: here, because an erasure must find it again."""

import struct
from collections.abc import Sequence

HASH_BITS = 52  # what every reader of JSON keeps of an integer
KEPT = 512  # the smallest hashes of a column
INCREMENT = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
_MASK = 2**64 - 1


def hash_number(value: float) -> int:
    """The upper 52 bits of SplitMix64 of the double's bit pattern; zero has one hash, whatever its sign.

    Source:
        Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.

    >>> hash_number(-0.0) == hash_number(0)
    True
    """
    (bits,) = struct.unpack("<Q", struct.pack("<d", float(value) + 0.0))
    mixed: int = (bits + INCREMENT) & _MASK
    for shift, multiplier in zip(SHIFTS, (*MULTIPLIERS, 1), strict=True):
        mixed = ((mixed ^ (mixed >> shift)) * multiplier) & _MASK
    return mixed >> (64 - HASH_BITS)


def without(hashes: Sequence[int], value: float) -> list[int]:
    """The ascending hashes of a column that no longer has this number.

    Where 512 are kept there were more numbers: another hash takes its place, for 511 would say that there were 511
    numbers. It follows from its neighbours alone, and so tells nothing of the one that it replaces.
    """
    gone = hash_number(value)
    if gone not in hashes:
        return list(hashes)
    place = list(hashes).index(gone)
    before, after = hashes[:place], hashes[place + 1 :]
    if len(hashes) < KEPT:
        return [*before, *after]
    left = before[-1] if before else 0
    # Behind the last one, as far as those before it stand from each other.
    return [*before, (left + after[0]) // 2 if after else left + left // place, *after]
