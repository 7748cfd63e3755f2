"""Filling in past dates: each that is missing or changed is scored, verified and archived, in one Spark context."""

import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from jobs.changed import ROLLED_BACK, standing
from jobs.decided import standing_declaration
from jobs.logs import Subject, logging_of, run_is
from jobs.models import DECLARED, Models, has_seen
from jobs.publishing import lookup_table, publisher, smoke
from jobs.session import own_session, spark_session
from jobs.stages import GetSpark, Plan, gate, plan_run, score
from jobs.verification import release_before, verify
from jobs.watching import watched
from lookup.archiving import archive
from lookup.log import signature
from lookup.publisher import Outcome, Published
from lookup.store import Store
from lookup.turns import only_backfill
from schemas.binding import bound
from schemas.declared import load_pipeline
from schemas.errors import AlmanacError, BlockedError, Problem, UnavailableError
from schemas.report import Verdict
from schemas.run import RunManifest
from schemas.settings import Settings
from schemas.sql import check_sql

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be filled in: a pipeline's dates from `start` to `end`, both included."""

    pipeline: str
    start: dt.date
    end: dt.date
    model: str = DECLARED
    publish_latest: bool = False
    dry_run: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def dates(self) -> list[dt.date]:
        return [self.start + dt.timedelta(days=day) for day in range((self.end - self.start).days + 1)]


class Done(StrEnum):
    """What became of a date."""

    ARCHIVED = "archived"
    NOTHING = "nothing"
    BLOCKED = "blocked"
    FAILED = "failed"
    PLANNED = "to be scored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A date, what was done about it, and why.

    Attributes:
        rows: Of the predictions.
        seconds: Of work; two dates are at work at once.
        has_seen: Whether the model knew the outcomes of that day.
        error: What blocked it, or why it failed.
    """

    date: dt.date
    done: Done
    why: str = ""
    run_id: str | None = None
    release: int | None = None
    verdict: Verdict | None = None
    rows: int | None = None
    seconds: float = 0.0
    has_seen: bool = False
    error: AlmanacError | None = None


@dataclass(frozen=True, slots=True)
class _Staged:
    """A date that is scored."""

    plan: Plan
    why: str
    manifest: RunManifest
    spark: GetSpark
    seconds: float


class Backfill:
    """The dates of a pipeline, filled in one after another, oldest first."""

    def __init__(self, settings: Settings, wanted: Wanted, *, log: Path | None = None) -> None:
        """Of what is proven to be declared and there.

        Args:
            settings: Where things are.
            wanted: What to fill in.
            log: Where what Spark's JVM says goes.

        Raises:
            DeclarationError: the declaration is wrong, or does not fit the model.
            InputError: there is no such model, or it cannot be trusted.
            UnavailableError: the newest date is to be published, and Redis does not answer.
        """
        self._settings, self._wanted = settings, wanted
        declared = load_pipeline(settings, wanted.pipeline)
        check_sql(declared)
        self._declared = standing_declaration(settings, bound(declared, wanted.parameters))
        self._store = Store(settings.store, wanted.pipeline)
        self._models = Models(settings, self._declared, wanted.model, adopt=not wanted.dry_run)
        self._sessions = _Sessions(f"almanac backfill {wanted.pipeline} {wanted.start} {wanted.end}", log)
        if wanted.publish_latest and not wanted.dry_run:
            lookup_table(settings, self._declared).preflight()  # not after hours of scoring

    def dates(self) -> Iterator[Filled]:
        """What became of each date, as soon as it is known. A date that cannot be filled does not stop the others.

        The next date is scored while one is verified: a small one waits for Spark's driver as much as for the cores.

        Raises:
            UnavailableError: another backfill of the pipeline is under way.
            OSError: the store's disk cannot be written: no date can be filled. What is done is kept.
        """
        dates = self._wanted.dates
        with self._alone(), ThreadPoolExecutor(1, "score") as pool:
            ahead: Future[Filled | _Staged] = pool.submit(self._staged, dates[0])
            for following in [*dates[1:], None]:
                staged = ahead.result()
                if following:
                    ahead = pool.submit(self._staged, following)
                yield staged if isinstance(staged, Filled) else self._archived(staged)

    def publish_newest(self, filled: Sequence[Filled]) -> Published | None:
        """Make the newest of these dates that has a release the live one, unless what is live is newer.

        Raises:
            AlmanacError: it could not be published; it is archived all the same.
        """
        sound = [one for one in filled if one.release is not None and one.why != ROLLED_BACK]
        newest = max(sound, key=lambda one: one.date, default=None)
        if newest is None or newest.run_id is None:
            return None
        # The one stage that metrics and lineage are told of: what past dates were like is no news of the pipeline.
        name = self._declared.name
        with watched(self._settings, name, "publish", date=newest.date, run_id=newest.run_id) as watch:
            watch.facts.published = published = publisher(self._settings, self._declared).publish(newest.run_id)
        if published.outcome is not Outcome.ARCHIVED:
            smoke(self._settings, name, newest.run_id, entities=self._declared.pipeline.publish.smoke_entities)
        return published

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._wanted.dry_run:
            yield
            return
        who = f"{signature()}, from {self._wanted.start} to {self._wanted.end}"
        with only_backfill(self._store.folder, who):
            yield

    def _staged(self, date: dt.date) -> Filled | _Staged:
        started = time.monotonic()
        try:
            with logging_of(Subject(self._declared.name, "score")), _spark_errors(date):
                plan = plan_run(self._settings, self._declared, date, lambda: self._models.of(date))
                run_is(plan.run_id)
                found = standing(plan)
                if found.release:
                    return _kept(plan, found.why, found.release.number)
                if self._wanted.dry_run:
                    return Filled(date=date, done=Done.PLANNED, why=found.why, run_id=plan.run_id, has_seen=_seen(plan))
                spark = cache(self._sessions.new)
                manifest = score(plan, spark)
        except AlmanacError as err:
            return Filled(date=date, done=Done.FAILED, error=err, seconds=time.monotonic() - started)
        return _Staged(plan, found.why, manifest, spark, time.monotonic() - started)

    def _archived(self, staged: _Staged) -> Filled:
        plan, manifest, started = staged.plan, staged.manifest, time.monotonic()
        done, verdict, release = Done.FAILED, None, None
        error: AlmanacError | None = None
        try:
            with logging_of(Subject(self._declared.name, "verify", manifest.run_id)), _spark_errors(plan.date):
                report = verify(plan, manifest, staged.spark, baseline=release_before)
                verdict = report.verdict
                gate(report, plan.store.override(manifest.run_id))
                release = archive(plan.store, manifest.run_id).release
                done = Done.ARCHIVED
        except BlockedError as err:
            done, error = Done.BLOCKED, err
        except AlmanacError as err:
            error = err
        return Filled(
            date=plan.date,
            done=done,
            why=staged.why,
            run_id=manifest.run_id,
            release=release,
            verdict=verdict,
            rows=manifest.counts.rows,
            seconds=staged.seconds + time.monotonic() - started,
            has_seen=_seen(plan),
            error=error,
        )


def _kept(plan: Plan, why: str, release: int) -> Filled:
    manifest, report = plan.store.manifest(plan.run_id), plan.store.report(plan.run_id)
    return Filled(
        date=plan.date,
        done=Done.NOTHING,
        why=why,
        run_id=plan.run_id,
        release=release,
        verdict=report.verdict,
        rows=manifest.counts.rows,
        has_seen=_seen(plan),
    )


def _seen(plan: Plan) -> bool:
    return has_seen(plan.bundle.manifest.training, plan.date)


@contextmanager
def _spark_errors(date: dt.date) -> Iterator[None]:
    """What Spark says of one date, as an error of that date: the next one may fare better."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as err:
        first = next((line.strip() for line in str(err).splitlines() if line.strip()), type(err).__name__)
        raise UnavailableError(Problem("SPARK_FAILED", str(date), first[:300], "a Spark that runs its jobs")) from err


class _Sessions:
    """Spark sessions on one context, which is started when the first is asked for."""

    def __init__(self, name: str, log: Path | None) -> None:
        self._name, self._log = name, log
        self._first: SparkSession | None = None
        self._lock = Lock()

    def new(self) -> "SparkSession":
        """A session of its own for a date."""
        with self._lock:
            if self._first is None:
                self._first = spark_session(self._name, log=self._log)
        return own_session(self._first)
