"""What is done to every key of a version: counted, read back whole, removed. Keys are named, never searched for."""

import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from lookup.connect import Address
from lookup.rows import Rows, checksum
from lookup.wire import packed
from lookup.wires import Wires
from schemas.errors import InputError, Problem
from schemas.head import Head
from schemas.keys import bucket_key, priors_key, row_key

_KEYS_PER_WRITE = 256
_PAUSE_SECONDS = 0.0005

RowsOf = Callable[[Head], Rows]
"""Finds the rows that a version was loaded from: in the layout `string` they alone know its keys."""


def counts(address: Address, head: Head, rows_of: RowsOf, *, is_gentle: bool = False) -> list[int]:
    """Rows of a version that each server holds, in the order in which `Wires.info` tells of them.

    Args:
        address: Of the Redis, or of one node of a cluster.
        head: Of the version.
        rows_of: Finds the rows that it was loaded from.
        is_gentle: Whether another version is being read meanwhile: its readers go first.
    """
    command = "HLEN" if head.layout == "bucket" else "EXISTS"
    with Wires(address) as wires:
        held = np.zeros(len(wires.shares()), np.int64)
        for keys in _keys(head, rows_of, is_gentle=is_gentle):
            found = wires.ask(keys, [packed(command, key) for key in keys])
            np.add.at(held, wires.owners(keys), found)
    return [int(rows) for rows in held]


def priors_of(address: Address, head: Head) -> dict[str, bytes]:
    """The priors that Redis holds of a version."""
    key = priors_key(head.table, head.version)
    with Wires(address) as wires:
        flat_pairs = wires.of(key).ask("HGETALL", key) if head.priors else []
    return {field.decode(): value for field, value in zip(flat_pairs[::2], flat_pairs[1::2], strict=True)}


def exists(address: Address, head: Head, rows: Rows, *, is_gentle: bool = False) -> bool:
    """Whether any key has a name of this version already; in the layout `string`, of the first part's."""
    with Wires(address) as wires:
        for keys in _keys(head, lambda _: rows, first_part_only=True, is_gentle=is_gentle):
            if any(wires.ask(keys, [packed("EXISTS", key) for key in keys])):
                return True
    return False


def unlink(address: Address, head: Head, rows_of: RowsOf) -> None:
    """Remove all keys of a version, with a pause between the writes: who is being answered goes first."""
    with Wires(address) as wires:
        for keys in _keys(head, rows_of, is_gentle=True):
            wires.unlink(keys)
        wires.unlink([priors_key(head.table, head.version).encode()])


def checksum_of(address: Address, head: Head, rows_of: RowsOf) -> str:
    """The checksum of all rows and priors that Redis holds of a version."""

    def held() -> Iterator[tuple[bytes, bytes]]:
        with Wires(address) as wires:
            for keys in _keys(head, rows_of):
                if head.layout == "bucket":
                    for flat_pairs in wires.ask(keys, [packed("HGETALL", key) for key in keys]):
                        yield from sorted(zip(flat_pairs[::2], flat_pairs[1::2], strict=True))
                else:
                    prefix = len(row_key(head.table, head.version, ""))
                    values = wires.ask(keys, [packed("GET", key) for key in keys])
                    pairs = zip(keys, values, strict=True)
                    yield from ((key[prefix:], value) for key, value in pairs if value is not None)

    return checksum(held(), priors_of(address, head))


def no_rows(head: Head) -> Rows:
    """For a table whose versions are all of the layout `bucket`.

    Raises:
        InputError: one is not.
    """
    where = f"{head.table} version {head.version}"
    raise InputError(Problem("STORE_LAYOUT", where, "its keys are named by its rows", "the store that published it"))


def _keys(
    head: Head, rows_of: RowsOf, *, first_part_only: bool = False, is_gentle: bool = False
) -> Iterator[list[bytes]]:
    """The keys of a version, as many as are written at once; with a pause behind each write where it is gentle."""
    names = _names(head, rows_of, first_part_only=first_part_only)
    while keys := list(islice(names, _KEYS_PER_WRITE)):
        yield keys
        if is_gentle:
            time.sleep(_PAUSE_SECONDS)


def _names(head: Head, rows_of: RowsOf, *, first_part_only: bool) -> Iterator[bytes]:
    if head.layout == "bucket":
        for bucket in range(head.buckets):
            yield bucket_key(head.table, head.version, bucket).encode()
    else:
        prefix = row_key(head.table, head.version, "").encode()
        for part in rows_of(head).parts[: 1 if first_part_only else None]:
            for entity in part.read().ids.to_pylist():
                yield prefix + entity
