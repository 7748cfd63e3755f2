"""How much memory a version will take in a Redis, worked out before anything is loaded."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from lookup.crc import Positions
from lookup.payload import MAX_ENTITIES, Form, entry_bytes, runs
from lookup.rows import Chunk, Rows, flat
from schemas.errors import DeclarationError, Problem, UnavailableError
from schemas.head import Head
from schemas.keys import bucket_key, row_key

_MARGIN = 1.10  # what is worked out is within a tenth of what is then taken; what is in use is known
_FIELD_BYTES = 96  # of a prior, beside its bytes
_COMPACT_BYTES = 64  # an id or value that is longer makes the hash a table
_PLACE = 12  # a pointer in a table that is between half full and full

_SAMPLED_ROWS = 1 << 16

Allocated = Callable[[Positions], Positions]


class Server(NamedTuple):
    """What a Redis says of its memory.

    Attributes:
        used_bytes: By its data now.
        limit_bytes: `maxmemory`; None where there is no limit.
        allocator: As it calls it: `jemalloc-5.3.0`, `libc`.
        is_valkey: Of another line since Redis 7.2.
        version: Major and minor version, Valkey's own where it is one.
    """

    used_bytes: int
    limit_bytes: int | None
    allocator: str
    is_valkey: bool
    version: tuple[int, int]


class Plan(NamedTuple):
    """What a load will need.

    Attributes:
        version_bytes: Of what is still to be loaded of the version.
        peak_bytes: Of everything, once it stands beside what is there.
    """

    version_bytes: int
    peak_bytes: int
    server: Server

    @property
    def fits(self) -> bool:
        limit = self.server.limit_bytes
        return limit is None or self.server.used_bytes + self.version_bytes * _MARGIN <= limit


def server_of(info: Mapping[str, Any]) -> Server:
    """The facts in an INFO reply with the sections memory and server."""
    text = str(info.get("valkey_version") or info["redis_version"])
    major, minor = (int(part) for part in text.split(".")[:2])
    return Server(
        used_bytes=int(info["used_memory"]),
        limit_bytes=int(info["maxmemory"]) or None,
        allocator=str(info.get("mem_allocator", "libc")),
        is_valkey="valkey_version" in info,
        version=(major, minor),
    )


def plan(head: Head, rows: Rows, server: Server, *, share: float = 1.0, held: int = 0) -> Plan:
    """What loading this version needs.

    The first rows stand for all: entities are spread over the buckets by a hash.

    Args:
        head: Of the version.
        rows: Its rows.
        server: Where they go.
        share: The part of the version that this server gets, 1 unless it is one of a cluster.
        held: Rows of it that the server has already; they are replaced one by one.
    """
    chunks = chain.from_iterable(part.pieces(_SAMPLED_ROWS) for part in rows.parts)
    sampled = next((chunk for chunk in chunks if len(chunk.ids)), None)
    a_row = _sampled_bytes(head, sampled, server) / len(sampled.ids) if sampled else 0.0
    priors = sum(_FIELD_BYTES + len(field) + len(value) for field, value in rows.priors.items())
    size = int(a_row * max(0.0, head.entities * share - held) + priors * share)
    return Plan(size, server.used_bytes + size, server)


def refuse_eviction(policy: str) -> None:
    """Refuse a server that could drop predictions without a word.

    Raises:
        DeclarationError: its eviction policy is not noeviction.
    """
    if policy != "noeviction":
        raise DeclarationError(
            Problem("STORE_POLICY", "Redis maxmemory-policy", f"{policy} would drop predictions", "noeviction")
        )


def refuse_what_does_not_fit(found: Plan, where: str) -> None:
    """Refuse a load that would end in an error half way.

    Raises:
        UnavailableError: the version would go over maxmemory.
    """
    server = found.server
    if not found.fits:
        needs = f"needs {mib(found.version_bytes)} beside {mib(server.used_bytes)} in use"
        limit = f"no more than maxmemory, {mib(server.limit_bytes or 0)}: more memory, or fewer versions (publish.keep)"
        raise UnavailableError(Problem("STORE_FULL", where, needs, limit))


def mib(size_bytes: int) -> str:
    """Mebibytes, to read."""
    return f"{size_bytes / 2**20:,.1f} MiB"


def _sampled_bytes(head: Head, chunk: Chunk, server: Server) -> float:
    """What the sampled rows take."""
    allocated = _jemalloc if server.allocator.startswith("jemalloc") else _libc
    ids, values = (np.diff(flat(array)[1]) for array in (chunk.ids, chunk.values))
    if head.layout == "string":
        keys = len(row_key(head.table, head.version, "").encode()) + ids
        return float(_key_bytes(keys, values, server, allocated).sum())
    starts = runs(chunk.buckets(head.buckets))
    form: Form = "listpack" if server.is_valkey or server.version >= (7, 0) else "ziplist"
    sizes = np.add.reduceat(entry_bytes(chunk, form), starts[:-1]) + 8  # a header, and an end
    wide = np.maximum.reduceat(np.maximum(ids, values), starts[:-1]) > _COMPACT_BYTES
    loose = np.add.reduceat(_field_bytes(ids, values, server, allocated), starts[:-1])
    key = len(bucket_key(head.table, head.version, head.buckets).encode())
    keys = np.full(sizes.size, key)
    hashes = np.where(wide | (np.diff(starts) > MAX_ENTITIES), loose, allocated(sizes))
    return float((_key_bytes(keys, None, server, allocated) + hashes).sum())


def _field_bytes(ids: Positions, values: Positions, server: Server, allocated: Allocated) -> Positions:
    """What each row takes in a hash that is too large to be compact: id, value, and their place in its table.

    Source:
        Redis: dict.c, sds.h. Valkey 8.1: hashtable.c, t_hash.c; a short value is in one piece with its id.
    """
    id_, value = _text_bytes(ids), _text_bytes(values)
    if not server.is_valkey or server.version < (8, 1):
        return allocated(np.full_like(ids, 24)) + allocated(id_) + allocated(value) + _PLACE
    apart = allocated(9 + id_) + allocated(value)
    return np.where(id_ + value <= 128, allocated(id_ + value), apart) + _PLACE


def _key_bytes(keys: Positions, values: Positions | None, server: Server, allocated: Allocated) -> Positions:
    """What each key takes beside its hash: its name, its object with a short string in it, its place in the table.

    Source:
        Redis: dict.c, object.c, sds.h. Valkey 8.1: hashtable.c; name and short value in the object.
    """
    name = _text_bytes(keys)
    if not server.is_valkey or server.version < (8, 1):
        entry, text = np.full_like(keys, 24), np.zeros_like(keys) if values is None else values + 4
        return allocated(entry) + allocated(name) + allocated(16 + text) + _PLACE
    if values is None:
        return allocated(17 + name) + _PLACE
    whole = (17 if server.version < (9, 0) else 9) + name + values + 3
    apart = allocated(17 + name) + allocated(values + 2)
    return np.where(whole <= (64 if server.version < (9, 0) else 128), allocated(whole), apart) + _PLACE


def _text_bytes(lengths: Positions) -> Positions:
    """A string of the server (sds): header, bytes, end."""
    return lengths + np.where(lengths < 32, 2, 4)


def _jemalloc(sizes: Positions) -> Positions:
    """Its size classes: by 16 up to 128, from there four to each doubling."""
    exponent = np.maximum(np.ceil(np.log2(np.maximum(sizes, 1))).astype(np.int64) - 3, 4)
    step = np.left_shift(np.int64(1), exponent)
    found: Positions = -(-sizes // step) * step
    return found


def _libc(sizes: Positions) -> Positions:
    """What glibc's malloc hands out: multiples of 16 less its own 8 bytes, 24 at least."""
    found: Positions = np.maximum(-(-(sizes + 8) // 16) * 16 - 8, 24)
    return found
