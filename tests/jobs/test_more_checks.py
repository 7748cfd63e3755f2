"""Checks that are declared on top: calibration once outcomes are known, limits of time, and checks switched off."""

from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from lookup.store import Store
from schemas.errors import BlockedError, DeclarationError
from schemas.report import Verdict
from schemas.run import PREDICTIONS
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import NEXT, PIPELINE, almanac, live_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

CHECKS = "  max_quarantined: 0.01\n"


@pytest.fixture(autouse=True)
def _one_session(spark: "SparkSession") -> None:
    """Runs find the session of the tests, as they find one of their process."""


def declare(settings: Settings, more: str) -> None:
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", (CHECKS, CHECKS + more))


def outcomes(settings: Settings, run_id: str) -> dict[str, float]:
    """What came of each flight that the run knew, read from the source as a person would."""
    known = {}
    for folder in (settings.root / "data" / "flights").glob("date=*"):
        day = folder.name.removeprefix("date=")
        for row in pq.read_table(folder / "part-0.parquet", partitioning=None).to_pylist():
            known[f"{row['carrier']}:{row['flight']}:{row['origin']}:{day}"] = float(
                row["arr_delay"] is None or row["arr_delay"] > 15
            )
    rows = pq.read_table(Store(settings.store, PIPELINE).run_folder(run_id) / PREDICTIONS).to_pylist()
    return {row["entity_id"]: known[row["entity_id"]] for row in rows}


def test_an_earlier_release_is_held_against_what_came(settings: Settings) -> None:
    declare(settings, "  calibration: {after_days: 1, error: {warn: 0.5, fail: 0.9}, min_rows: 20}\n")
    first = almanac(settings)
    assert first.report.calibrated is None
    (nothing,) = [check for check in first.report.checks if check.family == "calibration"]
    assert nothing.observed == "no release is 1 days old or older: there is nothing to tell of yet"

    report = almanac(settings, NEXT).report

    came = outcomes(settings, first.manifest.run_id)
    whole = report.calibration[0]
    stored = pq.read_table(Store(settings.store, PIPELINE).run_folder(first.manifest.run_id) / PREDICTIONS)
    assert report.calibrated == first.manifest.run_id
    assert (whole.columns, whole.rows) == ((), len(came))
    assert whole.observed.value == pytest.approx(sum(came.values()) / len(came))
    assert whole.predicted == pytest.approx(sum(stored.column("score").to_pylist()) / stored.num_rows)
    assert {one.values[0] for one in report.calibration if one.columns == ("origin",)} == {"EWR", "JFK", "LGA"}


def test_a_release_that_was_far_off_stops_the_next(settings: Settings) -> None:
    declare(settings, "  calibration: {after_days: 1, error: {warn: 0.05, fail: 0.1}, min_rows: 20}\n")
    good = almanac(settings).manifest.run_id
    label = "label: arr_delay IS NULL OR arr_delay > 15"
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", (label, f"{label} OR true"))  # as if all had been late
    with pytest.raises(BlockedError, match="calibration"):
        almanac(settings, NEXT)
    assert live_run(settings) == good


def test_a_check_that_is_switched_off_is_named_and_not_made(settings: Settings) -> None:
    declare(settings, "  off: [{check: entities, reason: half the airport is closed}]\n")
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("entities: {min: 50", "entities: {min: 5000"))

    finished = almanac(settings)

    assert finished.report.verdict is Verdict.PASS
    assert finished.report.off == finished.manifest.off == {"entities": "half the airport is closed"}
    assert not [check for check in finished.report.checks if check.family == "entities"]


@pytest.mark.parametrize("check", ["coverage", "inputs", "parity"])
def test_what_all_else_rests_on_cannot_be_switched_off(settings: Settings, check: str) -> None:
    declare(settings, f"  off: [{{check: {check}, reason: in a hurry}}]\n")
    with pytest.raises(DeclarationError, match=r"checks\.off\.0\.check"):
        almanac(settings)


def test_a_check_that_takes_too_long_stops_the_run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    import jobs.checking

    good = almanac(settings).manifest.run_id
    declare(settings, "  limit_seconds: 1\n")
    monkeypatch.setattr(jobs.checking, "check_workers", lambda _: time.sleep(5))
    with pytest.raises(BlockedError, match=r"bundle reproduces its holdout: TooSlowError: no answer within 1 s"):
        almanac(settings, NEXT)
    assert live_run(settings) == good
