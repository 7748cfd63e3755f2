"""A report fails closed: no verdict is better than its checks."""

import datetime as dt
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from schemas.report import CheckResult, Report, Verdict, worst

PASS, WARN, FAIL = Verdict.PASS, Verdict.WARN, Verdict.FAIL


def check(verdict: Verdict, *, evaluated: bool = True) -> CheckResult:
    return CheckResult(name="c", family="drift", verdict=verdict, observed="1", expected="2", evaluated=evaluated)


def report(verdict: Verdict, checks: Sequence[Verdict]) -> Report:
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    results = tuple(check(one) for one in checks)
    return Report(
        pipeline="p", run_id="r", content="c", verified_at=at, compared_with=None, verdict=verdict, checks=results
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [([], FAIL), ([PASS], PASS), ([PASS, WARN], WARN), ([WARN, FAIL, PASS], FAIL), ([PASS, PASS], PASS)],
)
def test_the_worst_check_decides_and_no_check_is_a_fail(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst([check(verdict) for verdict in verdicts]) is expected


@pytest.mark.parametrize("verdict", [PASS, WARN])
def test_a_check_that_was_not_evaluated_has_failed(verdict: Verdict) -> None:
    with pytest.raises(ValidationError, match="not evaluated is FAIL"):
        check(verdict, evaluated=False)
    assert check(FAIL, evaluated=False).verdict is FAIL


@pytest.mark.parametrize(
    ("verdict", "checks"), [(PASS, [FAIL]), (PASS, [WARN]), (PASS, []), (WARN, [FAIL]), (WARN, [])]
)
def test_a_verdict_better_than_its_checks_cannot_be_read(verdict: Verdict, checks: list[Verdict]) -> None:
    text = report(FAIL, checks).model_dump_json().replace('"verdict":"FAIL"', f'"verdict":"{verdict}"', 1)
    with pytest.raises(ValidationError, match="does not follow from the checks"):
        Report.model_validate_json(text)


@pytest.mark.parametrize(("verdict", "checks"), [(PASS, [PASS]), (WARN, [WARN, PASS]), (FAIL, [PASS]), (FAIL, [])])
def test_a_verdict_as_bad_as_its_checks_or_worse_is_read(verdict: Verdict, checks: list[Verdict]) -> None:
    one = report(verdict, checks)
    assert Report.model_validate_json(one.model_dump_json()) == one
    assert one.failures == []
