"""What was asked for and not known: counted by the API, so that the next run can score it."""

import datetime as dt
import fcntl
import hashlib
import heapq
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from schemas.content import write_atomically
from schemas.errors import InputError, Problem

logger = logging.getLogger(__name__)

MAX_IDS = 10_000
KEEP_DAYS = 30

_DAY_SECONDS = 86_400
_FOLDER = "misses"


class MissFile(msgspec.Struct):
    """What one process met of one table on one day (UTC).

    Attributes:
        ids: How often each entity was asked for; of more than `MAX_IDS`, of a sample in which each has the same chance.
        dropped: Misses of the others, of which only this number is kept.
    """

    table: str
    date: str
    ids: dict[str, int]
    dropped: int = 0


class Missed(NamedTuple):
    """The misses of a table, the most asked first, and how many more there were of ids that were not kept."""

    ids: dict[str, int]
    dropped: int


class _Count:
    """One table's misses of one day, and what of them is written.

    Kept are the ids of the smallest keyed hashes, the bottom-k sample of Cohen and Kaplan (2007): a scan over many
    ids keeps no other out, and nobody without the key can choose ids that are kept. One that is in the end was from the
    first time it was asked for, so that its number is right.
    """

    def __init__(self, table: str, day: int, key: bytes) -> None:
        self.table = table
        self.day = day
        self.ids: dict[str, int] = {}
        self.dropped = 0
        self.changed = True
        self.written: Collection[str] = ()  # ids that are in the file
        self.stamp: tuple[int, int] | None = None
        self._key = key
        self._ranked: list[tuple[int, str]] = []  # a heap, the first to go on top; it may have some that were erased

    def add(self, entity: str) -> None:
        ids = self.ids
        seen = ids.get(entity)
        if seen is not None:
            ids[entity] = seen + 1
        elif len(ids) < MAX_IDS:
            ids[entity] = 1
            heapq.heappush(self._ranked, (self._rank(entity), entity))
        else:
            self._add_to_sample(entity)
        self.changed = True

    def _add_to_sample(self, entity: str) -> None:
        ranked = (self._rank(entity), entity)
        while self._ranked[0][1] not in self.ids:
            heapq.heappop(self._ranked)
        if ranked < self._ranked[0]:
            self.dropped += 1
            return
        _, leaving = heapq.heapreplace(self._ranked, ranked)
        self.dropped += self.ids.pop(leaving, 0)
        self.ids[entity] = 1

    def _rank(self, entity: str) -> int:
        """Its keyed hash, below zero: Python's heaps have the smallest on top."""
        digest = hashlib.blake2b(entity.encode(), digest_size=8, key=self._key).digest()
        return -int.from_bytes(digest, "big")

    @property
    def date(self) -> dt.date:
        return dt.date(1970, 1, 1) + dt.timedelta(days=self.day)


class Misses:
    """Counts misses in memory, and writes them to the store when told to.

    `add` is called on the event loop; `flush` may run in another thread meanwhile: at the end of a server in two at
    once, of which one waits.

    Args:
        store_root: Files go to `<store_root>/<table>/misses/`.
        clock: Seconds since 1970.
        key: Chooses the sample, where there are more ids than are kept; made up, when left out.
    """

    def __init__(self, store_root: Path, *, clock: Callable[[], float] = time.time, key: bytes | None = None) -> None:
        self._root = store_root
        self._key = key or secrets.token_bytes(16)
        self._clock = clock
        self._counts: dict[str, _Count] = {}
        self._ended: deque[_Count] = deque()  # days that are over; appended to in one thread, taken from in another
        # A process that is started again in a container has the host and the id of the one before.
        self._token = secrets.token_hex(4)
        self._complained = False
        self._flushing = threading.Lock()

    def add(self, table: str, entity: str) -> None:
        """Count one miss: some microseconds at most, and bounded memory whatever is asked for."""
        day = int(self._clock() // _DAY_SECONDS)
        count = self._counts.get(table)
        if count is None or count.day != day:
            if count is not None:
                self._ended.append(count)
            count = self._counts[table] = _Count(table, day, self._key)
        count.add(entity)

    def flush(self) -> None:
        """Write what was counted since the last time; a disk that fails costs these counts, and is told once."""
        with self._flushing:
            counts = list(self._counts.values())
            while self._ended:
                counts.append(self._ended.popleft())
            for count in counts:
                if count.changed:
                    self._try_to_write(count)

    def _try_to_write(self, count: _Count) -> None:
        count.changed = False  # before the ids are copied: what comes meanwhile is written the next time
        try:
            self._write(count)
        except (OSError, InputError) as err:
            count.changed = True
            if not self._complained:
                self._complained = True
                logger.error("misses are not written: %s", err)  # its words say all

    def _write(self, count: _Count) -> None:
        folder = _folder(self._root, count.table)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{count.date}-{_host()}-{os.getpid()}-{self._token}.json"
        with _locked(folder):
            if count.stamp is None:
                _remove_old(folder, before=count.date - dt.timedelta(days=KEEP_DAYS))
            elif _stamp(path) != count.stamp:
                self._forget_with(path, count)
            ids = dict(count.ids)
            _replace(path, MissFile(count.table, count.date.isoformat(), ids, count.dropped))
            count.stamp, count.written = _stamp(path), ids

    def _forget_with(self, path: Path, count: _Count) -> None:
        """Let go of the ids that were erased from the file since it was written."""
        kept = _read(path).ids if path.exists() else {}
        for entity in count.written:
            if entity not in kept:
                count.ids.pop(entity, None)


def read_misses(store_root: Path, table: str) -> Missed:
    """The misses of a table in the files that are kept: about `KEEP_DAYS` days, of every process.

    Raises:
        InputError: a file is damaged.
    """
    total: Counter[str] = Counter()
    dropped = 0
    for path in _files(_folder(store_root, table)):
        found = _read(path)
        total.update(found.ids)
        dropped += found.dropped
    return Missed(dict(sorted(total.items(), key=lambda item: (-item[1], item[0]))), dropped)


def forget(store_root: Path, table: str, entity: str) -> int:
    """Remove an entity from the files, and return how many misses of it they had.

    Processes that count let go of it too when they write next. A miss that comes later is counted as any other.

    Raises:
        InputError: a file is damaged.
    """
    folder = _folder(store_root, table)
    if not folder.is_dir():
        return 0
    removed = 0
    with _locked(folder):
        for path in _files(folder):
            found = _read(path)
            if (asked := found.ids.pop(entity, 0)) > 0:
                removed += asked
                _replace(path, found)
    return removed


def _folder(store_root: Path, table: str) -> Path:
    return store_root / table / _FOLDER


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.json"))


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())


def _read(path: Path) -> MissFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=MissFile)
    except msgspec.MsgspecError as err:
        raise InputError(Problem("OUT_FORMAT", str(path), str(err), "the misses that `almanac serve` writes")) from err


def _replace(path: Path, found: MissFile) -> None:
    write_atomically(path, msgspec.json.encode(found).decode())


def _remove_old(folder: Path, *, before: dt.date) -> None:
    for path in _files(folder):
        if path.name[:10] < before.isoformat():
            path.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[int, int] | None:
    """Which file it is: `forget` puts a new one in its place."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time rewrites the files of a folder, so that none undoes what another erased."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
