"""The Parquet store of one pipeline: its runs, its bundles and its release log."""

import datetime as dt
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lookup.entries import EntryLog
from lookup.log import ReleaseLog, commit_of, entry_for, live_before, live_entry, releases
from schemas.content import canonical_json, sha256_file, sha256_text
from schemas.decision import Decision
from schemas.errors import InputError, Problem, RefusedError
from schemas.release import Event, LogEntry, Release, ReleaseState
from schemas.report import Override, Report
from schemas.retention import REMOVED_FOLDER, RemovedRun
from schemas.run import MANIFEST_FILE, OVERRIDE_FILE, PREDICTIONS, REPORT_FILE, RunManifest

_Model = TypeVar("_Model", bound=BaseModel)


class Store:
    """Everything kept of one pipeline, under `<store>/<pipeline>/`."""

    def __init__(self, root: Path, pipeline: str) -> None:
        self.pipeline = pipeline
        self.folder = root / pipeline
        self.log = ReleaseLog(self.folder / "releases")
        self.decisions = EntryLog(self.folder / "decisions", Decision, what="an entry of the log of decisions")

    @property
    def bundles(self) -> Path:
        return self.folder / "bundles"

    def run_folder(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id

    def removal_file(self, run_id: str) -> Path:
        """What is known of a run whose files were removed."""
        return self.folder / REMOVED_FOLDER / f"{run_id}.json"

    def removed(self, run_id: str) -> RemovedRun | None:
        """When and why the files of a run were removed; None where they are there, or nobody noted that.

        Raises:
            InputError: the note is damaged.
        """
        path = self.removal_file(run_id)
        if self.run_folder(run_id).exists() or not path.is_file():
            return None
        return _read(RemovedRun, path, "what `almanac maintain` wrote")

    def manifest(self, run_id: str) -> RunManifest:
        """The manifest of a staged run.

        Raises:
            InputError: the run is not there, was removed, or its manifest is damaged.
        """
        return self._of_run(RunManifest, run_id, MANIFEST_FILE, "a staged run; score it first")

    def report(self, run_id: str) -> Report:
        """The verification report of a run.

        Raises:
            InputError: there is none, or it is damaged.
        """
        return self._of_run(Report, run_id, REPORT_FILE, "a verified run; verify it first")

    def override(self, run_id: str) -> Override | None:
        """Who let a blocked run through, and why; None where nobody did.

        Raises:
            InputError: the file is damaged.
        """
        path = self.run_folder(run_id) / OVERRIDE_FILE
        return _read(Override, path, "what `almanac override` wrote") if path.is_file() else None

    def _of_run(self, model: type[_Model], run_id: str, name: str, expected: str) -> _Model:
        path = self.run_folder(run_id) / name
        if not path.is_file() and (removed := self.removed(run_id)):
            release = f" (release {removed.release})" if removed.release else ""
            found = f"removed by retention on {removed.removed_at.date()}: {removed.why}"
            again = f"a run that is kept; `almanac run {self.pipeline} --date {run_id[:10]}` scores that day again"
            raise InputError(Problem("OUT_REMOVED", f"{self.pipeline} run {run_id}{release}", found, again))
        return _read(model, path, expected)

    def latest_run(self) -> RunManifest:
        """The run that was scored last.

        Raises:
            InputError: none is staged.
        """
        runs = [self.manifest(path.parent.name) for path in (self.folder / "runs").glob(f"[0-9]*/{MANIFEST_FILE}")]
        if not runs:
            where = f"{self.pipeline}: {self.folder / 'runs'}"
            raise InputError(Problem("OUT_NOT_FOUND", where, "no run is staged", "a staged run; score it first"))
        return max(runs, key=lambda run: (run.scored_at, run.run_id))

    def damage(self, manifest: RunManifest, *folders: str) -> list[Problem]:
        """What of a run's files in these folders is missing or differs from its manifest; reads every byte."""
        folder = self.run_folder(manifest.run_id)
        problems = []
        for file in (file for name in folders for file in manifest.files_in(name)):
            path = folder / file.path
            found = sha256_file(path) if path.is_file() else None
            if found != file.sha256:
                what = "is missing" if found is None else f"sha256 {found[:12]}…"
                problems.append(Problem("OUT_CHECKSUM", str(path), what, f"sha256 {file.sha256[:12]}…"))
        return problems

    def verified(self, run_id: str) -> RunManifest:
        """The manifest of a run that may be published.

        Raises:
            RefusedError: the run failed, or what was verified is not what is staged now.
            InputError: it was never staged or verified.
        """
        manifest, report = self.manifest(run_id), self.report(run_id)
        where = str(self.run_folder(run_id) / REPORT_FILE)
        if {report.run_id, manifest.run_id} != {run_id}:
            raise RefusedError(
                Problem("PUBLISH_UNVERIFIED", where, f"report of {report.run_id}, files of {manifest.run_id}", run_id)
            )
        staged = sha256_text(canonical_json([file.sha256 for file in manifest.files_in(PREDICTIONS)]))
        if manifest.content != staged or report.content not in (staged, manifest.verified_content):
            raise RefusedError(
                Problem(
                    "PUBLISH_UNVERIFIED",
                    where,
                    f"content {report.content[:12]}…",
                    f"the staged {staged[:12]}…",
                )
            )
        if not report.lets_through(self.override(run_id)):
            failed = ", ".join(check.name for check in report.failures) or "no check ran"
            raise RefusedError(Problem("PUBLISH_UNVERIFIED", where, f"verdict FAIL ({failed})", "PASS or WARN"))
        return manifest

    def releases(self) -> list[Release]:
        return releases(self.log.entries())

    def live(self) -> LogEntry | None:
        return live_entry(self.log.entries())

    def live_before(self) -> int | None:
        return live_before(self.log.entries())

    def release(self, number: int) -> Release:
        """The release of that number.

        Raises:
            RefusedError: there is none.
        """
        known = {release.number: release for release in self.releases()}
        if number not in known:
            raise RefusedError(
                Problem(
                    "RELEASE_UNKNOWN",
                    f"{self.pipeline}: release {number}",
                    "no such release",
                    f"one of {_listed(known)}",
                )
            )
        return known[number]

    def refuse_rolled_back(self, run_id: str) -> None:
        """Refuse a run that was rolled back.

        Raises:
            RefusedError: it was.
        """
        _refuse_rolled_back(self.pipeline, self.releases(), run_id)

    def refuse_aborted(self, manifest: RunManifest) -> None:
        """Refuse a run that serves a challenger which was aborted since it was planned.

        Raises:
            RefusedError: it does.
        """
        for one in self.decisions.entries():
            is_of = one.kind == "abort" and manifest.challengers.get(one.challenger) == one.declared
            if is_of and manifest.counts.variants.get(one.challenger):
                where, found = f"{self.pipeline} run {manifest.run_id}", f"serves {one.challenger}: {one}"
                raise RefusedError(Problem("CONTEST_ABORTED", where, found, "another run, or --force"))

    def newest_run(self, until: dt.date, states: Collection[ReleaseState], *, kept: bool = False) -> RunManifest | None:
        """The run of the newest release in one of these states whose logical date is `until` or before.

        Args:
            until: The latest date.
            states: Of the release.
            kept: Pass over what was removed from the store to make room.
        """
        known = [release for release in self.releases() if release.state in states and release.date <= until]
        if kept:
            known = [release for release in known if (self.run_folder(release.run_id) / MANIFEST_FILE).is_file()]
        newest = max(known, key=lambda release: (release.date, release.number), default=None)
        return self.manifest(newest.run_id) if newest else None

    def commit(self, manifest: RunManifest, *, anew: bool = False) -> LogEntry:
        """Commit a verified run: one release a run, however often it is called.

        The entry's token fences the publication. Where something else became live since the run
        was committed, the commit is entered again, so that a deliberate retry is not fenced out by what it follows.

        Args:
            manifest: Of the run.
            anew: Enter the commit again also where nothing followed it: the version that the first one named may have
                been dropped; and where the run was rolled back. What is live is never entered again.

        Raises:
            RefusedError: the run was rolled back, be it while its publication was under way.
        """

        def draft(entries: Sequence[LogEntry], sequence: int) -> LogEntry | None:
            if not anew:
                _refuse_rolled_back(self.pipeline, releases(entries), manifest.run_id)
            commits = [entry for entry in entries if entry.event is Event.COMMIT and entry.run_id == manifest.run_id]
            live = live_entry(entries)
            is_live = live is not None and live.run_id == manifest.run_id
            is_overtaken = live is not None and bool(commits) and live.token > commits[-1].token
            if commits and (is_live or not (is_overtaken or anew)):
                return None
            number = commits[0].release if commits else max((entry.release for entry in entries), default=0) + 1
            release = Release(
                number=number,
                run_id=manifest.run_id,
                date=manifest.date,
                committed_at=manifest.scored_at,
                state=ReleaseState.COMMITTED,
            )
            return entry_for(Event.COMMIT, release, sequence, reason=self._override_reason(manifest.run_id))

        self.log.append(draft)
        committed = commit_of(self.log.entries(), manifest.run_id)
        assert committed is not None  # noqa: S101  # it was there, or the draft above made it
        return committed

    def _override_reason(self, run_id: str) -> str:
        made = self.override(run_id)
        return f"overridden by {made.by}: {made.reason}" if made else ""

    def record_live(self, commit: LogEntry) -> None:
        """Name the committed release the live one, once."""

        def draft(entries: Sequence[LogEntry], sequence: int) -> LogEntry | None:
            live = live_entry(entries)
            if live and (live.release == commit.release or live.token > commit.token):
                return None  # recorded by an earlier attempt, or overtaken by a later publication
            return entry_for(Event.LIVE, commit, sequence, token=commit.token)

        self.log.append(draft)

    def record_rollback(self, target: Release, reason: str) -> LogEntry:
        """Name `target` the live release again. The entry's token fences the rollback."""
        entry = self.log.append(lambda _, sequence: entry_for(Event.ROLLBACK, target, sequence, reason=reason))
        assert entry is not None  # noqa: S101  # the draft above never declines
        return entry


def _refuse_rolled_back(pipeline: str, known: Sequence[Release], run_id: str) -> None:
    for release in known:
        if release.run_id == run_id and release.state is ReleaseState.ROLLED_BACK:
            where, found = f"{pipeline} run {run_id}", f"release {release.number} was rolled back"
            raise RefusedError(Problem("ROLLED_BACK", where, found, "another run, or --force"))


def _read(model: type[_Model], path: Path, expected: str) -> _Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(Problem("OUT_NOT_FOUND", str(path), "no such file", expected)) from None
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(Problem("OUT_FORMAT", f"{path}: {where}".rstrip(": "), first["msg"], expected)) from err


def _listed(numbers: dict[int, Release]) -> str:
    return ", ".join(str(number) for number in sorted(numbers, reverse=True)[:10]) or "none yet"
