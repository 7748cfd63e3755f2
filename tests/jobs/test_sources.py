"""Sources as checks: complete, fresh, with enough rows, and unchanged."""

import datetime as dt
import os

import pytest

from jobs.sources import check_sources
from jobs.stages import check_inputs
from schemas.report import CheckResult, Verdict
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import DATE, PIPELINE, flights_file

pytestmark = pytest.mark.spark  # the trained pipeline


def results(settings: Settings) -> dict[str, CheckResult]:
    return {check.name: check for check in check_sources(check_inputs(settings, PIPELINE, DATE))}


def declare(settings: Settings, source: str, key: str) -> None:
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", (f"  {source}:\n", f"  {source}:\n    {key}\n"))


def test_days_files_rows_and_age_of_each_source_are_told(settings: Settings) -> None:
    today = dt.datetime.now(dt.UTC).date()

    found = results(settings)

    assert {check.verdict for check in found.values()} == {Verdict.PASS}
    flights, planes = (found[f"source {name} complete and fresh"] for name in ("flights", "planes"))
    assert flights.observed == f"7 days, 420 rows in 7 files, the newest of {today}"
    assert flights.expected == "at least 1 rows, 1 of 7 days or more"
    assert planes.observed == f"40 rows in 1 files, the newest of {today}"


def test_too_few_rows_fail(settings: Settings) -> None:
    declare(settings, "planes", "min_rows: 41")

    result = results(settings)["source planes complete and fresh"]

    assert (result.verdict, result.expected) == (Verdict.FAIL, "at least 41 rows")


def test_a_source_that_nobody_wrote_lately_fails(settings: Settings) -> None:
    declare(settings, "planes", "max_age_days: 3")
    planes = settings.root / "data" / "planes" / "part-0.parquet"
    for days, verdict in ((4, Verdict.FAIL), (2, Verdict.PASS)):
        written = dt.datetime.combine(DATE - dt.timedelta(days=days), dt.time(12), dt.UTC).timestamp()
        os.utime(planes, (written, written))
        assert results(settings)["source planes complete and fresh"].verdict is verdict


def test_rows_of_a_partitioned_source_are_those_of_the_run(settings: Settings) -> None:
    declare(settings, "flights", "min_rows: 420")
    assert results(settings)["source flights complete and fresh"].verdict is Verdict.PASS
    assert flights_file(settings).is_file()
