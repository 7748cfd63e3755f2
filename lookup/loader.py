"""Loading a version into Redis: each part of its rows is read, packed and sent by itself, in any process."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookup.breath import breathe
from lookup.connect import Address
from lookup.crc import Positions
from lookup.payload import Form, is_compact, payloads, runs
from lookup.rows import Chunk, Part, Row, flat
from lookup.wire import packed
from lookup.wires import Wires
from schemas.errors import AlmanacError, InputError, Problem
from schemas.head import Head
from schemas.keys import PREFIX, bucket_key, loading_key, priors_key, row_key

Method = Literal["listpack", "ziplist", "hset"]
Commands = tuple[list[bytes], Any, int]
"""Keys, a binary array with the packed commands for each, and how many replies each key's have."""

_THREADS = 2
_ROWS = 1 << 16  # read, packed and sent together
# Where readers wait for the same server: little at once, in one thread, with a rest behind each step.
_GENTLE_ROWS = 1 << 11
_GENTLE_ROWS_PER_SECOND = 300_000
_PROBE_MS = 10_000  # it goes by itself where this process is killed
# Read back: a row in so many, and of a version so many at least.
_SAMPLED_EVERY = 4096
_SAMPLED_ROWS = 64
_REPLACED_REPLIES = 4  # to MULTI, DEL, HSET and EXEC


class Loaded(NamedTuple):
    """What became of one part.

    Attributes:
        rows: How many were sent.
        sample: Some of the rows, to be read back.
    """

    rows: int
    sample: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """The loading of one part, as it travels to where it is done.

    Attributes:
        address: Of the Redis, or of one node of a cluster.
        head: Of the version.
        method: How buckets are sent.
        replicas: How many must have the rows before the part is done.
        is_again: Whether rows may be there already: a hash that is sent field by field is then emptied first.
        is_gentle: Whether another version is being read meanwhile: its readers go first.
    """

    address: Address
    head: Head
    method: Method
    replicas: int = 0
    is_again: bool = False
    is_gentle: bool = False

    def __call__(self, part: Part) -> Loaded:
        """Send the part's rows.

        Raises:
            InputError: an id comes twice, or the rows are not in the order of their buckets.
            AlmanacError: Redis refused a command, or does not answer.
        """
        head, rows, sample = self.head, 0, list[Row]()
        every = max(1, min(_SAMPLED_EVERY, head.entities // _SAMPLED_ROWS))
        pieces = part.pieces(_GENTLE_ROWS if self.is_gentle else _ROWS)
        with Wires(self.address) as wires:
            # With every part, before its rows and after: whoever drops the version meanwhile finds these rows too.
            list_version(wires, head)
            for chunk, buckets in whole_buckets(pieces, head):
                began = time.monotonic()
                commands = _string_commands(head, chunk) if head.layout == "string" else self._bucketed(chunk, buckets)
                breathe()
                for keys, data, replies in commands:
                    wires.send(keys, data, replies)
                for index in range(-rows % every, len(chunk.ids), every):
                    sample.append(Row(chunk.ids[index].as_py().decode(), chunk.values[index].as_py()))
                rows += len(chunk.ids)
                if self.is_gentle:
                    time.sleep(max(0.0, len(chunk.ids) / _GENTLE_ROWS_PER_SECOND - (time.monotonic() - began)))
            list_version(wires, head)
            wires.wait(self.replicas)
        return Loaded(rows, tuple(sample))

    def _bucketed(self, chunk: Chunk, buckets: Positions) -> Iterator[Commands]:
        """RESTORE of each bucket that the server keeps compact, HSET of the others."""
        starts = runs(buckets)
        compact = is_compact(chunk, starts) if self.method != "hset" else np.zeros(starts.size - 1, bool)
        if compact.all():
            yield _restores(self.head, chunk, buckets, self.method)  # type: ignore[arg-type]
            return
        counts = np.diff(starts)
        if compact.any():
            mask = np.repeat(compact, counts)
            kept = Chunk(chunk.ids.filter(pa.array(mask)), chunk.values.filter(pa.array(mask)))
            yield _restores(self.head, kept, buckets[mask], self.method)  # type: ignore[arg-type]
        yield _hsets(self.head, chunk, buckets, starts, np.flatnonzero(~compact), is_again=self.is_again)


def whole_buckets(pieces: Iterable[Chunk], head: Head) -> Iterator[tuple[Chunk, Positions]]:
    """The rows cut anew, between two buckets, with the bucket of each.

    Raises:
        InputError: an id comes twice, or they are not in the order of their buckets.
    """
    kept: Chunk | None = None
    for piece in pieces:
        chunk = kept + piece if kept else piece
        breathe()
        buckets = chunk.buckets(head.buckets)
        breathe()
        refuse_disorder(chunk, buckets, f"{head.table} run {head.run_id}")
        cut = int(np.searchsorted(buckets, buckets[-1]))
        if cut:
            yield chunk.slice(0, cut), buckets[:cut]
        kept = chunk.slice(cut)
    if kept:
        yield kept, kept.buckets(head.buckets)


def list_version(wires: Wires, head: Head) -> None:
    """Enter the version among those that are being loaded."""
    key = loading_key(head.table)
    wires.of(key).ask("HSET", key, str(head.version), head.model_dump_json())


def method_of(address: Address, head: Head) -> Method:
    """How this server takes buckets: tried on a key of the version's own that no reader asks for.

    A server of another kind, or a user without the right, refuses; HSET is always taken.
    """
    key = f"{PREFIX}:{head.table}:{head.version}:probe"
    probe = Chunk(pa.array([b"probe"], pa.binary()), pa.array([b"\x90"], pa.binary()))
    forms: tuple[Form, ...] = ("listpack", "ziplist")
    with Wires(address) as wires:
        wire = wires.of(key)
        for form in forms:
            payload = payloads(probe, np.zeros(1, np.int64), form).bytes[0].as_py()
            with suppress(AlmanacError):
                wire.send(packed("RESTORE", key, _PROBE_MS, payload, "REPLACE"), 1)
                is_whole = wire.ask("HGET", key, "probe") == b"\x90"
                wire.ask("UNLINK", key)
                if is_whole:
                    return form
    return "hset"


def load_priors(wires: Wires, head: Head, priors: dict[str, bytes]) -> None:
    """Write the hash of a version's priors, whole."""
    if priors:
        key = priors_key(head.table, head.version)
        wires.of(key).send(_replaced(key, priors.items()), _REPLACED_REPLIES)


def in_threads(load: Callable[[Part], Loaded], parts: Sequence[Part]) -> list[Loaded]:
    """Load all parts with a few threads; where readers wait for the same server, with a single one that goes last."""
    is_gentle = isinstance(load, Load) and load.is_gentle

    def in_background(part: Part) -> Loaded:
        if is_gentle:
            # On Linux. A nice thread would still keep a core from those who answer until its slice ends.
            with suppress(OSError, AttributeError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return load(part)

    threads = 1 if is_gentle else _THREADS
    with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
        return list(pool.map(in_background, parts))


def refuse_disorder(chunk: Chunk, buckets: Positions, where: str) -> None:
    """Refuse what could not be served: an id twice, or rows that are not in the order of bucket and id.

    Raises:
        InputError: so it is.
    """
    step = np.diff(buckets)
    ascends = pc.less(chunk.ids.slice(0, len(chunk.ids) - 1), chunk.ids.slice(1)).to_numpy(zero_copy_only=False)
    wrong = (step < 0) | ((step == 0) & ~ascends)
    if wrong.any():
        at = int(np.argmax(wrong))
        what = "an id twice" if chunk.ids[at].equals(chunk.ids[at + 1]) else "rows out of order"
        raise InputError(Problem("ROW_ORDER", where, what, "ids once, grouped by bucket, ascending"))


def _restores(head: Head, chunk: Chunk, buckets: Positions, form: Form) -> Commands:
    breathe()
    made = payloads(chunk, buckets, form)
    breathe()
    keys = [bucket_key(head.table, head.version, bucket).encode() for bucket in made.buckets.tolist()]
    sizes = np.diff(flat(made.bytes)[1]).tolist()
    prefixes = [
        b"*5\r\n$7\r\nRESTORE\r\n$%d\r\n%b\r\n$1\r\n0\r\n$%d\r\n" % (len(key), key, size)
        for key, size in zip(keys, sizes, strict=True)
    ]
    suffix = pa.scalar(b"\r\n$7\r\nREPLACE\r\n", pa.binary())
    return keys, pc.binary_join_element_wise(pa.array(prefixes, pa.binary()), made.bytes, suffix, b""), 1


def _hsets(
    head: Head, chunk: Chunk, buckets: Positions, starts: Positions, chosen: Positions, *, is_again: bool
) -> Commands:
    keys, commands = [], []
    for position in chosen.tolist():
        start, end = int(starts[position]), int(starts[position + 1])
        key = bucket_key(head.table, head.version, int(buckets[start])).encode()
        pairs = zip(
            chunk.ids.slice(start, end - start).to_pylist(),
            chunk.values.slice(start, end - start).to_pylist(),
            strict=True,
        )
        keys.append(key)
        commands.append(_replaced(key, pairs) if is_again else packed("HSET", key, *_alternating(pairs)))
    return keys, pa.array(commands, pa.binary()), _REPLACED_REPLIES if is_again else 1


def _replaced(key: str | bytes, pairs: Iterable[tuple[Any, Any]]) -> bytes:
    """The packed commands that leave a hash with these fields alone; readers see the old ones or the new."""
    whole = packed("HSET", key, *_alternating(pairs))
    return packed("MULTI") + packed("DEL", key) + whole + packed("EXEC")


def _string_commands(head: Head, chunk: Chunk) -> Iterator[Commands]:
    """SETs, one for each row."""
    prefix = row_key(head.table, head.version, "").encode()
    ids, values = (np.diff(flat(array)[1]) for array in (chunk.ids, chunk.values))
    opening = _numbered(b"*3\r\n$3\r\nSET\r\n$%d\r\n" + prefix.replace(b"%", b"%%"), ids + len(prefix))
    middle = _numbered(b"\r\n$%d\r\n", values)
    end = pa.scalar(b"\r\n", pa.binary())
    commands = pc.binary_join_element_wise(opening, chunk.ids, middle, chunk.values, end, b"")
    yield [prefix + entity for entity in chunk.ids.to_pylist()], commands, 1


def _numbered(template: bytes, numbers: Positions) -> Any:
    """The template with each of the numbers, as a binary array."""
    texts = pa.array([template % number for number in range(int(numbers.max()) + 1)], pa.binary())
    return texts.take(pa.array(numbers))


def _alternating(pairs: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    for name, value in pairs:
        yield name
        yield value
