"""One whole run in one process: check, score, verify, gate, publish, smoke."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from jobs.console import Console
from jobs.publishing import publisher, smoke, summary
from jobs.session import SPARK_LOG, spark_session
from jobs.stages import Plan, check_inputs, gate, score
from jobs.tallying import tasks_told
from jobs.verification import verify
from jobs.watching import watched
from lookup.publisher import Outcome, Published
from schemas.report import Report, Verdict
from schemas.run import REPORT_PAGE, RunManifest
from schemas.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that went through; `published` is None for a dry run."""

    manifest: RunManifest
    report: Report
    published: Published | None


def run(
    settings: Settings,
    pipeline: str,
    date: dt.date,
    *,
    console: Console,
    force: bool = False,
    dry_run: bool = False,
    full: bool = False,
    parameters: Mapping[str, object] = MappingProxyType({}),
) -> Finished:
    """Run a pipeline for a logical date.

    Args:
        settings: Where things are.
        pipeline: Its name.
        date: The logical date.
        console: Told of every step.
        force: Publish also what was rolled back, or is older than what is live.
        dry_run: Stop behind the gate.
        full: Score all rows, also where `models.reuse` is declared.
        parameters: That are given, by name.

    Raises:
        BlockedError: verification failed; the live release is as it was.
        AlmanacError: anything else that stopped it.
    """
    plan = replace(_check(settings, pipeline, date, parameters, console), full=full)
    spark = cache(lambda: _session(plan))
    told = partial(watched, settings, pipeline, date=date, plan=plan)
    with console.step("score") as step, told("score") as watch, tasks_told(step.progress):
        watch.facts.manifest = manifest = score(plan, spark)
        step.detail = _counts(manifest)
    with console.step("verify") as step, told("verify") as watch, tasks_told(step.progress):
        watch.facts.report = report = verify(plan, manifest, spark)
        step.detail = _verdict(report)
    with told("gate"):
        _gate(plan, manifest, report, console)
    if dry_run:
        return Finished(manifest, report, None)
    with console.step("publish") as step, told("publish") as watch:
        watch.facts.published = published = publisher(settings, plan.declared).publish(manifest.run_id, force=force)
        step.detail = summary(published)
    if published.outcome is not Outcome.ARCHIVED:
        with console.step("smoke") as step, told("smoke"):
            read = smoke(settings, pipeline, manifest.run_id, entities=plan.declared.pipeline.publish.smoke_entities)
            step.detail = f"{read} entities read back as a service reads them"
    return Finished(manifest, report, published)


def _check(
    settings: Settings, pipeline: str, date: dt.date, parameters: Mapping[str, object], console: Console
) -> Plan:
    with console.step("check inputs") as step, watched(settings, pipeline, "check_inputs", date=date) as watch:
        plan = watch.of(check_inputs(settings, pipeline, date, parameters))
        files, sources = plan.snapshot.fingerprints, plan.snapshot.sources
        step.detail = f"run {plan.run_id}: {len(files)} files of {len(sources)} sources, model {plan.bundle.id}"
    return plan


def _gate(plan: Plan, manifest: RunManifest, report: Report, console: Console) -> None:
    """Pass the gate or not; whichever, the report's path stands on a line of its own."""
    page, here = plan.store.run_folder(manifest.run_id) / REPORT_PAGE, Path.cwd()
    try:
        with console.step("gate") as step:
            step.detail = f"{report.verdict}; the report as a page:"
            gate(report, plan.store.override(manifest.run_id))
    finally:
        console.say(f"  {page.relative_to(here) if page.is_relative_to(here) else page}", whole=True)


def _session(plan: Plan) -> "SparkSession":
    return spark_session(f"almanac {plan.declared.name} {plan.run_id}", log=plan.settings.store / SPARK_LOG)


def _counts(manifest: RunManifest) -> str:
    counts = manifest.counts
    aside = "".join(
        f", {count:,} {word}"
        for count, word in (
            (counts.carried, "carried over"),
            (counts.quarantined, "quarantined"),
            (counts.superseded, "rows corrected"),
        )
        if count
    )
    return f"{counts.scored:,} of {counts.entities:,} entities{aside}"


def _verdict(report: Report) -> str:
    tally = {verdict: sum(check.verdict is verdict for check in report.checks) for verdict in Verdict}
    parts = [
        f"{tally[verdict]} {word}"
        for verdict, word in zip(Verdict, ("passed", "warned", "failed"), strict=True)
        if tally[verdict]
    ]
    return f"{report.verdict}: {', '.join(parts)} of {len(report.checks)} checks"
