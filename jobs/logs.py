"""Log lines that name the run they are of, plain for people or as JSON for programs, here and in Spark's workers."""

import datetime as dt
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, TextIO

from schemas.errors import DeclarationError, Problem

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SETTING = "ALMANAC_LOG_FORMAT"
_PLAIN, _JSON = "plain", "json"
# The last two tell at length what `jobs.watching` says in a line.
_QUIET = {
    "py4j": logging.WARNING,
    "great_expectations": logging.WARNING,
    "openlineage": logging.CRITICAL,
    "urllib3": logging.ERROR,
}
_LINE = "%(asctime)s %(levelname)s %(name)s%(of_run)s: %(message)s"
# Local properties of Spark: they travel with each task. `mdc.` makes the run known to log4j too.
_RUN, _FORMAT, _LEVEL = "mdc.run_id", "almanac.log_format", "almanac.log_level"


class Subject(NamedTuple):
    """What is being worked on."""

    pipeline: str | None = None
    stage: str | None = None
    run_id: str | None = None


_NOTHING = Subject()
# Of the thread or task that logs, so that two runs of one process do not sign each other's lines.
_subject: ContextVar[Subject] = ContextVar("subject")


@contextmanager
def logging_of(subject: Subject) -> Iterator[None]:
    """Lines that are logged meanwhile are of this pipeline, stage and run."""
    token = _subject.set(subject)
    try:
        yield
    finally:
        _subject.reset(token)


def run_is(run_id: str) -> None:
    """Tell which run is being worked on, once it is known."""
    _subject.set(_subject.get(_NOTHING)._replace(run_id=run_id))


class _Signed(logging.Filter):
    """Adds to each record which run it is of; a filter of the handler, so that libraries' lines have it too."""

    def filter(self, record: logging.LogRecord) -> bool:
        subject = _subject.get(_NOTHING)
        record.__dict__ |= {"subject": subject, "of_run": f" [{subject.run_id}]" if subject.run_id else ""}
        return True


class _JsonLine(logging.Formatter):
    """One JSON document a record, whatever the message holds."""

    def format(self, record: logging.LogRecord) -> str:
        at = dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")
        subject: Subject = record.__dict__.get("subject", _NOTHING)
        line: dict[str, object] = {"time": at.replace("+00:00", "Z"), "level": record.levelname, "logger": record.name}
        line |= subject._asdict() | {"message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(level: int, *, environ: Mapping[str, str] = os.environ) -> None:
    """Log to standard error, in the form that `ALMANAC_LOG_FORMAT` names.

    Raises:
        DeclarationError: it names none.
    """
    form = environ.get(_SETTING) or _PLAIN
    if form not in (_PLAIN, _JSON):
        raise DeclarationError(Problem("CFG_LOG_FORMAT", _SETTING, f"'{form}'", f"{_PLAIN} or {_JSON}"))
    _log_to(sys.stderr, form, level)


def _log_to(stream: TextIO, form: str, level: int) -> None:
    handler = logging.StreamHandler(stream)
    handler.addFilter(_Signed())
    handler.setFormatter(_JsonLine() if form == _JSON else logging.Formatter(_LINE))
    logging.basicConfig(level=level, handlers=[handler])
    for library, least in _QUIET.items():
        logging.getLogger(library).setLevel(least)


def tell_workers(spark: "SparkSession", run_id: str) -> None:
    """Let the tasks that this thread starts from now on know which run they are of, and how to log."""
    context, root = spark.sparkContext, logging.getLogger()
    is_json = any(isinstance(handler.formatter, _JsonLine) for handler in root.handlers)
    told = {_RUN: run_id, _FORMAT: _JSON if is_json else _PLAIN, _LEVEL: str(root.getEffectiveLevel())}
    for name, value in told.items():
        context.setLocalProperty(name, value)


def log_in_worker() -> None:
    """Log as the driver does, in a Python worker of Spark: to the executor's standard error."""
    from pyspark import TaskContext

    task = TaskContext.get()
    form = task.getLocalProperty(_FORMAT) if task else None
    if task is None or form is None:
        return
    root = logging.getLogger()
    for handler in root.handlers[:]:  # a worker goes on to the tasks of other runs
        root.removeHandler(handler)
    _log_to(sys.stderr, form, int(task.getLocalProperty(_LEVEL) or logging.INFO))
    run_is(task.getLocalProperty(_RUN) or "")
