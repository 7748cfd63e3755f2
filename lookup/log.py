"""The release log of one pipeline, and what it says is live."""

import datetime as dt
import getpass
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from lookup.entries import EntryLog
from schemas.release import Event, LogEntry, Release, ReleaseState


class ReleaseLog(EntryLog[LogEntry]):
    """The release log of one pipeline."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, LogEntry, what="an entry of the release log")


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
