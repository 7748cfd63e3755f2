import logging
import math
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from schemas.checks import Levels
from schemas.errors import InputError, Problem
from schemas.report import CheckResult, Family, Verdict
from validation.gate import at_levels, evaluated, in_words, judge


def result(family: Family = "drift", verdict: Verdict = Verdict.PASS, evaluated: bool = True) -> CheckResult:
    return CheckResult(name="a", family=family, verdict=verdict, observed="o", expected="e", evaluated=evaluated)


def test_all_passed_is_a_pass() -> None:
    assert judge([result(), result("parity")], required={"drift", "parity"}) is Verdict.PASS


def test_one_warning_is_a_warning() -> None:
    assert judge([result(), result(verdict=Verdict.WARN)], required=()) is Verdict.WARN


@pytest.mark.parametrize(
    ("results", "required"),
    [
        ([], ()),
        ([result(), result(verdict=Verdict.FAIL)], ()),
        ([result(), result(verdict=Verdict.FAIL, evaluated=False)], ()),
        ([result("drift")], {"drift", "coverage"}),
    ],
    ids=["no results", "a failure", "not evaluated", "a required family is missing"],
)
def test_anything_less_is_a_failure(results: list[CheckResult], required: Any) -> None:
    assert judge(results, required=required) is Verdict.FAIL


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (0.1, Verdict.PASS),
        (0.11, Verdict.WARN),
        (0.25, Verdict.WARN),
        (0.26, Verdict.FAIL),
        (math.nan, Verdict.FAIL),
        (math.inf, Verdict.FAIL),
    ],
)
def test_levels_are_limits_that_may_be_reached(value: float, verdict: Verdict) -> None:
    assert at_levels(value, Levels(warn=0.1, fail=0.25)) is verdict


def test_results_are_handed_on() -> None:
    assert evaluated("a", "drift", result) == [result()]
    assert evaluated("a", "drift", lambda: [result(), result("parity")]) == [result(), result("parity")]


def throw(error: Exception) -> Callable[[], CheckResult]:
    def check() -> CheckResult:
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "observed"),
    [
        (throw(KeyError("score")), "KeyError: 'score'"),
        (throw(RuntimeError("first line\nsecond line")), "RuntimeError: first line"),
        (throw(InputError(Problem("X", "here", "nothing", "something"))), "here: nothing; expected something [X]"),
        (throw(ValueError("x" * 1000)), f"ValueError: {'x' * 385}..."),
        (lambda: None, "the check returned nothing"),
        (list, "the check returned nothing"),
        (lambda: [result(), True], "TypeError: the check returned bool, not a result"),
        (lambda: True, "TypeError: 'bool' object is not iterable"),
    ],
)
def test_a_check_that_breaks_has_failed(check: Any, observed: str) -> None:
    (found,) = evaluated("drift.score", "drift", check, expected="PSI of at most 0.1")

    assert found == CheckResult(
        name="drift.score",
        family="drift",
        verdict=Verdict.FAIL,
        observed=observed,
        expected="PSI of at most 0.1",
        evaluated=False,
    )


def test_the_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        evaluated("drift.score", "drift", throw(KeyError("score")))

    assert "check drift.score could not be evaluated" in caplog.text
    # not its text: Spark gives the root logger a format of its own
    assert isinstance((caplog.records[-1].exc_info or (None, None))[1], KeyError)


def test_a_person_who_stops_the_run_is_obeyed() -> None:
    def interrupted() -> CheckResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluated("a", "drift", interrupted)


def test_a_check_that_hangs_has_failed() -> None:
    waiting = Event()

    (found,) = evaluated("drift", "drift", lambda: [result()] if waiting.wait(60) else None, limit_seconds=0.05)
    waiting.set()

    assert (found.verdict, found.evaluated) == (Verdict.FAIL, False)
    assert found.observed == "TooSlowError: no answer within 0.05 s"


def test_a_check_within_its_limit_is_as_any_other() -> None:
    assert evaluated("a", "drift", result, limit_seconds=60) == [result()]
    (broken,) = evaluated("a", "drift", throw(KeyError("score")), limit_seconds=60)
    assert broken.observed == "KeyError: 'score'"


def test_a_measure_without_a_level_to_fail_at_only_warns() -> None:
    assert at_levels(1e9, Levels(warn=0.1)) is Verdict.WARN
    assert at_levels(float("nan"), Levels(warn=0.1)) is Verdict.FAIL
    assert in_words(Levels(warn=0.1)) == "at most 0.1; above it warns"
