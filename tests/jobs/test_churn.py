"""Churn as a check of a run, on real Spark: what changed since the live release stops it where that is too much."""

import datetime as dt
import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console as RichConsole

from jobs.console import Console
from jobs.running import Finished, run
from lookup.store import Store
from schemas.errors import BlockedError
from schemas.report import Verdict
from schemas.run import PREDICTIONS
from schemas.settings import Settings
from tests.flights import rewrite

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

DATE = dt.date(2013, 1, 5)
NEXT = dt.date(2013, 1, 6)
PIPELINE = "flight_delay"


def almanac(settings: Settings, date: dt.date) -> Finished:
    return run(settings, PIPELINE, date, console=Console(rich=RichConsole(file=io.StringIO())))


def test_a_run_that_loses_more_entities_than_declared_is_blocked_and_so_is_one_without_its_baseline(
    settings: Settings, spark: "SparkSession"
) -> None:
    declared = settings.pipelines / PIPELINE / "pipeline.yaml"
    rewrite(declared, ("checks:\n", "checks:\n  churn: {max_added: 0.2, max_removed: 0.1}\n"))
    first = almanac(settings, DATE)
    told = [(check.verdict, check.observed) for check in first.report.checks if check.family == "churn"]
    assert told == [(Verdict.PASS, "first release: nothing to compare with")] * 2

    # A week of 60 flights a day, a day later: 60 of 420 left, and as many came.
    with pytest.raises(
        BlockedError, match=r"entities removed: 60 of 420 \(14\.29%\); expected at most 10\.00%"
    ) as caught:
        almanac(settings, NEXT)
    assert len(caught.value.problems) == 1

    store = Store(settings.store, PIPELINE)
    (file,) = store.manifest(first.manifest.run_id).files_in(PREDICTIONS)
    (store.run_folder(first.manifest.run_id) / file.path).unlink()
    with pytest.raises(BlockedError, match=r"churn: .*no such file"):
        almanac(settings, NEXT)
    live = store.live()
    assert live is not None
    assert live.run_id == first.manifest.run_id
