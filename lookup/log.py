"""The release log of one pipeline: numbered files, each created once, never changed."""

import datetime as dt
import getpass
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from schemas.content import create_exclusively
from schemas.errors import InputError, Problem
from schemas.release import Event, LogEntry, Release, ReleaseState

Draft = Callable[[Sequence[LogEntry], int], LogEntry | None]


class ReleaseLog:
    """Append-only: an entry's number is taken by creating its file, which only one process can do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self) -> list[LogEntry]:
        """Every entry, oldest first.

        Raises:
            InputError: an entry is missing or damaged.
        """
        paths = sorted(self._folder.glob("[0-9]*.json"))
        entries = [_read(path) for path in paths]
        for expected, (path, entry) in enumerate(zip(paths, entries, strict=True), start=1):
            if (path.name, entry.sequence) != (_name(expected), expected):
                raise InputError(
                    Problem("LOG_GAP", str(path), f"entry {entry.sequence}", f"entry {expected}: one is missing")
                )
        return entries

    def append(self, draft: Draft) -> LogEntry | None:
        """Append what `draft(entries, next sequence)` makes; ask it again where another process was faster.

        A draft that returns None appends nothing.
        """
        while True:
            entries = self.entries()
            entry = draft(entries, len(entries) + 1)
            if entry is None:
                return None
            if create_exclusively(self._folder / _name(entry.sequence), entry.model_dump_json(indent=2) + "\n"):
                return entry


def _name(sequence: int) -> str:
    return f"{sequence:08}.json"


def _read(path: Path) -> LogEntry:
    try:
        return LogEntry.model_validate_json(path.read_bytes())
    except ValidationError as err:
        raise InputError(
            Problem("LOG_FORMAT", str(path), str(err.errors()[0]["msg"]), "an entry of the release log")
        ) from err


def live_entry(entries: Sequence[LogEntry]) -> LogEntry | None:
    """The entry that names the live release: the one place where it is named."""
    return next((entry for entry in reversed(entries) if entry.event is not Event.COMMIT), None)


def commit_of(entries: Sequence[LogEntry], run_id: str) -> LogEntry | None:
    """The newest commit of a run, None where it has none."""
    return next((entry for entry in reversed(entries) if entry.event is Event.COMMIT and entry.run_id == run_id), None)


def live_path(entries: Sequence[LogEntry]) -> list[int]:
    """The releases that rollbacks lead back through, oldest first, to the live one. What one left does not count."""
    path: list[int] = []
    for entry in entries:
        if entry.event is Event.ROLLBACK and entry.release in path:
            del path[path.index(entry.release) :]
        if entry.event is not Event.COMMIT:
            path.append(entry.release)
    return path


def live_before(entries: Sequence[LogEntry]) -> int | None:
    """The release that was live before the live one."""
    path = live_path(entries)
    return path[-2] if len(path) > 1 else None


def releases(entries: Sequence[LogEntry]) -> list[Release]:
    """Every release and its state, oldest first."""
    commits: dict[int, LogEntry] = {}
    states: dict[int, ReleaseState] = {}
    live: int | None = None
    for entry in entries:
        if entry.event is Event.COMMIT:
            commits.setdefault(entry.release, entry)
            states.setdefault(entry.release, ReleaseState.COMMITTED)
            continue
        if live is not None and live != entry.release:
            states[live] = ReleaseState.ROLLED_BACK if entry.event is Event.ROLLBACK else ReleaseState.RETIRED
        live = entry.release
        states[live] = ReleaseState.LIVE
    return [
        Release(number=number, run_id=entry.run_id, date=entry.date, committed_at=entry.at, state=states[number])
        for number, entry in sorted(commits.items())
    ]


def entry_for(
    event: Event, release: Release | LogEntry, sequence: int, *, token: int | None = None, reason: str = ""
) -> LogEntry:
    """A new entry about that release, signed with who and when; its token is its own sequence unless given."""
    number = release.number if isinstance(release, Release) else release.release
    return LogEntry(
        sequence=sequence,
        token=token or sequence,
        event=event,
        release=number,
        run_id=release.run_id,
        date=release.date,
        at=dt.datetime.now(dt.UTC),
        by=signature(),
        reason=reason,
    )


def signature() -> str:
    """Who is at work, and where: `user@host`."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"  # a container may run as a user that it has no name for
