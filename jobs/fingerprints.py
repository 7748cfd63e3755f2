"""Fingerprints of rows: one number of all columns, by which a row is known again that did not change."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookup.rows import flat

VERSION = 1  # of what follows from a row; another one makes all rows new
Prints = npt.NDArray[np.int64]
_Words = npt.NDArray[np.uint64]

_START = np.uint64(0x5851_F42D_4C95_7F2D ^ VERSION)
_FACTORS = np.array([0x9E37_79B9_7F4A_7C15, 0xC4CE_B9FE_1A85_EC53], np.uint64)  # odd, so that nothing is lost
_SHIFT = np.uint64(32)
_MISSING = np.uint64(0xFFF8_A1A1_0DD5_EED5)  # of doubles a NaN that no arithmetic makes
_WORD_BYTES = 8


def fingerprints(rows: pa.RecordBatch) -> Prints:
    """The fingerprint of each row.

    Each column is put into the number by steps that can be undone: rows that differ in one number or date never
    have the same fingerprint. Of rows that differ otherwise, one pair in 2^64 has.

    >>> first, second = fingerprints(pa.record_batch({"a": pa.array([1.5, None]), "b": ["x", "x"]}))
    >>> bool(first == second)
    False
    """
    found = np.full(rows.num_rows, _START)
    for column in rows.columns:
        found ^= _words(column)
        _stir(found)
    return found.view(np.int64)


def drawn(prints: Prints, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows are in a sample of that share; another seed draws others."""
    lots = prints.view(np.uint64) ^ np.uint64(seed)
    _stir(lots)
    return (lots >> np.uint64(11)).astype(np.float64) < share * 2.0**53


def _stir(words: _Words) -> None:
    """Spread each bit over the word, in place; no two words become the same."""
    for factor in _FACTORS:
        words *= factor
        words ^= words >> _SHIFT


def _words(column: Any) -> _Words:
    """A word for each value: numbers by their bits, text by a hash."""
    if pa.types.is_dictionary(column.type):
        words = np.append(_words(column.dictionary), _MISSING)
        codes = pc.fill_null(pc.cast(column.indices, pa.int64()), len(words) - 1)
        return np.asarray(words.take(codes.to_numpy(zero_copy_only=False)), np.uint64)
    if column.type == pa.float64():
        words = np.frombuffer(column.buffers()[1], np.uint64)[column.offset : column.offset + len(column)]
    elif pa.types.is_floating(column.type):
        words = _values(column, pa.float64()).view(np.uint64)
    elif pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        words = _values(column, pa.int64()).view(np.uint64)
    elif pa.types.is_date32(column.type):
        words = _values(column.view(pa.int32()), pa.int64()).view(np.uint64)
    else:
        words = _hashed(*flat(pc.fill_null(_text(column), b"")))
    if not column.null_count:
        return words
    bits = np.frombuffer(column.buffers()[0], np.uint8)
    is_valid = np.unpackbits(bits, count=column.offset + len(column), bitorder="little")[column.offset :]
    return np.where(is_valid.view(np.bool_), words, _MISSING)


def _values(column: Any, kind: pa.DataType) -> npt.NDArray[Any]:
    zero = pa.scalar(False if pa.types.is_boolean(column.type) else 0, column.type)
    known = pc.fill_null(column, zero) if column.null_count else column
    return np.array(pc.cast(known, kind, safe=False).to_numpy(zero_copy_only=False))


def _text(column: Any) -> Any:
    """The values as bytes; of types that Arrow does not write as text, what Python says of each."""
    if not pa.types.is_string(column.type) and not pa.types.is_binary(column.type):
        column = pa.array([None if value is None else repr(value) for value in column.to_pylist()], pa.string())
    return pc.cast(column, pa.binary())


def _hashed(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> _Words:
    """A hash of each string, eight bytes a step, all strings at once; those that ended keep theirs."""
    starts, ends = offsets[:-1], offsets[1:]
    padded = np.concatenate([data[: ends[-1] if len(ends) else 0], np.zeros(_WORD_BYTES, np.uint8)])
    # A word at every byte.
    at_each: Any = np.ndarray((padded.size - _WORD_BYTES + 1,), "<u8", padded, strides=(1,))
    lengths = ends - starts
    words = lengths.astype(np.uint64)
    _stir(words)
    for done in range(0, int(lengths.max(initial=0)), _WORD_BYTES):
        going = slice(None) if done + 1 <= int(lengths.min(initial=0)) else np.flatnonzero(lengths > done)
        left = np.minimum(lengths[going] - done, _WORD_BYTES)
        word = at_each[starts[going] + done] & _FIRST.take(left)
        stirred = words[going] ^ word
        _stir(stirred)
        words[going] = stirred
    return words


# What is left of a word of its first 0 to 8 bytes.
_FIRST = np.array([(1 << 8 * count) - 1 for count in range(_WORD_BYTES + 1)], np.uint64)
