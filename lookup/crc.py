"""CRC-32 of many ids at once: the check of each is what its bucket follows from."""

import zlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]
Checks = npt.NDArray[np.uint32]

_POLYNOMIAL = 0xEDB88320  # IEEE 802.3, reflected: zlib, gzip, PNG
_WORD_BYTES = 8
# What is left of a word without its first 0 to 8 bytes.
_FROM = np.array([~0 << 8 * byte & (1 << 64) - 1 for byte in range(_WORD_BYTES + 1)], np.uint64)


def crc32(data: Bytes, offsets: Positions) -> Checks:
    """CRC-32 of each string, as `zlib.crc32` has it.

    Args:
        data: All strings, one behind the other.
        offsets: Shape (n + 1,): string i is `data[offsets[i]:offsets[i + 1]]`.

    >>> crc32(np.frombuffer(b"UA:1545:EWR:2013-07-01", np.uint8), np.array([0, 22]))[0] % 102
    np.uint32(11)
    """
    lengths = np.diff(offsets)
    # The check is linear: what it starts from (all ones) adds the check of as many zero bytes.
    zeros = np.array([zlib.crc32(bytes(length)) for length in range(int(lengths.max(initial=0)) + 1)], np.uint32)
    linear = _linear(data, offsets)
    return linear ^ zeros.take(lengths)


def _linear(data: Bytes, offsets: Positions) -> Checks:
    """The check of each string from zero, eight bytes a step, all strings at once.

    The strings are aligned at their ends: zero bytes before a string change nothing.

    Source:
        Kounavis and Berry, A systematic approach to building high performance software-based CRC generators (2005).
    """
    starts, ends = offsets[:-1] + _WORD_BYTES, offsets[1:] + _WORD_BYTES  # in the padded data
    padded = np.concatenate([np.zeros(_WORD_BYTES, np.uint8), data])
    # A word at every byte.
    words: Any = np.ndarray((padded.size - _WORD_BYTES + 1,), "<u8", padded, strides=(1,))
    lengths = ends - starts
    steps = -(-int(lengths.max(initial=0)) // _WORD_BYTES)
    whole = int(lengths.min(initial=0)) // _WORD_BYTES if lengths.size else 0
    table = _table()
    check = np.zeros(lengths.size, np.uint32)
    for step in range(steps, 0, -1):
        at = ends - step * _WORD_BYTES
        word = words[np.maximum(at, 0) if step > whole else at]
        if step > whole:  # some strings begin within this word, or behind it
            word &= _FROM.take(np.clip(starts - at, 0, _WORD_BYTES))
        word ^= check
        pairs = word.view("<u2").reshape(-1, 4)
        check = table[0].take(pairs[:, 0])
        for place in (1, 2, 3):
            check ^= table[place].take(pairs[:, place])
    return check


@cache
def _table() -> Checks:
    """Shape (4, 65536): what each pair of bytes of a word adds, by its place in the word."""
    one = np.zeros(256, np.uint32)
    for byte in range(256):
        check = byte
        for _ in range(8):
            check = check >> 1 ^ _POLYNOMIAL if check & 1 else check >> 1
        one[byte] = check
    behind = [one]  # a byte, and so many zero bytes behind it
    for _ in range(_WORD_BYTES - 1):
        last = behind[-1]
        behind.append(last >> np.uint32(8) ^ one[last & np.uint32(0xFF)])
    pairs = np.arange(65_536)
    low, high = pairs & 0xFF, pairs >> 8
    return np.stack([behind[7 - 2 * place][low] ^ behind[6 - 2 * place][high] for place in range(4)])
