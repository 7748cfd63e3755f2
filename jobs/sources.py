"""The sources of a run as checks: whether they are what was scored, complete, and fresh."""

import csv
import datetime as dt

import pyarrow.parquet as pq

from jobs.snapshot import SourceSnapshot, take_snapshot
from jobs.stages import Plan
from schemas.pipeline import Source
from schemas.report import CheckResult, Verdict
from schemas.run import RunManifest


def check_unchanged(plan: Plan, manifest: RunManifest) -> CheckResult:
    """Whether the sources still are, byte for byte, what was scored."""
    now = take_snapshot(plan.settings, plan.declared.pipeline, plan.date).fingerprints
    changed = sorted({file.path for file in set(now) ^ set(manifest.sources)})
    return CheckResult(
        name="inputs unchanged",
        family="inputs",
        verdict=Verdict.FAIL if changed else Verdict.PASS,
        observed=f"{len(changed)} files differ: {', '.join(changed[:3])}" if changed else f"{len(now)} files as scored",
        expected="the files that were scored",
    )


def check_sources(plan: Plan) -> list[CheckResult]:
    """One result for each source: its days, its files, its rows and the age of the newest."""
    declared = plan.declared.pipeline.sources
    return [_check(name, declared[name], snapshot, plan.date) for name, snapshot in plan.snapshot.sources.items()]


def _check(name: str, source: Source, snapshot: SourceSnapshot, date: dt.date) -> CheckResult:
    rows = sum(_rows(source, snapshot, index) for index in range(len(snapshot.files)))
    newest = max(dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC) for file in snapshot.files)
    days = len({file.parent for file in snapshot.files}) if source.partition_by else None
    wanted, wrong = [f"at least {source.min_rows or 1:,} rows"], rows < (source.min_rows or 1)
    if days is not None:
        wanted.append(f"{source.days_required} of {source.days} days or more")
        wrong = wrong or days < source.days_required
    if source.max_age_days is not None:
        wanted.append(f"written {source.max_age_days} days before {date} or later")
        wrong = wrong or newest.date() < date - dt.timedelta(days=source.max_age_days)
    told = [f"{rows:,} rows in {len(snapshot.files)} files", f"the newest of {newest:%Y-%m-%d}"]
    return CheckResult(
        name=f"source {name} complete and fresh",
        family="inputs",
        verdict=Verdict.FAIL if wrong else Verdict.PASS,
        observed=", ".join([*([f"{days} days"] if days is not None else []), *told]),
        expected=", ".join(wanted),
    )


def _rows(source: Source, snapshot: SourceSnapshot, index: int) -> int:
    file = snapshot.files[index]
    if source.format == "parquet":
        return int(pq.read_metadata(file).num_rows)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return max(sum(1 for _ in csv.reader(lines, delimiter=source.delimiter)) - 1, 0)
