"""What Redis is asked for rows: as commands, and as the bytes that all of them are on the wire."""

from binascii import crc32
from collections.abc import Callable, Iterator, Sequence
from typing import cast, overload

import hiredis

from schemas.head import Head
from schemas.keys import MAX_ID_BYTES, bucket_key, row_key

Command = tuple[str, ...]
pack = cast("Callable[[Command], bytes]", hiredis.pack_command)

_KEPT = 1 << 16  # beginnings of commands of a version, of some hundred bytes each
_SIZES = [b"%d\r\n" % size for size in range(MAX_ID_BYTES + 1)]


class RowCommands:
    """One command for each row of a version, in its layout."""

    def __init__(self, head: Head) -> None:
        self._is_string = head.layout == "string"
        self._prefix = row_key(head.table, head.version, "")
        if not self._is_string:
            self._prefix = bucket_key(head.table, head.version, 0)[:-1]
        self._buckets = head.buckets
        # By bucket; a dict would miss the caches of the processor three times where this does once.
        self._begun: list[bytes | None] = [None] * min(head.buckets, _KEPT)

    def listed(self, ids: Sequence[str]) -> list[Command]:
        prefix, buckets = self._prefix, self._buckets
        if self._is_string:
            return [("GET", prefix + entity) for entity in ids]
        # `bucket_key` and `bucket_of`, without a call for each id: this is what every lookup waits for.
        return [("HGET", f"{prefix}{crc32(entity.encode()) % buckets}", entity) for entity in ids]

    def packed(self, ids: Sequence[str]) -> bytes:
        """The same as hiredis would pack it; that takes twice as long, and half of an answer's time is this."""
        if self._is_string:
            return b"".join(map(pack, self.listed(ids)))
        begun, begin, buckets, kept = self._begun, self._begin, self._buckets, len(self._begun)
        parts: list[bytes] = []
        for raw in [entity.encode() for entity in ids]:
            bucket = crc32(raw) % buckets
            parts += ((bucket < kept and begun[bucket]) or begin(bucket), _SIZES[len(raw)], raw, b"\r\n")
        return b"".join(parts)

    def _begin(self, bucket: int) -> bytes:
        key = f"{self._prefix}{bucket}".encode()
        beginning = b"*3\r\n$4\r\nHGET\r\n$%d\r\n%b\r\n$" % (len(key), key)
        if bucket < len(self._begun):
            self._begun[bucket] = beginning
        return beginning


class Commands(Sequence[Command]):
    """What one request asks: rows, and behind them what tells whether they are of the version that is live."""

    def __init__(self, guards: Sequence[Command], rows: RowCommands | None = None, ids: Sequence[str] = ()) -> None:
        self._guards, self._rows, self._ids = guards, rows, ids

    def __len__(self) -> int:
        return len(self._guards) + len(self._ids)

    def __iter__(self) -> Iterator[Command]:
        yield from self._rows.listed(self._ids) if self._rows else ()
        yield from self._guards

    @overload
    def __getitem__(self, at: int) -> Command: ...
    @overload
    def __getitem__(self, at: slice) -> list[Command]: ...
    def __getitem__(self, at: int | slice) -> Command | list[Command]:
        return [*self][at]

    def packed(self) -> bytes:
        guards = b"".join(map(pack, self._guards))
        return self._rows.packed(self._ids) + guards if self._rows else guards
