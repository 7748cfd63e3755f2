"""Whose turn it is at what is kept of a pipeline: an erasure alone, publications together, one backfill."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from schemas.content import write_atomically
from schemas.errors import InputError, Problem, UnavailableError

PENDING_FILE = "erasing.json"
WAIT_SECONDS = 600.0
_LOCK_FILE = ".erasures.lock"
_BACKFILL_LOCK_FILE = ".backfill.lock"
_PAUSE_SECONDS = 0.02


class Wanted(NamedTuple):
    """An erasure that was asked for."""

    entity: str
    by: str
    reason: str


@contextmanager
def alone(folder: Path, *, seconds: float = WAIT_SECONDS, again: str = "erase again") -> Iterator[None]:
    """One who removes at a time, and no publication beside it: either would bring back what an erasure removes.

    Args:
        folder: Of the pipeline.
        seconds: How long the others are waited for.
        again: What to do where they do not end.

    Raises:
        UnavailableError: the others do not end within that time.
    """
    with _open(folder) as file:
        if not _taken(file, fcntl.LOCK_EX, seconds):
            found = f"a publication or another erasure goes on for {seconds:.0f} s"
            raise UnavailableError(Problem("ERASE_BUSY", str(folder), found, f"its end; {again}"))
        yield


@contextmanager
def beside_others(folder: Path, *, seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Any number of publications at a time, and no erasure beside them: nothing leaves the store while it is read.

    Raises:
        UnavailableError: an erasure does not end within that time.
    """
    with _open(folder) as file:
        if not _taken(file, fcntl.LOCK_SH, seconds):
            found = f"an erasure goes on for {seconds:.0f} s"
            raise UnavailableError(Problem("ERASE_BUSY", str(folder), found, "its end; try again"))
        yield


@contextmanager
def alone_if_possible(folder: Path) -> Iterator[bool]:
    """Whether nobody else publishes or erases now; while that is so, nobody begins to."""
    with _open(folder) as file:
        yield _taken(file, fcntl.LOCK_EX, 0)


@contextmanager
def only_backfill(folder: Path, who: str) -> Iterator[None]:
    """One backfill of a pipeline at a time: a second would score the same dates beside it, for nothing.

    Args:
        folder: Of the pipeline.
        who: Told to the others. The lock ends with the process, however that ends.

    Raises:
        UnavailableError: another one is under way.
    """
    with _open(folder, _BACKFILL_LOCK_FILE) as file:
        if not _taken(file, fcntl.LOCK_EX, 0):
            found = f"another backfill is under way: {file.read().strip() or 'not known whose'}"
            raise UnavailableError(Problem("BACKFILL_BUSY", str(folder), found, "its end; then start this one again"))
        file.truncate(0)
        file.write(f"{who}\n")
        file.flush()
        yield


def is_filling(folder: Path) -> bool:
    """Whether a backfill of the pipeline is under way."""
    try:
        with (folder / _BACKFILL_LOCK_FILE).open() as file:
            return not _taken(file, fcntl.LOCK_SH, 0)
    except FileNotFoundError:
        return False


def pending(folder: Path) -> list[Wanted]:
    """The erasures that were begun and not ended, oldest first.

    Raises:
        InputError: the file that names them is damaged.
    """
    path = folder / PENDING_FILE
    try:
        return [Wanted(**each) for each in json.loads(path.read_bytes())]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as err:
        expected = "what an erasure wrote; erase those entities again, then remove the file"
        raise InputError(Problem("OUT_FORMAT", str(path), str(err), expected)) from err


def note_pending(folder: Path, wanted: list[Wanted]) -> None:
    """Note which erasures are not ended; where none is left, nothing names an entity any more."""
    path = folder / PENDING_FILE
    for half_written in folder.glob(f".{PENDING_FILE}-*"):
        half_written.unlink()  # of one that was killed
    if wanted:
        write_atomically(path, json.dumps([each._asdict() for each in wanted]) + "\n")
        path.chmod(0o600)
    else:
        path.unlink(missing_ok=True)


def _open(folder: Path, name: str = _LOCK_FILE) -> IO[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666), "r+")


def _taken(file: IO[str], how: int, seconds: float) -> bool:
    """Take the lock, which goes with the open file, and so with the process; False where others keep it that long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        else:
            return True
