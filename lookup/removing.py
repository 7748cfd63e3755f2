"""Removing from the store what is older than its pipeline wants it kept, so that every step may be killed."""

import datetime as dt
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from lookup.log import signature
from lookup.retention import expired, needed_runs
from lookup.store import Store
from lookup.turns import alone
from schemas.content import write_atomically
from schemas.errors import InputError
from schemas.retention import RemovedRun, Retention
from schemas.run import MANIFEST_FILE, QUARANTINE, RunManifest

STAGING, DAMAGED = ".staging-", ".damaged-"
_REMOVED = ".removed-"
# Whatever was written to within this time may be in use: a stage that finds its work done says so by a touch.
IDLE = dt.timedelta(days=1)
_IN_USE = dt.datetime.max.replace(tzinfo=dt.UTC)


class Kind(StrEnum):
    """What is removed."""

    RELEASE = "release"
    STAGED = "staged run"
    QUARANTINE = "quarantine"
    LEFTOVER = "leftover"


class Removal(NamedTuple):
    """One thing that is removed.

    Attributes:
        name: Of its folder under `runs/`.
        release: Its number, where it is of one.
    """

    kind: Kind
    name: str
    why: str
    size_bytes: int
    release: int | None = None


class Keeping(NamedTuple):
    """What stays.

    Attributes:
        retention: As declared.
        versions: `publish.keep`.
        after_days: `checks.calibration.after_days`, where it is declared.
        held: Ids of the runs that Redis has versions of; None where it cannot be asked, and no release is removed.
        is_filling: Whether a backfill is under way: what it compares with is not taken from it.
    """

    retention: Retention
    versions: int
    after_days: int | None
    held: Collection[str] | None
    is_filling: bool = False


class Survey:
    """What a store has of its runs, and which of it may go; nothing is changed by looking."""

    def __init__(self, store: Store, keeping: Keeping, now: dt.datetime) -> None:
        """Of one pipeline.

        Args:
            store: Of the pipeline.
            keeping: What stays.
            now: An aware time.
        """
        self._store, self._keeping, self._now = store, keeping, now
        self._runs = store.folder / "runs"
        self._entries = store.log.entries()
        self._numbers = {entry.run_id: entry.release for entry in self._entries}
        self._folders = {path.name: path for path in sorted(self._runs.glob("[0-9]*")) if path.is_dir()}

    def outdated(self) -> list[Removal]:
        """Everything that may be removed, and why."""
        releases = self._releases()
        gone = {removal.name for removal in releases}
        return [*self._leftovers(), *self._staged(), *releases, *self._quarantines(gone)]

    def _leftovers(self) -> list[Removal]:
        since, found = self._since(self._keeping.retention.staged_days), []
        for path in leftovers(self._runs):
            is_ours = path.name.startswith(_REMOVED)
            if is_ours or _touched(path) < since:
                why = "of a removal that was stopped" if is_ours else "of a killed attempt"
                found.append(Removal(Kind.LEFTOVER, path.name, why, _size_bytes(path)))
        return found

    def _staged(self) -> list[Removal]:
        since, found = self._since(self._keeping.retention.staged_days), []
        for name, path in self._folders.items():
            is_waiting = name not in self._numbers and not self._keeping.is_filling
            if is_waiting and (touched := _touched(path)) < since:
                why = f"never committed, untouched for {(self._now - touched).days} days"
                found.append(Removal(Kind.STAGED, name, why, _size_bytes(path)))
        return found

    def _releases(self) -> list[Removal]:
        keeping, retention = self._keeping, self._keeping.retention
        if keeping.held is None or keeping.is_filling:
            return []
        needed = needed_runs(self._entries, versions=keeping.versions, after_days=keeping.after_days)
        needed |= {*keeping.held, *self._in_use(), *self._carried_from()}
        gone = expired(self._entries, retention, made_at=self._made_at, needed=needed, now=self._now)
        why = f"beyond the last {retention.keep_releases} releases and {retention.keep_days} days"
        sizes = {release.run_id: _size_bytes(self._folders[release.run_id]) for release in gone}
        return [Removal(Kind.RELEASE, each.run_id, why, sizes[each.run_id], each.number) for each in gone]

    def _quarantines(self, gone: Collection[str]) -> list[Removal]:
        days = self._keeping.retention.quarantine_days
        why, found = f"set aside more than {days} days ago", []
        for name, at in self._made_at.items():
            folder = self._folders[name] / QUARANTINE
            if name not in gone and self._manifests[name] and folder.is_dir() and at < self._since(days):
                found.append(Removal(Kind.QUARANTINE, name, why, _size_bytes(folder), self._numbers[name]))
        return found

    @cached_property
    def _manifests(self) -> dict[str, RunManifest | None]:
        """Of every release whose folder is there; None where it cannot be read."""
        return {name: _manifest(self._store, name) for name in self._folders if name in self._numbers}

    @cached_property
    def _made_at(self) -> dict[str, dt.datetime]:
        known = self._manifests.items()
        return {name: made.scored_at if made else _touched(self._folders[name]) for name, made in known}

    def _in_use(self) -> set[str]:
        return {name for name in self._made_at if _touched(self._folders[name]) > self._now - IDLE}

    def _carried_from(self) -> set[str]:
        """The run whose predictions the live release carries on."""
        live = self._store.live()
        manifest = self._manifests.get(live.run_id) if live else None
        return {manifest.carried_from.run_id} if manifest and manifest.carried_from else set()

    def _since(self, days: int) -> dt.datetime:
        return self._now - dt.timedelta(days=days)


def remove_outdated(store: Store, keeping: Callable[[], Keeping], now: dt.datetime) -> list[Removal]:
    """Remove all that may go, and say what it was. Killed at any point, the next call ends it.

    Args:
        store: Of the pipeline.
        keeping: Tells what stays; asked when nobody publishes or erases any more.
        now: An aware time.

    Raises:
        UnavailableError: a publication or an erasure does not end.
    """
    with alone(store.folder, again="maintain again"):
        found = Survey(store, keeping(), now).outdated()
        for removal in found:
            _remove(store, removal, now)
    return found


def _remove(store: Store, removal: Removal, now: dt.datetime) -> None:
    """Remove it, so that what is begun is seen and ended by the next one.

    A release or staged run is gone when its folder is renamed: from then on nobody finds it, and its note tells why.
    """
    folder = store.folder / "runs" / removal.name
    if removal.kind is Kind.LEFTOVER:
        with suppress(FileNotFoundError):  # an attempt that begins clears too
            shutil.rmtree(folder)
    elif removal.kind is Kind.QUARANTINE:
        _remove_quarantine(store, folder, now)
    else:
        note = _note(store, removal, now).model_dump_json(indent=2) + "\n"
        write_atomically(store.removal_file(removal.name), note)
        aside = folder.with_name(f"{_REMOVED}{removal.name}")
        folder.rename(aside)
        shutil.rmtree(aside)


def leftovers(runs: Path) -> list[Path]:
    """The folders that no run has the name of: attempts under way, and what killed ones left."""
    return sorted(path for prefix in (STAGING, DAMAGED, _REMOVED) for path in runs.glob(f"{prefix}*"))


def clear_leftovers(runs: Path, now: dt.datetime) -> None:
    """Remove what killed attempts left, once no attempt can still be at work on it."""
    for path in leftovers(runs):
        if now - _at(path) > IDLE:
            shutil.rmtree(path, ignore_errors=True)  # another attempt may clear at the same time


def _remove_quarantine(store: Store, folder: Path, now: dt.datetime) -> None:
    """The manifest first: what it lists is always there. Counts and reasons stay in it as they were."""
    manifest = store.manifest(folder.name)
    if manifest.files_in(QUARANTINE):
        left = tuple(file for file in manifest.files if file not in manifest.files_in(QUARANTINE))
        changed = manifest.model_copy(update={"files": left, "quarantine_removed": now.date()})
        write_atomically(folder / MANIFEST_FILE, changed.model_dump_json(indent=2) + "\n")
    shutil.rmtree(folder / QUARANTINE)


def _note(store: Store, removal: Removal, now: dt.datetime) -> RemovedRun:
    known = {"release": removal.release, "why": removal.why, "size_bytes": removal.size_bytes}
    note = RemovedRun(
        pipeline=store.pipeline, run_id=removal.name, removed_at=now.replace(microsecond=0), by=signature(), **known
    )
    if (manifest := _manifest(store, removal.name)) is None:
        return note
    told = {name: getattr(manifest, name) for name in ("models", "content", "counts")}
    return note.model_copy(update=told)


def _manifest(store: Store, run_id: str) -> RunManifest | None:
    try:
        return store.manifest(run_id)
    except InputError:
        return None  # damaged: its age is that of its files


def _touched(folder: Path) -> dt.datetime:
    """When something was last written right under the folder: a manifest, a report, an override, a part's folder."""
    return max(_at(path) for path in (folder, *folder.glob("*")))


def _at(path: Path) -> dt.datetime:
    try:
        return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    except FileNotFoundError:
        return _IN_USE  # an attempt at work renames and removes its own files


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
