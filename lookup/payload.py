"""The bytes that Redis restores: finished hashes, as the server itself would have made them of HSETs.

A bucket of up to 512 entities whose ids and values have less than 64 bytes is one listpack (Redis 7, Valkey) or ziplist
(Redis 6) in the server's memory. Both are built here for all buckets of a chunk at once, and sent with RESTORE: the
server copies them instead of parsing 64 fields.

Source:
    Redis: rdb.h (types 13 and 16), listpack.c, ziplist.c, cluster.c (`verifyDumpPayload`).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import anycrc
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookup.breath import breathe
from lookup.crc import Bytes, Positions
from lookup.rows import Chunk, fixed, flat

Form = Literal["listpack", "ziplist"]

MAX_BYTES = 63  # of an id or value: a length of six bits; and the server's own limit for compact hashes is 64
MAX_ENTITIES = 512

# Type of the value, and the RDB version that is stamped on it: the lowest that every server takes.
_RDB_TYPE = {"listpack": 16, "ziplist": 13}
_RDB_VERSION = {"listpack": 10, "ziplist": 9}
_CRC64 = anycrc.Model("CRC64-REDIS")
_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"


@dataclass(frozen=True, slots=True)
class Payloads:
    """One serialised hash for each bucket.

    Attributes:
        buckets: Shape (b,), ascending.
        bytes: Binary array of shape (b,): what RESTORE takes.
    """

    buckets: Positions
    bytes: Any


def runs(buckets: Positions) -> Positions:
    """Where each bucket begins, and where the last one ends: shape (b + 1,)."""
    if buckets.size == 0:
        return np.zeros(1, np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(buckets)) + 1, [buckets.size]])


def is_compact(chunk: Chunk, starts: Positions) -> Any:
    """Which buckets the server keeps as one compact string, shape (b,), bool: the others are sent field by field."""
    sizes = np.maximum(np.diff(flat(chunk.ids)[1]), np.diff(flat(chunk.values)[1]))
    if sizes.size == 0:
        return np.zeros(0, bool)
    return (np.maximum.reduceat(sizes, starts[:-1]) <= MAX_BYTES) & (np.diff(starts) <= MAX_ENTITIES)


def entry_bytes(chunk: Chunk, form: Form) -> Positions:
    """How many bytes each row, id and value, has within a compact hash: shape (rows,)."""
    entries = _listpack_entries(chunk) if form == "listpack" else _ziplist_entries(chunk, np.zeros(1, np.int64))
    return np.diff(flat(entries)[1])


def payloads(chunk: Chunk, buckets: Positions, form: Form) -> Payloads:
    """The serialised hash of each bucket. All must be compact, and no id may come twice: a server takes such a hash
    unseen, and aborts when it converts it later.

    Args:
        chunk: Rows, grouped by bucket.
        buckets: Of each row, shape (rows,).
        form: What the server keeps compact hashes as.
    """
    starts = runs(buckets)
    entries = _listpack_entries(chunk) if form == "listpack" else _ziplist_entries(chunk, starts)
    breathe()
    data, offsets = flat(entries)
    cuts = offsets[starts]
    bodies = _cut(data, cuts)
    counts, sizes = np.diff(starts) * 2, np.diff(cuts)
    if form == "listpack":
        total = sizes + 7
        head = np.hstack([_little(total, 4), _little(counts, 2)])
    else:
        total = sizes + 11
        # Where the last entry, a value, begins: its header is two bytes.
        last = np.diff(flat(chunk.values)[1])[starts[1:] - 1] + 2
        head = np.hstack([_little(total, 4), _little(total - 1 - last, 4), _little(counts, 2)])
    kind = np.full((counts.size, 1), _RDB_TYPE[form], np.uint8)
    length = np.full((counts.size, 1), 0x80, np.uint8)  # of 32 bits, big-endian
    prefix = fixed(np.hstack([kind, length, _little(total, 4)[:, ::-1], head]))
    suffix = b"\xff" + _RDB_VERSION[form].to_bytes(2, "little")
    unchecked = pc.binary_join_element_wise(prefix, bodies, pa.scalar(suffix, pa.binary()), b"")
    return Payloads(buckets[starts[:-1]], pc.binary_join_element_wise(unchecked, _checks(unchecked), b""))


def _listpack_entries(chunk: Chunk) -> Any:
    """Id and value of each row as listpack entries: a header with the length, the bytes, the entry's length again."""
    ids = np.diff(flat(chunk.ids)[1])
    values = _value_entries(chunk)
    integers = _integers(chunk.ids)
    head, tail = fixed(_column(ids | 0x80)), fixed(_column(ids + 1))
    if integers is None:
        return pc.binary_join_element_wise(head, chunk.ids, tail, values, b"")
    mask, encoded = integers
    as_text = pc.binary_join_element_wise(head, chunk.ids, tail, b"")
    return pc.binary_join_element_wise(pc.replace_with_mask(as_text, pa.array(mask), encoded), values, b"")


def _value_entries(chunk: Chunk) -> Any:
    """The values as entries; at once where all have one width, as most tables' have."""
    data, offsets = flat(chunk.values)
    sizes = np.diff(offsets)
    width = int(sizes[0]) if sizes.size else 0
    if (sizes == width).all():
        rows = data[offsets[0] : offsets[-1]].reshape(sizes.size, width)
        column = np.ones((sizes.size, 1), np.uint8)
        return fixed(np.hstack([column * (width | 0x80), rows, column * (width + 1)]))
    head, tail = fixed(_column(sizes | 0x80)), fixed(_column(sizes + 1))
    return pc.binary_join_element_wise(head, chunk.values, tail, b"")


def _integers(ids: Any) -> tuple[Any, Any] | None:
    """Which ids the server keeps as integers, shape (rows,), and their entries; None where there are none."""
    data, offsets = flat(ids)
    if offsets.size == 1:
        return None
    sizes = np.diff(offsets)
    # By its first byte and its last, before an expression looks at all of it.
    first, last = (data.take(at, mode="clip") for at in (offsets[:-1], offsets[1:] - 1))
    likely = (sizes <= 20) & ((first == ord("-")) | _is_digit(first)) & _is_digit(last)
    if not likely.any():
        return None
    mask = likely & pc.match_substring_regex(ids, _INTEGER).to_numpy(zero_copy_only=False)
    numbers = [int(text) for text in ids.filter(pa.array(mask)).to_pylist()]
    fits = np.array([-(2**63) <= number < 2**63 for number in numbers], bool)
    mask[np.flatnonzero(mask)[~fits]] = False
    encoded = [_integer_entry(number) for number, fit in zip(numbers, fits, strict=True) if fit]
    return (mask, pa.array(encoded, pa.binary())) if encoded else None


def _is_digit(characters: Bytes) -> npt.NDArray[np.bool_]:
    return (characters >= ord("0")) & (characters <= ord("9"))


def _integer_entry(number: int) -> bytes:
    """A listpack entry of an integer, in the smallest of its forms."""
    if 0 <= number <= 127:
        return bytes([number, 1])
    if -4096 <= number <= 4095:
        unsigned = number % 8192
        return bytes([0xC0 | unsigned >> 8, unsigned & 0xFF, 2])
    for tag, size in ((0xF1, 2), (0xF2, 3), (0xF3, 4)):
        if -(1 << 8 * size - 1) <= number < 1 << 8 * size - 1:
            return bytes([tag]) + number.to_bytes(size, "little", signed=True) + bytes([size + 1])
    return b"\xf4" + number.to_bytes(8, "little", signed=True) + b"\x09"


def _ziplist_entries(chunk: Chunk, starts: Positions) -> Any:
    """The same as ziplist entries: the length of the entry before, the entry's own, the bytes.

    Integers stay text: the server finds them all the same.
    """
    ids, values = (np.diff(flat(array)[1]) for array in (chunk.ids, chunk.values))
    before = np.concatenate([[0], values[:-1] + 2])
    before[starts[:-1]] = 0
    head = fixed(np.hstack([_column(before), _column(ids)]))
    middle = fixed(np.hstack([_column(ids + 2), _column(values)]))
    return pc.binary_join_element_wise(head, chunk.ids, middle, chunk.values, b"")


def _cut(data: Bytes, cuts: Positions) -> Any:
    """The same bytes as a binary array with other bounds; nothing is copied."""
    offsets = pa.py_buffer(cuts.astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), cuts.size - 1, [None, offsets, pa.py_buffer(data)])


def _checks(payloads: Any) -> Any:
    """The CRC-64 that ends each payload, as a binary array."""
    data, offsets = flat(payloads)
    view, bounds = memoryview(cast("Any", data)), offsets.tolist()
    checks = [_CRC64.calc(view[start:end]) for start, end in pairwise(bounds)]
    return fixed(np.array(checks, "<u8").view(np.uint8).reshape(-1, 8))


def _column(values: Positions) -> Bytes:
    return values.astype(np.uint8).reshape(-1, 1)


def _little(values: Positions, size: int) -> Bytes:
    """Little-endian bytes of each number, shape (n, size)."""
    return np.ascontiguousarray(values.astype("<u8")).view(np.uint8).reshape(-1, 8)[:, :size]
