"""Dates are read strictly, and a job ends with the code of what went wrong."""

import datetime as dt
import logging

import pytest

from jobs.arguments import exit_with, job_arguments, parse_date
from schemas.errors import AlmanacError, BlockedError, DeclarationError, InputError, Problem, UnavailableError

TODAY = dt.date(2026, 11, 21)


def test_a_day_is_a_day() -> None:
    assert parse_date("2013-07-01", today=TODAY) == dt.date(2013, 7, 1)
    assert parse_date("2024-02-29", today=TODAY) == dt.date(2024, 2, 29)
    assert parse_date("2026-11-21", today=TODAY) == TODAY


@pytest.mark.parametrize(
    "text",
    [
        "20130701", "2013-W27-1", "2013-7-1", "2013-02-30", "2013-13-01", " 2013-07-01", "2013-07-01 ", "2013-07-01\n",
        "2013-07-01T00:00", "2013-07-0\u0661", "0000-01-01", "today", "", "-2013-07-01", "2013-07-01; rm -rf /",
    ],
)  # fmt: skip
def test_anything_else_is_no_day(text: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        parse_date(text, today=TODAY)
    assert caught.value.problems == (Problem("CLI_DATE", "--date", f"'{text}'", "a day as YYYY-MM-DD"),)


def test_tomorrow_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"--date: 2026-11-22; expected 2026-11-21 or earlier \[CLI_DATE_FUTURE"):
        parse_date("2026-11-22", today=TODAY)


def test_flags_are_not_guessed_from_their_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        job_arguments("Score.").parse_args(["--pipe", "churn", "--date", "2013-07-01"])
    assert caught.value.code == 2
    assert "--pipeline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(DeclarationError, 2), (InputError, 2), (BlockedError, 3), (UnavailableError, 1)]
)
def test_a_job_ends_with_the_code_of_its_error(
    error: type[AlmanacError], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        raise error(Problem("X", "here", "that"))

    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as caught:
        exit_with(work)
    assert caught.value.code == code
    assert caplog.messages == ["here: that [X]"]


def test_a_job_without_an_error_just_returns() -> None:
    exit_with(lambda: None)
