"""The stages of one run, each of which may be killed and run again: check, score, verify, gate, publish, smoke."""

import datetime as dt
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from jobs.bundles import Bundle
from jobs.carrying import base_run
from jobs.decided import standing_declaration
from jobs.lineup import Lineup, declared_lineup
from jobs.snapshot import Snapshot, take_snapshot
from lookup.removing import DAMAGED, STAGING, clear_leftovers
from lookup.store import Store
from schemas.binding import bound
from schemas.content import canonical_json, sha256_text, write_atomically
from schemas.declared import DeclaredPipeline, load_pipeline
from schemas.errors import BlockedError, InputError, Problem
from schemas.report import Override, Report
from schemas.run import (
    MANIFEST_FILE,
    RUN_FORMAT,
    SCORED_PARTS,
    RunManifest,
)
from schemas.settings import Settings
from schemas.sql import check_sql

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

# A stage asks for Spark only when it has work for it: a run that is already done starts no JVM.
GetSpark = Callable[[], "SparkSession"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do: its declaration, date, inputs and model, proven to be there."""

    settings: Settings
    declared: DeclaredPipeline
    date: dt.date
    snapshot: Snapshot
    lineup: Lineup
    base: RunManifest | None = None  # whose predictions are carried, where that is declared
    full: bool = False  # score all rows, also where `models.reuse` is declared

    @property
    def bundle(self) -> Bundle:
        """The champion."""
        return self.lineup.champion

    @property
    def store(self) -> Store:
        return Store(self.settings.store, self.declared.name)

    @property
    def run_id(self) -> str:
        """`<date>-<12 hex>` of all that decides the predictions: same content, same run."""
        content = [RUN_FORMAT, self.declared.digest, self.lineup.digests, self.snapshot.digest]
        if self.base:
            content.append({"carried from": self.base.run_id})
        return f"{self.date.isoformat()}-{sha256_text(canonical_json(content))[:12]}"


def check_inputs(
    settings: Settings, pipeline: str, date: dt.date, parameters: Mapping[str, object] = MappingProxyType({})
) -> Plan:
    """The plan of a run.

    Args:
        settings: Where sources and store are.
        pipeline: Its name.
        date: The logical date.
        parameters: That are given, by name.

    Raises:
        DeclarationError: the declaration is wrong.
        InputError: a source is missing, incomplete or of another schema, or the bundle cannot be trusted.
    """
    declared = load_pipeline(settings, pipeline)
    check_sql(declared)
    standing = standing_declaration(settings, bound(declared, parameters))
    return plan_run(settings, standing, date, lambda: declared_lineup(settings, standing))


def plan_run(settings: Settings, declared: DeclaredPipeline, date: dt.date, lineup: Callable[[], Lineup]) -> Plan:
    """The plan of a run of a declaration that is known to be sound.

    Args:
        settings: Where sources and store are.
        declared: The pipeline.
        date: The logical date.
        lineup: Gives the bundles, once the sources are known to be there.

    Raises:
        InputError: as `check_inputs`.
    """
    snapshot = take_snapshot(settings, declared.pipeline, date)
    opened = lineup()
    carries = declared.pipeline.quarantine.serve == "carried"
    base = base_run(Store(settings.store, declared.name), date) if carries else None
    return Plan(settings=settings, declared=declared, date=date, snapshot=snapshot, lineup=opened, base=base)


def planned(
    settings: Settings, pipeline: str, date: dt.date, run_id: str | None, parameters: Mapping[str, object]
) -> Plan:
    """The plan of a stage that continues run `run_id`.

    Raises:
        InputError: the inputs, the declaration or the model changed since that run was checked.
    """
    plan = check_inputs(settings, pipeline, date, parameters)
    if run_id not in (None, plan.run_id):
        raise InputError(
            Problem(
                "IN_CHANGED", f"{pipeline} {date}", f"now run {plan.run_id}", f"{run_id}; start again at check_inputs"
            )
        )
    return plan


def score(plan: Plan, spark: GetSpark) -> RunManifest:
    """Stage the run's predictions, quarantine and features; nothing is done where they are there, whole."""
    store, run_id = plan.store, plan.run_id
    if manifest := whole_run(store, run_id):
        with suppress(OSError):  # a store that cannot be written is not maintained either
            (store.run_folder(run_id) / MANIFEST_FILE).touch()  # it is in use: maintenance counts its days from here
        logger.info("run %s: scored already, %d entities", run_id, manifest.counts.scored)
        return manifest

    def make(folder: Path) -> RunManifest:
        from jobs.staging import stage  # it loads Spark, which a run that is already done does not need

        return stage(folder, plan, spark())

    manifest = stage_run(store, run_id, make)
    logger.info(
        "run %s: scored %d of %d entities, %.1f s",
        run_id,
        manifest.counts.scored,
        manifest.counts.entities,
        sum(stage.seconds or 0 for stage in manifest.stages),
    )
    return manifest


def stage_run(store: Store, run_id: str, make: Callable[[Path], RunManifest]) -> RunManifest:
    """What `make` writes to a folder and tells of it, under the run's name once it is whole."""
    runs = store.run_folder(run_id).parent
    runs.mkdir(parents=True, exist_ok=True)
    clear_leftovers(runs, dt.datetime.now(dt.UTC))
    staging = Path(tempfile.mkdtemp(dir=runs, prefix=f"{STAGING}{run_id}-"))
    staging.chmod(0o755)
    try:
        manifest = make(staging)
        for half in staging.glob("*/.*"):  # of a task that was killed with its executor, and has been done again
            half.unlink(missing_ok=True)
        write_atomically(staging / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
        return whole_run(store, run_id) or _move_into_place(staging, store, manifest)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def whole_run(store: Store, run_id: str) -> RunManifest | None:
    """The manifest of a run that is staged with every file as it says; another attempt may have been faster."""
    if not (store.run_folder(run_id) / MANIFEST_FILE).is_file():
        return None
    manifest = store.manifest(run_id)
    return None if store.damage(manifest, *SCORED_PARTS) else manifest


def _move_into_place(staging: Path, store: Store, manifest: RunManifest) -> RunManifest:
    """Rename the staged run to its name; a damaged run that has the name is moved aside first."""
    folder = store.run_folder(manifest.run_id)
    if folder.exists():
        logger.warning("run %s: its files were damaged and are made again", manifest.run_id)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=DAMAGED))
        folder.rename(aside / folder.name)
        shutil.rmtree(aside, ignore_errors=True)
    try:
        staging.rename(folder)
    except OSError:
        # Another attempt of this run took the name since; its files are the same, or this one must not replace them.
        if (other := whole_run(store, manifest.run_id)) is None:
            raise
        return other
    return manifest


def gate(report: Report, override: Override | None = None) -> None:
    """Stop the run where the verdict is FAIL and nobody overrode just what failed.

    Raises:
        BlockedError: with each check that failed.
    """
    if report.lets_through(override):
        return
    where = f"{report.pipeline} run {report.run_id}"
    problems = [
        Problem("BLOCKED", f"{where}: {check.name}", check.observed, check.expected) for check in report.failures
    ]
    raise BlockedError(*(problems or [Problem("BLOCKED", where, "no check ran", "checks")]))
