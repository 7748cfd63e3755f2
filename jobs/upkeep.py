"""The upkeep of one pipeline: Redis is made what the store says, then what is too old is removed from both."""

import datetime as dt
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from jobs.publishing import lookup_table, publisher
from jobs.unexpected import explained
from lookup.embedded import FOLDER, running_url
from lookup.reconciling import Finding, Reconciler
from lookup.removing import Keeping, Removal, Survey, remove_outdated
from lookup.store import Store
from lookup.turns import is_filling
from schemas.declared import DeclaredPipeline, load_pipeline
from schemas.errors import AlmanacError
from schemas.settings import Settings

logger = logging.getLogger(__name__)

_Done = TypeVar("_Done")
_STAY = "releases stay: a version of theirs may be there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What was found and done, or would be.

    Attributes:
        findings: Of Redis.
        removals: From the store.
        notes: What was left out, and why.
        errors: What went wrong meanwhile; all else was done.
    """

    pipeline: str
    findings: tuple[Finding, ...] = ()
    removals: tuple[Removal, ...] = ()
    notes: tuple[str, ...] = ()
    errors: tuple[AlmanacError, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(removal.size_bytes for removal in self.removals)


class Upkeeper:
    """Keeps one pipeline's store and table in order."""

    def __init__(self, settings: Settings, pipeline: str, *, dry_run: bool, now: dt.datetime) -> None:
        """Of a declared pipeline.

        Args:
            settings: Where things are.
            pipeline: Its name.
            dry_run: Whether it is only told what would be done.
            now: An aware time.

        Raises:
            DeclarationError: it is not declared, or wrongly.
        """
        self._declared: DeclaredPipeline = load_pipeline(settings, pipeline)
        self._store = Store(settings.store, pipeline)
        # Its own server is not started for this: whoever stopped it wanted that.
        url = settings.redis_url or running_url(settings.store)
        self._settings, self._has_redis = replace(settings, redis_url=url), url is not None
        self._had_redis = (settings.store / FOLDER).is_dir()
        self._dry_run, self._now = dry_run, now
        self._notes: list[str] = []
        self._errors: list[AlmanacError] = []

    def run(self) -> Upkeep:
        """Do it all, whatever goes wrong with a part of it."""
        started, name = time.monotonic(), self._declared.name
        if not self._store.folder.is_dir():
            return Upkeep(pipeline=name, notes=("nothing is kept of it yet",))
        findings = self._guarded(self._reconcile)
        removals = self._guarded(self._remove)
        done = Upkeep(
            pipeline=name,
            findings=tuple(findings),
            removals=tuple(removals),
            notes=tuple(self._notes),
            errors=tuple(self._errors),
        )
        logger.info(
            "%s: %s%d findings in Redis, %d removals from the store, %d bytes, %.1f s",
            name, "dry run: " if self._dry_run else "", len(findings), len(removals), done.size_bytes,
            time.monotonic() - started,
        )  # fmt: skip
        return done

    def _guarded(self, work: Callable[[], list[_Done]]) -> list[_Done]:
        try:
            return work()
        except AlmanacError as err:
            self._errors.append(err)
        except OSError as err:
            self._errors.append(explained(err, self._settings))
        return []

    def _reconcile(self) -> list[Finding]:
        if not self._has_redis:
            if self._had_redis:
                self._notes.append(f"the store's own Redis is not running: not compared, and {_STAY}")
            return []
        if self._dry_run:
            return self._reconciler.examine()
        found = self._reconciler.mend(publisher(self._settings, self._declared).restore)
        if found is None:
            self._notes.append("a publication or an erasure is under way: Redis was not compared")
        return found or []

    def _remove(self) -> list[Removal]:
        if self._dry_run:
            return Survey(self._store, self._keeping(), self._now).outdated()
        return remove_outdated(self._store, self._keeping, self._now)

    def _keeping(self) -> Keeping:
        pipeline = self._declared.pipeline
        calibration, filling = pipeline.checks.calibration, is_filling(self._store.folder)
        if filling:
            self._notes.append("a backfill is under way: releases and staged runs stay until it has ended")
        return Keeping(
            retention=pipeline.retention,
            versions=pipeline.publish.keep,
            after_days=calibration.after_days if calibration else None,
            held=self._held(),
            is_filling=filling,
        )

    def _held(self) -> set[str] | None:
        """Ids of the runs that Redis has versions of; None where nobody can tell."""
        if not self._has_redis:
            return None if self._had_redis else set()
        if self._errors:
            self._notes.append(f"Redis could not be compared: {_STAY}")
            return None
        return self._reconciler.held_runs()

    @property
    def _reconciler(self) -> Reconciler:
        publish, table = self._declared.pipeline.publish, lookup_table(self._settings, self._declared)
        return Reconciler(self._store, table, keep=publish.keep, grace_seconds=publish.grace_seconds)
