"""Watches the stages of a run: names the run on log lines, and tells lineage and metrics. It never stops a run."""

import datetime as dt
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from queue import Empty, Queue
from threading import Thread

from jobs.facts import Facts
from jobs.lineage import Lineage, is_asked_for
from jobs.logs import Subject, logging_of, run_is
from jobs.run_metrics import tell_metrics
from jobs.stages import Plan
from schemas.errors import Problem
from schemas.settings import Settings

logger = logging.getLogger(__name__)

# How long a stage waits for whoever is told of it; more would delay what it is about.
LIMIT_SECONDS = 10.0
_PASSWORD = re.compile(r"//[^/@\s]*@")


class Watch:
    """A stage that is watched; its facts are what is told of it."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._lineage = Lineage(facts) if is_asked_for(os.environ) else None

    def of(self, plan: Plan) -> Plan:
        """Tell which run it is, and that it has begun."""
        self.facts.plan, self.facts.run_id = plan, plan.run_id
        run_is(plan.run_id)
        if self._lineage:
            _attempt("OBSERVE_LINEAGE", "lineage", self._lineage.begin)
        return plan

    def end(self, seconds: float, error: BaseException | None) -> None:
        """Tell how it ended."""
        self.facts.seconds, self.facts.error = seconds, error
        if self._lineage:
            _attempt("OBSERVE_LINEAGE", "lineage", self._lineage.end)
        if self.facts.settings.metrics_folder or self.facts.settings.pushgateway:
            _attempt("OBSERVE_METRICS", "metrics", lambda: tell_metrics(self.facts))


@contextmanager
def watched(
    settings: Settings,
    pipeline: str,
    stage: str,
    *,
    date: dt.date | None = None,
    run_id: str | None = None,
    plan: Plan | None = None,
) -> Iterator[Watch]:
    """Watch the block as a stage; what goes wrong in it is told and raised on.

    Args:
        settings: Say whom to tell.
        pipeline: Its name.
        stage: Its name.
        date: The logical date, where the stage is of one.
        run_id: Where it is known by now.
        plan: Where it is known by now; else `Watch.of` tells it.
    """
    facts = Facts(settings=settings, pipeline=pipeline, stage=stage, date=date, run_id=run_id)
    watch, error = Watch(facts), None
    started = time.monotonic()
    with logging_of(Subject(pipeline, stage, run_id)):
        try:
            if plan:
                watch.of(plan)
            yield watch
        except BaseException as err:
            error = err
            raise
        finally:
            watch.end(time.monotonic() - started, error)


def _attempt(code: str, what: str, tell: Callable[[], None]) -> None:
    """Tell somebody of the stage, within a limit of time; where that fails, a warning is all that comes of it."""
    ended: Queue[str] = Queue()

    def attempt() -> None:
        try:
            tell()
            ended.put("")
        except Exception as err:  # noqa: BLE001  # whatever breaks there, the run is worth more (ARCHITECTURE.md)
            ended.put(f"{type(err).__name__}: {str(err).partition(chr(10))[0][:300]}")

    Thread(target=copy_context().run, args=(attempt,), daemon=True).start()
    try:
        found = ended.get(timeout=LIMIT_SECONDS)
    except Empty:
        found = f"no answer after {LIMIT_SECONDS:g} s"
    if found:
        logger.warning("%s", Problem(code, what, _PASSWORD.sub("//", found), "it to arrive; the run goes on without"))
