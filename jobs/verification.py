"""Verification of a staged run: every check against it, one report, whatever the verdict."""

import datetime as dt
import logging
import time
from collections.abc import Callable

from jobs.checking import Checks
from jobs.paging import write_page
from jobs.stages import GetSpark, Plan
from lookup.store import Store
from lookup.turns import beside_others
from schemas.content import write_atomically
from schemas.errors import Problem, UnavailableError
from schemas.release import ReleaseState
from schemas.report import Report
from schemas.run import PROFILE_FILE, REPORT_FILE, RunManifest, Stage
from validation.gate import judge

logger = logging.getLogger(__name__)


Baseline = Callable[[Store, RunManifest], RunManifest | None]

# What stood for a date in the log. What was rolled back was wrong, and is nobody's measure.
_SOUND = (ReleaseState.COMMITTED, ReleaseState.LIVE, ReleaseState.RETIRED)


def release_before(store: Store, manifest: RunManifest) -> RunManifest | None:
    """The run of the newest release of an earlier date that is kept, served or archived; None where there is none."""
    return store.newest_run(manifest.date - dt.timedelta(days=1), _SOUND, kept=True)


def live_release(store: Store, manifest: RunManifest) -> RunManifest | None:
    """The run that is live; where that is of a later date, the one before: last winter is not compared with today."""
    live = store.live()
    if live is None or live.run_id == manifest.run_id:
        return None
    return store.manifest(live.run_id) if live.date <= manifest.date else release_before(store, manifest)


def verify(plan: Plan, manifest: RunManifest, spark: GetSpark, *, baseline: Baseline = live_release) -> Report:
    """The report of a staged run, written beside it as JSON and as a page.

    A run that has passed keeps its report: it is the evidence it was published on. So does one that was let through.

    Args:
        plan: Of the run.
        manifest: Of what is staged.
        spark: Asked for only if there is something to check.
        baseline: What the run is compared with, beside the training of its model.
    """
    store = plan.store
    if passed := passed_report(store, manifest):
        return passed
    started = time.monotonic()
    live = baseline(store, manifest)
    checks = Checks(plan, manifest, live, spark)
    results = checks.run()
    seconds = round(time.monotonic() - started, 3)
    report = Report(
        pipeline=plan.declared.name,
        run_id=manifest.run_id,
        content=manifest.content,
        verified_at=dt.datetime.now(dt.UTC).replace(microsecond=0),
        compared_with=live.run_id if live else None,
        verdict=judge(results, required=checks.required),
        checks=tuple(results),
        off=manifest.off,
        drift=checks.drift,
        slices=checks.slices,
        calibration=checks.calibration,
        calibrated=checks.calibrated,
        contests=checks.contests,
        outcomes=checks.outcomes,
        funnel=checks.funnel,
        decisions=tuple(map(str, plan.declared.decisions)),
        stages=(*manifest.stages, Stage(name="verify", seconds=seconds, rows_in=manifest.counts.rows)),
        way=manifest.way,
        reused=manifest.reused,
        data_docs=checks.data_docs,
    )
    with beside_others(store.folder):  # an erasure takes out of a report what it finds there
        _refuse_changed(store, manifest)
        if passed := passed_report(store, manifest):
            return passed  # by another attempt, meanwhile: it may be published on that one already
        _write(store, report, checks)
    logger.info("run %s: %s, %d checks, %.1f s", manifest.run_id, report.verdict, len(results), seconds)
    return report


def passed_report(store: Store, manifest: RunManifest) -> Report | None:
    """The report with which the run as it is has passed, or was let through; None where it has not."""
    if not (store.run_folder(manifest.run_id) / REPORT_FILE).is_file():
        return None
    report = store.report(manifest.run_id)
    is_of_this = report.content in (manifest.content, manifest.verified_content)
    if not is_of_this or not report.lets_through(store.override(manifest.run_id)):
        return None
    logger.info("run %s: verified already, %s", manifest.run_id, report.verdict)
    return report


def _refuse_changed(store: Store, measured: RunManifest) -> None:
    """Refuse to tell of what the run does not have any more.

    Raises:
        UnavailableError: an entity was erased from it since it was read.
    """
    if store.manifest(measured.run_id) != measured:
        where, what = f"{measured.pipeline} run {measured.run_id}", "an entity was erased from it while it was verified"
        raise UnavailableError(Problem("IN_CHANGED", where, what, "the run as it was; verify again"))


def _write(store: Store, report: Report, checks: Checks) -> None:
    folder = store.run_folder(report.run_id)
    if now := checks.now.value:
        write_atomically(folder / PROFILE_FILE, now.model_dump_json() + "\n")
    write_page(store, report)
    # Last, because publish asks for this file: a report that can be read is one that is complete.
    write_atomically(folder / REPORT_FILE, report.model_dump_json(indent=2) + "\n")
