"""An operator's override: with a reason, of just what failed, never of inputs, coverage or parity; and recorded."""

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from jobs.overriding import override_run
from jobs.stages import gate
from lookup.store import Store
from schemas.content import write_atomically
from schemas.errors import AlmanacError, BlockedError, DeclarationError, RefusedError
from schemas.report import CheckResult, Family, Override, Report, Verdict
from schemas.run import OVERRIDE_FILE, REPORT_FILE, REPORT_PAGE
from schemas.settings import Settings
from tests.flights import rewrite
from tests.jobs.runs import NEXT, PIPELINE, almanac, live_run

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NOON = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)


def check(name: str, family: Family = "drift", verdict: Verdict = Verdict.FAIL) -> CheckResult:
    return CheckResult(name=name, family=family, verdict=verdict, observed="o", expected="e")


def report(*checks: CheckResult, verdict: Verdict = Verdict.FAIL, verified_at: dt.datetime = NOON) -> Report:
    return Report(
        pipeline="p",
        run_id="r",
        content="c",
        verified_at=verified_at,
        compared_with=None,
        verdict=verdict,
        checks=checks,
    )


def overridden(*names: str, content: str = "c") -> Override:
    return Override(by="ops", at=NOON, reason="storm", content=content, verified_at=NOON, checks=names)


@pytest.mark.parametrize(
    ("of", "made", "passes"),
    [
        (report(check("a"), check("b", verdict=Verdict.PASS)), overridden("a"), True),
        (report(check("a"), check("b")), overridden("a"), False),  # another failed too
        (report(check("a"), check("b")), overridden("a", "b"), True),
        (report(check("a")), overridden("a", content="d"), False),  # other predictions
        (report(check("a"), verified_at=NOON + dt.timedelta(seconds=1)), overridden("a"), False),  # a later report
        (report(check("a", "coverage")), overridden("a"), False),
        (report(check("a", "inputs")), overridden("a"), False),
        (report(check("a", "parity")), overridden("a"), False),
        (report(check("a", verdict=Verdict.PASS)), overridden("a"), False),  # a required check gave no result
        (report(), overridden("a"), False),
        (report(check("a")), None, False),
        (report(check("a", verdict=Verdict.WARN), verdict=Verdict.WARN), None, True),
    ],
)
def test_only_just_what_failed_is_let_through(of: Report, made: Override | None, passes: bool) -> None:
    assert of.lets_through(made) is passes
    if not passes:
        with pytest.raises(BlockedError):
            gate(of, made)
        return
    gate(of, made)


@pytest.mark.parametrize(
    ("of", "names", "reason", "error", "code"),
    [
        (report(check("a")), ("a",), " ", DeclarationError, "OVERRIDE_REASON"),
        (report(check("a")), ("b",), "storm", DeclarationError, "OVERRIDE_CHECK"),
        (report(check("a"), check("b")), ("a",), "storm", RefusedError, "OVERRIDE_CHECK"),
        (report(check("a", "coverage")), ("a",), "storm", RefusedError, "OVERRIDE_REFUSED"),
        (report(check("a", verdict=Verdict.PASS)), (), "storm", RefusedError, "OVERRIDE_REFUSED"),
        (
            report(check("a", verdict=Verdict.PASS), verdict=Verdict.PASS),
            ("a",),
            "storm",
            RefusedError,
            "OVERRIDE_NOT_BLOCKED",
        ),
    ],
)
def test_what_cannot_be_overridden_is_one_clear_error(
    settings: Settings, of: Report, names: tuple[str, ...], reason: str, error: type[AlmanacError], code: str
) -> None:
    store = Store(settings.store, PIPELINE)
    store.run_folder("r").mkdir(parents=True)
    write_atomically(store.run_folder("r") / REPORT_FILE, of.model_dump_json())

    with pytest.raises(error, match=rf"\[{code}\]"):
        override_run(store, "r", checks=names, reason=reason)

    assert not (store.run_folder("r") / OVERRIDE_FILE).exists()


@pytest.mark.spark
def test_a_blocked_run_is_published_once_somebody_says_why_and_the_log_and_the_page_keep_it(
    settings: Settings, spark: "SparkSession"
) -> None:
    from jobs.paging import write_page

    good = almanac(settings).manifest.run_id
    rewrite(settings.pipelines / PIPELINE / "pipeline.yaml", ("entities: {min: 50", "entities: {min: 5000"))
    with pytest.raises(BlockedError, match="enough entities"):
        almanac(settings, NEXT)
    store = Store(settings.store, PIPELINE)
    run_id = store.latest_run().run_id

    made = override_run(store, run_id, checks=("enough entities",), reason="the airport is closed")
    write_page(store, store.report(run_id))
    assert live_run(settings) == good
    finished = almanac(settings, NEXT)

    assert live_run(settings) == finished.manifest.run_id == run_id
    assert finished.report.verdict is Verdict.FAIL
    commit = next(entry for entry in store.log.entries() if entry.run_id == run_id)
    assert commit.reason == f"overridden by {made.by}: the airport is closed"
    page = (store.run_folder(run_id) / REPORT_PAGE).read_text()
    assert "Blocked, then let through" in page
    assert "the airport is closed" in page
